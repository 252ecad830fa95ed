"""What a rule answers: the status to store, and the one thing to do after that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from skyoperator.api.v1alpha1 import SkyClusterStatus

SOON_SECONDS: Final = 2.0
LATER_SECONDS: Final = 30.0
CALM_SECONDS: Final = 300.0
"""For an object whose every news wakes it: this look is for the news that went missing."""


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Make sure that no delete passes us by."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go. `leaves_cluster`: its cluster is left to others on purpose, and no orphan that somebody should hear of."""

    leaves_cluster: bool = False


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete the object; what is to be done about its cluster follows from that."""


@dataclass(frozen=True, slots=True)
class Launch:
    """POST /launch for the attempt that status.launch records."""

    cluster_name: str
    job_name: str


@dataclass(frozen=True, slots=True)
class TearDown:
    """Cancel these requests, then POST /down. In that order: /down of a name without a row leaves a queued launch alive."""

    cluster_name: str
    cancel: tuple[str, ...]
    down: bool


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Cancel a job on a cluster that stays."""

    cluster_name: str
    job_id: int


@dataclass(frozen=True, slots=True)
class SetAutostop:
    """Tell SkyPilot after how many idle minutes to end the cluster by itself; None: never."""

    cluster_name: str
    idle_minutes: int | None


Action: TypeAlias = AddFinalizer | RemoveFinalizer | DeleteObject | Launch | TearDown | CancelJob | SetAutostop


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to store, the one action to take once it is stored, and when to look again if nothing happens before.

    `after_seconds` None: nothing is left to wait for but an edit of the object.
    """

    status: SkyClusterStatus
    action: Action | None = None
    after_seconds: float | None = LATER_SECONDS
