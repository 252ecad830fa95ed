"""Several clusters that vanish at once are not taken for gone: more likely a server came back without its data.

    known ─► missing ─► (one alone) gone, as any lost cluster
                 └────► (several) held: not known, until listed again or confirmed by a person

Known is a cluster that was seen to stand: up, stopped, or found unhealthy, with nobody at work on it. A row that comes and goes with its
launch is none. After a restart of ours the objects' status tells which were known, and what is missing is judged once all have spoken.
When they vanished (`Held.since`) is what this process saw, and begins anew with the next; that loses nothing, since a person's word counts
from when the cluster was first not known, which the object's status keeps. Whatever was taken down is not missing: the observer leaves
out those of which the server remembers a /down.

How many are several: three, or more than a fifth of those known. Below five known clusters a fifth says nothing, since each single loss
would be one, and two that go in the same minute are often one node that died; so there it takes three. That a small installation's
server lost its data is noticed by its credential, which is kept in the same database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from skyoperator.api.v1alpha1 import CONFIRM_LOST
from skyoperator.sky.types import Cluster, ClusterStatus
from skyoperator.snapshot import Snapshot
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS

logger = logging.getLogger(__name__)

SEVERAL: Final = 3
FEW_KNOWN: Final = 5
FIRST_SECONDS: Final = 30.0
"""After the first look that succeeds nothing that is missing is judged alone for so long: not all objects have been read yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """A cluster that vanished together with others."""

    since: datetime
    count: int

    def complaint(self, subject: Subject) -> str:
        """Return what happened and what to do, for people."""
        annotation = f'{CONFIRM_LOST}="$(date -u +%Y-%m-%dT%H:%M:%SZ)" --overwrite'
        return (
            f"{self.count} clusters that SkyPilot had were no longer in its list at {self.since:%Y-%m-%dT%H:%M:%SZ}, as after a loss of "
            "its data: they may well be running. Nothing is concluded from that until they are listed again. Restore SkyPilot's "
            "database, or confirm that the cluster is gone: kubectl annotate skyc "
            f"{subject.name or 'NAME'} -n {subject.namespace or 'NAMESPACE'} {annotation} (--all instead of the name: all of them)."
        )


def is_mass(missing: int, known: int) -> bool:
    """Return whether so many of so many are too many to go at once by themselves."""
    return missing >= SEVERAL or (known >= FEW_KNOWN and missing > known * 0.2)


class Hold:
    """Who was known, who is missing, and who is held. All names are of clusters."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._missing: dict[str, float] = {}
        self._held: dict[str, Held] = {}
        self._first_at: float | None = None
        self._taken_at = 0.0

    @property
    def count(self) -> int:
        """How many are held."""
        return len(self._held)

    def of(self, name: str) -> Held | None:
        """Return the hold on this cluster."""
        return self._held.get(name)

    def is_hidden(self, name: str) -> bool:
        """Return whether nothing is to be concluded yet from the cluster's absence."""
        return name in self._held or (name in self._known and (self._is_starting() or bool(self._held)))

    def follow(self, subject: Subject, *, is_new: bool) -> None:
        """Take in what the object knows, and what a person confirmed."""
        name = subject.cluster_name
        if is_new and subject.was_known:
            self._known.add(name)
        held = self._held.get(name)
        if held is None or subject.confirmed_lost_at is None:
            return
        if subject.confirmed_lost_at >= min(held.since, subject.unknown_since or held.since):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Expect this cluster no more: nobody follows it, or we have just acted on it, or it is confirmed gone."""
        self._known.discard(name)
        self._missing.pop(name, None)
        self._held.pop(name, None)

    def saw(self, snapshot: Snapshot, names: Iterable[str]) -> list[str]:
        """Take in a look that succeeded; return who vanished, if these are several: to be held, unless they were taken down."""
        self._taken_at = snapshot.taken_at
        self._first_at = snapshot.taken_at if self._first_at is None else self._first_at
        for name in names:
            row, active = snapshot.cluster(name), snapshot.requests_of(name) or ()
            if any(request.name == "down" for request in active):
                self.forget(name)
            elif isinstance(row, Cluster):
                self._is_there(name, row, is_quiet=not active)
            elif name in self._known:
                self._missing.setdefault(name, snapshot.taken_at)
        return self._vanished()

    def hold(self, names: Iterable[str], since: datetime) -> None:
        """Hold those of the names that are still missing, if they are still several."""
        names = [name for name in names if name in self._missing]
        count = len(names) + len(self._held)
        if not names or not is_mass(count, len(self._known)):
            return
        some = ", ".join(names[:10])
        logger.warning("%d of %d known clusters vanished at once and are held as unknown: %s", count, len(self._known), some)
        for name in names:
            self._held[name] = Held(since.replace(microsecond=0), count)

    def _is_there(self, name: str, row: Cluster, *, is_quiet: bool) -> None:
        self._missing.pop(name, None)
        if self._held.pop(name, None) is not None and not self._held:
            logger.info("the clusters that had vanished are listed again")
        if row.status is ClusterStatus.AUTOSTOPPING:
            self._known.discard(name)
        elif not is_quiet:
            return
        elif row.status in {ClusterStatus.UP, ClusterStatus.STOPPED} or row.unhealthy:
            self._known.add(name)

    def _vanished(self) -> list[str]:
        """What is missing for longer than it takes to confirm a loss, and was not held, was lost alone."""
        undecided = []
        for name, since in list(self._missing.items()):
            if name in self._held:
                continue
            if self._taken_at - since <= CONFIRM_SECONDS or self._is_starting():
                undecided.append(name)
            else:
                self.forget(name)
        return undecided if undecided and is_mass(len(undecided) + len(self._held), len(self._known)) else []

    def _is_starting(self) -> bool:
        return self._first_at is None or self._taken_at - self._first_at < FIRST_SECONDS
