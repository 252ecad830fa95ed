"""A failure that the object wants retried is launched again: later each time, on a cluster confirmed gone, under a new number."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.api.v1alpha1 import ConditionType, Phase, Reason, RetryReason, SkyCluster
from skyoperator.decision import Launch, TearDown
from skyoperator.retries import FIRST_PAUSE_SECONDS, JITTER, LONGEST_PAUSE_SECONDS, pause_seconds
from skyoperator.sky.types import JobStatus, Launched, RequestError, RequestStatus

from tests.unit.build import (
    NAME,
    NOW,
    UID,
    a_cluster,
    a_job,
    a_request,
    a_world,
    after,
    an_object,
    an_outage,
    condition,
    decide,
    is_silent,
)

NO_GPU = RequestError("ResourcesUnavailableError", "no GPU")
REFUSED = a_world(launch=a_request(RequestStatus.FAILED), outcome=NO_GPU)
MUCH_LATER = NOW + timedelta(minutes=5)


def launching(**spec: Any) -> SkyCluster:
    return after(an_object(**{"backoffLimit": 2, **spec}), a_world())


def backing_off(**spec: Any) -> SkyCluster:
    return after(launching(**spec), REFUSED)


def due(this: SkyCluster) -> datetime:
    assert this.status.failures is not None
    assert this.status.failures.next_retry_time is not None
    return this.status.failures.next_retry_time


def test_the_time_of_the_next_launch_is_in_the_status_and_said() -> None:
    this = backing_off()
    pause = (due(this) - NOW).total_seconds()
    assert FIRST_PAUSE_SECONDS * (1 - JITTER) - 1 <= pause <= FIRST_PAUSE_SECONDS * (1 + JITTER)
    assert condition(this.status, ConditionType.FAILED) == ("False", "NotFinished")
    assert condition(this.status, ConditionType.RECONCILING)[0] == "True"
    assert condition(this.status, ConditionType.READY) == ("False", "NoCapacity")
    ready = next(found for found in this.status.conditions if found.type == "Ready")
    assert ready.message == f"no GPU To be launched again at {due(this):%Y-%m-%dT%H:%M:%SZ} (retry 1 of 2)."


def test_what_the_failed_launch_left_is_confirmed_gone_before_the_next() -> None:
    this = backing_off()
    decision = decide(this, a_world(MUCH_LATER, cluster=a_cluster()))
    assert decision.action == TearDown(NAME, (), down=True)
    assert decide(this, a_world(MUCH_LATER, empty_seconds=9.9)).action is None
    gone = after(this, a_world(MUCH_LATER, empty_seconds=10.0))
    assert gone.status.launch is not None
    assert gone.status.launch.attempt == 1
    assert isinstance(decide(gone, a_world(MUCH_LATER, empty_seconds=10.0)).action, Launch)


def test_it_is_not_launched_before_its_time_and_looked_at_no_sooner() -> None:
    gone = after(backing_off(), a_world(empty_seconds=10.0))
    decision = decide(gone, a_world(empty_seconds=20.0))
    assert is_silent(gone, decision)
    assert decision.after_seconds == (due(gone) - NOW).total_seconds()


def test_the_next_launch_is_another_attempt_under_another_name() -> None:
    gone = after(backing_off(), a_world(empty_seconds=10.0))
    decision = decide(gone, a_world(due(gone)))
    assert decision.action == Launch(NAME, f"{UID[:8]}-a2")
    launch, failures = decision.status.launch, decision.status.failures
    assert launch is not None
    assert (launch.attempt, launch.request_id, launch.ended_at, launch.started_at) == (2, None, None, None)
    assert failures is not None
    assert (failures.count, failures.next_retry_time) == (1, None)
    assert decision.status.job is None


def test_the_deadline_of_all_launches_runs_on() -> None:
    first = launching()
    second = after(after(backing_off(), a_world(empty_seconds=10.0)), a_world(MUCH_LATER))
    assert second.status.start_time == first.status.start_time


def test_an_outage_neither_counts_nor_hastens() -> None:
    gone = after(backing_off(), a_world(empty_seconds=10.0))
    decision = decide(gone, an_outage(MUCH_LATER))
    assert decision.action is None
    assert decision.status.failures == gone.status.failures


def exhausted() -> SkyCluster:
    this = launching()
    for attempt in (1, 2):
        this = after(this, REFUSED, a_world(empty_seconds=10.0))
        this = after(this, a_world(due(this)))
        assert this.status.launch is not None
        assert this.status.launch.attempt == attempt + 1
    return after(this, REFUSED)


def test_after_the_last_retry_it_fails_and_says_so() -> None:
    status = exhausted().status
    assert condition(status, ConditionType.FAILED) == ("True", "BackoffLimitExceeded")
    assert status.failures is not None
    assert (status.failures.count, status.failures.reason, status.failures.next_retry_time) == (3, "NoCapacity", None)
    failed = next(found for found in status.conditions if found.type == "Failed")
    assert failed.message == "Launch 3 failed, and backoffLimit allows no more. NoCapacity: no GPU"


def test_without_retries_the_reason_is_the_failure_itself() -> None:
    assert condition(backing_off(backoffLimit=0).status, ConditionType.FAILED) == ("True", "NoCapacity")


def running(**spec: Any) -> SkyCluster:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
    return after(launching(**spec), launched, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(),)))


@pytest.mark.parametrize("job", [JobStatus.FAILED, JobStatus.FAILED_SETUP, JobStatus.CANCELLED])
def test_the_users_own_failures_are_not_retried_unless_asked(job: JobStatus) -> None:
    seen = a_world(cluster=a_cluster(), jobs=(a_job(job),))
    assert condition(after(running(), seen).status, ConditionType.FAILED)[0] == "True"


def test_a_job_that_fails_is_rerun_if_asked_even_where_its_cluster_would_be_kept() -> None:
    asked = running(retryOn=["JobFailed"], whenFinished="Keep")
    this = after(asked, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.FAILED),)))
    assert condition(this.status, ConditionType.FAILED)[0] == "False"
    assert decide(this, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)


def test_a_job_that_succeeded_is_never_rerun() -> None:
    this = after(running(), a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
    assert condition(this.status, ConditionType.COMPLETE)[0] == "True"
    assert decide(this, a_world(MUCH_LATER, empty_seconds=10.0)).action is None


def test_an_outcome_that_nobody_knows_is_never_rerun() -> None:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
    this = after(launching(retryOn=list(RetryReason), backoffLimit=9), launched)
    assert condition(decide(this, a_world(empty_seconds=10.0)).status, ConditionType.FAILED) == ("True", "OutcomeUnknown")
    assert Reason.OUTCOME_UNKNOWN.value not in set(RetryReason)


def test_a_lost_cluster_is_confirmed_gone_before_its_job_runs_again() -> None:
    this = after(running(), a_world(empty_seconds=10.0))
    assert this.status.failures is not None
    assert this.status.failures.reason == "ClusterLost"
    assert this.status.phase is Phase.STOPPING
    assert decide(this, a_world(MUCH_LATER, active=(a_request(id_="r7"),))).action == TearDown(NAME, ("r7",), down=True)


def test_a_retry_finds_an_edited_task_and_launches_that() -> None:
    gone = after(backing_off(), a_world(empty_seconds=10.0))
    edited = gone.model_copy(update={"spec": an_object({"run": "echo smaller"}, backoffLimit=2).spec, "generation": 2})
    decision = decide(edited, a_world(MUCH_LATER))
    assert isinstance(decision.action, Launch)
    assert condition(decision.status, ConditionType.ACCEPTED)[0] == "True"


@given(st.uuids(), st.integers(1, 100))
def test_pauses_double_up_to_a_limit_and_are_the_same_each_time(uid: object, failures: int) -> None:
    pause = pause_seconds(str(uid), failures)
    middle = min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
    assert middle * (1 - JITTER) <= pause <= middle * (1 + JITTER)
    assert pause == pause_seconds(str(uid), failures)


def test_a_crowd_does_not_come_back_at_once() -> None:
    assert len({round(pause_seconds(f"object-{number}", 1)) for number in range(50)}) >= 4
