"""What people and GitOps tools read off an object: phase, Ready, Reconciling, Stalled and the rest, derived from the records.

Nothing here is ever read back to decide something. Reconciling and Stalled are never True together, so that kstatus finds one
answer: InProgress, Failed or Current (https://github.com/kubernetes-sigs/cli-utils, pkg/kstatus).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from skyoperator.api.v1alpha1 import ConditionType, FailuresRecord, LaunchRecord, Phase, Reason, SkyCluster, SkyClusterStatus
from skyoperator.archiving import with_log
from skyoperator.conditions import Verdict, false, find, is_true, true, unknown, updated
from skyoperator.failures import bounded
from skyoperator.inputs import Accepted, Order, is_edited
from skyoperator.jobs import called
from skyoperator.outcomes import end_reason, wants_down
from skyoperator.records import is_clear, is_finished, is_idle_too_long, is_over, is_plain, is_terminated, is_up
from skyoperator.world import ABSENT, World

BUSY: Final = frozenset({Phase.PENDING, Phase.QUEUED, Phase.LAUNCHING, Phase.STOPPING, Phase.DELETING})


def summarized(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> SkyClusterStatus:
    """Return the status with everything in it that is derived."""
    phase = phase_of(this, status, world, order)
    verdicts = [
        _accepted(order.accepted),
        _cluster_ready(this, status, world, order),
        *_end(status),
        _suspended(phase),
        _ready(this, phase, status, world, order.accepted),
        *_progress(this, phase, status, order.accepted),
    ]
    return status.model_copy(
        update={
            "observed_generation": this.generation,
            "phase": phase,
            "job": with_log(this, status, order.inputs.policy),
            "conditions": updated(status.conditions, verdicts, generation=this.generation, now=world.now),
        }
    )


def phase_of(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Phase:
    """Return the one word for the state that the records describe; of an abandoned object it is the last one that was known."""
    if this.deleting:
        return Phase.DELETING
    if this.abandoned and status.phase is not None:
        return status.phase
    if is_finished(status):
        return _phase_after_the_end(this, status, world, order)
    if this.spec.suspend:
        return _phase_while_suspended(status, world)
    if status.launch is None or is_over(status):
        return _phase_before_a_launch(status, world, order.accepted)
    return _phase_of_launch(this, status, status.launch, world, order.accepted)


def _phase_while_suspended(status: SkyClusterStatus, world: World) -> Phase:
    """What never had a launch may have had one before its status was wiped: that nothing runs must have been seen once."""
    if status.launch is not None:
        return Phase.SUSPENDED if is_clear(status) and status.start_time is None else Phase.STOPPING
    was_seen = is_true(status.conditions, ConditionType.SUSPENDED) or (world.cluster is ABSENT and world.active == ())
    return Phase.SUSPENDED if was_seen else Phase.PENDING


def _phase_of_launch(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World, accepted: Accepted) -> Phase:
    """A cluster whose edit waits to be launched onto it is not what the spec asks for yet."""
    if launch.finished_at is not None and launch.has_run:
        return Phase.RUNNING
    if not is_up(status):
        return Phase.LAUNCHING
    awaits_edit = accepted.ok and is_edited(this.model_copy(update={"status": status}))
    return _phase_in_line(status, world) if awaits_edit else Phase.READY


def _phase_before_a_launch(status: SkyClusterStatus, world: World, accepted: Accepted) -> Phase:
    if not is_clear(status):
        return Phase.STOPPING
    return _phase_in_line(status, world) if accepted.ok else Phase.FAILED


def _phase_in_line(status: SkyClusterStatus, world: World) -> Phase:
    """In an outage nobody can tell whether there is a slot: what was said before stays."""
    if world.active is None:
        return Phase.QUEUED if status.phase is Phase.QUEUED else Phase.PENDING
    is_due = status.failures is None or status.failures.next_retry_time is None or status.failures.next_retry_time <= world.now
    return Phase.QUEUED if is_due and not world.may_launch else Phase.PENDING


def _phase_after_the_end(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Phase:
    is_going = not is_terminated(status) and status.cluster is not None
    if is_going and wants_down(this, status, order.inputs.policy, world.now):
        return Phase.STOPPING
    return Phase.SUCCEEDED if is_true(status.conditions, ConditionType.COMPLETE) else Phase.FAILED


def _accepted(accepted: Accepted) -> Verdict:
    verdict = true if accepted.ok else false
    return verdict(ConditionType.ACCEPTED, accepted.reason, accepted.message)


def _cluster_ready(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Verdict:
    """A cluster that was confirmed gone stays so, whatever the server does: a finished object is silent through outages."""
    type_ = ConditionType.CLUSTER_READY
    if is_terminated(status):
        return _cluster_gone(this, status, world, order)
    if this.abandoned:
        return unknown(type_, Reason.ABANDONED, "The object was abandoned: SkyPilot is not asked about its cluster any more.")
    if order.accepted.reason is Reason.NAME_CONFLICT and world.cluster is not None:
        return false(type_, Reason.CLUSTER_ABSENT, "SkyPilot's cluster of that name is not this object's.")
    return _before_a_launch(status, world) if status.launch is None else _as_seen(world)


def _before_a_launch(status: SkyClusterStatus, world: World) -> Verdict:
    """Say that SkyPilot has nothing once that was seen, and ever after; a launch that shows was ours before our status was wiped."""
    if before := _stays(status, ConditionType.CLUSTER_READY, world, because=Reason.CLUSTER_ABSENT):
        return before
    if world.cluster is ABSENT and world.active:
        return false(ConditionType.CLUSTER_READY, Reason.CLUSTER_NOT_UP, "SkyPilot is at work on a cluster of this object's name.")
    return _as_seen(world)


def _cluster_gone(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Verdict:
    """Say why when it is found to be gone, and say the same ever after."""
    before = _said(status, ConditionType.CLUSTER_READY)
    if is_terminated(this.status) and before is not None:
        return before
    stopped = is_idle_too_long(this.model_copy(update={"status": status}), order.inputs.policy, world.now)
    return false(ConditionType.CLUSTER_READY, Reason.AUTOSTOPPED if stopped else Reason.CLUSTER_ABSENT, "The cluster is gone.")


def _as_seen(world: World) -> Verdict:
    type_ = ConditionType.CLUSTER_READY
    if world.cluster is None:
        return unknown(type_, Reason.SKYPILOT_UNREACHABLE, world.complaint)
    if world.cluster is ABSENT:
        return false(type_, Reason.CLUSTER_ABSENT, "SkyPilot has no such cluster.")
    if world.down_error:
        return (true if world.is_up else false)(type_, Reason.DOWN_FAILED, _going_down(world))
    if world.is_up:
        return true(type_, Reason.CLUSTER_UP)
    return false(type_, Reason.CLUSTER_NOT_UP, f"SkyPilot's cluster is {world.cluster.status}.")


def _end(status: SkyClusterStatus) -> list[Verdict]:
    """Complete and Failed are there from the first write on, and speak of the spec as it stands: `kubectl wait` takes no older word."""
    return [_said(status, type_) or false(type_, Reason.NOT_FINISHED) for type_ in (ConditionType.COMPLETE, ConditionType.FAILED)]


def _suspended(phase: Phase) -> Verdict:
    if phase is Phase.SUSPENDED:
        return true(ConditionType.SUSPENDED, Reason.SUSPENDED, "Nothing runs. With spec.suspend false it is launched anew.")
    return false(ConditionType.SUSPENDED, Reason.NOT_SUSPENDED)


def _ready(this: SkyCluster, phase: Phase, status: SkyClusterStatus, world: World, accepted: Accepted) -> Verdict:
    type_ = ConditionType.READY
    if this.abandoned:
        return false(type_, Reason.ABANDONED, "SkyPilot is not asked anything any more. The object can be deleted; its cluster stays.")
    if phase is Phase.DELETING:
        return false(type_, Reason.DELETING, _deleting(status, world))
    failed = find(status.conditions, ConditionType.FAILED)
    if failed is not None and is_true(status.conditions, ConditionType.FAILED):
        return false(type_, Reason(failed.reason), failed.message)
    if not accepted.ok and not _is_done_with(status):
        return false(type_, accepted.reason, accepted.message)
    complete = find(status.conditions, ConditionType.COMPLETE)
    if complete is not None and is_true(status.conditions, ConditionType.COMPLETE):
        return true(type_, Reason(complete.reason), complete.message)
    return _ready_on_the_way(this, phase, status, world)


def _is_done_with(status: SkyClusterStatus) -> bool:
    """Whether the end stands, as a Job's in batch/v1. A plain cluster is wanted again by an edit, and is stuck if that is refused."""
    return is_finished(status) and not is_plain(status)


