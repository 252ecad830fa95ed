"""How the records in status change: one small function for each thing that can happen to a launch, a job or a cluster."""

from __future__ import annotations

from datetime import datetime

from skyoperator import task
from skyoperator.api.v1alpha1 import (
    TERMINATED,
    ClusterRecord,
    ConditionType,
    FailuresRecord,
    JobRecord,
    LaunchRecord,
    Reason,
    SkyCluster,
    SkyClusterStatus,
)
from skyoperator.conditions import Verdict, is_true, true, updated
from skyoperator.failures import Failure
from skyoperator.sky.types import Job, JobStatus
from skyoperator.world import ABSENT, World


def is_finished(status: SkyClusterStatus) -> bool:
    """Return whether the object has come to its end, well or badly."""
    return is_true(status.conditions, ConditionType.COMPLETE) or is_true(status.conditions, ConditionType.FAILED)


def is_terminated(status: SkyClusterStatus) -> bool:
    """Return whether the cluster was confirmed gone."""
    return status.cluster is not None and status.cluster.status == TERMINATED


def cluster_name(this: SkyCluster) -> str:
    """Return the name of the object's cluster: as recorded, else as it will be."""
    record = this.status.cluster
    return record.name if record else task.cluster_name(this.name, this.uid)


def attempt_name(this: SkyCluster, launch: LaunchRecord) -> str:
    """Return the job name of the recorded attempt: the name by which it is adopted."""
    return task.job_name(this.uid, launch.attempt)


def written_down(this: SkyCluster, world: World) -> SkyClusterStatus:
    """Return the status with a first attempt in it, before SkyPilot is asked."""
    name = task.cluster_name(this.name, this.uid)
    launch = _of_task(this, LaunchRecord(attempt=1, task_digest="", has_run=False, requested_at=world.now))
    return this.status.model_copy(update={"cluster": ClusterRecord(name=name, server=world.server), "launch": launch})


def rewritten(this: SkyCluster, launch: LaunchRecord, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that never reached SkyPilot and whose task was edited meanwhile: it is the new task's attempt."""
    return unacknowledged(this.status, _of_task(this, launch), now)


def _of_task(this: SkyCluster, launch: LaunchRecord) -> LaunchRecord:
    facts = {"task_digest": task.digest(this.spec.task), "has_run": task.has_run(this.spec.task)}
    return launch.model_copy(update=facts)


def has_run(this: SkyCluster) -> bool:
    """Return whether the task has something to run: as launched, whatever it was edited to since."""
    return this.status.launch.has_run if this.status.launch else task.has_run(this.spec.task)


def is_set_up(status: SkyClusterStatus) -> bool:
    """Return whether the job was just the task's setup, and is done: SkyPilot runs setup as a job, also with nothing to run after it."""
    is_setup = status.launch is not None and not status.launch.has_run
    return is_setup and status.job is not None and status.job.status == JobStatus.SUCCEEDED


def wants_down(this: SkyCluster) -> bool:
    """Return whether the cluster goes when the object is finished. What failed before it had a job leaves nothing worth keeping."""
    return this.spec.when_finished == "Down" or this.status.job is None


def unacknowledged(status: SkyClusterStatus, launch: LaunchRecord, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that SkyPilot has no request of: not yet, or no more. The settle time begins anew."""
    record = launch.model_copy(update={"request_id": None, "requested_at": now})
    return status.model_copy(update={"launch": record})


def acknowledged(status: SkyClusterStatus, launch: LaunchRecord, request_id: str, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that SkyPilot has taken."""
    record = launch.model_copy(update={"request_id": request_id})
    return status.model_copy(update={"launch": record, "start_time": status.start_time or now})


def launched(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, job_id: int | None, now: datetime) -> SkyClusterStatus:
    """Return the status of a launch that succeeded, with the job that came of it, if any.

    SkyPilot may not tell the job's id, even of a task with `run` (sky/server/requests/requests.py:271): it is then found by its name.
    """
    is_expected = job_id is not None or launch.has_run
    job = JobRecord(id=job_id, name=attempt_name(this, launch), display_name=this.spec.task.get("name")) if is_expected else None
    record = launch.model_copy(update={"finished_at": now})
    return status.model_copy(update={"launch": record, "job": job, "start_time": status.start_time or now})


def job_seen(status: SkyClusterStatus, record: JobRecord, job: Job) -> SkyClusterStatus:
    """Return the status with the job as the queue shows it."""
    facts = {
        "id": job.id,
        "status": str(job.status),
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "unknown_since": None,
    }
    return status.model_copy(update={"job": record.model_copy(update=facts)})


def job_unseen(status: SkyClusterStatus, record: JobRecord, now: datetime) -> SkyClusterStatus:
    """Return the status of a job that can't be read right now."""
    return status.model_copy(update={"job": record.model_copy(update={"unknown_since": record.unknown_since or now})})


def with_cluster(status: SkyClusterStatus, world: World) -> SkyClusterStatus:
    """Return the status with what SkyPilot's row says; a row that is not there leaves the facts of the last one, but its status."""
    record = status.cluster
    if record is None or world.cluster is None:
        return status
    if world.cluster is ABSENT:
        return status.model_copy(update={"cluster": record.model_copy(update={"status": None})})
    row = world.cluster
    facts = {
        "status": str(row.status),
        "infra": row.infra or record.infra,
        "resources": row.resources or record.resources,
        "nodes": row.nodes or record.nodes,
        "launched_at": row.launched_at or record.launched_at,
    }
    return status.model_copy(update={"cluster": record.model_copy(update=facts)})


def torn_down(status: SkyClusterStatus) -> SkyClusterStatus:
    """Return the status once the cluster was confirmed gone."""
    if status.cluster is None:
        return status
    return status.model_copy(update={"cluster": status.cluster.model_copy(update={"status": TERMINATED})})


def failed(this: SkyCluster, status: SkyClusterStatus, failure: Failure, now: datetime) -> SkyClusterStatus:
    """Return the status of an object that came to a bad end."""
    count = status.failures.count if status.failures else 0
    record = FailuresRecord(count=count + 1, reason=failure.reason, message=failure.message)
    status = status.model_copy(update={"failures": record})
    return _ended(this, status, true(ConditionType.FAILED, failure.reason, failure.message), now)


def completed(this: SkyCluster, status: SkyClusterStatus, now: datetime) -> SkyClusterStatus:
    """Return the status of an object that came to a good end."""
    return _ended(this, status, true(ConditionType.COMPLETE, Reason.JOB_SUCCEEDED, "The job succeeded."), now)


def _ended(this: SkyCluster, status: SkyClusterStatus, verdict: Verdict, now: datetime) -> SkyClusterStatus:
    conditions = updated(status.conditions, [verdict], generation=this.generation, now=now)
    return status.model_copy(update={"conditions": conditions, "completion_time": now})
