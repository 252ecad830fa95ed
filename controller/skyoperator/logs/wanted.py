"""Which logs an object calls for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.logs.types import Kind
from skyoperator.records import cluster_name, has_ended, is_finished, is_over, is_terminated


@dataclass(frozen=True, slots=True)
class Pull:
    """One log to be had from SkyPilot."""

    attempt: int
    kind: Kind
    cluster_name: str
    job_id: int | None
    """The job's; None for a launch."""
    is_last_call: bool
    """Whether nothing more will be in it, or its cluster is about to go: what is not had now is lost."""
    was_cut_short: bool
    """Whether its cluster is taken down while the job runs."""
    is_gone: bool = False
    """Whether its cluster was confirmed gone: then nothing of it can be had."""


def pulls(this: SkyCluster) -> tuple[Pull, ...]:
    """Return the logs of the object's latest attempt: the launch's once SkyPilot has taken it, the job's once there is one."""
    launch = this.status.launch
    if launch is None or launch.started_at is None:
        return ()
    name, goes = cluster_name(this), _goes(this)
    is_gone = is_terminated(this.status)
    found = [Pull(launch.attempt, Kind.LAUNCH, name, None, goes or launch.finished_at is not None, was_cut_short=False, is_gone=is_gone)]
    job = this.status.job
    if job is not None and job.id is not None:
        is_short = goes and not has_ended(job)
        found.append(Pull(launch.attempt, Kind.JOB, name, job.id, goes or has_ended(job), was_cut_short=is_short, is_gone=is_gone))
    return tuple(found)


def _goes(this: SkyCluster) -> bool:
    """Whether the cluster is being taken down, or is to be."""
    is_finished_with = is_finished(this.status) and this.spec.when_finished != "Keep"
    return this.deleting or this.spec.suspend or is_finished_with or is_over(this.status) or is_terminated(this.status)
