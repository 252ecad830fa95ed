"""The rules that end something: the object, its cluster, or one attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from skyoperator import outcomes, records
from skyoperator.api.v1alpha1 import FINALIZER, LaunchRecord, Reason, SkyCluster
from skyoperator.decision import LATER_SECONDS, CancelJob, Decision, DeleteObject, RemoveFinalizer, TearDown
from skyoperator.failures import Failure
from skyoperator.following import idleness, with_backstop
from skyoperator.inputs import Order, is_edited
from skyoperator.jobs import own_job
from skyoperator.teardown import is_gone, nothing_to_tear_down, tear_down
from skyoperator.world import World


def abandoned(this: SkyCluster, _world: World, _order: Order) -> Decision | None:
    """What the user gave up on is let go of; SkyPilot is not asked anything any more. For a server that is gone for good."""
    if not this.abandoned:
        return None
    return Decision(this.status, RemoveFinalizer(leaves_cluster=True) if FINALIZER in this.finalizers else None, None)


def deleting(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """A deleted object goes when its cluster is confirmed gone, or at once if there is none or it is to be orphaned.

    That SkyPilot was asked to take it down is written down first: an Orphan that comes after that comes too late.
    """
    if not this.deleting:
        return None
    if FINALIZER not in this.finalizers:
        return Decision(this.status, None, None)
    if this.spec.deletion_policy == "Orphan" and not _is_to_go(this, world, order):
        return Decision(this.status, RemoveFinalizer(leaves_cluster=True), None)
    if nothing_to_tear_down(this, world):
        return Decision(this.status, RemoveFinalizer(), None)
    step = tear_down(this, world, order.inputs.policy)
    if step is None:
        return Decision(records.torn_down(this.status), RemoveFinalizer(), None)
    return replace(step, status=records.given_up(step.status, world.now)) if isinstance(step.action, TearDown) else step


def _is_to_go(this: SkyCluster, world: World, order: Order) -> bool:
    """Whether the cluster was to go before anybody spoke of Orphan, which lets go only of one that was to stay: whole, never half down."""
    if records.is_finished(this.status):
        return outcomes.wants_down(this, this.status, order.inputs.policy, world.now)
    return records.is_over(this.status) or (this.spec.suspend and this.status.launch is not None)


def expired(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """A finished object is deleted when its time to live is over, as batch/v1's Job (KEP-592); deleting takes its cluster along."""
    ends = expiry(this)
    if ends is None or world.now < ends:
        return None
    return Decision(this.status, DeleteObject())


def expiry(this: SkyCluster) -> datetime | None:
    """Return when the object is to be deleted, or None if never."""
    ttl, done = this.spec.ttl_seconds_after_finished, this.status.completion_time
    return done + timedelta(seconds=ttl) if ttl is not None and done is not None and records.is_finished(this.status) else None


def reopened(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """A plain cluster that has come to its end and is edited is wanted again. A job never is: its edit is refused."""
    wanted_again = records.is_plain(this.status) and is_edited(this) and order.accepted.ok
    if not records.is_finished(this.status) or not wanted_again:
        return None
    return Decision(records.reopened(this, world.now), None, 0)


def finished(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """After the end: down with the cluster, or an eye on the one that is kept; then silence."""
    if not records.is_finished(this.status):
        return None
    if records.is_terminated(this.status):
        return Decision(this.status, None, None)
    if outcomes.wants_down(this, this.status, order.inputs.policy, world.now):
        return tear_down(this, world, order.inputs.policy) or Decision(records.torn_down(this.status), None, None)
    if is_gone(world):
        return Decision(records.torn_down(this.status), None, None)
    return _kept(this, world, order)


def _kept(this: SkyCluster, world: World, order: Order) -> Decision:
    """The cluster stays after its job. A job whose time was over is cancelled, and seen to end."""
    status, record = idleness(records.with_cluster(this.status, world), world), this.status.job
    if record is None or records.has_ended(record):
        return with_backstop(this, status, world, order)
    job = own_job(world.jobs or (), record.name)
    if job is None:
        return Decision(status)
    if job.status.terminal:
        return Decision(records.job_seen(status, record, job))
    return Decision(status, CancelJob(records.cluster_name(this), job.id))


def suspended(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """As batch/v1's Job: nothing runs while the object is suspended, and what comes after begins anew."""
    if not this.spec.suspend:
        return None
    status = records.suspended(this.status, world.now)
    if status != this.status:
        return Decision(status, None, 0)
    if nothing_to_tear_down(this, world):
        was_seen = status.launch is not None or world.cluster is not None
        return Decision(status, None, None if was_seen else LATER_SECONDS)
    return tear_down(this, world, order.inputs.policy) or Decision(records.torn_down(status), None, None)


def past_deadline(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """An object whose time is over fails for good, recorded also while the server is away (batch/v1: pastActiveDeadline)."""
    for ends, field, seconds in deadlines(this):
        if world.now >= ends:
            return Decision(outcomes.overdue(this, f"The time of {field} ({seconds} s) is over.", world.now), None, 0)
    return None


def deadlines(this: SkyCluster) -> list[tuple[datetime, str, int]]:
    """Return the deadlines that apply now: when, of which field, how many seconds it has."""
    status, spec = this.status, this.spec
    found = []
    if status.start_time is not None and spec.active_deadline_seconds is not None:
        found.append((status.start_time, "activeDeadlineSeconds", spec.active_deadline_seconds))
    launch = status.launch
    if (
        launch is not None
        and launch.started_at is not None
        and spec.pre_running_deadline_seconds is not None
        and not _has_run(this, launch)
    ):
        found.append((launch.started_at, "preRunningDeadlineSeconds", spec.pre_running_deadline_seconds))
    return [(since + timedelta(seconds=seconds), field, seconds) for since, field, seconds in found]


def _has_run(this: SkyCluster, launch: LaunchRecord) -> bool:
    """Whether the launch has come to where preRunningDeadlineSeconds no longer applies."""
    if launch.ended_at is not None or records.is_up(this.status):
        return True
    return launch.has_run and this.status.job is not None and this.status.job.started_at is not None


def clear_away(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """An attempt that is over leaves nothing behind: its cluster is confirmed gone before anything else is launched."""
    if not records.is_over(this.status) or records.is_terminated(this.status):
        return None
    return tear_down(this, world, order.inputs.policy) or Decision(records.torn_down(this.status), None, 0)


def confirmed_lost(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """A cluster on a server that is no more is gone when somebody who looked says so, by an annotation newer than the launch.

    It must be newer than the last that was seen of the cluster, too: a word on an earlier loss is none on this one.
    """
    launch, said = this.status.launch, this.confirmed_lost_at
    if not world.is_elsewhere or launch is None or said is None:
        return None
    if said < max(launch.requested_at, records.unknown_since(this.status) or world.now):
        return None
    status = records.torn_down(this.status)
    if this.deleting or records.is_finished(status) or records.is_over(status):
        return Decision(status, None, 0)
    words = f"Cluster {records.cluster_name(this)} was confirmed lost, with the server that had it."
    return Decision(outcomes.failed(this, status, Failure(Reason.CLUSTER_LOST, words), world.now), None, 0)
