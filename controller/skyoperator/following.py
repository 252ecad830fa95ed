"""The rules for what was launched: its request, its job, its cluster, until one of them ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from skyoperator import failures, outcomes, records
from skyoperator.api.v1alpha1 import JobRecord, LaunchRecord, Reason, SkyCluster, SkyClusterStatus
from skyoperator.decision import CALM_SECONDS, LATER_SECONDS, SOON_SECONDS, Decision, Launch, SetAutostop
from skyoperator.inputs import Order, backstop_minutes, is_edited
from skyoperator.jobs import called, own_job
from skyoperator.judge import judge_inputs
from skyoperator.sky.types import Cluster, ClusterStatus, Job, JobStatus, Launched, Request, RequestError
from skyoperator.task import cluster_digest
from skyoperator.teardown import is_gone, is_settled
from skyoperator.world import ABSENT, World

UNHEALTHY_TIME: Final = timedelta(seconds=130)
"""How long SkyPilot must have found a cluster broken before it counts as lost. It looks at each once a minute, so that this is two looks in
a row: the first may be a node too busy to answer. A row whose node is really gone was never seen to become UP again."""

REMEMBERED_TIME: Final = timedelta(hours=20)
"""SkyPilot forgets requests after 24 h (api_server.requests_retention_hours): well before that the absence of one proves little."""

JOB_UNKNOWN_TIME: Final = timedelta(seconds=600)
"""How long a job may be unreadable on a cluster that is not UP before the cluster counts as lost. SkyPilot refreshes rows every
60 s by itself (sky/server/daemons.py:545), so the row is fresh by then."""


def unreachable(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """A server that is away changes nothing but ClusterReady: it is never taken for a cluster that is gone."""
    if world.reachable_since is not None and world.cluster is not None and world.active is not None:
        return None
    return Decision(this.status)


def follow_job(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """The job's end is the object's end: Complete or Failed, in SkyPilot's words."""
    record = this.status.job
    if record is None or records.is_over(this.status) or records.is_set_up(this.status):
        return None
    status = records.with_cluster(this.status, world)
    job = own_job(world.jobs or (), record.name)
    if job is not None and job.status is not JobStatus.UNKNOWN:
        return _job_seen(this, records.job_seen(status, record, job), job, world, order)
    if world.is_up and not world.queue_was_read:
        return Decision(status)
    if is_gone(world) or _is_broken(status, world) or _is_given_up(record, world):
        return Decision(outcomes.failed(this, status, _loss(this, record, world), world.now), None, 0)
    return Decision(records.job_unseen(status, record, world.now))


def _job_seen(this: SkyCluster, status: SkyClusterStatus, job: Job, world: World, order: Order) -> Decision:
    if job.status is JobStatus.SUCCEEDED and not records.has_run(this):
        return Decision(records.forgiven(status), None, 0)
    if job.status is JobStatus.SUCCEEDED:
        return Decision(outcomes.completed(this, status, world.now), None, 0)
    if job.status.terminal:
        failure = failures.of_job(job.id, job.status, world.job_words)
        return Decision(outcomes.failed(this, status, failure, world.now), None, 0)
    decision = with_backstop(this, status, world, order)
    is_calm = job.status is JobStatus.RUNNING and world.is_up and decision.action is None
    return replace(decision, after_seconds=CALM_SECONDS) if is_calm else decision


def _is_given_up(record: JobRecord, world: World) -> bool:
    """A queue that could not be read for long on a cluster that is not UP, or that was read all the time and lacks our job.

    Time in which we could not look does not count: after an outage SkyPilot's own rows may be stale for a while.
    """
    if record.unknown_since is None or world.reachable_since is None or (world.is_up and world.jobs is None):
        return False
    return world.now - max(record.unknown_since, world.reachable_since) >= JOB_UNKNOWN_TIME


def _is_broken(status: SkyClusterStatus, world: World) -> bool:
    """Whether SkyPilot keeps a row of the cluster, and has found it unhealthy, or left it half launched, for long enough.

    Neither row ever goes by itself.
    """
    since = status.cluster.unhealthy_since if status.cluster else None
    if since is None or world.reachable_since is None:
        return False
    is_unhealthy = isinstance(world.cluster, Cluster) and world.cluster.unhealthy
    return world.now - max(since, world.reachable_since) >= (UNHEALTHY_TIME if is_unhealthy else JOB_UNKNOWN_TIME)


