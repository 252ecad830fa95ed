"""What the log process has to do with an object: where its log is read, and how long its cluster waits for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from skyoperator.api.logs import LOGS_GROUP, LOGS_VERSION
from skyoperator.api.v1alpha1 import JobRecord, SkyCluster, SkyClusterStatus
from skyoperator.task import Policy
from skyoperator.world import World

DELETION_WAIT: Final = timedelta(seconds=20)
"""How long a deleted object waits at most."""


def awaits_log(this: SkyCluster, world: World, policy: Policy) -> bool:
    """Return whether the cluster may not go yet: the end of its job's log is being had. Only ever true for a while."""
    launch, log = this.status.launch, this.status.log
    if launch is None or not (launch.has_run and launch.finished_at and world.is_up):
        return False
    is_had = log is not None and log.attempt == launch.attempt
    since = _over_since(this)
    return not is_had and since is not None and world.now < since + _wait(this, policy)


def _wait(this: SkyCluster, policy: Policy) -> timedelta:
    wait = timedelta(seconds=policy.log_wait_seconds)
    return min(wait, DELETION_WAIT) if this.deleting else wait


def _over_since(this: SkyCluster) -> datetime | None:
    """Return since when the cluster is to go."""
    launch = this.status.launch
    ends = (this.deleted_at, this.status.completion_time, launch.ended_at if launch else None)
    return min((end for end in ends if end is not None), default=None)


def with_log(this: SkyCluster, status: SkyClusterStatus, policy: Policy) -> JobRecord | None:
    """Return the job's record with where its log is read, and what became of the value that it returned."""
    job, log = status.job, status.log
    if job is None or policy.log_wait_seconds == 0 or status.launch is None:
        return job
    is_of_job = log is not None and log.attempt == status.launch.attempt
    path = f"/apis/{LOGS_GROUP}/{LOGS_VERSION}/namespaces/{this.namespace}/skyclusters/{this.name}/log?attempt={status.launch.attempt}"
    return job.model_copy(update={"log": path, "result": log.result if log is not None and is_of_job else None})
