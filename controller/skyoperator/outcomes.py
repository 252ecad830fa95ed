"""How an object comes to its end, or to another launch: failed, overdue, completed, autostopped; and what becomes of its cluster then."""

from __future__ import annotations

from datetime import datetime

from skyoperator import task
from skyoperator.api.v1alpha1 import ConditionType, FailuresRecord, Reason, SkyCluster, SkyClusterStatus
from skyoperator.conditions import Verdict, find, true, updated
from skyoperator.failures import Failure
from skyoperator.records import given_up, is_idle_too_long, is_over, is_plain, unscheduled
from skyoperator.retries import is_retried, next_retry_time


def wants_down(this: SkyCluster, status: SkyClusterStatus, policy: task.Policy, now: datetime) -> bool:
    """Return whether the cluster of a finished object goes. Keep keeps the cluster of a job that ended, until it was idle long enough."""
    if this.spec.when_finished != "Keep" or status.job is None or is_over(status):
        return True
    if is_plain(status) and end_reason(status) in {Reason.AUTOSTOPPED, Reason.DEADLINE_EXCEEDED}:
        return True
    lost = end_reason(status) in {Reason.CLUSTER_LOST, Reason.OUTCOME_UNKNOWN}
    return lost or is_idle_too_long(this, policy, now)


def end_reason(status: SkyClusterStatus) -> str | None:
    """Return why the object is finished: the reason of the condition that says so."""
    ends = (find(status.conditions, type_) for type_ in (ConditionType.COMPLETE, ConditionType.FAILED))
    return next((end.reason for end in ends if end is not None and end.status == "True"), None)


def failed(this: SkyCluster, status: SkyClusterStatus, failure: Failure, now: datetime) -> SkyClusterStatus:
    """Return the status after a failure: with the time of the next launch in it if there is to be one, else at a bad end."""
    count = (status.failures.count if status.failures else 0) + 1
    retry_at = next_retry_time(this, failure.reason, count, now)
    record = FailuresRecord(count=count, reason=failure.reason, message=failure.message, next_retry_time=retry_at)
    status = status.model_copy(update={"failures": record})
    if retry_at is not None:
        return given_up(status, now)
    reason, message = _last_words(this, failure, count)
    return _ended(this, status, true(ConditionType.FAILED, reason, message), now)


def _last_words(this: SkyCluster, failure: Failure, count: int) -> tuple[Reason, str]:
    """Return reason and message of the end: that retries did not help is said if there were any."""
    if count <= 1 or not is_retried(this, failure.reason):
        return failure.reason, failure.message
    return Reason.BACKOFF_LIMIT_EXCEEDED, f"Launch {count} failed, and backoffLimit allows no more. {failure.reason}: {failure.message}"


def overdue(this: SkyCluster, message: str, now: datetime) -> SkyClusterStatus:
    """Return the status of an object whose time is over. It is no failed attempt: nothing is counted, nothing tried again."""
    count = this.status.failures.count if this.status.failures else 0
    record = FailuresRecord(count=count, reason=Reason.DEADLINE_EXCEEDED, message=message)
    status = this.status.model_copy(update={"failures": record})
    return _ended(this, status, true(ConditionType.FAILED, Reason.DEADLINE_EXCEEDED, message), now)


def completed(this: SkyCluster, status: SkyClusterStatus, now: datetime) -> SkyClusterStatus:
    """Return the status of an object that came to a good end."""
    return _ended(this, status, true(ConditionType.COMPLETE, Reason.JOB_SUCCEEDED, "The job succeeded."), now)


def autostopped(this: SkyCluster, status: SkyClusterStatus, now: datetime) -> SkyClusterStatus:
    """Return the status of a plain cluster that was idle for long enough: that is its good end."""
    since = status.cluster.idle_since if status.cluster else None
    words = f"No job ran on the cluster after {since:%Y-%m-%dT%H:%M:%SZ}: autostop takes it down." if since else ""
    return _ended(this, status, true(ConditionType.COMPLETE, Reason.AUTOSTOPPED, words), now)


def _ended(this: SkyCluster, status: SkyClusterStatus, verdict: Verdict, now: datetime) -> SkyClusterStatus:
    conditions = updated(status.conditions, [verdict], generation=this.generation, now=now)
    return status.model_copy(update={"conditions": conditions, "completion_time": now, "failures": unscheduled(status.failures)})
