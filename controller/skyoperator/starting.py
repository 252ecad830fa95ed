"""The rules that start something: each asks for a reason not to, the last one starts it."""

from __future__ import annotations

from typing import Final

from skyoperator import records
from skyoperator.api.v1alpha1 import FINALIZER, Reason, SkyCluster
from skyoperator.decision import LATER_SECONDS, AddFinalizer, Decision
from skyoperator.following import send
from skyoperator.inputs import Order
from skyoperator.sky.types import Cluster
from skyoperator.world import World

IN_LINE_SECONDS: Final = 600.0
"""Between two looks of an object that is in line: it is woken when its turn comes."""

HEALS_BY_ITSELF = frozenset({Reason.NAME_CONFLICT, Reason.SECRET_NOT_FOUND})
"""What is not accepted now, and may be without an edit of the object."""


def guard(this: SkyCluster, _world: World, _order: Order) -> Decision | None:
    """Nothing is started before our finalizer is seen on a fresh read; else a delete could pass us by and leak the cluster."""
    if this.deleting or FINALIZER in this.finalizers:
        return None
    return Decision(this.status, AddFinalizer(), 0)


def retry_later(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """After a failure the next launch waits; the time is in the status, so that no restart makes it earlier or later."""
    due = this.status.failures.next_retry_time if this.status.failures else None
    if due is None or world.now >= due:
        return None
    return Decision(this.status, None, (due - world.now).total_seconds())


def rejected(this: SkyCluster, _world: World, order: Order) -> Decision | None:
    """What is not accepted is not launched; an edit heals it, or a change of what it refers to."""
    if order.accepted.ok:
        return None
    refers = bool(this.spec.task_ref or this.spec.secrets)
    heals = refers or order.accepted.reason in HEALS_BY_ITSELF
    return Decision(this.status, None, LATER_SECONDS if heals else None)


def queued(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """The queue lives in the objects: no more launches are posted than SkyPilot's workers take in reasonable time."""
    if world.may_launch or _is_there_already(world):
        return None
    return Decision(this.status, None, IN_LINE_SECONDS)


def submit(this: SkyCluster, world: World, order: Order) -> Decision:
    """Write the attempt down, then send it. If our status was wiped and SkyPilot shows our cluster, only write it down: adopt."""
    if _is_there_already(world) and this.status.launch is not None:
        return Decision(records.with_cluster(this.status, world), None, 0)
    status = records.written_down(this, world, order.inputs)
    if _is_there_already(world):
        return Decision(status, None, 0)
    return send(this, status)


def _is_there_already(world: World) -> bool:
    """Whether there is a row, or a request, though none of ours should be."""
    return isinstance(world.cluster, Cluster) or bool(world.active)