def _loss(this: SkyCluster, record: JobRecord, world: World) -> failures.Failure:
    """A cluster that went while its job was seen at work is lost; if nobody ever knew how the job fared, neither do we."""
    words = f"{_lost(this, world)} {called(record.id).capitalize()} was last seen {record.status}."
    if record.status is None:
        return failures.Failure(Reason.OUTCOME_UNKNOWN, f"{_lost(this, world)} Nobody saw how {called(record.id)} ended.")
    return failures.Failure(Reason.CLUSTER_LOST, words)


def _lost(this: SkyCluster, world: World) -> str:
    """Say how the cluster was lost, in SkyPilot's words if it has any."""
    seen = world.cluster.message if isinstance(world.cluster, Cluster) else "SkyPilot has no row of it any more."
    return f"Cluster {records.cluster_name(this)} was lost: {seen or 'SkyPilot has no healthy row of it any more.'}"


def follow_request(this: SkyCluster, world: World, _order: Order) -> Decision | None:
    """A launch that was taken: wait for it, record its job, or its failure. One the server forgot is the same attempt again."""
    launch = this.status.launch
    if launch is None or not records.is_on_its_way(this.status) or launch.request_id is None:
        return None
    status = records.with_cluster(this.status, world)
    if world.launch is ABSENT:
        return Decision(records.unacknowledged(status, launch, world.now), None, SOON_SECONDS)
    if isinstance(world.outcome, Launched):
        return Decision(records.launched(this, status, launch, world.outcome.job_id, world.now), None, 0)
    if isinstance(world.outcome, RequestError):
        return _submitted_after_all(this, status, launch, world) or _launch_failed(this, status, launch, world.outcome, world)
    waiting = isinstance(world.launch, Request) and world.launch.status.active
    return Decision(status, None, LATER_SECONDS if waiting else SOON_SECONDS)


def _submitted_after_all(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World) -> Decision | None:
    """A launch may fail after it has submitted the job, its last step but one: on a cluster that is up, its queue is asked first."""
    if not launch.has_run or not world.is_up:
        return None
    if not world.queue_was_read:
        return Decision(status, None, SOON_SECONDS)
    job = own_job(world.jobs or (), records.attempt_name(this, launch))
    return None if job is None else Decision(records.launched(this, status, launch, job.id, world.now), None, 0)


def _launch_failed(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, error: RequestError, world: World) -> Decision:
    if error.type in failures.LOST:
        return Decision(records.unacknowledged(status, launch, world.now), None, SOON_SECONDS)
    return Decision(outcomes.failed(this, status, failures.of_launch(error), world.now), None, 0)


