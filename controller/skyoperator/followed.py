"""What the observer remembers of one cluster that somebody waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from skyoperator.queue_reader import QueueReader
from skyoperator.snapshot import Snapshot, View
from skyoperator.subject import Subject
from skyoperator.world import ABSENT, World


@dataclass(slots=True)
class Followed:
    """One cluster somebody waits for."""

    subject: Subject
    wake: Callable[[], None]
    not_before: float
    """Looks that began earlier don't count: we have acted since, or nobody has looked for long."""
    told: View | None = None
    """What its object was last shown, or woken for; None before its first look."""
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

    def note_down(self, error: str, now: float, *, longest_pause: float) -> None:
        """Take in what became of a /down: after each in a row that failed the next waits twice as long."""
        self.down_id, self.down_error = None, error
        self.down_failures = self.down_failures + 1 if error else 0
        self.down_again_at = now + min(2.0**self.down_failures, longest_pause) if error else 0.0

    def changed(self) -> None:
        """Wake whoever waits now."""
        self.wake()

    def stop_reading(self) -> None:
        """Read the queue no more, and forget what was in it."""
        if self.reader is not None:
            self.reader.stop()
            self.reader = None

    def note_emptiness(self, snapshot: Snapshot) -> None:
        """A look that did not succeed neither proves nor disproves emptiness; one that began before our last action does not count."""
        name = self.subject.cluster_name
        if snapshot.active is None or snapshot.taken_at < self.not_before:
            return
        if snapshot.requests_of(name) or snapshot.cluster(name) is not ABSENT:
            self.first_empty = self.last_empty = None
            return
        self.first_empty = snapshot.taken_at if self.first_empty is None else self.first_empty
        self.last_empty = snapshot.taken_at

    def with_queue(self, world: World) -> World:
        """Show the queue as last read, if that was after our last action."""
        if self.reader is None or self.reader.taken_at < max(self.not_before, 0.0):
            return world
        return replace(world, queue_was_read=True, jobs=self.reader.jobs, job_words=self.reader.words)
