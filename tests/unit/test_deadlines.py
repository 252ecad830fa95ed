"""Deadlines and time to live, as batch/v1's Job has them: only the controller's clock decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ConditionType, Phase, SkyCluster
from skyoperator.decision import CancelJob, DeleteObject, Launch, TearDown
from skyoperator.sky.types import ClusterStatus, JobStatus, Launched, RequestError, RequestStatus
from skyoperator.subject import subject_of

from tests.unit.build import (
    NAME,
    NO_RUN,
    NOW,
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

LAUNCHED = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
RUNNING_JOB = a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(),))


def at(seconds: float, **seen: Any) -> Any:
    return a_world(NOW + timedelta(seconds=seconds), **seen)


def launching(**spec: Any) -> SkyCluster:
    return after(an_object(**spec), a_world())


def running(**spec: Any) -> SkyCluster:
    return after(launching(**spec), LAUNCHED, RUNNING_JOB)


class TestActiveDeadline:
    def test_it_counts_from_the_first_acknowledgement(self) -> None:
        this = launching(activeDeadlineSeconds=100)
        assert decide(this, at(99.9, launch=a_request())).status.phase is Phase.LAUNCHING
        status = decide(this, at(100, launch=a_request())).status
        assert condition(status, ConditionType.FAILED) == ("True", "DeadlineExceeded")

    def test_the_next_look_is_no_later_than_the_deadline(self) -> None:
        this = running(activeDeadlineSeconds=100)
        assert decide(this, at(95, cluster=a_cluster(), jobs=(a_job(),))).after_seconds == 5

    def test_what_is_not_acknowledged_has_no_deadline_yet(self) -> None:
        this = an_object(activeDeadlineSeconds=1)
        assert isinstance(decide(this, at(1000)).action, Launch)

    def test_it_is_recorded_in_an_outage_and_torn_down_after_it(self) -> None:
        this = after(running(activeDeadlineSeconds=100), an_outage(NOW + timedelta(seconds=200)))
        assert condition(this.status, ConditionType.FAILED) == ("True", "DeadlineExceeded")
        assert decide(this, an_outage(NOW + timedelta(seconds=300))).action is None
        assert decide(this, at(400, cluster=a_cluster())).action == TearDown(NAME, (), down=True)

    def test_it_is_no_failed_attempt_and_not_retried(self) -> None:
        status = decide(running(activeDeadlineSeconds=1, backoffLimit=5), at(2, cluster=a_cluster())).status
        assert status.failures is not None
        assert (status.failures.count, status.failures.next_retry_time) == (0, None)

    def test_it_ends_the_wait_for_a_retry(self) -> None:
        failed = a_world(launch=a_request(RequestStatus.FAILED), outcome=RequestError("ResourcesUnavailableError", "no GPU"))
        this = after(launching(activeDeadlineSeconds=5, backoffLimit=3), failed)
        assert condition(decide(this, at(6)).status, ConditionType.FAILED) == ("True", "DeadlineExceeded")

    def test_a_job_on_a_cluster_that_is_kept_is_cancelled_and_seen_to_end(self) -> None:
        this = after(running(activeDeadlineSeconds=100, whenFinished="Keep"), at(100, cluster=a_cluster(), jobs=(a_job(),)))
        assert subject_of(this) is not None
        decision = decide(this, at(101, cluster=a_cluster(), jobs=(a_job(),)))
        assert decision.action == CancelJob(NAME, 1)
        cancelled = after(this, at(103, cluster=a_cluster(), jobs=(a_job(JobStatus.CANCELLED),)))
        assert cancelled.status.job is not None
        assert cancelled.status.job.status == "CANCELLED"
        assert decide(cancelled, at(104, cluster=a_cluster(), jobs=(a_job(JobStatus.CANCELLED),))).action is None
        assert condition(cancelled.status, ConditionType.FAILED) == ("True", "DeadlineExceeded")

    def test_also_a_job_that_nobody_has_seen_yet(self) -> None:
        unseen = after(launching(activeDeadlineSeconds=100, whenFinished="Keep"), LAUNCHED)
        this = after(unseen, at(100, cluster=a_cluster()))
        assert decide(this, at(101, cluster=a_cluster(), jobs=(a_job(),))).action == CancelJob(NAME, 1)

    def test_it_bounds_a_cluster_without_a_job(self) -> None:
        ready = after(
            after(an_object(NO_RUN, activeDeadlineSeconds=100, whenFinished="Keep"), a_world()),
            a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None)),
        )
        this = after(ready, at(100, cluster=a_cluster()))
        assert decide(this, at(101, cluster=a_cluster())).action == TearDown(NAME, (), down=True)


class TestPreRunningDeadline:
    def test_a_launch_that_takes_too_long_fails(self) -> None:
        this = launching(preRunningDeadlineSeconds=60)
        status = decide(this, at(60, cluster=a_cluster(ClusterStatus.INIT), launch=a_request())).status
        assert condition(status, ConditionType.FAILED) == ("True", "DeadlineExceeded")
        failed = next(found for found in status.conditions if found.type == "Failed")
        assert "preRunningDeadlineSeconds (60 s)" in failed.message

    def test_a_job_that_has_begun_is_past_it(self) -> None:
        begun = a_job(JobStatus.RUNNING)
        begun = type(begun)(begun.id, begun.name, begun.status, started_at=NOW)
        this = after(launching(preRunningDeadlineSeconds=60), LAUNCHED, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(begun,)))
        assert decide(this, at(1000, cluster=a_cluster(), jobs=(begun,))).status.phase is Phase.RUNNING

    def test_a_job_that_waits_is_not(self) -> None:
        waiting = a_job(JobStatus.SETTING_UP)
        this = after(launching(preRunningDeadlineSeconds=60), LAUNCHED, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(waiting,)))
        status = decide(this, at(60, cluster=a_cluster(), jobs=(waiting,))).status
        assert condition(status, ConditionType.FAILED) == ("True", "DeadlineExceeded")

    def test_a_cluster_without_a_job_is_past_it_once_it_is_up(self) -> None:
        up = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None))
        this = after(after(an_object(NO_RUN, preRunningDeadlineSeconds=60), a_world()), up)
        assert decide(this, at(1000, cluster=a_cluster())).status.phase is Phase.READY

    def test_each_launch_has_its_own(self) -> None:
        failed = a_world(launch=a_request(RequestStatus.FAILED), outcome=RequestError("ResourcesUnavailableError", "no GPU"))
        this = after(launching(preRunningDeadlineSeconds=60, backoffLimit=3), failed, a_world(empty_seconds=10))
        assert decide(this, at(100, empty_seconds=10)).status.phase is not Phase.FAILED
        again = after(this, at(100))
        assert again.status.launch is not None
        assert again.status.launch.attempt == 2
        assert decide(again, at(159, launch=a_request())).status.phase is Phase.LAUNCHING
        assert condition(decide(again, at(160, launch=a_request())).status, ConditionType.FAILED)[0] == "True"


class TestTimeToLive:
    def complete(self, **spec: Any) -> SkyCluster:
        this = after(running(ttlSecondsAfterFinished=60, **spec), at(0, cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
        return after(this, at(5, empty_seconds=10))

    def test_a_finished_object_is_deleted_when_its_time_is_over(self) -> None:
        this = self.complete()
        before = decide(this, at(50))
        assert is_silent(this, before)
        assert before.after_seconds == 10
        assert decide(this, at(60)).action == DeleteObject()

    def test_also_while_the_server_is_away_and_its_cluster_is_still_there(self) -> None:
        this = after(running(ttlSecondsAfterFinished=60), at(0, cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
        assert decide(this, an_outage(NOW + timedelta(seconds=61))).action == DeleteObject()

    @pytest.mark.parametrize("this", [launching(ttlSecondsAfterFinished=0), running(ttlSecondsAfterFinished=0)])
    def test_nothing_else_is(self, this: SkyCluster) -> None:
        assert not isinstance(decide(this, at(10**6, cluster=a_cluster(), jobs=(a_job(),), launch=a_request())).action, DeleteObject)

    def test_one_that_is_being_deleted_is_not_deleted_again(self) -> None:
        this = self.complete().model_copy(update={"deleted_at": NOW})
        assert not isinstance(decide(this, at(100)).action, DeleteObject)
