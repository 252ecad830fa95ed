"""observe.py without an event loop: the same memory (Followed, Hold) and the same questions (evidence.py), with the clock of the model.

A pass may look at a snapshot that is as old as the poller's pause, but never at one older than its own last action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from skyoperator.evidence import error_of, with_launch
from skyoperator.followed import Followed
from skyoperator.hold import Hold
from skyoperator.observe import CALM_SECONDS, LONGEST_DOWN_BACKOFF_SECONDS
from skyoperator.sky.types import Cluster, ClusterNotUp, ClusterStatus, Job, SkyPilotUnreachable
from skyoperator.snapshot import ACTING, NOTHING_YET, UNBROKEN_SECONDS, UNKNOWN, Snapshot, View
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS
from skyoperator.world import ABSENT, World

from tests.machine.calls import Plain, Stepped, finish
from tests.machine.door import Door, at
from tests.unit.build import NAME

COMPLAINT: Final = "connection refused"


@dataclass(slots=True)
class Reader:
    """What QueueReader last read."""

    job_name: str
    taken_at: float = -1.0
    jobs: tuple[Job, ...] | None = None
    words: str = ""

    def stop(self) -> None:
        """Nothing runs here."""


class Eyes:
    """The Observer of one process."""

    def __init__(self, door: Door, clock: Callable[[], float], *, has_slot: Callable[[], bool]) -> None:
        self._door = door
        self._stepped: Any = Stepped(door)
        self._clock = clock
        self._has_slot = has_slot
        self._hold = Hold()
        self._snapshot = NOTHING_YET
        self.followed: Followed | None = None
        self.woken = False
        self.seen: tuple[Subject, World] | None = None

    def follow(self, subject: Subject, wake: Callable[[], None]) -> None:
        """As Observer.follow."""
        self._hold.follow(subject, is_new=self.followed is None)
        if self.followed is None:
            self.followed = Followed(subject, self._wake, self._clock() - CALM_SECONDS)
        self.followed.subject = subject
        self._keep_reading(self.followed)

    def _wake(self) -> None:
        self.woken = True

    def forget(self, name: str) -> None:
        """As Observer.forget."""
        self._hold.forget(name)
        self.followed = None

    def acted(self, name: str, *, down_id: str | None = None) -> None:
        """As Observer.acted."""
        self._hold.forget(name)
        if self.followed is not None:
            self.followed.not_before = self._clock()
            self.followed.acted_at = at(self._clock())
            self.followed.first_empty = self.followed.last_empty = None
            self.followed.down_id = down_id or self.followed.down_id

    def refused_down(self, name: str, words: str) -> None:
        """As Observer.refused_down."""
        if self.followed is not None:
            self.followed.note_down(words, self._clock(), longest_pause=LONGEST_DOWN_BACKOFF_SECONDS)

    async def look(self, subject: Subject) -> World:
        """As Observer.look."""
        followed = self.followed
        assert followed is not None, "who looks is followed"
        while not self._snapshot.is_outage and self._snapshot.taken_at < max(followed.not_before, 0.0):
            await self._poll(self._stepped)
        world = self._shared_look(followed)
        if world.active is not None:
            world = await with_launch(self._stepped, world, subject)
            world = await self._with_down(world, followed)
            may_launch = not subject.wants_launch or self._has_slot()
            world = replace(followed.with_queue(world), may_launch=may_launch, now=at(self._clock()))
        self.seen = (subject, world)
        return world

    def tick(self) -> None:
        """Poll, and read the queue, beside the passes."""
        if self.followed is None:
            return
        finish(self._poll(Plain(self._door)))
        reader: Any = self.followed.reader
        if reader is not None:
            before = (reader.taken_at < 0, reader.jobs)
            reader.jobs, reader.taken_at = self._queue(), self._clock()
            self.woken |= before[0] or before[1] != reader.jobs

    def _queue(self) -> tuple[Job, ...] | None:
        try:
            return self._door.jobs(NAME)
        except (ClusterNotUp, SkyPilotUnreachable):
            return None

    async def _poll(self, sky: Any) -> None:
        self._snapshot = await self._take(sky)
        followed, snapshot = self.followed, self._snapshot
        if not snapshot.is_outage:
            self._hold.saw(snapshot, [NAME] if followed is not None else [])
        if followed is None:
            return
        was_empty_for = followed.empty_seconds
        followed.note_emptiness(snapshot)
        self._keep_reading(followed)
        is_confirmed = was_empty_for < CONFIRM_SECONDS <= followed.empty_seconds
        if followed.told is not None and (followed.told != self._view() or (is_confirmed and not followed.subject.wants_launch)):
            followed.told = self._view()
            followed.wake()

    async def _take(self, sky: Any) -> Snapshot:
        before, began = self._snapshot, self._clock()
        unbroken = before.reachable_since is not None and began - before.ended_at <= UNBROKEN_SECONDS
        try:
            server = before.server if unbroken else await sky.identity()
            active = await sky.active_requests()
            rows = await sky.clusters()
        except SkyPilotUnreachable:
            return Snapshot(began, self._clock(), complaint=COMPLAINT)
        since = before.reachable_since if unbroken else at(began)
        by_cluster = {NAME: tuple(request for request in active if request.name in ACTING)}
        return Snapshot(began, self._clock(), since, by_cluster, {row.name: row for row in rows}, server=server)

    def _view(self) -> View:
        row = self._snapshot.cluster(NAME)
        return UNKNOWN if row is ABSENT and self._hold.is_hidden(NAME) else (self._snapshot.requests_of(NAME), row)

    def _shared_look(self, followed: Followed) -> World:
        active, cluster = followed.told = self._view()
        world = World(
            now=at(self._clock()),
            server=self._snapshot.server,
            reachable_since=self._snapshot.reachable_since,
            acted_at=followed.acted_at,
            cluster=cluster,
            active=active,
            empty_seconds=followed.empty_seconds,
            complaint=self._snapshot.complaint,
        )
        is_hidden = active is None and not self._snapshot.is_outage
        return replace(world, empty_seconds=0.0, complaint="The controller has just started.") if is_hidden else world

    def _keep_reading(self, followed: Followed) -> None:
        row, wanted = self._snapshot.cluster(NAME), followed.subject.queue_name
        if row is None:
            return
        reader: Any = followed.reader
        is_up = isinstance(row, Cluster) and row.status is ClusterStatus.UP
        if wanted is None or not is_up or (reader is not None and reader.job_name != wanted):
            followed.stop_reading()
        if wanted is not None and is_up and followed.reader is None:
            reading: Any = Reader(wanted)
            followed.reader = reading

    async def _with_down(self, world: World, followed: Followed) -> World:
        is_over = followed.down_id is not None and all(request.id != followed.down_id for request in world.active or ())
        if followed.down_id is not None and is_over:
            error = await error_of(self._stepped, followed.down_id) if isinstance(world.cluster, Cluster) else ""
            followed.note_down(error, self._clock(), longest_pause=LONGEST_DOWN_BACKOFF_SECONDS)
        return replace(world, down_error=followed.down_error, may_down=self._clock() >= followed.down_again_at)
