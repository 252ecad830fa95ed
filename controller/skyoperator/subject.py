"""What to look at on behalf of one object: follows from its spec and status alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from skyoperator import records
from skyoperator.api.v1alpha1 import ConditionType, LaunchRecord, SkyCluster
from skyoperator.conditions import is_true
from skyoperator.inputs import is_edited
from skyoperator.sky.types import ClusterStatus


@dataclass(frozen=True, slots=True)
class Subject:
    """One cluster, and what about it is of interest."""

    cluster_name: str
    request_id: str | None = None
    """The launch to follow."""
    attempt_name: str | None = None
    """The attempt to look for under its own name, while no request of it is known."""
    job_name: str | None = None
    """The job to follow; empty: all of them, for whether any runs."""
    ports_of: str | None = None
    """The attempt whose open ports are of interest."""
    wants_launch: bool = False
    """Whether the object would send a launch now, if it may: it is then put in line, and woken when its turn comes."""
    is_urgent: bool = True
    was_known: bool = False
    """Whether the status says that the cluster stood when last seen."""
    confirmed_lost_at: datetime | None = None
    """When a person confirmed that the cluster is gone."""
    unknown_since: datetime | None = None
    """Since when, by the status, nothing has been known of the cluster."""
    name: str = ""
    namespace: str = ""
    """The object's own, for messages."""

    @property
    def queue_name(self) -> str | None:
        """The name to find in the cluster's queue, or None if the queue is of no interest."""
        return self.attempt_name if self.job_name is None else self.job_name


def subject_of(this: SkyCluster) -> Subject | None:
    """Return what to look at, or None if there is nothing left to see."""
    subject = _subject_of(this)
    if subject is None:
        return None
    record = this.status.cluster
    was_known = record is not None and record.status in {ClusterStatus.UP, ClusterStatus.STOPPED}
    return replace(
        subject,
        was_known=was_known,
        confirmed_lost_at=this.confirmed_lost_at,
        unknown_since=records.unknown_since(this.status),
        name=this.name,
        namespace=this.namespace,
    )


def _subject_of(this: SkyCluster) -> Subject | None:
    status, name, launch = this.status, records.cluster_name(this), this.status.launch
    if _is_at_rest(this):
        return None
    if this.deleting:
        return Subject(name)
    if records.is_finished(status):
        return _of_finished(this, name)
    if this.spec.suspend:
        return Subject(name)
    if launch is None or launch.ended_at is not None:
        return Subject(name, wants_launch=records.is_clear(status), is_urgent=not _is_waiting(this))
    return _of_launch(this, name, launch)


def _is_at_rest(this: SkyCluster) -> bool:
    if this.abandoned:
        return True
    ends = records.is_finished(this.status) or this.deleting or this.spec.suspend
    never_launched = this.status.launch is None and is_true(this.status.conditions, ConditionType.SUSPENDED)
    return (ends and records.is_terminated(this.status)) or (this.spec.suspend and never_launched and not this.deleting)


def _is_waiting(this: SkyCluster) -> bool:
    """Whether nothing is to be expected but that time goes by."""
    is_due_later = this.status.failures is not None and this.status.failures.next_retry_time is not None
    return is_due_later and records.is_clear(this.status)


def _of_finished(this: SkyCluster, name: str) -> Subject:
    is_kept = this.spec.when_finished == "Keep" and this.status.job is not None
    if not is_kept or this.status.job is None:
        return Subject(name)
    watches_idleness = "" if this.spec.autostop is not None else None
    job_name = watches_idleness if records.has_ended(this.status.job) else this.status.job.name
    return Subject(name, job_name=job_name, ports_of=_ports_of(this), is_urgent=False)


def _of_launch(this: SkyCluster, name: str, launch: LaunchRecord) -> Subject:
    status = this.status
    if records.is_up(status):
        return Subject(name, job_name="", ports_of=_ports_of(this), wants_launch=is_edited(this), is_urgent=False)
    if launch.finished_at is not None:
        return Subject(name, job_name=status.job.name if status.job else None, ports_of=_ports_of(this), is_urgent=False)
    if launch.request_id is not None:
        return Subject(name, request_id=launch.request_id, job_name=records.attempt_name(this, launch))
    return Subject(name, attempt_name=records.attempt_name(this, launch), wants_launch=True)


def _ports_of(this: SkyCluster) -> str | None:
    launch = this.status.launch
    return records.attempt_name(this, launch) if launch is not None and launch.has_ports else None
