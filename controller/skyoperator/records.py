"""How the records in status change: one small function for each thing that can happen to a launch, a job or a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from skyoperator import task
from skyoperator.api.v1alpha1 import (
    ENDPOINT_LIMIT,
    TERMINATED,
    ClusterRecord,
    ConditionStatus,
    ConditionType,
    Endpoint,
    FailuresRecord,
    JobRecord,
    LaunchRecord,
    Reason,
    SkyCluster,
    SkyClusterStatus,
)
from skyoperator.conditions import false, find, is_true, updated
from skyoperator.inputs import Inputs, backstop_minutes, idle_limit, spec_digest
from skyoperator.sky.types import Cluster, ClusterStatus, Job, JobStatus
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


def is_over(status: SkyClusterStatus) -> bool:
    """Return whether the last launch was given up, so that the next one is a new attempt."""
    return status.launch is not None and status.launch.ended_at is not None


def is_clear(status: SkyClusterStatus) -> bool:
    """Return whether nothing of an earlier launch is left: there was none, or it is over and its cluster was confirmed gone."""
    return status.launch is None or (is_over(status) and is_terminated(status))


def is_known_absent(status: SkyClusterStatus) -> bool:
    """Return whether SkyPilot was once seen to have nothing of an object that was never launched: without us that stays so."""
    seen = find(status.conditions, ConditionType.CLUSTER_READY)
    return status.launch is None and seen is not None and seen.reason == Reason.CLUSTER_ABSENT


def unknown_since(status: SkyClusterStatus) -> datetime | None:
    """Return since when SkyPilot has shown nothing of the cluster, over restarts of ours too; None if it was seen when last looked at."""
    seen = find(status.conditions, ConditionType.CLUSTER_READY)
    return seen.last_transition_time if seen is not None and seen.status is ConditionStatus.UNKNOWN else None


def is_on_its_way(status: SkyClusterStatus) -> bool:
    """Return whether a launch was handed to SkyPilot, perhaps, and its outcome is not known yet."""
    return status.launch is not None and status.launch.finished_at is None and not is_over(status)


def is_plain(status: SkyClusterStatus) -> bool:
    """Return whether what was launched is a cluster without a job."""
    return status.launch is not None and not status.launch.has_run


def is_idle_too_long(this: SkyCluster, policy: task.Policy, now: datetime) -> bool:
    """Return whether autostop is due."""
    since = this.status.cluster.idle_since if this.status.cluster else None
    limit = idle_limit(this, policy, has_run=has_run(this))
    return since is not None and limit is not None and now >= since + limit


def written_down(this: SkyCluster, world: World, inputs: Inputs) -> SkyClusterStatus:
    """Return the status with a new attempt in it, before SkyPilot is asked. What it says of the one before is gone with that.

    A status that was wiped while its cluster lives goes on from the attempt that the cluster is labelled with.
    """
    before = this.status.launch
    labelled = world.cluster.attempt_label if isinstance(world.cluster, Cluster) else None
    number = (labelled or 1) if before is None else before.attempt + 1
    launch = LaunchRecord(attempt=number, task_digest="", has_run=False, requested_at=world.now)
    changes = {
        "cluster": _next_cluster(this, world),
        "launch": _of_task(this, launch, inputs),
        "job": None,
        "failures": unscheduled(this.status.failures),
        "conditions": _reopened(this, world.now),
        "completion_time": None,
    }
    return this.status.model_copy(update=changes)


def _next_cluster(this: SkyCluster, world: World) -> ClusterRecord:
    """Return the record of a cluster that is to be; one that is up goes on being what it is, but may open other ports."""
    if this.status.cluster is not None and not is_terminated(this.status):
        return this.status.cluster.model_copy(update={"idle_since": None, "endpoints": None})
    return ClusterRecord(name=task.cluster_name(this.name, this.uid), server=world.server)


def unscheduled(failures: FailuresRecord | None) -> FailuresRecord | None:
    """Return the record without a next launch in it."""
    return None if failures is None else failures.model_copy(update={"next_retry_time": None})


def _reopened(this: SkyCluster, now: datetime) -> list[Any]:
    """Return the conditions without an end: a new attempt has none yet."""
    ends = [type_ for type_ in (ConditionType.COMPLETE, ConditionType.FAILED) if find(this.status.conditions, type_) is not None]
    verdicts = [false(type_, Reason.NOT_FINISHED) for type_ in ends]
    return updated(this.status.conditions, verdicts, generation=this.generation, now=now)


def rewritten(this: SkyCluster, launch: LaunchRecord, inputs: Inputs, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that never reached SkyPilot and was edited meanwhile: it is the new task's attempt."""
    return unacknowledged(this.status, _of_task(this, launch, inputs), now)


def _of_task(this: SkyCluster, launch: LaunchRecord, inputs: Inputs) -> LaunchRecord:
    wanted: Mapping[str, Any] = inputs.task or {}
    facts = {
        "task_digest": spec_digest(this.spec),
        "cluster_digest": task.cluster_digest(wanted),
        "has_run": inputs.has_run,
        "has_ports": task.has_ports(wanted),
        "autostop_minutes": backstop_minutes(this, inputs.policy, has_run=inputs.has_run),
    }
    return launch.model_copy(update=facts)


