"""One pair of eyes on SkyPilot for all objects.

Two calls answer for every object, however many there are; only queues are read cluster by cluster, under a cap and beside the passes.
An object is woken when something about its cluster has changed, and never by a look that shows the same as before.

What an object is shown is never older than its own last action (`acted`): a list that was taken before our POST says nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from skyoperator.admission import Admission
from skyoperator.clock import utc_now
from skyoperator.failures import LOST
from skyoperator.queue_reader import QueueReader
from skyoperator.sky.types import Cluster, ClusterStatus, Launched, Request, RequestError, SkyPilot, SkyPilotError, UnknownRequest
from skyoperator.snapshot import NOTHING_YET, Snapshot, monotonic, take
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS
from skyoperator.world import ABSENT, Absent, World

logger = logging.getLogger(__name__)

URGENT_SECONDS: Final = 2.0
CALM_SECONDS: Final = 10.0
QUEUE_READERS: Final = 8
"""Queues read at once: SkyPilot's API server answers 5-8 a second on 2 cores, and each takes one of its short workers."""
LONGEST_DOWN_BACKOFF_SECONDS: Final = 60.0

T = TypeVar("T")


@dataclass(slots=True)
class Followed:
    """One cluster somebody waits for."""

    subject: Subject
    wake: Callable[[], None]
    not_before: float
    """Looks that began earlier don't count: we have acted since, or nobody has looked for long."""
    acted_at: datetime | None = None
    first_empty: float | None = None
    last_empty: float | None = None
    reader: QueueReader | None = None
    down_id: str | None = None
    down_failures: int = 0
    down_error: str = ""
    down_again_at: float = 0.0

    @property
    def empty_seconds(self) -> float:
        """Between the first and the last of an unbroken row of empty looks."""
        if self.first_empty is None or self.last_empty is None:
            return 0.0
        return self.last_empty - self.first_empty

    def changed(self) -> None:
        """Wake whoever waits now."""
        self.wake()

    def stop_reading(self) -> None:
        """Read the queue no more, and forget what was in it."""
        if self.reader is not None:
            self.reader.stop()
            self.reader = None


