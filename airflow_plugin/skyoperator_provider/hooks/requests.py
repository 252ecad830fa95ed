"""What is asked of the Kubernetes API about SkyClusters. Pure: requests, and what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from skyoperator_provider.hooks.api import MERGE_PATCH, Answer, Query, Request, Right, passes
from skyoperator_provider.skycluster import GROUP, LOGS_GROUP, LOGS_VERSION, PLURAL, VERSION

VERBS: Final = ("get", "list", "watch", "create", "patch", "delete")
"""What the operators, sensors and triggers need of SkyClusters."""
SUBRESOURCES: Final = ("log", "result")
LOGS_ROOT: Final = f"/apis/{LOGS_GROUP}/{LOGS_VERSION}"


def needed_rights(namespace: str) -> list[Right]:
    """Return each right that the operators need in a namespace; the chart's airflow.accounts get these and no others."""
    rights = [Right(verb, GROUP, PLURAL, namespace) for verb in VERBS]
    return [*rights, *(Right("get", LOGS_GROUP, f"{PLURAL}/{subresource}", namespace) for subresource in SUBRESOURCES)]


def create(namespace: str, name: str, manifest: Mapping[str, Any]) -> Request:
    """Return the request that makes an object. A field that no SkyCluster has is refused, where kube-apiserver's default drops it."""
    path, right = _path(namespace), _right("create", namespace)
    return Request(f"create SkyCluster {namespace}/{name}", "POST", path, right, [("fieldValidation", "Strict")], body=manifest)


def read(namespace: str, name: str) -> Request:
    """Return the request for one object."""
    return Request(f"read SkyCluster {namespace}/{name}", "GET", _path(namespace, name), _right("get", namespace))


def list_page(namespace: str, selector: str, more: Query = ()) -> Request:
    """Return the request for a page of those that a label selector finds."""
    action = f"list the SkyClusters of namespace {namespace} with {selector}"
    return Request(action, "GET", _path(namespace), _right("list", namespace), [("labelSelector", selector), *more])


def list_all(namespace: str, page: Query) -> Request:
    """Return the request for a page of all there are."""
    return Request(f"list the SkyClusters of namespace {namespace}", "GET", _path(namespace), _right("list", namespace), page)


def watch(namespace: str, resource_version: str, timeout_seconds: int) -> Request:
    """Return the request for each change since a version, and for bookmarks."""
    since = [("resourceVersion", resource_version), ("timeoutSeconds", str(timeout_seconds))]
    query = [("watch", "true"), ("allowWatchBookmarks", "true"), *since]
    return Request(f"watch the SkyClusters of namespace {namespace}", "GET", _path(namespace), _right("watch", namespace), query)


def annotate(namespace: str, name: str, annotations: Mapping[str, str], preconditions: Mapping[str, str]) -> Request:
    """Return the request that sets annotations, if the object is still the one of the preconditions."""
    body = {"metadata": {"annotations": dict(annotations), **preconditions}}
    path, right = _path(namespace, name), _right("patch", namespace)
    return Request(f"annotate SkyCluster {namespace}/{name}", "PATCH", path, right, body=body, content_type=MERGE_PATCH)


def delete(namespace: str, name: str, preconditions: Mapping[str, str]) -> Request:
    """Return the request that deletes an object, if it is still the one of the preconditions."""
    body = {"apiVersion": "v1", "kind": "DeleteOptions", **({"preconditions": preconditions} if preconditions else {})}
    return Request(f"delete SkyCluster {namespace}/{name}", "DELETE", _path(namespace, name), _right("delete", namespace), body=body)


def of_job(subresource: str, namespace: str, name: str, query: Query) -> Request:
    """Return the request for the log or the result of a job."""
    path = f"{LOGS_ROOT}/namespaces/{quote(namespace, safe='')}/{PLURAL}/{quote(name, safe='')}/{subresource}"
    right = Right("get", LOGS_GROUP, f"{PLURAL}/{subresource}", namespace)
    return Request(f"read the {subresource} of SkyCluster {namespace}/{name}", "GET", path, right, query)


def access_review(right: Right) -> Request:
    """Return the question whether who asks has a right. Everybody may ask that of himself (the ClusterRole system:basic-user)."""
    resource, _, subresource = right.resource.partition("/")
    wanted = {"verb": right.verb, "group": right.group, "resource": resource, "namespace": right.namespace}
    attributes = {**wanted, **({"subresource": subresource} if subresource else {})}
    return _review("authorization.k8s.io", "SelfSubjectAccessReview", f"ask whether I may {right}", {"resourceAttributes": attributes})


def self_review() -> Request:
    """Return the question who asks. Kubernetes answers it from 1.28 on."""
    return _review("authentication.k8s.io", "SelfSubjectReview", "ask who I am", {})


def logs_discovery() -> Request:
    """Return the question whether the log API is served."""
    return Request("ask for the log API", "GET", LOGS_ROOT)


def preconditions(uid: str | None, resource_version: str | None) -> dict[str, str]:
    """Return what the object must still be, as DeleteOptions and a patch's metadata both write it."""
    return {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value is not None}


def is_absent(answer: Answer) -> bool:
    """Tell whether there is no such object. An API that does not know SkyClusters, and a proxy, say 404 as well, but name no object."""
    return answer.status == HTTPStatus.NOT_FOUND and bool(answer.details.get("name"))


def is_changed(answer: Answer) -> bool:
    """Tell whether the object is not that of the preconditions.

    A patch that names another uid is 422, and not 409: the uid can't be changed (kubernetes, controller_ref_manager.go, ReleasePod).
    """
    causes: Sequence[Any] = answer.details.get("causes") or ()
    names_uid = any(cause.get("field") == "metadata.uid" for cause in causes)
    return answer.status == HTTPStatus.CONFLICT or (answer.status == HTTPStatus.UNPROCESSABLE_ENTITY and names_uid)


def is_no_skycluster(answer: Answer) -> bool:
    """Tell whether the manifest is refused for what stands in it: 422 for a value, 400 for a field that no SkyCluster has.

    A webhook that denies without a code is 400 too, as is what a proxy does not like; neither says BadRequest.
    """
    is_unknown_field = answer.status == HTTPStatus.BAD_REQUEST and answer.reason == "BadRequest"
    return answer.status == HTTPStatus.UNPROCESSABLE_ENTITY or is_unknown_field


def create_passes(answer: Answer) -> bool:
    """Tell whether a refusal to create passes by itself: a quota that others write at the same time is 409, too, and says Conflict."""
    return passes(answer) or (answer.status == HTTPStatus.CONFLICT and answer.reason == "Conflict")


def _review(group: str, kind: str, action: str, spec: Mapping[str, Any]) -> Request:
    body = {"apiVersion": f"{group}/v1", "kind": kind, **({"spec": spec} if spec else {})}
    return Request(action, "POST", f"/apis/{group}/v1/{kind.lower()}s", body=body)


def _right(verb: str, namespace: str) -> Right:
    return Right(verb, GROUP, PLURAL, namespace)


def _path(namespace: str, name: str = "") -> str:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{quote(namespace, safe='')}/{PLURAL}"
    return f"{path}/{quote(name, safe='')}" if name else path
