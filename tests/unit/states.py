"""Every state an object can rest in, reached the way it is reached in life."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from skyoperator import task
from skyoperator.api.v1alpha1 import Phase, SkyCluster
from skyoperator.sky.types import Cluster, ClusterStatus, JobStatus, Launched, RequestError, RequestStatus
from skyoperator.world import World

from tests.unit.build import (
    JOB,
    MISSING,
    NO_RUN,
    NOW,
    RUN,
    UID,
    a_cluster,
    a_job,
    a_request,
    a_world,
    after,
    an_object,
    an_outage,
    decide,
    edited,
    with_status,
)

A_MINUTE_LATER = NOW + timedelta(seconds=61)
IN_AN_HOUR = NOW + timedelta(hours=1)
SECOND_JOB = task.job_name(UID, 2)
RETRIES: dict[str, Any] = {"backoffLimit": 1, "retryOn": ["JobFailed"]}


def gone(now: datetime = NOW) -> World:
    """The second of two empty looks."""
    return a_world(now, empty_seconds=10.0)


def launched(job_id: int | None = 1, now: datetime = NOW, *, id_: str = "r1") -> World:
    """The launch succeeded."""
    return a_world(now, cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED, id_=id_), outcome=Launched(job_id))


def with_job(status: JobStatus, now: datetime = NOW, *, name: str = JOB) -> World:
    return a_world(now, cluster=a_cluster(), queue_was_read=True, jobs=(a_job(status, name=name),))


def idle(now: datetime = NOW) -> World:
    """A cluster that is up, and no job on it."""
    return a_world(now, cluster=a_cluster(), queue_was_read=True, jobs=())


def going_up(status: ClusterStatus | None = ClusterStatus.INIT, now: datetime = NOW, *, id_: str = "r1") -> World:
    """The launch is under way."""
    row: dict[str, Cluster] = {} if status is None else {"cluster": a_cluster(status)}
    return a_world(now, launch=a_request(id_=id_), active=(a_request(id_=id_),), **row)


def _unacknowledged(this: SkyCluster) -> SkyCluster:
    return with_status(this, decide(this, a_world()).status)


def _running(this: SkyCluster) -> SkyCluster:
    return after(this, a_world(), launched(), with_job(JobStatus.RUNNING))


def _ready(this: SkyCluster) -> SkyCluster:
    return after(this, a_world(), launched(None), idle())


def reached(this: SkyCluster) -> datetime:
    """When the object came into its state."""
    moments = [condition.last_transition_time for condition in this.status.conditions]
    due = this.status.failures.next_retry_time if this.status.failures else None
    if due is not None and this.status.phase is Phase.QUEUED:
        moments.append(due)
    return max(moments, default=NOW)


def is_seen(this: SkyCluster) -> bool:
    """Whether the controller has taken notice of the spec as it stands."""
    return this.status.observed_generation == this.generation


def deleted(this: SkyCluster) -> SkyCluster:
    return this.model_copy(update={"deleted_at": NOW})


def _abandoned(this: SkyCluster) -> SkyCluster:
    """Seen to be abandoned, and let go of; it stays until somebody deletes it."""
    this = after(this.model_copy(update={"abandoned": True}), a_world())
    return this.model_copy(update={"finalizers": ()})


NEW = an_object()
REJECTED = after(an_object({"runn": "typo"}), a_world())
SECRET_NOT_FOUND = after(an_object(secrets=[{"name": "TOKEN", "secretKeyRef": {"name": MISSING, "key": "token"}}]), a_world())
NAME_CONFLICT = after(an_object(), a_world(cluster=a_cluster(uid="another")))
QUEUED = after(an_object(), a_world(may_launch=False))

UNACKNOWLEDGED = _unacknowledged(an_object())
LAUNCHING = after(an_object(), a_world())
INIT = after(LAUNCHING, going_up())
RUNNING = _running(an_object())
EDITED = edited(RUNNING, task={**RUN, "run": "echo other"})
EDIT_REFUSED = after(EDITED, with_job(JobStatus.RUNNING))
ELSEWHERE = after(RUNNING, a_world(server="http://another"))

COMPLETE_STOPPING = after(RUNNING, with_job(JobStatus.SUCCEEDED))
COMPLETE = after(COMPLETE_STOPPING, gone())
COMPLETE_EDITED = after(edited(COMPLETE, task={**RUN, "run": "echo other"}), a_world())
FAILED_STOPPING = after(RUNNING, with_job(JobStatus.FAILED))
FAILED = after(FAILED_STOPPING, gone())
LAUNCH_FAILED = after(
    LAUNCHING, a_world(launch=a_request(RequestStatus.FAILED), outcome=RequestError("ResourcesUnavailableError", "no GPU"))
)
RUNNING_KEEP = _running(an_object(RUN, whenFinished="Keep"))
KEPT = after(RUNNING_KEEP, with_job(JobStatus.SUCCEEDED), idle())
KEPT_IDLE = after(_running(an_object(RUN, whenFinished="Keep", autostop={"idleMinutes": 5})), with_job(JobStatus.SUCCEEDED), idle())
KEPT_STOPPING = after(KEPT_IDLE, idle(NOW + timedelta(minutes=5)))
KEPT_STOPPED = after(KEPT_STOPPING, gone(NOW + timedelta(minutes=6)))
KEPT_LOST = after(KEPT, gone())

RETRY_STOPPING = after(_running(an_object(**RETRIES)), with_job(JobStatus.FAILED))
BACKING_OFF = after(RETRY_STOPPING, gone())
RETRY_QUEUED = after(BACKING_OFF, a_world(A_MINUTE_LATER, may_launch=False))
RETRY_LAUNCHING = after(BACKING_OFF, a_world(A_MINUTE_LATER))
RETRY_RUNNING = after(RETRY_LAUNCHING, launched(now=A_MINUTE_LATER, id_="r2"), with_job(JobStatus.RUNNING, A_MINUTE_LATER, name=SECOND_JOB))
LIMIT_STOPPING = after(RETRY_RUNNING, with_job(JobStatus.FAILED, A_MINUTE_LATER, name=SECOND_JOB))
LIMIT_EXCEEDED = after(LIMIT_STOPPING, gone(A_MINUTE_LATER))

SUSPENDED_NEW = after(an_object(suspend=True), a_world())
SUSPENDED_UNSEEN = after(an_object(suspend=True), an_outage())
SUSPENDING = after(edited(RUNNING, suspend=True), with_job(JobStatus.RUNNING))
SUSPENDED = after(SUSPENDING, gone())
RESUMED = after(edited(SUSPENDED, suspend=False), a_world(A_MINUTE_LATER))
SUSPENDED_REJECTED = after(an_object({"runn": "typo"}, suspend=True), a_world())

DEADLINE_STOPPING = after(_running(an_object(activeDeadlineSeconds=60)), with_job(JobStatus.RUNNING, A_MINUTE_LATER))
DEADLINE_EXCEEDED = after(DEADLINE_STOPPING, gone(A_MINUTE_LATER))
DEADLINE_KEPT = after(_running(an_object(activeDeadlineSeconds=60, whenFinished="Keep")), with_job(JobStatus.RUNNING, A_MINUTE_LATER))
DEADLINE_KEPT_CANCELLED = after(DEADLINE_KEPT, with_job(JobStatus.CANCELLED, A_MINUTE_LATER))
LAUNCH_TOO_SLOW = after(after(an_object(preRunningDeadlineSeconds=60), a_world(), going_up()), going_up(now=A_MINUTE_LATER))

SETUP_ONLY = after(after(an_object({**NO_RUN, "setup": "pip install x"}), a_world()), launched(), with_job(JobStatus.SETTING_UP))
READY = after(an_object(NO_RUN), a_world(), launched(None))
IDLE = _ready(an_object(NO_RUN, autostop={"idleMinutes": 5}))
AUTOSTOP_STOPPING = after(IDLE, idle(NOW + timedelta(minutes=5)))
AUTOSTOPPED = after(AUTOSTOP_STOPPING, gone(NOW + timedelta(minutes=6)))
PLAIN_DEADLINE = after(_ready(an_object(NO_RUN, activeDeadlineSeconds=60)), idle(A_MINUTE_LATER))
PLAIN_SICK = after(READY, a_world(cluster=a_cluster(ClusterStatus.INIT)))
SETUP_EDIT = edited(READY, task={**NO_RUN, "setup": "pip install y"})
EDITING_QUEUED = after(SETUP_EDIT, a_world(cluster=a_cluster(), may_launch=False))
EDITED_AWAY = after(SETUP_EDIT, an_outage())
EDITING_IN_PLACE = after(SETUP_EDIT, idle())
EDITING_ANEW = after(edited(READY, task={"resources": {"infra": "k8s", "cpus": 8}}), idle())
EDITED_TO_RUN = after(edited(READY, task=RUN), idle())
REOPENED = after(edited(AUTOSTOPPED, task={**NO_RUN, "setup": "pip install y"}), a_world(IN_AN_HOUR))

ABANDONED = _abandoned(RUNNING)
ABANDONED_COMPLETE = _abandoned(COMPLETE)
DELETING = after(deleted(RUNNING), with_job(JobStatus.RUNNING))
DELETING_LAUNCH = after(deleted(INIT), going_up())
DELETING_UNACKNOWLEDGED = after(deleted(UNACKNOWLEDGED), a_world())
DELETING_STUCK = after(
    deleted(KEPT), a_world(cluster=a_cluster()), a_world(cluster=a_cluster(), down_error="credentials revoked", may_down=False)
)
DELETING_ELSEWHERE = after(deleted(RUNNING), a_world(server="http://another"))

EVERY_STATE = {
    "new": NEW,
    "rejected": REJECTED,
    "secret not found": SECRET_NOT_FOUND,
    "name conflict": NAME_CONFLICT,
    "queued": QUEUED,
    "unacknowledged": UNACKNOWLEDGED,
    "launching": LAUNCHING,
    "init": INIT,
    "running": RUNNING,
    "edited": EDITED,
    "edit refused": EDIT_REFUSED,
    "on another server": ELSEWHERE,
    "complete, stopping": COMPLETE_STOPPING,
    "complete": COMPLETE,
    "complete, edited": COMPLETE_EDITED,
    "failed, stopping": FAILED_STOPPING,
    "failed": FAILED,
    "launch failed": LAUNCH_FAILED,
    "running, to be kept": RUNNING_KEEP,
    "kept": KEPT,
    "kept, idle": KEPT_IDLE,
    "kept, stopping": KEPT_STOPPING,
    "kept, stopped": KEPT_STOPPED,
    "kept, lost": KEPT_LOST,
    "retry, stopping": RETRY_STOPPING,
    "backing off": BACKING_OFF,
    "retry, queued": RETRY_QUEUED,
    "retry, launching": RETRY_LAUNCHING,
    "retry, running": RETRY_RUNNING,
    "backoff limit exceeded, stopping": LIMIT_STOPPING,
    "backoff limit exceeded": LIMIT_EXCEEDED,
    "suspended, never launched": SUSPENDED_NEW,
    "suspended, never seen": SUSPENDED_UNSEEN,
    "suspended, stopping": SUSPENDING,
    "suspended": SUSPENDED,
    "suspended, rejected": SUSPENDED_REJECTED,
    "resumed": RESUMED,
    "deadline exceeded, stopping": DEADLINE_STOPPING,
    "deadline exceeded": DEADLINE_EXCEEDED,
    "deadline exceeded, kept": DEADLINE_KEPT,
    "deadline exceeded, kept, cancelled": DEADLINE_KEPT_CANCELLED,
    "launch too slow, stopping": LAUNCH_TOO_SLOW,
    "setup only": SETUP_ONLY,
    "ready": READY,
    "ready, idle": IDLE,
    "autostopped, stopping": AUTOSTOP_STOPPING,
    "autostopped": AUTOSTOPPED,
    "plain, deadline exceeded": PLAIN_DEADLINE,
    "plain, sick": PLAIN_SICK,
    "plain, edited": SETUP_EDIT,
    "plain, edited, queued": EDITING_QUEUED,
    "plain, edited, server away": EDITED_AWAY,
    "plain, edited, same cluster": EDITING_IN_PLACE,
    "plain, edited, new cluster": EDITING_ANEW,
    "plain, edit refused": EDITED_TO_RUN,
    "autostopped, edited": REOPENED,
    "abandoned": ABANDONED,
    "abandoned, complete": ABANDONED_COMPLETE,
    "deleting": DELETING,
    "deleting, launching": DELETING_LAUNCH,
    "deleting, unacknowledged": DELETING_UNACKNOWLEDGED,
    "deleting, stuck": DELETING_STUCK,
    "deleting, on another server": DELETING_ELSEWHERE,
}
