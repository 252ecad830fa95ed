"""What may apply to an object, when, and how it shows: said apart from the rules, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from skyoperator.api.v1alpha1 import ConditionType, LaunchRecord, Phase, SkyCluster
from skyoperator.conditions import is_true
from skyoperator.decision import AddFinalizer, Decision, DeleteObject, Launch, RemoveFinalizer, TearDown
from skyoperator.judge import judge
from skyoperator.sky.types import Cluster, JobStatus
from skyoperator.world import World

from tests.unit.build import condition, inputs_of


@dataclass(frozen=True)
class Rank:
    """One row of the table of docs/design/states.md."""

    name: str
    applies: Callable[[SkyCluster, World], bool]
    shows: Callable[[SkyCluster, Decision], bool]


def _finished(this: SkyCluster) -> bool:
    return any(is_true(this.status.conditions, type_) for type_ in (ConditionType.COMPLETE, ConditionType.FAILED))


def _under_way(this: SkyCluster) -> LaunchRecord | None:
    launch = this.status.launch
    return None if launch is None or launch.ended_at is not None or _finished(this) else launch


def _is_reopened(this: SkyCluster, world: World) -> bool:
    launch = this.status.launch
    if launch is None or launch.has_run or not _finished(this) or not judge(this, world, inputs_of(this)).ok:
        return False
    before = this.status.observed_generation != this.generation and this.spec.task
    return bool(before) and (this.spec.task or {}) != {"resources": {"infra": "k8s"}}


def _is_overdue(this: SkyCluster, world: World) -> bool:
    start, seconds = this.status.start_time, this.spec.active_deadline_seconds
    return not _finished(this) and start is not None and seconds is not None and world.now >= start + timedelta(seconds=seconds)


def _is_lost(this: SkyCluster, world: World) -> bool:
    record = this.status.cluster
    known = record is not None and record.status != "TERMINATED"
    return known and world.server == "http://another" and this.confirmed_lost_at is not None


def _is_over_ttl(this: SkyCluster, world: World) -> bool:
    done, seconds = this.status.completion_time, this.spec.ttl_seconds_after_finished
    return _finished(this) and done is not None and seconds is not None and world.now >= done + timedelta(seconds=seconds)


def _is_unreachable(this: SkyCluster, world: World) -> bool:
    moved = world.server == "http://another" and this.status.cluster is not None and this.status.cluster.status != "TERMINATED"
    return world.reachable_since is None or moved


def _has_leftovers(this: SkyCluster, _world: World) -> bool:
    launch, cluster = this.status.launch, this.status.cluster
    return launch is not None and launch.ended_at is not None and cluster is not None and cluster.status != "TERMINATED"


def _has_job(this: SkyCluster, _world: World) -> bool:
    launch, job = _under_way(this), this.status.job
    return launch is not None and job is not None and (launch.has_run or job.status != JobStatus.SUCCEEDED)


def _is_launched(this: SkyCluster, _world: World) -> bool:
    launch = _under_way(this)
    return launch is not None and launch.finished_at is None


def _is_plain(this: SkyCluster, world: World) -> bool:
    launch = _under_way(this)
    return launch is not None and launch.finished_at is not None and not _has_job(this, world)


def _is_backing_off(this: SkyCluster, world: World) -> bool:
    due = this.status.failures.next_retry_time if this.status.failures else None
    return _under_way(this) is None and due is not None and world.now < due


def _is_refused(this: SkyCluster, world: World) -> bool:
    return _under_way(this) is None and not judge(this, world, inputs_of(this)).ok


def _has_no_slot(this: SkyCluster, world: World) -> bool:
    return _under_way(this) is None and not world.may_launch and not isinstance(world.cluster, Cluster)


def _same_records(this: SkyCluster, decision: Decision) -> bool:
    before, now = this.status, decision.status
    return (now.launch, now.job, now.failures, now.cluster) == (before.launch, before.job, before.failures, before.cluster)


def _launches_nothing_new(this: SkyCluster, decision: Decision) -> bool:
    before, now = this.status.launch, decision.status.launch
    return before is not None and now is not None and before.attempt == now.attempt and not isinstance(decision.action, TearDown)


def _ended(decision: Decision) -> bool:
    return decision.status.launch is None or decision.status.launch.ended_at is not None


def _waits(this: SkyCluster, decision: Decision) -> bool:
    return decision.action is None and _same_records(this, decision)


RANKS: Final = (
    Rank(
        "abandon",
        lambda this, world: this.abandoned,
        lambda this, d: _same_records(this, d) and d.action in {None, RemoveFinalizer(leaves_cluster=True)},
    ),
    Rank(
        "finalizer",
        lambda this, world: not this.finalizers and not this.deleting,
        lambda this, d: _same_records(this, d) and d.action == AddFinalizer(),
    ),
    Rank("confirm-lost", _is_lost, lambda this, d: d.status.cluster is not None and d.status.cluster.status == "TERMINATED"),
    Rank(
        "delete",
        lambda this, world: this.deleting,
        lambda this, d: isinstance(d.action, RemoveFinalizer | TearDown | None) and d.status.phase in {Phase.DELETING, None},
    ),
    Rank("ttl", _is_over_ttl, lambda this, d: d.action == DeleteObject()),
    Rank("edit after the end", _is_reopened, lambda this, d: _ended(d) and d.status.completion_time is None),
    Rank(
        "the end",
        lambda this, world: _finished(this),
        lambda this, d: d.status.launch == this.status.launch and d.status.completion_time == this.status.completion_time,
    ),
    Rank(
        "suspend",
        lambda this, world: this.spec.suspend,
        lambda this, d: _ended(d) and not isinstance(d.action, Launch) and d.status.start_time is None and d.status.failures is None,
    ),
    Rank("deadline", _is_overdue, lambda this, d: condition(d.status, ConditionType.FAILED) == ("True", "DeadlineExceeded")),
    Rank("unreachable", _is_unreachable, _waits),
    Rank("left-overs", _has_leftovers, lambda this, d: d.status.launch == this.status.launch and not isinstance(d.action, Launch)),
    Rank("job", _has_job, lambda this, d: _launches_nothing_new(this, d) and d.action is None and d.status.job is not None),
    Rank("launch", _is_launched, lambda this, d: d.status.launch is not None and not isinstance(d.action, TearDown)),
    Rank("plain cluster", _is_plain, lambda this, d: not isinstance(d.action, TearDown) and d.status.launch is not None),
    Rank("backoff", _is_backing_off, _waits),
    Rank("refusal", _is_refused, _waits),
    Rank("queue", _has_no_slot, _waits),
    Rank("new launch", lambda this, world: True, lambda this, d: d.status.launch is not None),
)
