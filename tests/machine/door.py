"""The controller's client of the server: every call may find it away, and a POST may be lost on either way, arrive late, or twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import yaml
from skyoperator.sky.types import (
    Cluster,
    ClusterNotUp,
    ClusterStatus,
    Job,
    JobStatus,
    Launched,
    Request,
    RequestError,
    RequestStatus,
    SkyPilotRefused,
    SkyPilotUnreachable,
    UnknownRequest,
)

from tests.machine.server import QueuedJob, Row, Server, Work
from tests.unit.build import NAME, NOW

LATEST_SECONDS = 55.0
"""A launch that nobody waits for any more arrives within this time, or never: what SETTLE_TIME relies on."""


@dataclass
class InTransit:
    """A POST /launch on its way."""

    server: Server
    arrives_at: float
    facts: dict[str, Any]


@dataclass
class Door:
    """What stands between the controller and the server that it talks to. Plain calls: process.py makes them awaitable."""

    server: Server
    on_launch: Callable[[str], None]
    """Is told the job's name before a POST /launch."""
    fault: str | None = None
    """What happens to the next POST: refused, lost (it acts), late (it acts later), never (it does not arrive), twice."""
    in_transit: list[InTransit] = field(default_factory=list)
    groups: Any = field(default_factory=itertools.count)

    def identity(self) -> str:
        self._knock()
        return self.server.identity

    def active_requests(self) -> tuple[Request, ...]:
        self._knock()
        return tuple(_request(work) for work in self.server.works.values() if work.status.active and work.name != "api_cancel")

    def requests_of(self, cluster_name: str) -> tuple[Request, ...]:
        self._knock()
        return tuple(_request(work) for work in reversed(self.server.works.values()) if work.name != "api_cancel")

    def clusters(self) -> tuple[Cluster, ...]:
        self._knock()
        return () if self.server.row is None else (_cluster(self.server.row),)

    def task_name_of(self, request_id: str) -> str | None:
        return self._known(request_id).job_name

    def result_of(self, request_id: str) -> Launched | RequestError:
        work = self._known(request_id)
        if work.status.active:
            raise SkyPilotUnreachable("still active")
        return Launched(work.job_id) if work.error is None or work.status is RequestStatus.SUCCEEDED else RequestError(*work.error)

    def jobs(self, cluster_name: str) -> tuple[Job, ...]:
        self._knock()
        row = self.server.row
        if row is None or not row.is_up or not row.is_readable:
            raise ClusterNotUp(cluster_name)
        return tuple(_job(job) for job in row.jobs)

    def launch(self, cluster_name: str, task_yaml: str, *, may_send: Callable[[], None]) -> str:
        may_send()
        task = yaml.load(task_yaml, yaml.CSafeLoader)
        facts = {
            "group": next(self.groups),
            "job_name": task["name"],
            "labels": dict(task["resources"]["labels"]),
            "has_job": bool(task.get("run") or task.get("setup")),
        }
        self.on_launch(task["name"])
        self._knock()
        return self._post(facts)

    def _post(self, facts: dict[str, Any]) -> str:
        fault, self.fault = self.fault, None
        match fault:
            case "refused":
                raise SkyPilotRefused(422, "as drawn")
            case "never":
                raise SkyPilotUnreachable("never arrived")
            case "late":
                self.in_transit.append(InTransit(self.server, self.server.now + LATEST_SECONDS, facts))
                raise SkyPilotUnreachable("will arrive later")
        work = self.server.take_in("launch", **facts)
        if fault == "twice":
            self.server.take_in("launch", **facts)
        if fault == "lost":
            raise SkyPilotUnreachable("the answer was lost")
        return work.id

    def arrive(self, posted: InTransit) -> None:
        """Let a POST that was on its way act, at long last."""
        self.in_transit.remove(posted)
        posted.server.take_in("launch", **posted.facts)

    def down(self, cluster_name: str) -> str:
        self._knock()
        return self.server.take_in("down").id

    def cancel(self, request_ids: Sequence[str]) -> str:
        self._knock()
        return self.server.take_in("api_cancel", targets=tuple(request_ids)).id

    def cancel_jobs(self, cluster_name: str, job_ids: Sequence[int]) -> str:
        self._knock()
        for job in self.server.row.jobs if self.server.row is not None else ():
            if job.id in job_ids and not job.status.terminal:
                self.server.end(job, JobStatus.CANCELLED)
        return "cancelled"

    def set_autostop(self, cluster_name: str, idle_minutes: int | None) -> str:
        self._knock()
        return "set"

    def endpoints(self, cluster_name: str) -> Mapping[str, str]:
        self._knock()
        return {}

    def log_tail(self, cluster_name: str, job_id: int, lines: int) -> str:
        self._knock()
        return ""

    def check(self) -> None:
        self._knock()

    def _knock(self) -> None:
        if self.server.is_away:
            raise SkyPilotUnreachable("connection refused")

    def _known(self, request_id: str) -> Work:
        self._knock()
        if request_id not in self.server.works:
            raise UnknownRequest(request_id)
        return self.server.works[request_id]


def at(seconds: float) -> datetime:
    """Return the time on the wall."""
    return NOW + timedelta(seconds=seconds)


def _request(work: Work) -> Request:
    return Request(work.id, work.name, work.status, NAME, None)


def _cluster(row: Row) -> Cluster:
    status = ClusterStatus.UP if row.is_up and not row.is_unhealthy else ClusterStatus.INIT
    init_kind = None if status is ClusterStatus.UP else "unhealthy" if row.is_unhealthy else "launching"
    return Cluster(NAME, status, infra="Kubernetes", resources="1x(cpus=1)", nodes=1, labels=row.labels, init_kind=init_kind)


def _job(job: QueuedJob) -> Job:
    times = (None if moment is None else at(moment) for moment in (job.started_at, job.finished_at))
    return Job(job.id, job.name, job.status, None, *times)
