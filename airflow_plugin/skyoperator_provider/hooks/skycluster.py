"""SkyClusters, and what their jobs write and return, as one Airflow connection reaches them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config

from skyoperator_provider import settings
from skyoperator_provider.errors import ApiError, ObjectExistsError, SkyClusterRejectedError
from skyoperator_provider.hooks import connection_check, logs, requests
from skyoperator_provider.hooks.api import PAUSES_SECONDS, Answer, Api, Json, Request, changed, refusal
from skyoperator_provider.hooks.logs import LogPiece, LogState, Place, RemoteResult

__all__ = ["AsyncSkyClusterHook", "LogPiece", "LogState", "RemoteResult", "SkyClusterHook"]

PAGE_OBJECTS: Final = 250


class SkyClusterHook(KubernetesHook):
    """What is asked of the Kubernetes API about SkyClusters. `kubernetes_conn_id` takes any connection of type `kubernetes`.

    A connection of our own type has the fields namespace, dashboard_url and deployment in its form; as extras, each connection may
    have them. After `prepare` or the first request a hook calls nothing of Airflow any more, so that on_kill may use it.

    The methods raise ApiError unless they say otherwise: with the object, what the server said, and what to do. What may pass by
    itself (429, 5xx, no answer) was asked again by then, for half a minute.
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "skyoperator"
    hook_name = "Kubernetes with skyoperator"

    pauses_seconds: Sequence[float] = PAUSES_SECONDS
    """Before each repetition of a request."""

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return which fields a form of Airflow below 3.2 hides. It has none for our own extras, so `extra` itself is shown, for them."""
        return {"hidden_fields": ["host", "schema", "login", "password", "port"], "relabeling": {}}

    @cached_property
    def api(self) -> Api:
        """The connection's Kubernetes API."""
        return Api(self.api_client, pauses_seconds=self.pauses_seconds)

    def prepare(self) -> None:
        """Read the connection. Raises what Airflow does about one that it does not have."""
        _ = self.api

    @property
    def deployment(self) -> str:
        """Which Airflow deployment this is: the connection's extra, else `[skyoperator] deployment` of airflow.cfg, else `default`."""
        return _deployment(self._extra("deployment"))

    @property
    def dashboard_url(self) -> str | None:
        """Where SkyPilot's dashboard is: the connection's extra, else `[skyoperator] dashboard_url`; None if nobody says."""
        return _dashboard_url(self._extra("dashboard_url"))

    def create(self, manifest: Mapping[str, Any]) -> Json:
        """Make the object and return it as it is stored.

        Its name must be given: then asking twice makes no two objects. Raises ObjectExistsError if there is one of that name: read it, it
        may be this one, whose first answer was lost. Raises SkyClusterRejectedError if the manifest is none of a SkyCluster's.
        """
        namespace, name = _named(manifest)
        request = requests.create(namespace, name, manifest)
        answer = self.api.ask(request, passes=requests.create_passes)
        if answer.status == HTTPStatus.CONFLICT:
            raise ObjectExistsError(str(refusal(request, answer)), status=answer.status, reason=answer.reason)
        if requests.is_no_skycluster(answer):
            raise SkyClusterRejectedError(str(refusal(request, answer)), reason="InvalidTask")
        return _document(request, answer)

    def read(self, namespace: str, name: str, *, request_timeout_seconds: float | None = None) -> Json | None:
        """Return the object; None if there is none. With request_timeout_seconds it is asked for once, as delete does."""
        request = requests.read(namespace, name)
        answer = self._asked(request, request_timeout_seconds)
        return None if requests.is_absent(answer) else _document(request, answer)

    def list_by_label(self, namespace: str, selector: str) -> list[Json]:
        """Return the objects that a label selector finds."""
        found: list[Json] = []
        more = [("limit", str(PAGE_OBJECTS))]
        while True:
            request = requests.list_page(namespace, selector, more)
            answer = self.api.ask(request)
            if answer.status == HTTPStatus.GONE and found:
                # The list of the first page is too old for the next one. All at once can't become that.
                found, more = [], []
                continue
            page = _document(request, answer)
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            more = [("limit", str(PAGE_OBJECTS)), ("continue", token)]

    def annotate(
        self,
        namespace: str,
        name: str,
        annotations: Mapping[str, str],
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Json:
        """Set these annotations, leave the others, and return the object.

        Raises ChangedError if it is not the object of uid and resource_version, or gone. After a lost answer that may be our own
        change: read it again.
        """
        request = requests.annotate(namespace, name, annotations, requests.preconditions(uid, resource_version))
        answer = self.api.ask(request)
        if requests.is_absent(answer) or requests.is_changed(answer):
            raise changed(request, answer)
        return _document(request, answer)

    def delete(
        self,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        request_timeout_seconds: float | None = None,
    ) -> bool:
        """Ask for the object's deletion; return False if there was none. It is gone once its cluster is: see wait_gone.

        With request_timeout_seconds it is asked once, and nothing is logged: for on_kill, which has seconds.
        Raises ChangedError if it is not the object of uid and resource_version.
        """
        request = requests.delete(namespace, name, requests.preconditions(uid, resource_version))
        answer = self._asked(request, request_timeout_seconds)
        if requests.is_absent(answer):
            return False
        if requests.is_changed(answer):
            raise changed(request, answer)
        _document(request, answer)
        return True

    def wait_gone(self, namespace: str, name: str, uid: str, *, timeout_seconds: float, poll_seconds: float = 2.0) -> bool:
        """Return True once the object of that uid is gone, False if it is still there when the time is over."""
        until = time.monotonic() + timeout_seconds
        while (found := self.read(namespace, name)) is not None and found["metadata"]["uid"] == uid:
            left_seconds = until - time.monotonic()
            if left_seconds <= 0:
                return False
            time.sleep(min(poll_seconds, left_seconds))
        return True

    def read_log(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        offset_bytes: int = 0,
        limit_bytes: int | None = None,
        tail_lines: int | None = None,
        attempt: int | None = None,
    ) -> LogPiece:
        """Return what there is of the job's log from that byte on; with tail_lines its last lines, whatever offset_bytes is.

        A log that is not there, or not yet, is a piece of state `absent`.
        """
        query = Place(uid, attempt, offset_bytes, limit_bytes, tail_lines).query()
        request = requests.of_job("log", namespace, name, query)
        return logs.piece(request, self.api.ask(request))

    def result(self, namespace: str, name: str, *, uid: str, attempt: int | None = None) -> RemoteResult:
        """Return what the job returned, its digest compared."""
        query = [("uid", uid), *([] if attempt is None else [("attempt", str(attempt))])]
        request = requests.of_job("result", namespace, name, query)
        return logs.result(request, self.api.ask(request))

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the operators can work with this connection, and as whom, where, and what is missing. Raises nothing."""
        try:
            return connection_check.run(self.api, self.get_namespace() or self.DEFAULT_NAMESPACE)
        except Exception as error:  # noqa: BLE001 - the form shows what is wrong, whatever it is
            return False, str(error) or repr(error)

    def _asked(self, request: Request, request_timeout_seconds: float | None) -> Answer:
        return self.api.ask(request) if request_timeout_seconds is None else self.api.ask_once(request, request_timeout_seconds)

    def _extra(self, name: str) -> object:
        return self._get_field(name)  # type: ignore[no-untyped-call]


class AsyncSkyClusterHook(AsyncKubernetesHook):
    """The same connections, for triggers: `async with hook.get_conn() as client`, a client of kubernetes_asyncio.

    `config_file` counts here. cncf's own hook takes it and goes by the connection (10.25, hooks/kubernetes.py:935). Where nothing is
    said, a pod's service account counts before ~/.kube/config, as it does for a worker (`_get_default_client`); cncf's goes by the file
    only (`_load_config`).
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "skyoperator"
    hook_name = "Kubernetes with skyoperator"

    async def get_namespace(self) -> str | None:  # type: ignore[override]
        """Return the connection's namespace."""
        return _text(await self._get_field("namespace"))

    async def get_deployment(self) -> str:
        """Return what SkyClusterHook.deployment is."""
        return _deployment(await self._get_field("deployment"))

    async def get_dashboard_url(self) -> str | None:
        """Return what SkyClusterHook.dashboard_url is."""
        return _dashboard_url(await self._get_field("dashboard_url"))

    async def _load_config(self) -> None:
        if not self._config_loaded and not await self._is_selected():
            configuration = self.client_configuration or Configuration()
            with suppress(ConfigException):
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                self.client_configuration, self._is_in_cluster, self._config_loaded = configuration, True, True
        await super()._load_config()  # type: ignore[no-untyped-call]

    async def _is_selected(self) -> bool:
        """Tell whether anybody says which cluster it is."""
        fields = [await self._get_field(name) for name in ("in_cluster", "kube_config_path", "kube_config")]
        return any([self.in_cluster, self.config_dict, *fields])

    async def _get_field(self, field_name: str) -> object:
        """Return the connection's extra; None where a form left it empty. A config_file stands in for its kube_config_path.

        Both are so in KubernetesHook.
        """
        if field_name == "kube_config_path" and self.config_file is not None:
            return self.config_file
        return await super()._get_field(field_name) or None  # type: ignore[no-untyped-call]


def _deployment(extra: object) -> str:
    return _text(extra) or settings.deployment()


def _dashboard_url(extra: object) -> str | None:
    return _text(extra) or settings.dashboard_url()


def _text(found: object) -> str | None:
    return str(found) if found else None


def _named(manifest: Mapping[str, Any]) -> tuple[str, str]:
    metadata = manifest.get("metadata") or {}
    if not metadata.get("name") or not metadata.get("namespace"):
        raise ValueError("The manifest has no metadata.name and metadata.namespace; without them it can't be told whether it was made")
    return metadata["namespace"], metadata["name"]


def _document(request: Request, answer: Answer) -> Json:
    """Return the object that a good answer is. Raises ApiError."""
    if not answer.is_good:
        raise refusal(request, answer)
    if not answer.document:
        raise ApiError(f"Can't {request.action}: the answer is no Kubernetes object, but {answer.message!r}")
    return answer.document
