"""Who may launch next: at most so many launches are with SkyPilot at a time, and whoever has to wait waits in its object.

SkyPilot's server works on few launches at once and forgets its queue when it is restarted; the objects forget nothing.

    asks ─► waits, first come first served ─► has a slot, is woken ─► sends ─► is on the server's list ─► over
                                                  └─ a pass that sends nothing gives it back

In flight is what the server's own list shows, whoever sent it, since strangers' launches take the same workers, and each slot that
does not show there yet. So a controller that was restarted counts right from its first look on. What waits costs nothing: it is woken
when its slot is there, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from skyoperator.snapshot import NOTHING_YET, Snapshot
from skyoperator.teardown import SETTLE_TIME

UNSEEN_SECONDS: Final = SETTLE_TIME.total_seconds()
"""How long a launch whose answer was lost keeps its slot although the server does not list it."""


@dataclass(slots=True)
class Slot:
    """The right to one launch. `at` is when it was handed out, or its object last looked at."""

    at: float
    was_shown: bool = False
    """Whether a pass was told of it."""
    is_wanted: bool = True
    """Whether the object has yet to learn of a request."""
    sent_at: float | None = None


class Admission:
    """The line of those who want to launch, and the slots of those who may. All names are of clusters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[str, Callable[[], None]] = {}
        self._slots: dict[str, Slot] = {}
        self._snapshot = NOTHING_YET

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """How many launches are with SkyPilot or may be at any moment."""
        return self._snapshot.launches + sum(not self._is_listed(name) for name in self._slots)

    def ask(self, name: str, wake: Callable[[], None]) -> bool:
        """Return whether this cluster may be launched now; if not, it is in line, and `wake` is called once it may."""
        if self._snapshot.active is None:
            return False
        if name not in self._slots:
            self._waiting[name] = wake
            self._hand_out(asker=name)
        slot = self._slots.get(name)
        if slot is None:
            return False
        slot.was_shown, slot.at = True, self._snapshot.taken_at
        return True

    def passed(self, name: str, *, wants_launch: bool) -> None:
        """Note what the object wants now. A slot that the last pass was told of and did not use is given back."""
        if not wants_launch:
            self.leave(name)
            return
        slot = self._slots.get(name)
        if slot is not None:
            slot.is_wanted = True
            if slot.was_shown and slot.sent_at is None:
                self._give_back(name)

    def sent(self, name: str, at: float) -> None:
        """Note that a launch was sent: from then on the server's list tells what became of it."""
        slot = self._slots.get(name)
        if slot is not None:
            slot.sent_at = at

    def leave(self, name: str) -> None:
        """Let the cluster out of the line. One that was sent keeps its slot until a look has begun after that."""
        self._waiting.pop(name, None)
        slot = self._slots.get(name)
        if slot is None:
            return
        slot.is_wanted = False
        if slot.sent_at is None:
            self._give_back(name)

    def saw(self, snapshot: Snapshot) -> None:
        """Take in a new look: end the slots that it answers for, and hand out what is free."""
        self._snapshot = snapshot
        if snapshot.active is None:
            return
        for name, slot in list(self._slots.items()):
            if self._is_over(name, slot):
                del self._slots[name]
        self._hand_out()

    def _is_listed(self, name: str) -> bool:
        return any(request.name == "launch" for request in self._snapshot.requests_of(name) or ())

    def _is_over(self, name: str, slot: Slot) -> bool:
        """What is listed is counted there; what is not, although it was sent, was refused, is over, or is given up.

        One that its object did not use, because its passes fail before they come to that, is for the next in line.
        """
        if slot.sent_at is None:
            return self._snapshot.taken_at - slot.at >= UNSEEN_SECONDS
        if self._snapshot.taken_at < slot.sent_at:
            return False
        return self._is_listed(name) or not slot.is_wanted or self._snapshot.taken_at - slot.sent_at >= UNSEEN_SECONDS

    def _give_back(self, name: str) -> None:
        del self._slots[name]
        self._hand_out()

    def _hand_out(self, *, asker: str | None = None) -> None:
        while self._waiting and self._snapshot.active is not None and self.in_flight < self._limit:
            name = next(iter(self._waiting))
            wake = self._waiting.pop(name)
            self._slots[name] = Slot(self._snapshot.taken_at)
            if name != asker:
                wake()
