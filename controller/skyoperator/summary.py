"""What people and GitOps tools read off an object: phase, Ready, Reconciling, Stalled and the rest, derived from the records.

Nothing here is ever read back to decide something. Reconciling and Stalled are never True together, so that kstatus finds one
answer: InProgress, Failed or Current (https://github.com/kubernetes-sigs/cli-utils, pkg/kstatus).
"""

from __future__ import annotations

from dataclasses import dataclass

from skyoperator.api.v1alpha1 import ConditionType, Phase, Reason, SkyCluster, SkyClusterStatus
from skyoperator.conditions import Verdict, false, find, is_true, true, unknown, updated
from skyoperator.failures import bounded
from skyoperator.records import is_finished, is_set_up, is_terminated, wants_down
from skyoperator.world import ABSENT, World


@dataclass(frozen=True, slots=True)
class Accepted:
    """Whether the spec may be acted on, and if not, why."""

    reason: Reason
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it may."""
        return self.reason is Reason.TASK_ACCEPTED


def summarized(this: SkyCluster, status: SkyClusterStatus, world: World, accepted: Accepted) -> SkyClusterStatus:
    """Return the status with everything in it that is derived."""
    phase = phase_of(this, status, accepted)
    verdicts = [
        _accepted(accepted),
        _cluster_ready(status, world),
        *_end(status),
        _ready(phase, status, world, accepted),
        *_progress(phase, status, accepted),
    ]
    return status.model_copy(
        update={
            "observed_generation": this.generation,
            "phase": phase,
            "conditions": updated(status.conditions, verdicts, generation=this.generation, now=world.now),
        }
    )


def phase_of(this: SkyCluster, status: SkyClusterStatus, accepted: Accepted) -> Phase:
    """Return the one word for the state that the records describe."""
    if this.deleting:
        return Phase.DELETING
    if is_finished(status):
        return _phase_after_the_end(this, status)
    if status.launch is None:
        return Phase.PENDING if accepted.ok else Phase.FAILED
    if status.launch.finished_at is None:
        return Phase.LAUNCHING
    if status.launch.has_run:
        return Phase.RUNNING
    return Phase.READY if status.job is None or is_set_up(status) else Phase.LAUNCHING


def _phase_after_the_end(this: SkyCluster, status: SkyClusterStatus) -> Phase:
    if wants_down(this) and status.cluster is not None and not is_terminated(status):
        return Phase.STOPPING
    return Phase.SUCCEEDED if is_true(status.conditions, ConditionType.COMPLETE) else Phase.FAILED


def _accepted(accepted: Accepted) -> Verdict:
    verdict = true if accepted.ok else false
    return verdict(ConditionType.ACCEPTED, accepted.reason, accepted.message)


def _cluster_ready(status: SkyClusterStatus, world: World) -> Verdict:
    """A cluster that was confirmed gone stays so, whatever the server does: a finished object is silent through outages."""
    if is_terminated(status):
        return false(ConditionType.CLUSTER_READY, Reason.CLUSTER_ABSENT, "The cluster is gone.")
    if world.cluster is None:
        return unknown(ConditionType.CLUSTER_READY, Reason.SKYPILOT_UNREACHABLE, world.complaint)
    if world.cluster is ABSENT:
        return false(ConditionType.CLUSTER_READY, Reason.CLUSTER_ABSENT, "SkyPilot has no such cluster.")
    if world.is_up:
        return true(ConditionType.CLUSTER_READY, Reason.CLUSTER_UP)
    return false(ConditionType.CLUSTER_READY, Reason.CLUSTER_NOT_UP, f"SkyPilot's cluster is {world.cluster.status}.")


def _end(status: SkyClusterStatus) -> list[Verdict]:
    """Complete and Failed are there from the first write on, so that `kubectl wait` and scripts never miss them."""
    missing = [type_ for type_ in (ConditionType.COMPLETE, ConditionType.FAILED) if find(status.conditions, type_) is None]
    return [false(type_, Reason.NOT_FINISHED) for type_ in missing]


def _ready(phase: Phase, status: SkyClusterStatus, world: World, accepted: Accepted) -> Verdict:
    type_ = ConditionType.READY
    if phase is Phase.DELETING:
        return false(type_, Reason.DELETING, _deleting(status, world))
    if is_true(status.conditions, ConditionType.FAILED) and status.failures is not None and status.failures.reason is not None:
        return false(type_, Reason(status.failures.reason), status.failures.message or "")
    if not accepted.ok:
        return false(type_, accepted.reason, accepted.message)
    if is_true(status.conditions, ConditionType.COMPLETE):
        return true(type_, Reason.JOB_SUCCEEDED, "The job succeeded.")
    return _ready_on_the_way(phase, status, world)


def _deleting(status: SkyClusterStatus, world: World) -> str:
    """Say what holds the object; in an outage what was said before stays."""
    before = find(status.conditions, ConditionType.READY)
    if world.active is None and before is not None and before.reason == Reason.DELETING:
        return before.message
    if world.down_error:
        return f"SkyPilot could not take the cluster down, and is asked again: {bounded(world.down_error)}"
    return "The object is deleted once its cluster is confirmed gone."


def _ready_on_the_way(phase: Phase, status: SkyClusterStatus, world: World) -> Verdict:
    type_ = ConditionType.READY
    if phase is Phase.RUNNING:
        return true(type_, Reason.RUNNING, f"Job {status.job.id} was submitted." if status.job else "")
    if phase is Phase.READY:
        before = find(status.conditions, type_)
        if world.cluster is None and before is not None:
            return Verdict(type_, before.status, Reason(before.reason), before.message)
        return true(type_, Reason.CLUSTER_UP) if world.is_up else false(type_, Reason.CLUSTER_NOT_UP, "The cluster is not up.")
    if phase is Phase.LAUNCHING and status.launch is not None:
        request = f"request {status.launch.request_id}" if status.launch.request_id else "a request not yet acknowledged"
        return false(type_, Reason.LAUNCHING, f"SkyPilot is launching the cluster (attempt {status.launch.attempt}, {request}).")
    return false(type_, Reason.PENDING, "Not handed to SkyPilot yet.")


def _progress(phase: Phase, status: SkyClusterStatus, accepted: Accepted) -> tuple[Verdict, Verdict]:
    """Return kstatus' pair: work under way, or work that will not go on without somebody's help."""
    stalled = not accepted.ok or is_true(status.conditions, ConditionType.FAILED)
    busy = phase in {Phase.PENDING, Phase.LAUNCHING, Phase.STOPPING, Phase.DELETING}
    if phase is Phase.DELETING or (busy and not stalled):
        return true(ConditionType.RECONCILING, Reason(phase)), false(ConditionType.STALLED, Reason.SETTLED)
    if stalled:
        why = Reason(status.failures.reason) if status.failures and status.failures.reason and accepted.ok else accepted.reason
        return false(ConditionType.RECONCILING, Reason.SETTLED), true(ConditionType.STALLED, why)
    return false(ConditionType.RECONCILING, Reason.SETTLED), false(ConditionType.STALLED, Reason.SETTLED)
