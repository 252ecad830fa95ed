"""One pair of eyes on SkyPilot for all objects.

Two calls (active requests, then cluster rows: in that order, so that a launch is seen in one or the other) answer for every object,
however many there are; only queues are read cluster by cluster, under a cap. An object is woken when something about its cluster has
changed, and never by a look that shows the same as before.

What an object is shown is never older than its own last action (`acted`): a list that was taken before our POST says nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from skyoperator.api.v1alpha1 import TERMINATED, ConditionType, SkyCluster
from skyoperator.clock import utc_now
from skyoperator.conditions import is_true
from skyoperator.decide import CONFIRM_SECONDS, own_job
from skyoperator.records import attempt_name, cluster_name
from skyoperator.sky.types import (
    Cluster,
    ClusterStatus,
    Job,
    JobStatus,
    Launched,
    Request,
    RequestError,
    SkyPilot,
    SkyPilotError,
    UnknownRequest,
)
from skyoperator.summary import is_set_up
from skyoperator.world import ABSENT, Absent, World

logger = logging.getLogger(__name__)

URGENT_SECONDS: Final = 2.0
CALM_SECONDS: Final = 10.0
QUEUE_SECONDS: Final = (2.0, 15.0)
"""Between two reads of one queue: at first, and at most, when nothing has changed for a while."""
QUEUE_READERS: Final = 8
"""Queues read at once: SkyPilot's API server answers 5-8 a second on 2 cores, and each takes one of its short workers."""
UNBROKEN_SECONDS: Final = 30.0
"""A longer pause between two polls starts `reachable_since` anew: nobody knows what the server did meanwhile."""
END_OF_JOB: Final = re.compile(r"^.*\bfailed with return code.*$|^.*\bskyoperator: not running.*$", re.MULTILINE)
WORDS_TRIES: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """What an object needs to know; follows from its status alone."""

    cluster_name: str
    request_id: str | None = None
    """The launch to follow."""
    attempt_name: str | None = None
    """The attempt to look for under its own name, while no request of it is known."""
    job_name: str | None = None
    """The job to follow."""
    is_urgent: bool = True

    @property
    def wants_queue(self) -> bool:
        """Whether the cluster's queue is of interest."""
        return self.job_name is not None or self.attempt_name is not None


def subject_of(this: SkyCluster) -> Subject | None:
    """Return what to look at on behalf of the object, or None if there is nothing left to see."""
    status, name = this.status, cluster_name(this)
    if status.cluster is not None and status.cluster.status == TERMINATED:
        return None
    ended = any(is_true(status.conditions, type_) for type_ in (ConditionType.COMPLETE, ConditionType.FAILED))
    if ended or this.deleting or status.launch is None:
        is_kept = ended and not this.deleting and this.spec.when_finished == "Keep"
        return Subject(name, is_urgent=not is_kept)
    if status.launch.finished_at is not None:
        return Subject(name, job_name=status.job.name if status.job and not is_set_up(this) else None, is_urgent=False)
    if status.launch.request_id is not None:
        return Subject(name, request_id=status.launch.request_id)
    return Subject(name, attempt_name=attempt_name(this, status.launch))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything. `active` and `clusters` are None when the server did not answer."""

    taken_at: float
    """When the look began, by the monotonic clock, in seconds."""
    reachable_since: datetime | None = None
    active: dict[str, tuple[Request, ...]] | None = None
    clusters: dict[str, Cluster] | None = None
    complaint: str = ""

    def requests_of(self, name: str) -> tuple[Request, ...] | None:
        """Return the cluster's active requests; None if not known."""
        return None if self.active is None else self.active.get(name, ())

    def cluster(self, name: str) -> Cluster | Absent | None:
        """Return the cluster's row, ABSENT if there is none, None if not known."""
        return None if self.clusters is None else self.clusters.get(name, ABSENT)


@dataclass(slots=True)
class Followed:
    """One cluster somebody waits for."""

    subject: Subject
    wake: Callable[[], None]
    not_before: float = 0.0
    """Looks that began earlier don't count: we have acted since."""
    first_empty: float | None = None
    last_empty: float | None = None
    jobs: tuple[Job, ...] | None = None
    jobs_taken_at: float = -1.0
    reader: asyncio.Task[None] | None = field(default=None, repr=False)