def _said(status: SkyClusterStatus, type_: ConditionType) -> Verdict | None:
    """Return what the condition says so far."""
    found = find(status.conditions, type_)
    return None if found is None else Verdict(type_, found.status, Reason(found.reason), found.message)


def _stays(status: SkyClusterStatus, type_: ConditionType, world: World, *, because: Reason | None = None) -> Verdict | None:
    """Return what the condition says so far, for whichever or for this reason, if nothing is known right now: in an outage that stays."""
    before = _said(status, type_) if world.cluster is None else None
    return before if before is not None and because in {None, before.reason} else None


def _deleting(status: SkyClusterStatus, world: World) -> str:
    """Say what holds the object."""
    if before := _stays(status, ConditionType.READY, world, because=Reason.DELETING):
        return before.message
    if world.down_error:
        return _going_down(world)
    return "The object is deleted once its cluster is confirmed gone."


def _going_down(world: World) -> str:
    if world.down_error:
        return f"SkyPilot could not take the cluster down, and is asked again: {bounded(world.down_error)}"
    return "The cluster is being taken down."


def _ready_on_the_way(this: SkyCluster, phase: Phase, status: SkyClusterStatus, world: World) -> Verdict:
    type_ = ConditionType.READY
    match phase:
        case Phase.RUNNING:
            return true(type_, Reason.RUNNING, f"{called(status.job.id).capitalize()} was submitted." if status.job else "")
        case Phase.READY:
            return _ready_cluster(status, world)
        case Phase.SUSPENDED:
            return true(type_, Reason.SUSPENDED, "Nothing runs, as asked.")
        case _:
            return _not_ready_yet(this, phase, status, world)


