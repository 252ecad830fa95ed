"""What SkyPilot answers, as frozen values, and the door through which the controller reaches it.

    SkyPilot (Protocol)  one method per question, typed answer
    SkyPilotError        one family of errors, told apart by what the caller may conclude:

        Unreachable ── nothing is known; what we sent may or may not have been executed (RejectsUs: for want of credentials)
        Refused ────── answered with a 4xx: certainly not executed
        RequestFailed  reachable, but this one question failed inside SkyPilot
        UnknownRequest, NoSuchCluster, ClusterNotUp ── an answer, not a fault

`Unreachable` must never be read as absence: an API server that is away looks just like a cluster that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

UID_LABEL: Final = "skyoperator-uid"
"""A key that every cloud takes: GCP allows neither dots nor slashes in keys, and SkyPilot checks all enabled clouds."""
ATTEMPT_LABEL: Final = "skyoperator-attempt"
INSTANCE_LABEL: Final = "skyoperator-instance"
NAMESPACE_LABEL: Final = "skyoperator-namespace"
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class RequestStatus(StrEnum):
    """How far an API request has come (sky/server/requests/requests.py:84)."""

    PENDING = "PENDING"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def active(self) -> bool:
        """Whether the request may still act. CANCELLED is written while the worker is only being signalled."""
        return self in {RequestStatus.PENDING, RequestStatus.WAITING, RequestStatus.RUNNING}


class ClusterStatus(StrEnum):
    """A cluster row's status (sky/utils/status_lib.py:8). UP does not prove that a job was submitted."""

    INIT = "INIT"
    UP = "UP"
    STOPPED = "STOPPED"
    AUTOSTOPPING = "AUTOSTOPPING"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    """A word this version does not know: from a newer server."""


class JobStatus(StrEnum):
    """A job's status in its cluster's queue (sky/skylet/job_lib.py)."""

    INIT = "INIT"
    PENDING = "PENDING"
    SETTING_UP = "SETTING_UP"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    FAILED_SETUP = "FAILED_SETUP"
    FAILED_DRIVER = "FAILED_DRIVER"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    """A word this version does not know: neither terminal nor progress."""

    @property
    def terminal(self) -> bool:
        """Whether the job has ended, well or badly."""
        return self in _TERMINAL_JOB_STATUSES


