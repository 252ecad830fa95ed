"""What to do next with one SkyCluster.

A pure function of what is wanted (spec), what we wrote down (status) and what we saw (world). It reads no clock and does no I/O, so
every situation, including each crash between two writes, is a value that a test can hand it.

    Pending ──launch──► Launching ──► Running ──► Stopping ──► Succeeded | Failed
                          │    └────► Ready (no task.run)          ▲
                          └────────── launch failed ─► Stopping ───┘
    deleting: from anywhere, through Deleting, to gone

The attempt is written down before SkyPilot is asked (write-ahead). An attempt without request id is the one dangerous state: the
answer may be lost, late, or never have been. It is adopted only under its own exact name, and asked for again only after a settle
time in which a server that answers showed no trace of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from skyoperator import failures, records, task
from skyoperator.api.v1alpha1 import FINALIZER, JobRecord, LaunchRecord, Reason, SkyCluster, SkyClusterStatus
from skyoperator.jobs import own_job
from skyoperator.sky.types import Cluster, Job, JobStatus, Launched, Request, RequestError
from skyoperator.summary import Accepted, summarized
from skyoperator.world import ABSENT, World

SETTLE_TIME: Final = timedelta(seconds=60)
"""How long a launch whose answer was lost may take to show up: SkyPilot's own client gives up on a POST after 5 s, and a loaded
server has been seen to take several times that."""

CONFIRM_SECONDS: Final = 10.0
"""Between the two empty looks that prove a cluster gone: CANCELLED is written while the worker is only being signalled
(sky/server/requests/requests.py, _kill_requests), so one look may be too early."""

JOB_UNKNOWN_TIME: Final = timedelta(seconds=600)
"""How long a job may be unreadable on a cluster that is not UP before the cluster counts as lost. SkyPilot refreshes rows every
60 s by itself (sky/server/daemons.py:545), so the row is fresh by then."""

SOON_SECONDS: Final = 2.0
LATER_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Make sure that no delete passes us by."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go."""


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


Action: TypeAlias = AddFinalizer | RemoveFinalizer | Launch | TearDown


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to store, the one action to take once it is stored, and when to look again if nothing happens before.

    `after_seconds` None: nothing is left to wait for but an edit of the object.
    """

    status: SkyClusterStatus
    action: Action | None = None
    after_seconds: float | None = LATER_SECONDS


def decide(this: SkyCluster, world: World) -> Decision:
    """Return what to do next.

    Rules are asked in order; the first that applies answers, so what outranks what is read off the list.
    """
    world = of_our_server(this, world)
    accepted = judge(this, world)
    decision = next(filter(None, (rule(this, world, accepted) for rule in RULES)))
    if this.deleting and not this.status.conditions:
        return decision  # what never had a status gets none now: it must stay tellable from one that was never launched
    return replace(decision, status=summarized(this, decision.status, world, accepted))


def of_our_server(this: SkyCluster, world: World) -> World:
    """Return a world in which nothing is known if the object's cluster is on another server: what that one has, this one can't tell."""
    record = this.status.cluster
    if record is None or not record.server or not world.server or record.server == world.server:
        return world
    return World(
        now=world.now,
        server=record.server,
        complaint=f"The cluster is on {record.server}, the controller is set to {world.server}. If that is the same server under "
        f"another address: kubectl patch skyc {this.name} -n {this.namespace} --subresource=status --type=merge "
        f'-p \'{{"status":{{"cluster":{{"server":"{world.server}"}}}}}}\'',
    )


def judge(this: SkyCluster, world: World) -> Accepted:
    """Return whether the task may be launched; once it was, whether it is still the one that was."""
    launch = this.status.launch
    if launch is not None:
        return _judge_edit(this, launch)
    if isinstance(world.cluster, Cluster) and world.cluster.uid_label != this.uid:
        name = world.cluster.name
        return Accepted(Reason.NAME_CONFLICT, f"SkyPilot has a cluster {name} that is not ours. Take it down: sky down {name}")
    return _judge_task(this)


def _judge_task(this: SkyCluster) -> Accepted:
    try:
        task.check(this.spec.task)
    except task.TaskRejected as rejection:
        return Accepted(Reason(rejection.reason), str(rejection))
    return Accepted(Reason.TASK_ACCEPTED)


def _judge_edit(this: SkyCluster, launch: LaunchRecord) -> Accepted:
    if launch.task_digest == task.digest(this.spec.task):
        return Accepted(Reason.TASK_ACCEPTED)
    return Accepted(
        Reason.IMMUTABLE_TASK,
        f"spec.task was changed after attempt {launch.attempt} had been handed to SkyPilot; what was launched goes on. "
        "Undo the edit, or delete the object and create it again.",
    )


def guard(this: SkyCluster, _world: World, _accepted: Accepted) -> Decision | None:
    """Nothing is started before our finalizer is seen on a fresh read; else a delete could pass us by and leak the cluster."""
    if this.deleting or FINALIZER in this.finalizers:
        return None
    return Decision(this.status, AddFinalizer(), 0)


def deleting(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """A deleted object goes when its cluster is confirmed gone, or at once if there is none or it is to be orphaned."""
    if not this.deleting:
        return None
    if FINALIZER not in this.finalizers:
        return Decision(this.status, None, None)
    if this.spec.deletion_policy == "Orphan" or _nothing_to_tear_down(this, world):
        return Decision(this.status, RemoveFinalizer(), None)
    return tear_down(this, world) or Decision(records.torn_down(this.status), RemoveFinalizer(), None)


def _nothing_to_tear_down(this: SkyCluster, world: World) -> bool:
    """Without an attempt nothing was ever asked of SkyPilot, unless our status was wiped: then SkyPilot must say so too."""
    if records.is_terminated(this.status):
        return True
    ours = isinstance(world.cluster, Cluster) and world.cluster.uid_label == this.uid
    was_wiped_perhaps = not this.status.conditions and (world.cluster is None or world.active is None)
    return this.status.launch is None and not ours and not world.active and not was_wiped_perhaps


def finished(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """After the end: down with the cluster, or an eye on the one that is kept; then silence."""
    if not records.is_finished(this.status):
        return None
    if records.is_terminated(this.status):
        return Decision(this.status, None, None)
    if records.wants_down(this):
        return tear_down(this, world) or Decision(records.torn_down(this.status), None, None)
    if _is_gone(world):
        return Decision(records.torn_down(this.status), None, None)
    return Decision(records.with_cluster(this.status, world))


def unreachable(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """A server that is away changes nothing but ClusterReady: it is never taken for a cluster that is gone."""
    if world.reachable_since is not None and world.cluster is not None and world.active is not None:
        return None
    return Decision(this.status)


def follow_job(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """The job's end is the object's end: Complete or Failed, in SkyPilot's words."""
    record = this.status.job
    if record is None or records.is_set_up(this.status):
        return None
    status = records.with_cluster(this.status, world)
    job = own_job(world.jobs or (), record.name)
    if job is not None and job.status is not JobStatus.UNKNOWN:
        return _job_seen(this, records.job_seen(status, record, job), job, world)
    if world.is_up and not world.queue_was_read:
        return Decision(status)
    if _is_gone(world) or _is_given_up(record, world):
        return Decision(records.failed(this, status, _loss(this, record), world.now), None, 0)
    return Decision(records.job_unseen(status, record, world.now))


