"""One pair of eyes on SkyPilot for all objects.

Two calls answer for every object, however many there are; only queues are read cluster by cluster, under a cap and beside the passes.
An object is woken when something about its cluster has changed, and never by a look that shows the same as before. While the server is
away one look, ever more seldom, stands for all, and nobody waits for it: what it shows is that nothing is known.

What an object is shown is never older than its own last action (`acted`): a list that was taken before our POST says nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from skyoperator.admission import Admission
from skyoperator.clock import utc_now
from skyoperator.endpoint_reader import Endpoints
from skyoperator.evidence import error_of, was_taken_down, with_launch
from skyoperator.followed import Followed
from skyoperator.hold import Hold
from skyoperator.lanes import Lanes
from skyoperator.queue_reader import QueueReader
from skyoperator.sky.types import Cluster, ClusterStatus, SkyPilot
from skyoperator.snapshot import NOTHING_YET, UNKNOWN, Snapshot, View, monotonic, take
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS
from skyoperator.turns import Turns
from skyoperator.world import ABSENT, World

URGENT_SECONDS: Final = 2.0
CALM_SECONDS: Final = 6.0
"""A change in SkyPilot is seen after half of it on average, and written down in less than 5 s."""
LONGEST_OUTAGE_PAUSE_SECONDS: Final = 15.0
LONGEST_DOWN_BACKOFF_SECONDS: Final = 60.0
QUESTIONS_AT_ONCE: Final = 8


class Observer:
    """The shared poller. `run` polls; `look` answers one object; `wake` is called when a followed cluster has changed."""

    def __init__(self, sky: SkyPilot, *, admission: Admission, hold: Hold, now: Callable[[], datetime] = utc_now) -> None:
        self._sky = sky
        self._admission = admission
        self._hold = hold
        self._now = now
        self._followed: dict[str, Followed] = {}
        self._snapshot = NOTHING_YET
        self._failures = 0
        self._wanted = asyncio.Event()
        self._polled = asyncio.Condition()
        self._lanes = Lanes()
        self._endpoints = Endpoints(sky)
        self._turns = Turns(self._take_turn)

    async def run(self) -> None:
        """Poll for ever: often while something is on its way, seldom while all is calm, not at all while nobody waits."""
        try:
            while True:
                await self._pause()
                self._wanted.clear()
                await self._poll()
        finally:
            self._turns.stop()

    async def _pause(self) -> None:
        if self._failures:
            await asyncio.sleep(outage_pause_seconds(self._failures))
        if not self._failures or not self._followed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._wanted.wait()

    def _pause_seconds(self) -> float | None:
        if not self._followed:
            return None
        urgent = any(followed.subject.is_urgent for followed in self._followed.values())
        return URGENT_SECONDS if urgent else CALM_SECONDS

    async def _poll(self) -> None:
        before = self._snapshot
        after = await take(self._sky, before, self._now())
        self._failures = self._failures + 1 if after.is_outage else 0
        if not after.is_outage:
            await self._hold_what_vanished(after)
        self._snapshot = after
        self._lanes.server_is(away=after.is_outage)
        self._endpoints.server_is(away=after.is_outage)
        self._admission.saw(after)
        changed = [name for name, followed in self._followed.items() if self._note(followed, after)]
        if before.is_outage or after.is_outage:
            self._turns.add(sorted(changed, key=lambda name: not self._followed[name].subject.is_urgent))
        else:
            for name in changed:
                self._tell(name)
        async with self._polled:
            self._polled.notify_all()

    async def _hold_what_vanished(self, after: Snapshot) -> None:
        vanished = self._hold.saw(after, self._followed)
        if vanished:
            for name in await self._taken_down(vanished):
                self._hold.forget(name)
            self._hold.hold(vanished, self._now())

    async def _taken_down(self, names: Sequence[str]) -> list[str]:
        gate = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def ask(name: str) -> bool:
            async with gate:
                return await was_taken_down(self._sky, name)

        answers = await asyncio.gather(*(ask(name) for name in names))
        return [name for name, yes in zip(names, answers, strict=True) if yes]

    def _note(self, followed: Followed, after: Snapshot) -> bool:
        """Remember emptiness, keep the readers at work, and return whether the object has something new to see."""
        name, was_empty_for = followed.subject.cluster_name, followed.empty_seconds
        followed.note_emptiness(after)
        self._keep_reading(followed)
        if followed.told is None or name in self._turns:
            return False
        is_confirmed = was_empty_for < CONFIRM_SECONDS <= followed.empty_seconds
        return followed.told != self._view(name) or (is_confirmed and not followed.subject.wants_launch)

    def _view(self, name: str) -> View:
        """What the last look shows of this cluster; nothing while its absence proves nothing."""
        row = self._snapshot.cluster(name)
        return UNKNOWN if row is ABSENT and self._hold.is_hidden(name) else (self._snapshot.requests_of(name), row)

    def _tell(self, name: str) -> None:
        followed = self._followed[name]
        followed.told = self._view(name)
        followed.wake()

    def _take_turn(self, name: str) -> None:
        """Wake the object, unless it is gone, or all is as it knows it by now: a short outage is over before most have heard of it."""
        followed = self._followed.get(name)
        if followed is not None and followed.told != self._view(name):
            self._tell(name)

    def _keep_reading(self, followed: Followed) -> None:
        """A queue is read while somebody looks for a job in it and its cluster is UP; what was read of it counts no longer than that."""
        row, wanted = self._snapshot.cluster(followed.subject.cluster_name), followed.subject.queue_name
        if row is None:
            return
        is_up = isinstance(row, Cluster) and row.status is ClusterStatus.UP
        self._endpoints.keep(followed.subject, is_up=is_up, changed=followed.changed)
        if wanted is None or not is_up or (followed.reader is not None and followed.reader.job_name != wanted):
            followed.stop_reading()
        if wanted is not None and is_up and followed.reader is None:
            followed.reader = QueueReader(
                self._sky,
                cluster_name=followed.subject.cluster_name,
                job_name=wanted,
                lanes=self._lanes,
                changed=followed.changed,
            )

    def follow(self, subject: Subject, wake: Callable[[], None]) -> None:
        """Keep an eye on the subject's cluster and call `wake` when it changes."""
        name = subject.cluster_name
        followed = self._followed.get(name)
        self._hold.follow(subject, is_new=followed is None)
        if followed is None:
            followed = self._followed[name] = Followed(subject, wake, monotonic() - CALM_SECONDS)
            self._wanted.set()
        if subject.is_urgent and not followed.subject.is_urgent:
            self._wanted.set()
        followed.subject, followed.wake = subject, wake
        self._admission.passed(name, wants_launch=subject.wants_launch)
        self._keep_reading(followed)

    def forget(self, name: str) -> None:
        """Look at this cluster no more."""
        self._admission.leave(name)
        self._hold.forget(name)
        self._endpoints.forget(name)
        followed = self._followed.pop(name, None)
        if followed is not None:
            followed.stop_reading()

    def acted(self, name: str, *, down_id: str | None = None) -> None:
        """Count no look that began before now: we have just asked SkyPilot to change this cluster."""
        self._admission.sent(name, monotonic())
        self._hold.forget(name)
        followed = self._followed.get(name)
        if followed is not None:
            followed.not_before = monotonic()
            followed.acted_at = self._now()
            followed.first_empty = followed.last_empty = None
            followed.down_id = down_id or followed.down_id
            self._wanted.set()

    def refused_down(self, name: str, words: str) -> None:
        """Note that SkyPilot would not take our /down: it is said, and asked again, as if it had failed."""
        followed = self._followed.get(name)
        if followed is not None:
            followed.note_down(words, monotonic(), longest_pause=LONGEST_DOWN_BACKOFF_SECONDS)

    async def look(self, subject: Subject) -> World:
        """Return what SkyPilot looks like from one object that is followed. Raises nothing of SkyPilot: what fails is None."""
        followed = self._followed[subject.cluster_name]
        snapshot = await self._snapshot_since(followed.not_before)
        world = self._shared_look(followed, subject, snapshot)
        if world.active is None:
            return world
        world = await with_launch(self._sky, world, subject)
        world = await self._with_down(world, followed)
        may_launch = not subject.wants_launch or self._admission.ask(subject.cluster_name, followed.changed)
        return replace(
            followed.with_queue(world), endpoints=self._endpoints.of(subject.cluster_name), may_launch=may_launch, now=self._now()
        )

    def _shared_look(self, followed: Followed, subject: Subject, snapshot: Snapshot) -> World:
        """What the look that answers for everybody says of this one."""
        name = subject.cluster_name
        active, cluster = followed.told = self._view(name)
        world = World(
            now=self._now(),
            server=snapshot.server,
            reachable_since=snapshot.reachable_since,
            acted_at=followed.acted_at,
            cluster=cluster,
            active=active,
            empty_seconds=followed.empty_seconds,
            complaint=snapshot.complaint,
        )
        if active is not None or snapshot.is_outage:
            return world
        held = self._hold.of(name)
        complaint = held.complaint(subject) if held else "The controller has just started, and SkyPilot does not list the cluster any more."
        return replace(world, empty_seconds=0.0, complaint=complaint)

    async def _snapshot_since(self, not_before: float) -> Snapshot:
        """Return the first snapshot that began at `not_before` or later, and in an outage the last; one poll answers everybody."""
        async with self._polled:
            while not self._snapshot.is_outage and self._snapshot.taken_at < max(not_before, 0.0):
                self._wanted.set()
                await self._polled.wait()
            return self._snapshot

    async def _with_down(self, world: World, followed: Followed) -> World:
        """Find out what became of our /down: one that failed is said, and asked again ever more seldom."""
        is_over = followed.down_id is not None and all(request.id != followed.down_id for request in world.active or ())
        if followed.down_id is not None and is_over:
            error = await error_of(self._sky, followed.down_id) if isinstance(world.cluster, Cluster) else ""
            followed.note_down(error, monotonic(), longest_pause=LONGEST_DOWN_BACKOFF_SECONDS)
        if world.cluster is ABSENT and followed.down_id is None:
            followed.down_error, followed.down_failures, followed.down_again_at = "", 0, 0.0
        return replace(world, down_error=followed.down_error, may_down=monotonic() >= followed.down_again_at)


def outage_pause_seconds(failures: int) -> float:
    """Return how long to leave a server alone that did not answer so many looks in a row."""
    return float(min(URGENT_SECONDS * 1.5 ** (min(failures, 20) - 1), LONGEST_OUTAGE_PAUSE_SECONDS))