def _not_ready_yet(this: SkyCluster, phase: Phase, status: SkyClusterStatus, world: World) -> Verdict:
    type_ = ConditionType.READY
    if phase is Phase.LAUNCHING and status.launch is not None:
        request = f"request {status.launch.request_id}" if status.launch.request_id else "a request not yet acknowledged"
        return false(type_, Reason.LAUNCHING, f"SkyPilot is launching the cluster (attempt {status.launch.attempt}, {request}).")
    if phase is Phase.QUEUED:
        return false(type_, Reason.QUEUED, "Waiting until SkyPilot has fewer launches under way.")
    if status.failures is not None and status.failures.next_retry_time is not None and status.failures.reason is not None:
        return false(type_, Reason(status.failures.reason), _next_try(this, status.failures, status.failures.next_retry_time))
    if phase is Phase.STOPPING:
        return _stays(status, type_, world, because=Reason.STOPPING) or false(type_, Reason.STOPPING, _going_down(world))
    return false(type_, Reason.PENDING, "Not handed to SkyPilot yet.")


def _ready_cluster(status: SkyClusterStatus, world: World) -> Verdict:
    if before := _stays(status, ConditionType.READY, world):
        return before
    if world.is_up:
        return true(ConditionType.READY, Reason.CLUSTER_UP)
    return false(ConditionType.READY, Reason.CLUSTER_NOT_UP, "The cluster is not up.")


def _next_try(this: SkyCluster, failures: FailuresRecord, when: datetime) -> str:
    return f"{failures.message} To be launched again at {when:%Y-%m-%dT%H:%M:%SZ} (retry {failures.count} of {this.spec.backoff_limit})."


def _progress(this: SkyCluster, phase: Phase, status: SkyClusterStatus, accepted: Accepted) -> tuple[Verdict, Verdict]:
    """Return kstatus' pair: work under way, or work that will not go on without somebody's help."""
    settled = false(ConditionType.RECONCILING, Reason.SETTLED), false(ConditionType.STALLED, Reason.SETTLED)
    why = _stuck(this, status, accepted)
    if phase is Phase.DELETING or (phase in BUSY and why is None):
        return true(ConditionType.RECONCILING, Reason(phase)), settled[1]
    return settled if why is None else (settled[0], true(ConditionType.STALLED, why))


def _stuck(this: SkyCluster, status: SkyClusterStatus, accepted: Accepted) -> Reason | None:
    if this.abandoned:
        return Reason.ABANDONED
    if not accepted.ok and not _is_done_with(status):
        return accepted.reason
    return Reason(end_reason(status) or Reason.SKYPILOT_ERROR) if is_true(status.conditions, ConditionType.FAILED) else None