def given_up(status: SkyClusterStatus, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that is over: what it left is to be taken down."""
    if status.launch is None or status.launch.ended_at is not None:
        return status
    return status.model_copy(update={"launch": status.launch.model_copy(update={"ended_at": now})})


def suspended(status: SkyClusterStatus, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that suspending ended. As in batch/v1, deadline and count begin anew after that."""
    return given_up(status, now).model_copy(update={"job": None, "failures": None, "start_time": None})


def reopened(this: SkyCluster, now: datetime) -> SkyClusterStatus:
    """Return the status of a plain cluster that had come to its end, and is wanted again, as something else."""
    changes = {"conditions": _reopened(this, now), "completion_time": None, "failures": None, "start_time": None}
    return given_up(this.status, now).model_copy(update=changes)


def has_run(this: SkyCluster) -> bool:
    """Return whether the task has something to run: as launched, whatever it was edited to since."""
    if this.status.launch is not None:
        return this.status.launch.has_run
    return this.spec.task is not None and task.has_run(this.spec.task)


def is_set_up(status: SkyClusterStatus) -> bool:
    """Return whether the job was just the task's setup, and is done: SkyPilot runs setup as a job, also with nothing to run after it."""
    return is_plain(status) and status.job is not None and status.job.status == JobStatus.SUCCEEDED


def is_up(status: SkyClusterStatus) -> bool:
    """Return whether a cluster without a job came up, and its setup is done."""
    launched = status.launch is not None and status.launch.finished_at is not None and not is_over(status)
    return launched and is_plain(status) and (status.job is None or is_set_up(status))


def unacknowledged(status: SkyClusterStatus, launch: LaunchRecord, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that SkyPilot has no request of: not yet, or no more. The settle time begins anew."""
    record = launch.model_copy(update={"request_id": None, "requested_at": now})
    return status.model_copy(update={"launch": record})


def renumbered(status: SkyClusterStatus, launch: LaunchRecord, attempt: int) -> SkyClusterStatus:
    """Return the status with the attempt under the number that its cluster bears."""
    return status.model_copy(update={"launch": launch.model_copy(update={"attempt": attempt})})


def acknowledged(status: SkyClusterStatus, launch: LaunchRecord, request_id: str, now: datetime) -> SkyClusterStatus:
    """Return the status of an attempt that SkyPilot has taken."""
    record = launch.model_copy(update={"request_id": request_id, "started_at": launch.started_at or now})
    return status.model_copy(update={"launch": record, "start_time": status.start_time or now})


def launched(this: SkyCluster, status: SkyClusterStatus, launch: LaunchRecord, job_id: int | None, now: datetime) -> SkyClusterStatus:
    """Return the status of a launch that succeeded, with the job that came of it, if any.

    SkyPilot may not tell the job's id, even of a task with `run` (sky/server/requests/requests.py:271): it is then found by its name.
    """
    is_expected = job_id is not None or launch.has_run
    job = JobRecord(id=job_id, name=attempt_name(this, launch), display_name=(this.spec.task or {}).get("name")) if is_expected else None
    record = launch.model_copy(update={"finished_at": now, "started_at": launch.started_at or now})
    status = status.model_copy(update={"launch": record, "job": job, "start_time": status.start_time or now})
    return status if is_expected else forgiven(status)


def forgiven(status: SkyClusterStatus) -> SkyClusterStatus:
    """Return the status of a plain cluster that came up: failures before that count no more, however long it lives."""
    return status.model_copy(update={"failures": None})


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
        lost = {"status": None, "unhealthy_since": None, "endpoints": None}
        return status.model_copy(update={"cluster": record.model_copy(update=lost)})
    row = world.cluster
    facts = {
        "status": str(row.status),
        "infra": row.infra or record.infra,
        "resources": row.resources or record.resources,
        "nodes": row.nodes or record.nodes,
        "launched_at": row.launched_at or record.launched_at,
        "endpoints": _endpoints(record, world),
        "up_at": record.up_at or (world.now if world.is_up else None),
        "unhealthy_since": (record.unhealthy_since or world.now) if row.unhealthy or _is_left_in_init(row, world) else None,
    }
    return status.model_copy(update={"cluster": record.model_copy(update=facts)})


def _is_left_in_init(row: Cluster, world: World) -> bool:
    """Whether nobody is at work on a cluster that is half launched."""
    return row.status is ClusterStatus.INIT and not world.active


def _endpoints(record: ClusterRecord, world: World) -> list[Endpoint] | None:
    """Only a cluster that is UP is reached. Until it was asked where, what was found out before holds."""
    if not world.is_up or world.endpoints is None:
        return record.endpoints if world.is_up else None
    return [Endpoint(port=port, url=url) for port, url in islice(world.endpoints.items(), ENDPOINT_LIMIT)] or None


def torn_down(status: SkyClusterStatus) -> SkyClusterStatus:
    """Return the status once the cluster was confirmed gone."""
    if status.cluster is None:
        return status
    return status.model_copy(update={"cluster": status.cluster.model_copy(update={"status": TERMINATED, "endpoints": None})})


def has_ended(record: JobRecord) -> bool:
    """Return whether the job was seen to end."""
    return record.status is not None and JobStatus(record.status).terminal


def idle(status: SkyClusterStatus, since: datetime | None) -> SkyClusterStatus:
    """Return the status of a cluster on which no job has run since then; None: one runs."""
    if status.cluster is None:
        return status
    return status.model_copy(update={"cluster": status.cluster.model_copy(update={"idle_since": since})})


def backstopped(status: SkyClusterStatus, minutes: int | None) -> SkyClusterStatus:
    """Return the status of a cluster that SkyPilot ends by itself after so many idle minutes."""
    if status.launch is None:
        return status
    return status.model_copy(update={"launch": status.launch.model_copy(update={"autostop_minutes": minutes})})
