"""The controller's own clock decides how long a cluster was idle; only jobs keep one busy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ConditionType, Phase, SkyCluster
from skyoperator.decision import SetAutostop, TearDown
from skyoperator.inputs import backstop_minutes
from skyoperator.sky.types import ClusterStatus, Job, JobStatus, Launched, RequestStatus
from skyoperator.subject import subject_of
from skyoperator.task import Policy
from skyoperator.world import World

from tests.unit.build import (
    NAME,
    NO_RUN,
    NOW,
    RUN,
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

TEN: Any = {"autostop": {"idleMinutes": 10}}
DONE = a_job(JobStatus.SUCCEEDED, name="somebody's")


def at(minutes: float, *jobs: Job, **seen: Any) -> World:
    return a_world(NOW + timedelta(minutes=minutes), **{"cluster": a_cluster(), "queue_was_read": True, "jobs": jobs, **seen})


def ready(**spec: Any) -> SkyCluster:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None))
    return after(after(an_object(NO_RUN, **spec), a_world()), launched, at(0))


def test_an_idle_cluster_comes_to_a_good_end() -> None:
    this = ready(**TEN)
    assert decide(this, at(9.9)).status.phase is Phase.READY
    this = after(this, at(10))
    assert condition(this.status, ConditionType.COMPLETE) == ("True", "Autostopped")
    assert condition(this.status, ConditionType.READY) == ("True", "Autostopped")
    assert decide(this, at(10)).action == TearDown(NAME, (), down=True)
    gone = after(this, a_world(NOW + timedelta(minutes=11), empty_seconds=10))
    assert (gone.status.phase, condition(gone.status, ConditionType.CLUSTER_READY)) == (Phase.SUCCEEDED, ("False", "Autostopped"))
    assert is_silent(gone, decide(gone, an_outage()))


def test_the_look_comes_when_the_time_is_over() -> None:
    this = ready(**TEN)
    assert decide(this, at(9.9)).after_seconds == pytest.approx(6)


def test_a_job_of_anybody_keeps_it_busy_and_its_end_counts_anew() -> None:
    this = after(ready(**TEN), at(9, a_job(name="somebody's")))
    assert this.status.cluster is not None
    assert this.status.cluster.idle_since is None
    assert decide(this, at(30, a_job(name="somebody's"))).status.phase is Phase.READY
    idle_again = after(this, at(31, DONE))
    assert decide(idle_again, at(40, DONE)).status.phase is Phase.READY
    assert condition(decide(idle_again, at(41, DONE)).status, ConditionType.COMPLETE)[0] == "True"


def test_a_job_that_came_and_went_between_two_looks_counts() -> None:
    this = after(ready(**TEN), at(8, replace(DONE, finished_at=NOW + timedelta(minutes=7))))
    assert decide(this, at(16.9, replace(DONE, finished_at=NOW + timedelta(minutes=7)))).status.phase is Phase.READY


def test_a_cluster_whose_clock_is_ahead_keeps_nothing_up() -> None:
    ahead = replace(DONE, finished_at=NOW + timedelta(days=9))
    this = after(ready(**TEN), at(1, ahead))
    assert this.status.cluster is not None
    assert this.status.cluster.idle_since == NOW + timedelta(minutes=1)


@pytest.mark.parametrize("world", [at(60, jobs=None), an_outage(NOW + timedelta(hours=1))], ids=["queue unreadable", "outage"])
def test_a_queue_that_was_never_read_is_no_proof_of_idleness(world: World) -> None:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None))
    this = after(after(an_object(NO_RUN, **TEN), a_world()), launched)
    assert decide(this, world).status.phase is Phase.READY


def stopped(minutes: float) -> World:
    return at(minutes, cluster=a_cluster(ClusterStatus.STOPPED), jobs=None)


def stuck(minutes: float, **seen: Any) -> World:
    """INIT, as SkyPilot leaves a row whose launch was killed; no queue can be read."""
    return at(minutes, **{"cluster": a_cluster(ClusterStatus.INIT), "jobs": None, **seen})


def busy(**spec: Any) -> SkyCluster:
    return after(ready(**TEN, **spec), at(1, a_job(name="somebody's")))


def test_a_cluster_that_somebody_stopped_runs_no_job() -> None:
    this = after(busy(), stopped(2))
    assert decide(this, stopped(11.9)).status.phase is Phase.READY
    assert condition(decide(this, stopped(12)).status, ConditionType.COMPLETE) == ("True", "Autostopped")


def test_one_that_is_started_again_in_time_is_busy_with_its_job() -> None:
    this = after(busy(), stopped(2), at(11, a_job(name="somebody's")))
    assert decide(this, at(60, a_job(name="somebody's"))).status.phase is Phase.READY


def test_a_cluster_that_stays_half_launched_with_nobody_at_work_on_it_is_lost() -> None:
    this = after(busy(), stuck(2))
    assert decide(this, stuck(11.9)).status.phase is Phase.READY
    assert condition(decide(this, stuck(12)).status, ConditionType.FAILED) == ("True", "ClusterLost")


@pytest.mark.parametrize("seen", [stuck(9, active=(a_request(),)), at(9, a_job(name="somebody's"))], ids=["at work", "up"])
def test_what_is_worked_on_or_was_up_in_between_is_not(seen: World) -> None:
    this = after(busy(), stuck(2), seen, stuck(10))
    assert decide(this, stuck(19)).status.phase is Phase.READY


@pytest.mark.parametrize(("world", "minutes"), [(stopped, 0), (stuck, 10)], ids=["stopped", "half launched"])
def test_a_kept_cluster_whose_queue_was_never_read_after_the_job_goes_too(world: Callable[[float], World], minutes: float) -> None:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
    this = after(after(an_object(RUN, whenFinished="Keep", **TEN), a_world()), launched, at(0, a_job(JobStatus.SUCCEEDED)))
    this = after(this, world(1), world(1 + minutes))
    assert decide(this, world(10.9 + minutes)).status.phase is Phase.SUCCEEDED
    assert decide(this, world(11 + minutes)).action == TearDown(NAME, (), down=True)


def test_the_installer_bounds_a_cluster_that_says_nothing() -> None:
    limit = Policy().default_autostop_minutes
    assert decide(ready(), at(limit - 0.1)).status.phase is Phase.READY
    assert condition(decide(ready(), at(limit)).status, ConditionType.COMPLETE)[0] == "True"


def kept(**spec: Any) -> SkyCluster:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
    this = after(after(an_object(RUN, whenFinished="Keep", **spec), a_world()), launched, at(0, a_job(JobStatus.SUCCEEDED)))
    return after(this, at(0, a_job(JobStatus.SUCCEEDED)))


def test_a_cluster_that_is_kept_after_its_job_goes_when_it_is_idle() -> None:
    ended = a_job(JobStatus.SUCCEEDED)
    this = kept(**TEN)
    assert decide(this, at(9.9, ended)).status.phase is Phase.SUCCEEDED
    decision = decide(this, at(10, ended))
    assert decision.action == TearDown(NAME, (), down=True)
    assert decision.status.phase is Phase.STOPPING
    assert condition(decision.status, ConditionType.COMPLETE) == ("True", "JobSucceeded")


def test_without_autostop_it_is_kept_and_its_queue_not_read() -> None:
    assert decide(kept(), at(10**6, a_job(JobStatus.SUCCEEDED))).action is None
    for this, queue in ((kept(), None), (kept(**TEN), "")):
        subject = subject_of(this)
        assert subject is not None
        assert subject.queue_name == queue


def test_skypilots_own_follows_an_edit_of_a_job_that_runs_and_of_a_cluster_that_is_kept() -> None:
    launched = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
    running = after(after(an_object(RUN), a_world()), launched, at(0, a_job()))
    to_be_kept = running.model_copy(update={"spec": an_object(RUN, whenFinished="Keep").spec, "generation": 2})
    assert decide(to_be_kept, at(1, a_job())).action == SetAutostop(NAME, None)
    longer = kept(**TEN).model_copy(update={"spec": an_object(RUN, whenFinished="Keep", autostop={"idleMinutes": 20000}).spec})
    assert decide(longer, at(1, a_job(JobStatus.SUCCEEDED))).action == SetAutostop(NAME, 20000 + 1440)


@pytest.mark.parametrize(
    ("spec", "minutes"),
    [
        ({"task_": NO_RUN}, 60 + 1440),
        ({"task_": NO_RUN, **TEN}, 10 + 1440),
        ({"task_": RUN}, 1440),
        ({"task_": RUN, "whenFinished": "Keep"}, None),
        ({"task_": RUN, "whenFinished": "Keep", **TEN}, 10 + 1440),
    ],
)
def test_skypilots_own_autostop_is_a_day_behind(spec: dict[str, Any], minutes: int | None) -> None:
    this = an_object(**spec)
    assert backstop_minutes(this, Policy(), has_run="run" in spec["task_"]) == minutes
    launched = after(this, a_world())
    assert launched.status.launch is not None
    assert launched.status.launch.autostop_minutes == minutes
