"""Cancel, down, then two empty looks: how a cluster is made to be gone, and how that is known."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from skyoperator import records
from skyoperator.api.v1alpha1 import LaunchRecord, SkyCluster
from skyoperator.archiving import awaits_log
from skyoperator.decision import SOON_SECONDS, Decision, TearDown
from skyoperator.sky.types import Cluster
from skyoperator.task import Policy
from skyoperator.world import World

SETTLE_TIME: Final = timedelta(seconds=60)
"""How long a launch whose answer was lost may take to show up: SkyPilot's own client gives up on a POST after 5 s, and a loaded
server has been seen to take several times that."""

CONFIRM_SECONDS: Final = 10.0
"""Between the two empty looks that prove a cluster gone: CANCELLED is written while the worker is only being signalled
(sky/server/requests/requests.py, _kill_requests), so one look may be too early."""


def tear_down(this: SkyCluster, world: World, policy: Policy) -> Decision | None:
    """Return the next step towards a cluster that is gone, or None once it is confirmed gone.

    Requests first, rows second. One look, or an answer ClusterDoesNotExist, proves nothing. Before the first step the log process has its
    moment.
    """
    if world.active is None or world.cluster is None:
        return Decision(this.status)
    status = records.with_cluster(this.status, world)
    if not world.active and awaits_log(this, world, policy):
        return Decision(status, None, SOON_SECONDS)
    others = tuple(request.id for request in world.active if request.name != "down")
    is_going_down = len(others) < len(world.active)
    wants_down_now = not is_going_down and (bool(others) or isinstance(world.cluster, Cluster))
    if others or (wants_down_now and world.may_down):
        return Decision(status, TearDown(records.cluster_name(this), others, wants_down_now), SOON_SECONDS)
    if is_gone(world) and _is_answered(this.status.launch, world):
        return None
    return Decision(status, None, SOON_SECONDS)


def is_gone(world: World) -> bool:
    """Return whether the cluster was looked for twice, some time apart, and not found."""
    return world.empty_seconds >= CONFIRM_SECONDS


def is_settled(launch: LaunchRecord, world: World) -> bool:
    """Return whether a launch whose answer was lost had its time to show up on a server that answers."""
    if world.reachable_since is None:
        return False
    since = max(launch.requested_at, world.reachable_since, world.acted_at or launch.requested_at)
    return world.now - since >= SETTLE_TIME


def nothing_to_tear_down(this: SkyCluster, world: World) -> bool:
    """Without an attempt nothing was ever asked of SkyPilot, unless our status was wiped: so SkyPilot must have said so once too."""
    if records.is_terminated(this.status):
        return True
    if this.status.launch is not None:
        return False
    if isinstance(world.cluster, Cluster):
        return world.cluster.uid_label != this.uid
    if world.cluster is None or world.active is None:
        return records.is_known_absent(this.status)
    return not world.active


def _is_answered(launch: LaunchRecord | None, world: World) -> bool:
    """Whether no launch of ours can still be on its way to the server."""
    return launch is None or launch.request_id is not None or launch.finished_at is not None or is_settled(launch, world)