class Observer:
    """The shared poller. `run` polls; `look` answers one object; `wake` is called when a followed cluster has changed."""

    def __init__(self, sky: SkyPilot, *, admission: Admission, now: Callable[[], datetime] = utc_now) -> None:
        self._sky = sky
        self._admission = admission
        self._now = now
        self._followed: dict[str, Followed] = {}
        self._snapshot = NOTHING_YET
        self._wanted = asyncio.Event()
        self._polled = asyncio.Condition()
        self._gate = asyncio.Semaphore(QUEUE_READERS)

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
        before = self._snapshot
        self._snapshot = await take(self._sky, before, self._now())
        for followed in list(self._followed.values()):
            self._note(followed, before, self._snapshot)
        self._admission.saw(self._snapshot)
        async with self._polled:
            self._polled.notify_all()

    def _note(self, followed: Followed, before: Snapshot, after: Snapshot) -> None:
        """Remember emptiness, keep the queue's reader at work, and wake the object if its cluster looks different now."""
        name, was_empty_for = followed.subject.cluster_name, followed.empty_seconds
        _note_emptiness(followed, after)
        self._keep_reading(followed)
        changed = before.requests_of(name) != after.requests_of(name) or before.cluster(name) != after.cluster(name)
        is_confirmed = was_empty_for < CONFIRM_SECONDS <= followed.empty_seconds
        if changed or (is_confirmed and not followed.subject.wants_launch):
            followed.wake()

    def _keep_reading(self, followed: Followed) -> None:
        """A queue is read while somebody looks for a job in it and its cluster is UP; what was read of it counts no longer than that."""
        row, wanted = self._snapshot.cluster(followed.subject.cluster_name), followed.subject.queue_name
        if row is None:
            return
        is_up = isinstance(row, Cluster) and row.status is ClusterStatus.UP
        if wanted is None or not is_up:
            followed.stop_reading()
        elif followed.reader is None:
            followed.reader = QueueReader(
                self._sky,
                cluster_name=followed.subject.cluster_name,
                job_name=wanted,
                gate=self._gate,
                changed=followed.changed,
            )

    def follow(self, subject: Subject, wake: Callable[[], None]) -> None:
        """Keep an eye on the subject's cluster and call `wake` when it changes."""
        followed = self._followed.get(subject.cluster_name)
        if followed is None:
            followed = self._followed[subject.cluster_name] = Followed(subject, wake, monotonic() - CALM_SECONDS)
            self._wanted.set()
        if subject.is_urgent and not followed.subject.is_urgent:
            self._wanted.set()
        followed.subject, followed.wake = subject, wake
        self._admission.passed(subject.cluster_name, wants_launch=subject.wants_launch)
        self._keep_reading(followed)

    def forget(self, name: str) -> None:
        """Look at this cluster no more."""
        self._admission.leave(name)
        followed = self._followed.pop(name, None)
        if followed is not None:
            followed.stop_reading()

    def acted(self, name: str, *, down_id: str | None = None) -> None:
        """Count no look that began before now: we have just asked SkyPilot to change this cluster."""
        self._admission.sent(name, monotonic())
        followed = self._followed.get(name)
        if followed is not None:
            followed.not_before = monotonic()
            followed.acted_at = self._now()
            followed.first_empty = followed.last_empty = None
            followed.down_id = down_id or followed.down_id
            self._wanted.set()

    async def look(self, subject: Subject) -> World:
        """Return what SkyPilot looks like from one object that is followed. Raises nothing of SkyPilot: what fails is None."""
        followed = self._followed[subject.cluster_name]
        snapshot = await self._snapshot_since(followed.not_before)
        world = World(
            now=self._now(),
            server=snapshot.server,
            reachable_since=snapshot.reachable_since,
            acted_at=followed.acted_at,
            cluster=snapshot.cluster(subject.cluster_name),
            active=snapshot.requests_of(subject.cluster_name),
            empty_seconds=followed.empty_seconds,
            complaint=snapshot.complaint,
        )
        if snapshot.active is None:
            return world
        world = await self._with_launch(world, subject)
        world = await self._with_down(world, followed)
        may_launch = not subject.wants_launch or self._admission.ask(subject.cluster_name, followed.changed)
        return replace(_with_queue(world, followed), may_launch=may_launch, now=self._now())

    async def _snapshot_since(self, not_before: float) -> Snapshot:
        """Return the first snapshot that began at `not_before` or later; one poll answers everybody who waits."""
        async with self._polled:
            while self._snapshot.taken_at < max(not_before, 0.0):
                self._wanted.set()
                await self._polled.wait()
            return self._snapshot

    async def _with_launch(self, world: World, subject: Subject) -> World:
        if subject.request_id is not None:
            active = (request for request in world.active or () if request.id == subject.request_id)
            launch = next(active, None) or await self._finished(subject.cluster_name, subject.request_id)
            outcome = await self._outcome(launch)
            if outcome is ABSENT:
                return replace(world, launch=ABSENT)
            return replace(world, launch=launch, outcome=outcome)
        if subject.attempt_name is not None:
            return replace(world, attempt=await self._attempt(subject.cluster_name, subject.attempt_name))
        return world

    async def _finished(self, name: str, request_id: str) -> Request | Absent | None:
        requests = await _or_none(self._sky.requests_of(name))
        if requests is None:
            return None
        return next((request for request in requests if request.id == request_id), ABSENT)

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
        """Return the launch request of exactly that attempt. One that the server dropped is no trace of it."""
        requests = await _or_none(self._sky.requests_of(name))
        if requests is None:
            return None
        for request in (request for request in requests if request.name == "launch"):
            try:
                if await self._sky.task_name_of(request.id) != attempt:
                    continue
            except UnknownRequest:
                continue
            except SkyPilotError:
                return None
            outcome = await self._outcome(request)
            if not (isinstance(outcome, RequestError) and outcome.type in LOST):
                return request
        return ABSENT

    async def _with_down(self, world: World, followed: Followed) -> World:
        """Find out what became of our /down: one that failed is said, and asked again ever more seldom."""
        is_over = followed.down_id is not None and all(request.id != followed.down_id for request in world.active or ())
        if followed.down_id is not None and is_over:
            error = await _error_of(self._sky, followed.down_id) if isinstance(world.cluster, Cluster) else ""
            followed.down_id, followed.down_error = None, error
            followed.down_failures = followed.down_failures + 1 if error else 0
            pause = min(2.0**followed.down_failures, LONGEST_DOWN_BACKOFF_SECONDS)
            followed.down_again_at = monotonic() + pause if error else 0.0
        return replace(world, down_error=followed.down_error, may_down=monotonic() >= followed.down_again_at)


def _with_queue(world: World, followed: Followed) -> World:
    """Show the queue as last read, if that was after our last action."""
    reader = followed.reader
    if reader is None or reader.taken_at < max(followed.not_before, 0.0):
        return world
    return replace(world, queue_was_read=True, jobs=reader.jobs, job_words=reader.words)


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


async def _error_of(sky: SkyPilot, request_id: str) -> str:
    """Return why a finished request failed, or "" if it did not or nobody knows."""
    try:
        outcome = await sky.result_of(request_id)
    except SkyPilotError:
        return ""
    return outcome.message if isinstance(outcome, RequestError) else ""


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except SkyPilotError as error:
        logger.debug("not known right now: %s", error)
        return None