def _job_seen(this: SkyCluster, status: SkyClusterStatus, job: Job, world: World) -> Decision:
    if job.status is JobStatus.SUCCEEDED and not records.has_run(this):
        return Decision(status)
    if job.status is JobStatus.SUCCEEDED:
        return Decision(records.completed(this, status, world.now), None, 0)
    if job.status.terminal:
        failure = failures.of_job(job.id, job.status, world.job_words)
        return Decision(records.failed(this, status, failure, world.now), None, 0)
    return Decision(status)


def _is_given_up(record: JobRecord, world: World) -> bool:
    """A queue that could not be read for long on a cluster that is not UP, or that was read all the time and lacks our job.

    Time in which we could not look does not count: after an outage SkyPilot's own rows may be stale for a while.
    """
    if record.unknown_since is None or world.reachable_since is None or (world.is_up and world.jobs is None):
        return False
    return world.now - max(record.unknown_since, world.reachable_since) >= JOB_UNKNOWN_TIME


def _loss(this: SkyCluster, record: JobRecord) -> failures.Failure:
    """A cluster that went while its job was seen at work is lost; if nobody ever knew how the job fared, neither do we."""
    name = records.cluster_name(this)
    if record.status is None:
        return failures.Failure(Reason.OUTCOME_UNKNOWN, f"Cluster {name} is gone, and nobody saw how job {record.id} ended.")
    words = f"Cluster {name} was lost: SkyPilot has no healthy row of it any more. Job {record.id} was last seen {record.status}."
    return failures.Failure(Reason.CLUSTER_LOST, words)


