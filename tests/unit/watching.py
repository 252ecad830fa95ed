"""An observer at work in front of a scripted SkyPilot, with the few things that tests of it name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from skyoperator.admission import Admission
from skyoperator.hold import Hold
from skyoperator.observe import Observer
from skyoperator.sky.types import Cluster, ClusterStatus, Job, JobStatus, Request, RequestStatus, SkyPilotUnreachable
from skyoperator.subject import Subject
from skyoperator.world import World

from tests.unit.build import JOB, NOW
from tests.unit.fakes import FakeSky

IDLE = Subject("a")
CALM = Subject("a", is_urgent=False)
LAUNCH = Subject("a", request_id="r1")
ATTEMPT = Subject("a", attempt_name=JOB)
QUEUE = Subject("a", job_name=JOB, is_urgent=False)
OUTAGE = SkyPilotUnreachable("connection refused")
POLL = ["active_requests", "clusters"]


def a_row(name: str = "a", status: ClusterStatus = ClusterStatus.UP) -> Cluster:
    return Cluster(name, status)


def a_request(id_: str = "r1", name: str = "launch", status: RequestStatus = RequestStatus.RUNNING, *, cluster: str = "a") -> Request:
    return Request(id_, name, status, cluster, None)


FAILED = a_request(status=RequestStatus.FAILED)
RUNNING, SUCCEEDED = (Job(1, JOB, status) for status in (JobStatus.RUNNING, JobStatus.SUCCEEDED))


def time() -> float:
    return asyncio.get_running_loop().time()


def now() -> datetime:
    return NOW + timedelta(seconds=time())


@dataclass
class Stage:
    sky: FakeSky
    observer: Observer
    admission: Admission
    hold: Hold
    running: asyncio.Task[None]
    woken: list[float] = field(default_factory=list)
    woken_of: dict[str, int] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)

    def follow(self, subject: Subject) -> None:
        self.followed.add(subject.cluster_name)
        self.observer.follow(subject, lambda: self._wake(subject.cluster_name))

    def _wake(self, name: str) -> None:
        self.woken.append(time())
        self.woken_of[name] = self.woken_of.get(name, 0) + 1

    async def look(self, subject: Subject = IDLE) -> World:
        self.follow(subject)
        return await self.observer.look(subject)

    async def fresh_look(self, subject: Subject = IDLE) -> World:
        """Return a look once everything that is new was seen: a poll, and a read of the queue."""
        await asyncio.sleep(30)
        return await self.look(subject)


@contextlib.asynccontextmanager
async def staged(*, limit: int = 8) -> AsyncIterator[Stage]:
    """An observer that runs until the end of the test."""
    sky, admission, hold = FakeSky(), Admission(limit), Hold()
    observer = Observer(sky, admission=admission, hold=hold, now=now)
    running = asyncio.create_task(observer.run())
    stage = Stage(sky, observer, admission, hold, running)
    yield stage
    for name in stage.followed:
        observer.forget(name)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
