"""As batch/v1's Job: a suspended object has nothing running, keeps its place, and begins anew afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ConditionType, Phase, SkyCluster
from skyoperator.decision import Launch, TearDown
from skyoperator.sky.types import JobStatus
from skyoperator.subject import subject_of

from tests.unit.build import (
    NAME,
    NOW,
    RUN,
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
from tests.unit.states import COMPLETE, FAILED, LAUNCHING, NEW, READY, RUNNING, UNACKNOWLEDGED


def suspend(this: SkyCluster, *, on: bool = True, **spec: Any) -> SkyCluster:
    changed = this.spec.model_copy(update={"suspend": on, **spec})
    return this.model_copy(update={"spec": changed, "generation": this.generation + 1})


SUSPENDED = after(suspend(RUNNING), a_world(cluster=a_cluster(), jobs=(a_job(),)), a_world(empty_seconds=10.0))


@pytest.mark.parametrize("this", [LAUNCHING, RUNNING, READY], ids=["launching", "running", "ready"])
def test_what_runs_is_taken_down_first(this: SkyCluster) -> None:
    stopping = after(suspend(this), a_world(cluster=a_cluster(), active=(a_request(),)))
    assert (stopping.status.phase, condition(stopping.status, ConditionType.SUSPENDED)[0]) == (Phase.STOPPING, "False")
    assert decide(stopping, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)
    done = after(stopping, a_world(empty_seconds=10.0))
    assert done.status.phase is Phase.SUSPENDED
    assert condition(done.status, ConditionType.SUSPENDED) == ("True", "Suspended")
    assert condition(done.status, ConditionType.READY) == ("True", "Suspended")
    assert condition(done.status, ConditionType.COMPLETE)[0] == condition(done.status, ConditionType.FAILED)[0] == "False"


def test_what_may_still_arrive_is_waited_for() -> None:
    this = after(suspend(UNACKNOWLEDGED), a_world())
    assert decide(this, a_world(empty_seconds=30.0)).status.phase is Phase.STOPPING
    later = a_world(NOW + timedelta(seconds=61), empty_seconds=30.0)
    assert decide(this, later).status.phase is Phase.SUSPENDED


def test_nothing_is_launched_from_the_beginning() -> None:
    decision = decide(suspend(NEW), a_world())
    assert decision.action is None
    assert decision.status.phase is Phase.SUSPENDED
    assert decision.status.launch is None


def test_it_is_silent_then_and_through_an_outage_and_not_looked_at() -> None:
    for world in (a_world(), an_outage()):
        decision = decide(SUSPENDED, world)
        assert is_silent(SUSPENDED, decision)
        assert decision.after_seconds is None
    assert subject_of(SUSPENDED) is None
    never = after(suspend(NEW), a_world())
    assert subject_of(never) is None
    assert is_silent(never, decide(never, an_outage()))


def test_it_is_recorded_while_the_server_is_away_and_torn_down_later() -> None:
    this = after(suspend(RUNNING), an_outage())
    assert this.status.launch is not None
    assert this.status.launch.ended_at == NOW
    assert decide(this, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)


def test_resumed_it_is_launched_anew_under_a_new_number_with_a_new_start() -> None:
    decision = decide(suspend(SUSPENDED, on=False), a_world(NOW + timedelta(hours=1)))
    assert decision.action == Launch(NAME, f"{UID[:8]}-a2")
    assert decision.status.start_time is None
    assert decision.status.failures is None
    assert condition(decision.status, ConditionType.SUSPENDED)[0] == "False"


def test_resumed_in_mid_teardown_it_is_gone_before_it_is_launched() -> None:
    stopping = after(suspend(RUNNING), a_world(cluster=a_cluster()))
    resumed = suspend(stopping, on=False)
    assert decide(resumed, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)
    gone = after(resumed, a_world(empty_seconds=10.0))
    assert isinstance(decide(gone, a_world()).action, Launch)


def test_the_task_may_be_edited_meanwhile() -> None:
    edited = suspend(SUSPENDED, on=False, task={**RUN, "run": "echo other"})
    decision = decide(edited, a_world())
    assert condition(decision.status, ConditionType.ACCEPTED)[0] == "True"
    assert isinstance(decision.action, Launch)


@pytest.mark.parametrize("this", [COMPLETE, FAILED], ids=["complete", "failed"])
def test_a_finished_object_is_not_affected(this: SkyCluster) -> None:
    assert decide(suspend(this), a_world()).action is None
    assert decide(suspend(this), a_world()).status.phase == this.status.phase
    assert decide(suspend(suspend(this), on=False), a_world()).action is None


def test_a_job_that_ends_while_it_is_suspended_ends_nothing() -> None:
    stopping = after(suspend(RUNNING), a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
    assert condition(stopping.status, ConditionType.COMPLETE)[0] == "False"


def test_a_wiped_status_does_not_hide_what_runs() -> None:
    wiped = suspend(an_object())
    assert decide(wiped, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)
    assert decide(wiped, an_outage()).status.phase is not Phase.SUSPENDED