class Observer:
    """The shared poller. `run` polls; `look` answers one object; `wake` is called when a followed cluster has changed."""

    def __init__(self, sky: SkyPilot, *, server: str, now: Callable[[], datetime] = utc_now) -> None:
        self._sky = sky
        self._server = server
        self._now = now
        self._followed: dict[str, Followed] = {}
        self._snapshot = Snapshot(taken_at=-1.0, complaint="SkyPilot has not been asked yet.")
        self._wanted = asyncio.Event()
        self._polled = asyncio.Condition()
        self._readers = asyncio.Semaphore(QUEUE_READERS)

    async def run(self) -> None:
        """Poll for ever: often while something is on its way, seldom while all is calm, not at all while nobody waits."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._poll()

    def _pause_seconds(self) -> float | None:
        if not self._followed:
            return None
        urgent = any(followed.subject.is_urgent for followed in self._followed.values())
        return URGENT_SECONDS if urgent else CALM_SECONDS

    async def _poll(self) -> None:
        before, self._snapshot = self._snapshot, await self._take()
        for followed in list(self._followed.values()):
            self._note(followed, before, self._snapshot)
        async with self._polled:
            self._polled.notify_all()

    async def _take(self) -> Snapshot:
        taken_at, previous = _monotonic(), self._snapshot
        try:
            active = await self._sky.active_requests()
            clusters = await self._sky.clusters()
        except SkyPilotError as error:
            if previous.reachable_since is not None or previous.taken_at < 0:
                logger.warning("SkyPilot does not answer: %s", error)
            return Snapshot(taken_at, complaint=str(error))
        unbroken = taken_at - previous.taken_at <= UNBROKEN_SECONDS
        since = previous.reachable_since if unbroken and previous.reachable_since else self._now()
        return Snapshot(taken_at, since, _by_cluster(active), {cluster.name: cluster for cluster in clusters})

    def _note(self, followed: Followed, before: Snapshot, after: Snapshot) -> None:
        """Remember emptiness, keep the queue's reader at work, and wake the object if its cluster looks different now."""
        name = followed.subject.cluster_name
        was_gone_for = _empty_seconds(followed)
        _note_emptiness(followed, after)
        self._keep_reading(followed, after)
        changed = before.requests_of(name) != after.requests_of(name) or before.cluster(name) != after.cluster(name)
        if changed or was_gone_for < CONFIRM_SECONDS <= _empty_seconds(followed):
            followed.wake()

    def _keep_reading(self, followed: Followed, snapshot: Snapshot) -> None:
        row = snapshot.cluster(followed.subject.cluster_name)
        wanted = followed.subject.job_name is not None and isinstance(row, Cluster) and row.status is ClusterStatus.UP
        if wanted and (followed.reader is None or followed.reader.done()):
            followed.reader = asyncio.create_task(self._read_queue(followed), name=f"queue {followed.subject.cluster_name}")
        if not wanted and followed.reader is not None:
            followed.reader.cancel()
            followed.reader = None

    async def _read_queue(self, followed: Followed) -> None:
        least, most = QUEUE_SECONDS
        pause = least
        while True:
            await asyncio.sleep(pause)
            before = followed.jobs
            await self._refresh_queue(followed)
            changed = followed.jobs != before
            pause = least if changed else min(pause * 1.3, most)
            if changed:
                followed.wake()

    async def _refresh_queue(self, followed: Followed) -> None:
        async with self._readers:
            taken_at = _monotonic()
            jobs = await _or_none(self._sky.jobs(followed.subject.cluster_name))
        followed.jobs, followed.jobs_taken_at = jobs, taken_at

    def follow(self, subject: Subject, wake: Callable[[], None]) -> None:
        """Keep an eye on the subject's cluster and call `wake` when it changes."""
        followed = self._followed.get(subject.cluster_name)
        if followed is None:
            self._followed[subject.cluster_name] = Followed(subject, wake)
            self._wanted.set()
            return
        if subject.is_urgent and not followed.subject.is_urgent:
            self._wanted.set()
        followed.subject, followed.wake = subject, wake

    def forget(self, name: str) -> None:
        """Look at this cluster no more."""
        followed = self._followed.pop(name, None)
        if followed is not None and followed.reader is not None:
            followed.reader.cancel()

    def acted(self, name: str) -> None:
        """Count no look that began before now: we have just asked SkyPilot to change this cluster."""
        followed = self._followed.get(name)
        if followed is not None:
            followed.not_before = _monotonic()
            followed.first_empty = followed.last_empty = None
            self._wanted.set()

    async def look(self, subject: Subject) -> World:
        """Return what SkyPilot looks like from one object that is followed. Raises nothing of SkyPilot: what fails is None."""
        followed = self._followed[subject.cluster_name]
        snapshot = await self._snapshot_since(followed.not_before)
        world = World(
            now=self._now(),
            server=self._server,
            reachable_since=snapshot.reachable_since,
            cluster=snapshot.cluster(subject.cluster_name),
            active=snapshot.requests_of(subject.cluster_name),
            empty_seconds=_empty_seconds(followed),
            complaint=snapshot.complaint,
        )
        if snapshot.active is None:
            return world
        world = await self._with_launch(world, subject, snapshot)
        world = await self._with_queue(world, subject, followed)
        return replace(world, now=self._now())

    async def _snapshot_since(self, not_before: float) -> Snapshot:
        """Return the first snapshot that began at `not_before` or later; one poll answers everybody who waits."""
        async with self._polled:
            while self._snapshot.taken_at < not_before or self._snapshot.taken_at < 0:
                self._wanted.set()
                await self._polled.wait()
            return self._snapshot

    async def _with_launch(self, world: World, subject: Subject, snapshot: Snapshot) -> World:
        name = subject.cluster_name
        if subject.request_id is not None:
            active = snapshot.requests_of(name) or ()
            launch = next((request for request in active if request.id == subject.request_id), None) or await self._final(subject)
            outcome = await self._outcome(launch)
            return replace(world, launch=ABSENT if outcome is ABSENT else launch, outcome=None if outcome is ABSENT else outcome)
        if subject.attempt_name is not None:
            return replace(world, attempt=await self._attempt(name, subject.attempt_name))
        return world

    async def _final(self, subject: Subject) -> Request | Absent | None:
        requests = await _or_none(self._sky.requests_of(subject.cluster_name))
        if requests is None:
            return None
        return next((request for request in requests if request.id == subject.request_id), ABSENT)

    async def _outcome(self, launch: Request | Absent | None) -> Launched | RequestError | Absent | None:
        if not isinstance(launch, Request) or launch.status.active:
            return None
        try:
            return await self._sky.result_of(launch.id)
        except UnknownRequest:
            return ABSENT
        except SkyPilotError:
            return None

    async def _attempt(self, name: str, attempt: str) -> Request | Absent | None:
        requests = await _or_none(self._sky.requests_of(name))
        if requests is None:
            return None
        for request in (request for request in requests if request.name == "launch"):
            try:
                if await self._sky.task_name_of(request.id) == attempt:
                    return request
            except UnknownRequest:
                continue
            except SkyPilotError:
                return None
        return ABSENT

    async def _with_queue(self, world: World, subject: Subject, followed: Followed) -> World:
        if not subject.wants_queue or not isinstance(world.cluster, Cluster):
            return world
        if followed.jobs_taken_at < followed.not_before or followed.jobs_taken_at < 0 or subject.attempt_name is not None:
            await self._refresh_queue(followed)
        job = own_job(followed.jobs or (), subject.job_name) if subject.job_name else None
        failed = job is not None and job.status.terminal and job.status is not JobStatus.SUCCEEDED
        words = await self._words(subject.cluster_name, job) if job is not None and failed else ""
        return replace(world, jobs=followed.jobs, job_words=words)

    async def _words(self, name: str, job: Job) -> str:
        """The last line may be written a moment after the status; a log that can't be read holds up no verdict for long."""
        for _ in range(WORDS_TRIES):
            tail = await _or_none(self._sky.log_tail(name, job.id, 20)) or ""
            words = "\n".join(match.group(0).strip() for match in END_OF_JOB.finditer(tail))
            if words:
                return words
            await asyncio.sleep(1)
        return ""


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


def _by_cluster(requests: tuple[Request, ...]) -> dict[str, tuple[Request, ...]]:
    by_cluster: dict[str, tuple[Request, ...]] = {}
    for request in requests:
        if request.cluster_name is not None:
            by_cluster[request.cluster_name] = (*by_cluster.get(request.cluster_name, ()), request)
    return by_cluster


def _note_emptiness(followed: Followed, snapshot: Snapshot) -> None:
    """A look that did not succeed neither proves nor disproves emptiness; one that began before our last action does not count."""
    name = followed.subject.cluster_name
    if snapshot.active is None or snapshot.taken_at < followed.not_before:
        return
    if snapshot.requests_of(name) or snapshot.cluster(name) is not ABSENT:
        followed.first_empty = followed.last_empty = None
        return
    followed.first_empty = snapshot.taken_at if followed.first_empty is None else followed.first_empty
    followed.last_empty = snapshot.taken_at


def _empty_seconds(followed: Followed) -> float:
    if followed.first_empty is None or followed.last_empty is None:
        return 0.0
    return followed.last_empty - followed.first_empty


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except SkyPilotError as error:
        logger.debug("not known right now: %s", error)
        return None