def follow_request(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """A launch that was taken: wait for it, record its job, or its failure. One the server forgot is the same attempt again."""
    launch = this.status.launch
    if launch is None or launch.request_id is None or launch.finished_at is not None:
        return None
    status = records.with_cluster(this.status, world)
    if world.launch is ABSENT:
        return Decision(records.unacknowledged(status, launch, world.now), None, SOON_SECONDS)
    if isinstance(world.outcome, Launched):
        return Decision(records.launched(this, status, launch, world.outcome.job_id, world.now), None, 0)
    if isinstance(world.outcome, RequestError):
        return _launch_failed(this, status, launch, world.outcome, world)
    waiting = isinstance(world.launch, Request) and world.launch.status.active
    return Decision(status, None, LATER_SECONDS if waiting else SOON_SECONDS)


def _launch_failed(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, error: RequestError, world: World) -> Decision:
    if error.type in failures.LOST:
        return Decision(records.unacknowledged(status, launch, world.now), None, SOON_SECONDS)
    return Decision(records.failed(this, status, failures.of_launch(error), world.now), None, 0)


def adopt(this: SkyCluster, world: World, accepted: Accepted) -> Decision | None:
    """An attempt without request id is looked up by its own exact name; with no trace of it after the settle time it is sent again."""
    launch = this.status.launch
    if launch is None or launch.request_id is not None or launch.finished_at is not None:
        return None
    status = records.with_cluster(this.status, world)
    job = own_job(world.jobs or (), records.attempt_name(this, launch))
    if job is not None:
        return Decision(records.launched(this, status, launch, job.id, world.now), None, 0)
    if isinstance(world.attempt, Request):
        return Decision(records.acknowledged(status, launch, world.attempt.id, world.now), None, 0)
    if world.active or not _shows_no_trace(world) or not is_settled(launch, world):
        return Decision(status, None, SOON_SECONDS)
    return _send_again(this, status, launch, world, accepted)


def _send_again(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, world: World, accepted: Accepted) -> Decision:
    """Send what never arrived. If it was edited meanwhile, the new task takes its place first, and settles like the old one."""
    if accepted.ok:
        return _send(this, records.unacknowledged(status, launch, world.now))
    if _judge_task(this).ok:
        return Decision(records.rewritten(this, launch, world.now), None, 0)
    return Decision(status)


def _shows_no_trace(world: World) -> bool:
    """Neither a request nor a job. A queue that can't be read may hold our job while the cluster is UP; else none was submitted."""
    return world.attempt is ABSENT and (world.jobs is not None or not world.is_up)


def is_settled(launch: LaunchRecord, world: World) -> bool:
    """Return whether a launch whose answer was lost had its time to show up on a server that answers."""
    if world.reachable_since is None:
        return False
    since = max(launch.requested_at, world.reachable_since, world.acted_at or launch.requested_at)
    return world.now - since >= SETTLE_TIME


def up(this: SkyCluster, world: World, _accepted: Accepted) -> Decision | None:
    """A cluster without a job is kept an eye on until the object is deleted, or the cluster is lost."""
    launch = this.status.launch
    if launch is None or launch.finished_at is None:
        return None
    status = records.with_cluster(this.status, world)
    if not _is_gone(world):
        return Decision(status)
    words = f"Cluster {records.cluster_name(this)} was lost: SkyPilot has no row of it any more."
    return Decision(records.failed(this, status, failures.Failure(Reason.CLUSTER_LOST, words), world.now), None, 0)


def rejected(this: SkyCluster, _world: World, accepted: Accepted) -> Decision | None:
    """What is not accepted is not launched; an edit heals it. Only a name that is taken may come free by itself."""
    if accepted.ok:
        return None
    return Decision(this.status, None, LATER_SECONDS if accepted.reason is Reason.NAME_CONFLICT else None)


def submit(this: SkyCluster, world: World, _accepted: Accepted) -> Decision:
    """Write the attempt down, then send it. If our status was wiped and SkyPilot shows our cluster, only write it down: adopt."""
    status = records.written_down(this, world)
    if isinstance(world.cluster, Cluster) or world.active:
        return Decision(status, None, 0)
    return _send(this, status)


RULES: Final = (guard, deleting, finished, unreachable, follow_job, follow_request, adopt, up, rejected, submit)


def tear_down(this: SkyCluster, world: World) -> Decision | None:
    """Return the next step towards a cluster that is gone, or None once it is confirmed gone.

    Cancel, down, then two empty looks: requests first, rows second. One look, or an answer ClusterDoesNotExist, proves nothing.
    """
    if world.active is None or world.cluster is None:
        return Decision(this.status)
    status = records.with_cluster(this.status, world)
    others = tuple(request.id for request in world.active if request.name != "down")
    is_going_down = len(others) < len(world.active)
    wants_down_now = not is_going_down and (bool(others) or isinstance(world.cluster, Cluster))
    if others or (wants_down_now and world.may_down):
        return Decision(status, TearDown(records.cluster_name(this), others, wants_down_now), SOON_SECONDS)
    if _is_gone(world) and _is_answered(this.status.launch, world):
        return None
    return Decision(status, None, SOON_SECONDS)


def _is_gone(world: World) -> bool:
    return world.empty_seconds >= CONFIRM_SECONDS


def _is_answered(launch: LaunchRecord | None, world: World) -> bool:
    """Whether no launch of ours can still be on its way to the server."""
    return launch is None or launch.request_id is not None or launch.finished_at is not None or is_settled(launch, world)


def _send(this: SkyCluster, status: SkyClusterStatus) -> Decision:
    if status.launch is None or status.cluster is None:
        raise AssertionError("a launch is written down before it is sent")
    return Decision(status, Launch(status.cluster.name, records.attempt_name(this, status.launch)), SOON_SECONDS)
