"""What is worth an Event: one for each transition, none for a poll. Found by comparing the status before with the one after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skyoperator.api.v1alpha1 import TERMINATED, ConditionStatus, ConditionType, Reason, SkyClusterStatus
from skyoperator.conditions import find, is_true
from skyoperator.jobs import called


@dataclass(frozen=True, slots=True)
class Transition:
    """One Event to post."""

    kind: Literal["Normal", "Warning"]
    reason: str
    note: str


def transitions(before: SkyClusterStatus, after: SkyClusterStatus) -> list[Transition]:
    """Return what happened between two stored states, in the order in which it did."""
    found = (look(before, after) for look in (_acceptance, _launch, _job, _retry, _end, _down, _cluster, _suspension))
    return [transition for transition in found if transition is not None]


def _acceptance(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    old, new = find(before.conditions, ConditionType.ACCEPTED), find(after.conditions, ConditionType.ACCEPTED)
    if new is None or new.status is ConditionStatus.TRUE or (old is not None and (old.reason, old.message) == (new.reason, new.message)):
        return None
    return Transition("Warning", new.reason, new.message)


def _launch(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    old, new = before.launch, after.launch
    if new is None or new == old:
        return None
    if new.request_id is not None and (old is None or old.request_id != new.request_id):
        return Transition("Normal", "Launching", f"Attempt {new.attempt} was taken by SkyPilot as request {new.request_id}.")
    if old is not None and old.request_id is not None and new.request_id is None and old.attempt == new.attempt:
        note = (
            f"SkyPilot no longer knows request {old.request_id}; attempt {new.attempt} is looked for, and sent again if it left no trace."
        )
        return Transition("Warning", "LaunchLost", note)
    return None


def _job(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    was_there = before.launch is not None and before.launch.finished_at is not None
    if after.launch is None or after.launch.finished_at is None or was_there:
        return None
    name = after.cluster.name if after.cluster else ""
    if after.job is None:
        return Transition("Normal", "ClusterUp", f"Cluster {name} is up.")
    return Transition("Normal", "JobSubmitted", f"Cluster {name} is up and has {called(after.job.id)}.")


def _retry(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    old, new = before.failures, after.failures
    if new is None or new.next_retry_time is None or new.reason is None or (old is not None and old.count >= new.count):
        return None
    return Transition("Warning", new.reason, f"{new.message} To be launched again at {new.next_retry_time:%Y-%m-%dT%H:%M:%SZ}.")


def _suspension(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    was, now = (is_true(status.conditions, ConditionType.SUSPENDED) for status in (before, after))
    if was == now:
        return None
    if now:
        return Transition("Normal", "Suspended", "Nothing runs until spec.suspend is false again.")
    return Transition("Normal", "Resumed", "No longer suspended.")


def _end(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    if before.completion_time is not None or after.completion_time is None:
        return None
    failed = find(after.conditions, ConditionType.FAILED)
    if failed is not None and failed.status is ConditionStatus.TRUE:
        return Transition("Warning", failed.reason, failed.message)
    complete = find(after.conditions, ConditionType.COMPLETE)
    return Transition("Normal", complete.reason, complete.message) if complete else None


def _down(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    """Each message once, not each try."""
    old, new = find(before.conditions, ConditionType.CLUSTER_READY), find(after.conditions, ConditionType.CLUSTER_READY)
    if new is None or new.reason != Reason.DOWN_FAILED or (old is not None and (old.reason, old.message) == (new.reason, new.message)):
        return None
    return Transition("Warning", new.reason, new.message)


def _cluster(before: SkyClusterStatus, after: SkyClusterStatus) -> Transition | None:
    gone_before = before.cluster is not None and before.cluster.status == TERMINATED
    if after.cluster is None or after.cluster.status != TERMINATED or gone_before:
        return None
    return Transition("Normal", "ClusterDown", f"Cluster {after.cluster.name} is confirmed gone.")
