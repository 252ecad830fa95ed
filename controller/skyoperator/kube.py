"""The Kubernetes API as far as the controller needs it: fresh reads, optimistic writes, Events.

Everything goes through CustomObjectsApi, which serves any API group: the typed classes would load every Kubernetes model (130 MiB).
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

import aiohttp
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from pydantic import ValidationError

from skyoperator.api.v1alpha1 import FINALIZER, GROUP, KIND, PLURAL, VERSION, SkyCluster, SkyClusterStatus

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 15.0
EVENT_NOTE_LIMIT: Final = 1024
"""events.k8s.io/v1 refuses a longer `note`, in bytes."""
PAGE: Final = 100
"""Objects that are listed at once: only their uids are kept."""

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """Which object. The uid tells it from one of the same name that was there before."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        """Return the object as log lines name it."""
        return f"SkyCluster {self.namespace}/{self.name}"


class KubeError(Exception):
    """The Kubernetes API did not do as asked; says what, and with which object."""


class Conflict(KubeError):  # noqa: N818
    """Somebody else wrote the object since we read it (409): read again."""


class Gone(KubeError):  # noqa: N818
    """The object is no more (404)."""


class Refused(KubeError):  # noqa: N818
    """What we wrote does not fit the schema (422): a bug of ours, or a CRD of another version."""


class Kube(Protocol):
    """What reconciling needs of Kubernetes."""

    async def get(self, key: Key) -> SkyCluster:
        """Return the object as it is now. Raises Gone, also if another object has taken its name; KubeError."""

    async def put_status(self, this: SkyCluster, status: SkyClusterStatus) -> SkyCluster:
        """Store the status, if nobody wrote the object since it was read, and return the object. Raises Conflict, Gone, KubeError."""

    async def set_finalizer(self, this: SkyCluster, *, present: bool) -> None:
        """Add or remove our finalizer, if nobody wrote the object since it was read. Raises Conflict, Gone, KubeError."""

    async def delete(self, this: SkyCluster) -> None:
        """Delete the object, if nobody wrote it since it was read. Raises Conflict, Gone, KubeError."""

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the text data of a ConfigMap, or None if there is none of that name. Raises KubeError."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return the data of a Secret, or None if there is none of that name. Raises KubeError."""

    async def event(self, this: SkyCluster, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Post an Event about the object. Raises KubeError."""


@asynccontextmanager
async def api_client() -> AsyncIterator[ApiClient]:
    """Yield a client for the cluster we run in, else for the one of the current kubeconfig context."""
    try:
        load_incluster_config()  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config()  # type: ignore[no-untyped-call]
    async with ApiClient() as client:
        yield client


async def is_served(client: ApiClient) -> bool:
    """Return whether kube-apiserver serves SkyClusters: it lists the group, and the kind in it. One that has just started does so last.

    Raises ApiException, and what aiohttp raises.
    """
    groups = await _discover(client, "/apis", "groups")
    kinds = await _discover(client, f"/apis/{GROUP}/{VERSION}", "resources") if GROUP in groups else set()
    if PLURAL not in kinds:
        logger.warning("%s.%s are not served by the Kubernetes API. Is the CRD installed? See deploy/helm/skyoperator.", PLURAL, GROUP)
    return PLURAL in kinds


async def _discover(client: ApiClient, path: str, what: str) -> set[str]:
    """Return the names of what is listed there; none if there is nothing."""
    try:
        body = await _call(client, "GET", path, {}, None)
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return set()
        raise
    return {str(found["name"]) for found in body[what]}


async def _call(client: ApiClient, method: str, path: str, names: Mapping[str, str], body: Json | None) -> Json:
    call = await client.param_serialize(method, path, path_params=dict(names), body=body, auth_settings=["BearerToken"])
    answer = await client.call_api(*call, _request_timeout=TIMEOUT_SECONDS)
    raw: bytes = await answer.read()  # type: ignore[no-untyped-call]
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise ApiException(status=answer.status, reason=answer.reason, body=raw.decode(errors="replace"))
    return cast("Json", json.loads(raw))


async def uids(client: ApiClient, namespaces: Collection[str]) -> frozenset[str]:
    """Return the uids of all SkyClusters in these namespaces; in all, if there are none. Raises KubeError."""
    found: set[str] = set()
    for namespace in namespaces or ("",):
        with explained("list", f"{PLURAL} in {namespace or 'all namespaces'}"):
            page = await _page(client, namespace, None)
            found.update(item["metadata"]["uid"] for item in page["items"])
            while going_on := page["metadata"].get("continue"):
                page = await _page(client, namespace, going_on)
                found.update(item["metadata"]["uid"] for item in page["items"])
    return frozenset(found)


async def _page(client: ApiClient, namespace: str, going_on: str | None) -> Json:
    api = CustomObjectsApi(client)
    how: Json = {"limit": PAGE, "_continue": going_on, "_request_timeout": TIMEOUT_SECONDS}
    if not namespace:
        return cast("Json", await api.list_cluster_custom_object(GROUP, VERSION, PLURAL, **how))
    return cast("Json", await api.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, **how))


class KubeApi:
    """Kube, over HTTP."""

    def __init__(self, client: ApiClient, *, instance: str) -> None:
        self._api = CustomObjectsApi(client)
        self._client = client
        self._instance = instance
        self._shown: dict[str, str] = {}

    async def get(self, key: Key) -> SkyCluster:  # noqa: D102
        this = SkyCluster.from_body(await self._body(key))
        if this.uid != key.uid:
            raise Gone(f"{key} with uid {key.uid} is gone; another has its name")
        return this

    async def named(self, namespace: str, name: str) -> SkyCluster | None:
        """Return the object that has this name now, or None if none has. Raises KubeError."""
        key = Key(namespace, name, uid="")
        try:
            return SkyCluster.from_body(await self._body(key))
        except Gone:
            return None
        except ValidationError as error:
            raise KubeError(f"{key} is not what its CRD lets in") from error

    async def _body(self, key: Key) -> Json:
        with explained("read", key):
            body = await self._api.get_namespaced_custom_object(
                GROUP, VERSION, key.namespace, PLURAL, key.name, _request_timeout=TIMEOUT_SECONDS
            )
        return cast("Json", body)

    async def put_status(self, this: SkyCluster, status: SkyClusterStatus) -> SkyCluster:  # noqa: D102
        body = {**_stub(this), "spec": {"task": {}}, "status": status.as_json()}
        try:
            with explained("write the status of", key_of(this)):
                answer = await self._api.replace_namespaced_custom_object_status(
                    GROUP, VERSION, this.namespace, PLURAL, this.name, body, _request_timeout=TIMEOUT_SECONDS
                )
        except Refused as refused:
            await self._show(this, f"{refused} Is the CRD of the controller's version?")
            raise
        return SkyCluster.from_body(cast("Json", answer))

    async def merge_status(self, key: Key, status: Mapping[str, Any]) -> None:
        """Write these fields of the status, whatever the others are. Raises Gone, Conflict if the name is another object's, KubeError."""
        with explained("write the status of", key):
            await self._api.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                key.namespace,
                PLURAL,
                key.name,
                {"metadata": {"uid": key.uid}, "status": status},
                _content_type="application/merge-patch+json",
                _request_timeout=TIMEOUT_SECONDS,
            )

    async def namespace_uid(self, name: str) -> str | None:
        """Return the uid of a namespace, or None if there is none. Raises KubeError."""
        with explained("read", f"namespace {name}"):
            try:
                body = await self.call("GET", "/api/v1/namespaces/{name}", {"name": name})
            except ApiException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise
        return str(body["metadata"]["uid"])

    async def _show(self, this: SkyCluster, words: str) -> None:
        """Post what the status can't tell as an Event: once for each state of the object, not for each try."""
        if self._shown.get(this.uid) == this.resource_version:
            return
        self._shown[this.uid] = this.resource_version
        try:
            await self.event(this, "Warning", "StatusRefused", words)
        except KubeError as error:
            logger.warning("%s", error)

    async def set_finalizer(self, this: SkyCluster, *, present: bool) -> None:  # noqa: D102
        others = [finalizer for finalizer in this.finalizers if finalizer != FINALIZER]
        body = _stub(this)
        body["metadata"]["finalizers"] = [*others, FINALIZER] if present else others
        with explained("set the finalizers of", key_of(this)):
            await self._api.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                this.namespace,
                PLURAL,
                this.name,
                body,
                _content_type="application/merge-patch+json",
                _request_timeout=TIMEOUT_SECONDS,
            )

    async def delete(self, this: SkyCluster) -> None:  # noqa: D102
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}/{{name}}"
        preconditions = {"uid": this.uid, "resourceVersion": this.resource_version}
        with explained("delete", key_of(this)):
            await self.call("DELETE", path, {"namespace": this.namespace, "name": this.name}, {"preconditions": preconditions})

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:  # noqa: D102
        body = await self._core(namespace, "configmaps", name)
        return None if body is None else dict(body.get("data") or {})

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:  # noqa: D102
        body = await self._core(namespace, "secrets", name)
        return None if body is None else {key: b64decode(value) for key, value in (body.get("data") or {}).items()}

    async def _core(self, namespace: str, plural: str, name: str) -> Json | None:
        """Return an object of the core group, or None if there is none of that name."""
        with explained("read", f"{plural} {namespace}/{name}"):
            try:
                path = "/api/v1/namespaces/{namespace}/{plural}/{name}"
                return await self.call("GET", path, {"namespace": namespace, "plural": plural, "name": name})
            except ApiException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise

    async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
        """Return the answer to what CustomObjectsApi has no method for: the core group, preconditions without loading all models.

        Raises ApiException.
        """
        return await _call(self._client, method, path, names, body)

    async def event(self, this: SkyCluster, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:  # noqa: D102
        with explained("post an event about", key_of(this)):
            await self._api.create_namespaced_custom_object(
                "events.k8s.io",
                "v1",
                this.namespace,
                "events",
                event_body(_reference(this), kind=kind, reason=reason, note=note, instance=self._instance),
                _request_timeout=TIMEOUT_SECONDS,
            )


def key_of(this: SkyCluster) -> Key:
    """Return the object's key."""
    return Key(this.namespace, this.name, this.uid)


def event_body(regarding: Json, *, kind: str, reason: str, note: str, instance: str) -> Json:
    """Return an Event of this moment, as events.k8s.io/v1 takes it, about the object of this reference."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{regarding['name']}-", "namespace": regarding["namespace"]},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": kind,
        "reason": reason,
        "action": "Reconcile",
        "note": _cut(note, EVENT_NOTE_LIMIT),
        "reportingController": f"{GROUP}/controller",
        "reportingInstance": instance,
        "regarding": regarding,
    }


def _reference(this: SkyCluster) -> Json:
    stub = _stub(this)
    return {**stub.pop("metadata"), **stub}


def _cut(text: str, limit_bytes: int) -> str:
    raw = text.encode()
    return text if len(raw) <= limit_bytes else "…" + raw[-(limit_bytes - 3) :].decode(errors="ignore")


def _stub(this: SkyCluster) -> Json:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": this.name, "namespace": this.namespace, "uid": this.uid, "resourceVersion": this.resource_version},
    }


def _kind_of(error: ApiException, key: Key | str) -> type[KubeError]:
    """A 404 means gone only if kube-apiserver says it of this very object: a proxy, or a CRD that is not served yet, says 404 too."""
    if error.status == HTTPStatus.CONFLICT:
        return Conflict
    if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Refused
    if error.status != HTTPStatus.NOT_FOUND or isinstance(key, str):
        return KubeError
    try:
        details = json.loads(error.body or "")["details"]
        is_ours = details["name"] == key.name and details["kind"] == PLURAL
    except (ValueError, KeyError, TypeError):
        is_ours = False
    return Gone if is_ours else KubeError


def is_missing(error: KubeError) -> bool:
    """Return whether what was asked for is not there (404)."""
    return isinstance(error.__cause__, ApiException) and error.__cause__.status == HTTPStatus.NOT_FOUND


class explained:  # noqa: N801 - used as a statement
    """Turn what the client raises into a KubeError that names the deed and the object."""

    def __init__(self, deed: str, key: Key | str) -> None:
        self._deed, self._key = deed, key

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ApiException):
            raise _kind_of(error, self._key)(
                f"could not {self._deed} {self._key}: HTTP {error.status} {error.body or error.reason}"
            ) from error
        if isinstance(error, (aiohttp.ClientError, TimeoutError)):
            raise KubeError(f"could not {self._deed} {self._key}: the Kubernetes API does not answer ({error!r})") from error