_TERMINAL_JOB_STATUSES: Final = frozenset(
    {
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.FAILED_SETUP,
        JobStatus.FAILED_DRIVER,
        JobStatus.CANCELLED,
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """One API request. `name` is without SkyPilot's prefix: "launch", "down", "status"."""

    id: str
    name: str
    status: RequestStatus
    cluster_name: str | None
    created_at: datetime | None
    status_msg: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One row of SkyPilot's cluster table.

    `infra` is the cloud and its region or context ("Kubernetes/in-cluster", "AWS/us-east-1"); `labels` are the task's
    resource labels. `message` is SkyPilot's reason for an INIT row; `init_kind` tells "launching" from "unhealthy" and
    is None for any other status.
    """

    name: str
    status: ClusterStatus
    infra: str = ""
    resources: str = ""
    nodes: int = 0
    launched_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    init_kind: str | None = None
    message: str = ""

    @property
    def uid_label(self) -> str | None:
        """The uid of the object that launched it, or None for a cluster that is not ours."""
        return self.labels.get(UID_LABEL)

    @property
    def attempt_label(self) -> int | None:
        """The attempt that brought it up, or None if it does not say."""
        label = self.labels.get(ATTEMPT_LABEL, "")
        return int(label) if label.isdecimal() else None

    @property
    def unhealthy(self) -> bool:
        """Whether SkyPilot found a cluster that was once up broken: a node gone, Ray dead."""
        return self.init_kind == "unhealthy"


@dataclass(frozen=True, slots=True)
class Job:
    """One job in a cluster's queue."""

    id: int
    name: str
    status: JobStatus
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Launched:
    """The result of a request that SUCCEEDED. `job_id` is None for a task without `run`.

    Also, rarely, when SkyPilot could not encode its own answer (sky/server/requests/requests.py:271): with `run`, None
    means to look for the job in the queue.
    """

    job_id: int | None


@dataclass(frozen=True, slots=True)
class RequestError:
    """Why a request FAILED or was CANCELLED: the exception's class name in SkyPilot and its words without colours.

    `log` is the end of the provision log of a launch: it alone tells what an API answered that refused one
    (sky/backends/cloud_vm_ray_backend.py:1391). For looking things up in; it is not fit to be shown as it is.
    """

    type: str
    message: str
    log: str = field(default="", compare=False, repr=False)


class SkyPilotError(Exception):
    """Base of everything a `SkyPilot` method raises."""


class SkyPilotUnreachable(SkyPilotError):  # noqa: N818 - named after what it means to the caller
    """No usable answer: connection, time-out, credentials, server fault or version. What we asked stays unknown."""


class SkyPilotRejectsUs(SkyPilotUnreachable):
    """A server answers, and takes none of our credentials: they are wrong, or it is not the server that gave them to us."""


class SkyPilotRefused(SkyPilotError):  # noqa: N818
    """The server answered a POST with a 4xx: it was certainly not executed."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"SkyPilot refused the request with HTTP {status}: {words}")
        self.status = status
        self.words = words


class RequestFailed(SkyPilotError):  # noqa: N818
    """The server answered, but the reading request itself failed: what it asked stays unknown, about this cluster only."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(f"SkyPilot could not answer: {error.type}: {error.message}")
        self.error = error


class UnknownRequest(SkyPilotError):  # noqa: N818
    """The server does not know this request: it was restarted (which wipes requests) or 24 h have passed."""


class NoSuchCluster(SkyPilotError):  # noqa: N818
    """The server has no row of this cluster. A launch of it may still be queued."""


class ClusterNotUp(SkyPilotError):  # noqa: N818
    """The cluster has a row but is not up, so its job queue cannot be read."""


class SkyPilot(Protocol):
    """The SkyPilot API server, as far as the controller needs it. Every method may raise SkyPilotUnreachable."""

    async def active_requests(self) -> tuple[Request, ...]:
        """Return every unfinished request of every cluster and user. One GET, without bodies."""

    async def requests_of(self, cluster_name: str) -> tuple[Request, ...]:
        """Return all requests of one cluster, finished ones too, newest first. One GET, without bodies."""

    async def task_name_of(self, request_id: str) -> str | None:
        """Return the `name` in the task a launch was posted with; None if its body cannot be read. For adoption only.

        Raises UnknownRequest.
        """

    async def result_of(self, request_id: str) -> Launched | RequestError:
        """Return the outcome of a finished launch, with the provision log if it failed. Never blocks on a running one.

        Raises UnknownRequest; SkyPilotUnreachable, after RESULT_TIMEOUT_SECONDS, if the request is still active.
        """

    async def clusters(self) -> tuple[Cluster, ...]:
        """Return every cluster row of every user, as last known to SkyPilot."""

    async def jobs(self, cluster_name: str) -> tuple[Job, ...]:
        """Return the jobs of one cluster, ended ones too; none if it was never set up.

        Raises NoSuchCluster, ClusterNotUp, RequestFailed.
        """

    async def launch(self, cluster_name: str, task_yaml: str, *, may_send: Callable[[], None]) -> str:
        """Post a launch and return its request id.

        `may_send` is called right before the POST, once nothing has to be fetched for it any more; what it raises is raised, and nothing
        was sent. Raises SkyPilotRefused when it was certainly not executed; after SkyPilotUnreachable it may run all the same.
        """

    async def down(self, cluster_name: str) -> str:
        """Post a teardown and return its request id. Raises SkyPilotRefused."""

    async def cancel(self, request_ids: Sequence[str]) -> str:
        """Post the cancellation of these requests and return the cancelling request's id. Raises SkyPilotRefused."""

    async def cancel_jobs(self, cluster_name: str, job_ids: Sequence[int]) -> str:
        """Post the cancellation of these jobs, which leaves the cluster up, and return the request's id. Raises SkyPilotRefused."""

    async def set_autostop(self, cluster_name: str, idle_minutes: int | None) -> str:
        """Post when the cluster ends itself, None for never, and return the request's id. Raises SkyPilotRefused."""

    async def endpoints(self, cluster_name: str) -> Mapping[str, str]:
        """Return where each open port of the cluster is reached: port to address. None yet, or none at all, is an empty mapping.

        Raises ClusterNotUp, also if there is no such cluster; RequestFailed where SkyPilot can't open ports.
        """

    async def log_tail(self, cluster_name: str, job_id: int, lines: int) -> str:
        """Return the last lines of a job's log, without colours.

        Raises NoSuchCluster, ClusterNotUp, RequestFailed.
        """

    async def identity(self) -> str:
        """Return which server this is: the same for as long as it keeps its database, whatever its address and our credentials."""

    async def check(self) -> None:
        """Return if the server answers and takes our credentials; raise SkyPilotUnreachable with the reason if not."""
