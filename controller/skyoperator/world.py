"""What SkyPilot looks like from one object, as plain values.

Three words must never be mixed up, or an API server that is away looks like a cluster that is gone: a value is what was seen,
`ABSENT` is a thing that was looked for and is not there, `None` is not known right now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Literal, TypeAlias

from skyoperator.sky.types import Cluster, ClusterStatus, Job, Launched, Request, RequestError


class Absence(Enum):
    """The type of ABSENT."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT
Absent: TypeAlias = Literal[Absence.ABSENT]


@dataclass(frozen=True, slots=True)
class World:
    """One look at SkyPilot on behalf of one object, taken before deciding."""

    now: datetime
    server: str
    """Which API server it is; empty while not known. See docs/design/server-identity.md."""
    reachable_since: datetime | None = None
    """Since when the server has answered every look; None while it does not."""
    acted_at: datetime | None = None
    """When this process last asked SkyPilot to change the cluster."""
    cluster: Cluster | Absent | None = None
    active: tuple[Request, ...] | None = None
    """The requests on this cluster that the server may still act on."""
    launch: Request | Absent | None = None
    """The request that status.launch names."""
    outcome: Launched | RequestError | None = None
    """The result of that request, once it has finished."""
    attempt: Request | Absent | None = None
    """A launch request whose task bears exactly the name of our attempt; looked for only while status.launch names no request."""
    queue_was_read: bool = False
    """Whether the queue was read, well or not, since the cluster came up and since we last acted on it."""
    jobs: tuple[Job, ...] | None = None
    """The cluster's queue; None while it can't be read."""
    endpoints: Mapping[str, str] | None = None
    """Where each open port of what status.launch brought up is reached; None while that was not asked, or is not to be."""
    empty_seconds: float = 0.0
    """Between the first and the last look of an unbroken row of looks that found neither an active request nor a row of this cluster."""
    job_words: str = ""
    """What the job's log says of its end."""
    down_error: str = ""
    """Why our last /down failed, if it did."""
    may_down: bool = True
    """Whether it is time to ask for /down again."""
    may_launch: bool = True
    """Whether a launch may be sent now; False for one that wants to and is in line (admission.py)."""
    is_elsewhere: bool = False
    """Whether the cluster is on another server than the one that we talk to."""
    complaint: str = ""
    """Why the cluster is not known, for people."""

    @property
    def is_up(self) -> bool:
        """Whether the cluster was seen to be UP."""
        return isinstance(self.cluster, Cluster) and self.cluster.status is ClusterStatus.UP
