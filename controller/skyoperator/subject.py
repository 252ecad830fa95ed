"""What to look at on behalf of one object: follows from its status alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.records import attempt_name, cluster_name, is_finished, is_set_up, is_terminated


@dataclass(frozen=True, slots=True)
class Subject:
    """One cluster, and what about it is of interest."""

    cluster_name: str
    request_id: str | None = None
    """The launch to follow."""
    attempt_name: str | None = None
    """The attempt to look for under its own name, while no request of it is known."""
    job_name: str | None = None
    """The job to follow."""
    wants_launch: bool = False
    """Whether the object would send a launch now, if it may: it is then put in line, and woken when its turn comes."""
    is_urgent: bool = True
    watches_queue: bool = False
    """Whether the queue is of interest although no job in it is ours: for idleness."""
    was_known: bool = False
    """Whether the status says that the cluster stood (UP or STOPPED) when last seen."""
    confirmed_lost_at: datetime | None = None
    """When a person confirmed that the cluster is gone (hold.CONFIRM_LOST)."""
    name: str = ""
    namespace: str = ""
    """The object's own, for messages."""

    @property
    def queue_name(self) -> str | None:
        """The name to find in the cluster's queue, "" if any job will do, or None if the queue is of no interest."""
        return self.job_name or self.attempt_name or ("" if self.watches_queue else None)


def subject_of(this: SkyCluster) -> Subject | None:
    """Return what to look at, or None if there is nothing left to see."""
    status, name = this.status, cluster_name(this)
    if is_terminated(status):
        return None
    if is_finished(status) or this.deleting or status.launch is None:
        is_kept = is_finished(status) and not this.deleting and this.spec.when_finished == "Keep"
        return Subject(name, is_urgent=not is_kept)
    if status.launch.finished_at is not None:
        return Subject(name, job_name=status.job.name if status.job and not is_set_up(status) else None, is_urgent=False)
    if status.launch.request_id is not None:
        return Subject(name, request_id=status.launch.request_id)
    return Subject(name, attempt_name=attempt_name(this, status.launch))
