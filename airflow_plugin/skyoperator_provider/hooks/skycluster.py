"""SkyClusters, and what they write and return, as one Airflow connection reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Some bytes of a log, and where the next ones are."""

    data: bytes
    next_offset_bytes: int | None
    state: Literal["live", "complete", "incomplete", "absent"]
    """live: more may come. complete: it has ended, and was had to its end. incomplete: it has ended, and not all of it was had.
    absent: there is no such log, or not yet."""
    message: str
    """What is missing, and why."""


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """What a job returned."""

    state: Literal["present", "not yet", "lost"]
    body: bytes
    """Its JSON text; its digest was compared."""
    message: str


class SkyClusterHook(KubernetesHook):
    """What Airflow asks of the Kubernetes API about SkyClusters. `kubernetes_conn_id` takes any connection of type `kubernetes`.

    A connection of our own type has three fields more: namespace, dashboard_url and deployment; all of them may be set as extras of
    a `kubernetes` connection, too. Nothing but the connection itself is asked of Airflow, and that only once: after the first
    request a hook makes no call to Airflow any more.
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "skyoperator"
    hook_name = "Kubernetes with skyoperator"

    @property
    def deployment(self) -> str:
        """Which Airflow deployment this is: the connection's, else airflow.cfg's `[skyoperator] deployment`, else `default`."""
        raise NotImplementedError

    @property
    def dashboard_url(self) -> str | None:
        """Where SkyPilot's dashboard is; the connection's, else airflow.cfg's; None if nobody says."""
        raise NotImplementedError

    def create(self, manifest: Mapping[str, Any]) -> Json:
        """Make the object and return it. Raises ObjectExistsError: read it, a lost answer may have been to our own; ApiError.

        Raises SkyClusterRejectedError (InvalidTask) if the API server says that the manifest is none of a SkyCluster's (422).
        """
        raise NotImplementedError

    def read(self, namespace: str, name: str) -> Json | None:
        """Return the object; None if there is none. Raises ApiError."""
        raise NotImplementedError

    def list_by_label(self, namespace: str, selector: str) -> list[Json]:
        """Return the objects that the selector finds, all pages of them. Raises ApiError."""
        raise NotImplementedError

    def annotate(
        self,
        namespace: str,
        name: str,
        annotations: Mapping[str, str],
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Json:
        """Set annotations, leave the others, and return the object. Raises ChangedError (also if it is gone), ApiError."""
        raise NotImplementedError

    def delete(
        self,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        request_timeout_seconds: float | None = None,
    ) -> bool:
        """Ask for the object's deletion; False if there is none. It is gone when its finalizer is: see wait_gone.

        With `request_timeout_seconds` it is asked once and never again: for on_kill, which has no time.
        Raises ChangedError if it is not the object that uid and resource_version name; ApiError.
        """
        raise NotImplementedError

    def wait_gone(self, namespace: str, name: str, uid: str, *, timeout_seconds: float, poll_seconds: float = 2.0) -> bool:
        """Return whether the object of that uid was gone before the time was over. Raises ApiError."""
        raise NotImplementedError

    def log(
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
        """Return the log from that byte on, or its last lines (then offset_bytes counts for nothing). Raises ApiError."""
        raise NotImplementedError

    def result(self, namespace: str, name: str, *, uid: str, attempt: int | None = None) -> RemoteResult:
        """Return what the job returned, its digest compared. Raises ApiError."""
        raise NotImplementedError

    def test_connection(self) -> tuple[bool, str]:
        """Return whether every right that the operators need is there, and whose rights they are."""
        raise NotImplementedError


class AsyncSkyClusterHook(AsyncKubernetesHook):
    """The same connections, for triggers: `async with hook.get_conn() as client`, a kubernetes_asyncio client.

    `config_file` counts, as it does for SkyClusterHook; cncf's own async hook leaves it out.
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "skyoperator"
    hook_name = "Kubernetes with skyoperator"

    async def get_namespace(self) -> str | None:  # type: ignore[override]
        """Return the connection's namespace."""
        raise NotImplementedError

    async def get_deployment(self) -> str:
        """Return what SkyClusterHook.deployment is."""
        raise NotImplementedError

    async def get_dashboard_url(self) -> str | None:
        """Return what SkyClusterHook.dashboard_url is."""
        raise NotImplementedError
