"""A cluster that is to go waits for its job's log: not for ever, not without need, and the object says where the log is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import LogRecord, ResultRecord, SkyCluster
from skyoperator.decision import TearDown
from skyoperator.inputs import inline
from skyoperator.sky.types import ClusterStatus, JobStatus
from skyoperator.task import Policy

from tests.unit.build import NO_RUN, NOW, RUN, a_cluster, a_world, after, an_object, decide, edited, is_silent, with_status
from tests.unit.states import deleted, going_up, launched, with_job

KEEPS = Policy(log_wait_seconds=60)
SECOND = timedelta(seconds=1)


def running(**spec: Any) -> SkyCluster:
    """An object whose job runs."""
    this = after(an_object(RUN, **spec), a_world(), going_up(), launched(1))
    return after(this, with_job(JobStatus.RUNNING))


def archived(this: SkyCluster, attempt: int = 1, **facts: Any) -> SkyCluster:
    """The object once the log process has written of this attempt's log."""
    return with_status(this, this.status.model_copy(update={"log": LogRecord(attempt=attempt, state="Archived", bytes=7, **facts)}))


def goes_down(this: SkyCluster, after_seconds: float, *, policy: Policy = KEEPS, **seen: Any) -> bool:
    """Whether the cluster is taken down so long after NOW."""
    world = a_world(NOW + timedelta(seconds=after_seconds), **{"cluster": a_cluster(), **seen})
    return isinstance(decide(this, world, inline(this, policy)).action, TearDown)


def ends_in(how: str) -> SkyCluster:
    match how:
        case "success":
            return after(running(), with_job(JobStatus.SUCCEEDED))
        case "a failure that is launched again":
            return after(running(retryOn=["JobFailed"], backoffLimit=3), with_job(JobStatus.FAILED))
        case "suspend":
            return after(edited(running(), suspend=True), with_job(JobStatus.RUNNING))
        case _:
            return deleted(running())


@pytest.mark.parametrize(("how", "seconds"), [("success", 60), ("a failure that is launched again", 60), ("suspend", 60), ("deletion", 20)])
def test_a_cluster_waits_for_its_log_so_long_and_no_longer(how: str, seconds: int) -> None:
    this = ends_in(how)
    assert not goes_down(this, seconds - 1)
    assert goes_down(this, seconds)
    assert goes_down(archived(this), 1), "as soon as the log is kept"
    assert goes_down(this, 1, policy=Policy()), "nobody keeps logs"


def test_the_log_of_an_earlier_attempt_is_not_the_one_that_is_waited_for() -> None:
    this = after(running(), with_job(JobStatus.SUCCEEDED))
    assert this.status.launch is not None
    second = with_status(this, this.status.model_copy(update={"launch": this.status.launch.model_copy(update={"attempt": 2})}))
    assert not goes_down(archived(second, attempt=1), 1)
    assert goes_down(archived(second, attempt=2), 1)


@pytest.mark.parametrize("status", [ClusterStatus.INIT, ClusterStatus.STOPPED])
def test_nothing_is_waited_for_where_no_log_can_be_read(status: ClusterStatus) -> None:
    assert goes_down(ends_in("deletion"), 1, cluster=a_cluster(status))


def test_a_cluster_without_a_job_goes_at_once() -> None:
    this = deleted(after(an_object(NO_RUN), a_world(), going_up(), launched(None)))
    assert goes_down(this, 1)


def test_a_launch_that_is_on_its_way_goes_at_once() -> None:
    assert goes_down(deleted(after(an_object(RUN), a_world(), going_up())), 1)


def test_what_waits_writes_nothing() -> None:
    this = ends_in("success")
    world = a_world(NOW + SECOND, cluster=a_cluster())
    this = with_status(this, decide(this, world, inline(this, KEEPS)).status)
    later = a_world(NOW + 2 * SECOND, cluster=a_cluster())
    assert is_silent(this, decide(this, later, inline(this, KEEPS)))


def test_the_job_says_where_its_log_is_and_what_it_returned() -> None:
    result = ResultRecord(state="Collected", bytes=2, sha256="0" * 64)
    this = archived(running(), result=result)
    world = with_job(JobStatus.RUNNING, NOW + SECOND)
    job = decide(this, world, inline(this, KEEPS)).status.job
    assert job is not None
    assert job.log == "/apis/logs.skyoperator.dev/v1alpha1/namespaces/ml/skyclusters/train/log?attempt=1"
    assert job.result == result
    earlier = archived(running(), attempt=9, result=result)
    job = decide(earlier, world, inline(earlier, KEEPS)).status.job
    assert job is not None
    assert job.result is None
    job = decide(this, world, inline(this, Policy())).status.job
    assert job is not None
    assert job.log is None, "nobody keeps logs"