def adopt(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """An attempt without request id is looked up by its own exact name; with no trace of it after the settle time it is sent again."""
    launch = this.status.launch
    if launch is None or not records.is_on_its_way(this.status) or launch.request_id is not None:
        return None
    status = records.with_cluster(this.status, world)
    if labelled := _later_attempt(launch, world):
        return Decision(records.renumbered(status, launch, labelled), None, 0)
    job = own_job(world.jobs or (), records.attempt_name(this, launch))
    if job is not None:
        return Decision(records.launched(this, status, launch, job.id, world.now), None, 0)
    if isinstance(world.attempt, Request):
        return Decision(records.acknowledged(status, launch, world.attempt.id, world.now), None, 0)
    if world.active or not _shows_no_trace(world) or not is_settled(launch, world):
        return Decision(status, None, SOON_SECONDS)
    return _without_trace(this, status, launch, world, order)


def _without_trace(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World, order: Order) -> Decision:
    if launch.has_run and _may_have_run(status, launch, world):
        return Decision(outcomes.failed(this, status, _unheard(this), world.now), None, 0)
    return _send_again(this, status, launch, world, order)


def _may_have_run(status: SkyClusterStatus, launch: LaunchRecord, world: World) -> bool:
    """Whether the attempt's job may have run, though its request is forgotten and its queue can't be read any more.

    A job is submitted once its cluster is up. SkyPilot calls broken, or stopped, only what was up; of a cluster that is gone our own record
    tells, unless more time went by than SkyPilot remembers anything.
    """
    row = world.cluster
    if isinstance(row, Cluster):
        return row.unhealthy or row.status in {ClusterStatus.STOPPED, ClusterStatus.AUTOSTOPPING}
    was_up = status.cluster is not None and status.cluster.up_at is not None
    return was_up or (launch.started_at is not None and world.now - launch.started_at >= REMEMBERED_TIME)


def _unheard(this: SkyCluster) -> failures.Failure:
    words = f"SkyPilot has forgotten the launch of cluster {records.cluster_name(this)}, which was up: nobody knows whether its job ran."
    return failures.Failure(Reason.OUTCOME_UNKNOWN, words)


def _later_attempt(launch: LaunchRecord, world: World) -> int | None:
    """A status that was wiped may have begun to count anew before the row of the launch that was under way was there to be seen."""
    labelled = world.cluster.attempt_label if isinstance(world.cluster, Cluster) else None
    return labelled if labelled is not None and labelled > launch.attempt else None


def _send_again(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World, order: Order) -> Decision:
    """Send what never arrived. If it was edited meanwhile, the new task takes its place first, and settles like the old one."""
    if not judge_inputs(this, order.inputs).ok or not world.may_launch:
        return Decision(status)
    if is_edited(this):
        return Decision(records.rewritten(this, launch, order.inputs, world.now), None, 0)
    return send(this, records.unacknowledged(status, launch, world.now))


def send(this: SkyCluster, status: SkyClusterStatus) -> Decision:
    """Return the decision to post the attempt that this status has written down."""
    if status.launch is None or status.cluster is None:
        raise AssertionError("a launch is written down before it is sent")
    return Decision(status, Launch(status.cluster.name, records.attempt_name(this, status.launch)), SOON_SECONDS)


def _shows_no_trace(world: World) -> bool:
    """Neither a request nor a job. A queue that can't be read may hold our job while the cluster is UP; else none was submitted."""
    return world.attempt is ABSENT and (world.jobs is not None or not world.is_up)


def up(this: SkyCluster, world: World, order: Order) -> Decision | None:
    """A cluster without a job: lost, edited, idle for too long, or just kept an eye on."""
    launch = this.status.launch
    if launch is None or launch.finished_at is None or records.is_over(this.status):
        return None
    status = records.with_cluster(this.status, world)
    if is_gone(world) or _is_broken(status, world):
        return Decision(outcomes.failed(this, status, failures.Failure(Reason.CLUSTER_LOST, _lost(this, world)), world.now), None, 0)
    if is_edited(this) and order.accepted.ok:
        return _apply_edit(this, status, launch, world, order)
    return _watch_idleness(this, status, world, order)


def _apply_edit(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World, order: Order) -> Decision:
    """SkyPilot silently keeps the machines of a cluster that is up, so a change of them takes a new one; the rest is launched onto it."""
    if cluster_digest(order.inputs.task or {}) != launch.cluster_digest:
        return Decision(records.given_up(status, world.now), None, 0)
    if not world.may_launch:
        return Decision(status)
    return send(this, records.written_down(this, world, order.inputs))


def _watch_idleness(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Decision:
    status = idleness(status, world)
    looked = this.model_copy(update={"status": status})
    if records.is_idle_too_long(looked, order.inputs.policy, world.now):
        return Decision(outcomes.autostopped(this, status, world.now), None, 0)
    return with_backstop(this, status, world, order)


def with_backstop(this: SkyCluster, status: SkyClusterStatus, world: World, order: Order) -> Decision:
    """Return the decision that there is nothing to do, but to tell SkyPilot if its own autostop is to be another now."""
    launch = this.status.launch
    if launch is None or not world.is_up:
        return Decision(status)
    wanted = backstop_minutes(this, order.inputs.policy, has_run=launch.has_run)
    return Decision(status, None if wanted == launch.autostop_minutes else SetAutostop(records.cluster_name(this), wanted))


def idleness(status: SkyClusterStatus, world: World) -> SkyClusterStatus:
    """Return the status with the time since when no job has run, by our own clock.

    A queue that can't be read changes nothing, unless no job can run: on a cluster that is stopped, or broken for good.
    """
    if status.cluster is None:
        return status
    if world.jobs is None:
        is_stopped = isinstance(world.cluster, Cluster) and world.cluster.status is ClusterStatus.STOPPED
        return records.idle(status, status.cluster.idle_since or world.now) if is_stopped or _is_broken(status, world) else status
    if any(not job.status.terminal for job in world.jobs):
        return records.idle(status, None)
    return records.idle(status, _idle_since(status.cluster.idle_since, world.jobs, world.now))


def _idle_since(before: datetime | None, jobs: tuple[Job, ...], now: datetime) -> datetime:
    """A job may have come and gone between two looks: its end counts, but no cluster's clock makes a time that is yet to come."""
    ends = [job.finished_at for job in jobs if job.finished_at is not None]
    return now if before is None else max(before, min(max(ends, default=before), now))
