"""One look at everything: two calls, whatever the number of objects."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

from skyoperator.sky.types import Cluster, Request, SkyPilot, SkyPilotError, SkyPilotRejectsUs
from skyoperator.world import ABSENT, Absent

logger = logging.getLogger(__name__)

UNBROKEN_SECONDS: Final = 30.0
"""A longer pause between two looks starts `reachable_since` anew: nobody knows what the server did meanwhile."""

ACTING: Final = frozenset({"launch", "exec", "start", "stop", "down", "autostop"})
"""Requests that can change a cluster. Reading ones, our own /queue above all, come and go under the same cluster's name."""


View: TypeAlias = tuple[tuple[Request, ...] | None, Cluster | Absent | None]
"""What a look shows of one cluster: its active requests and its row."""
UNKNOWN: Final[View] = (None, None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was seen. `active` and `clusters` are None when the server did not answer."""

    taken_at: float
    """When the look began, by the monotonic clock, in seconds."""
    ended_at: float = -1.0
    reachable_since: datetime | None = None
    active: dict[str, tuple[Request, ...]] | None = None
    clusters: dict[str, Cluster] | None = None
    complaint: str = ""
    launches: int = 0
    """How many launches are active, of whichever cluster and user."""
    rejects_us: bool = False
    """Whether a server answered that takes none of our credentials."""
    server: str = ""
    """Which server answered; asked anew after each break, for another may answer then."""

    @property
    def is_outage(self) -> bool:
        """Whether the server was asked and did not answer."""
        return self.active is None and self.taken_at >= 0

    def requests_of(self, name: str) -> tuple[Request, ...] | None:
        """Return the cluster's active requests; None if not known."""
        return None if self.active is None else self.active.get(name, ())

    def cluster(self, name: str) -> Cluster | Absent | None:
        """Return the cluster's row, ABSENT if there is none, None if not known."""
        return None if self.clusters is None else self.clusters.get(name, ABSENT)


NOTHING_YET: Final = Snapshot(taken_at=-1.0, complaint="SkyPilot has not been asked yet.")


async def take(sky: SkyPilot, previous: Snapshot, now: datetime) -> Snapshot:
    """Return a new look. Raises nothing: a server that does not answer, or answers nonsense, makes a look that knows nothing.

    Requests first, rows second: a launch that ends in between is then seen in one or the other.
    """
    taken_at = monotonic()
    unbroken = previous.reachable_since is not None and taken_at - previous.ended_at <= UNBROKEN_SECONDS
    try:
        server = previous.server if unbroken else await sky.identity()
        active = await sky.active_requests()
        clusters = await sky.clusters()
    except SkyPilotError as error:
        return _unknown(taken_at, previous, str(error), rejects_us=isinstance(error, SkyPilotRejectsUs))
    except Exception as error:  # noqa: BLE001 - an answer that nobody thought of must not end the poller
        return _unknown(taken_at, previous, f"SkyPilot's answer makes no sense: {error!r}", error)
    if previous.is_outage:
        logger.info("SkyPilot answers again")
    since = previous.reachable_since if unbroken else now
    return Snapshot(
        taken_at,
        monotonic(),
        since,
        _by_cluster(active),
        {cluster.name: cluster for cluster in clusters},
        launches=sum(request.name == "launch" for request in active),
        server=server,
    )


def monotonic() -> float:
    """Return the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


def _unknown(taken_at: float, previous: Snapshot, complaint: str, bug: Exception | None = None, *, rejects_us: bool = False) -> Snapshot:
    """An outage keeps its first complaint: its wording changes from look to look, and would be written to every object each time.

    Only that somebody answers who does not know us is news: a server that comes back empty is first away, then a stranger.
    """
    if previous.is_outage and previous.rejects_us == rejects_us:
        complaint = previous.complaint
    else:
        logger.warning("SkyPilot does not answer: %s", complaint, exc_info=bug)
    return Snapshot(taken_at, monotonic(), complaint=complaint, rejects_us=rejects_us)


def _by_cluster(requests: tuple[Request, ...]) -> dict[str, tuple[Request, ...]]:
    by_cluster: dict[str, tuple[Request, ...]] = {}
    for request in requests:
        name = request.cluster_name
        if name is not None and request.name in ACTING:
            by_cluster[name] = (*by_cluster.get(name, ()), replace(request, status_msg=""))
    return by_cluster
