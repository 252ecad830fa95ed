"""The two annotations by which somebody says what the controller can't know."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ABANDON, CONFIRM_LOST, FINALIZER, TERMINATED, ConditionType, SkyCluster
from skyoperator.decision import Launch, RemoveFinalizer
from skyoperator.subject import subject_of

from tests.unit.build import NOW, RUN, a_cluster, a_world, after, an_object, an_outage, condition, decide, is_silent
from tests.unit.states import COMPLETE_STOPPING, EVERY_STATE, LAUNCHING, RUNNING

every_state = pytest.mark.parametrize("this", EVERY_STATE.values(), ids=EVERY_STATE)
LIVING = {name: this for name, this in EVERY_STATE.items() if not this.deleting}
ELSEWHERE: dict[str, Any] = {"server": "another", "empty_seconds": 100.0}


def abandon(this: SkyCluster) -> SkyCluster:
    return this.model_copy(update={"abandoned": True, "finalizers": (FINALIZER,)})


class TestAbandon:
    @every_state
    def test_it_lets_go_at_once_in_every_state_and_asks_skypilot_nothing(self, this: SkyCluster) -> None:
        abandoned = abandon(this)
        assert subject_of(abandoned) is None
        for deleting in (False, True):
            decision = decide(abandoned.model_copy(update={"deleted_at": NOW if deleting else None}), an_outage())
            assert decision.action == RemoveFinalizer(leaves_cluster=True)

    @pytest.mark.parametrize("this", LIVING.values(), ids=LIVING)
    def test_it_is_said_and_then_silent(self, this: SkyCluster) -> None:
        abandoned = abandon(this)
        let_go = after(abandoned, an_outage()).model_copy(update={"finalizers": ()})
        assert condition(let_go.status, ConditionType.READY) == ("False", "Abandoned")
        assert condition(let_go.status, ConditionType.STALLED) == ("True", "Abandoned")
        decision = decide(let_go, an_outage())
        assert is_silent(let_go, decision)
        assert decision.after_seconds is None

    def test_taken_back_the_object_is_followed_again(self) -> None:
        let_go = after(RUNNING.model_copy(update={"abandoned": True}), an_outage())
        back = let_go.model_copy(update={"abandoned": False})
        assert condition(decide(back, a_world(cluster=a_cluster())).status, ConditionType.READY) == ("True", "Running")


class TestConfirmLost:
    def confirmed(self, this: SkyCluster, when: datetime = NOW) -> SkyCluster:
        return this.model_copy(update={"confirmed_lost_at": when})

    @pytest.mark.parametrize("this", [LAUNCHING, RUNNING], ids=["launching", "running"])
    def test_a_cluster_on_a_server_that_is_no_more_is_lost_when_somebody_says_so(self, this: SkyCluster) -> None:
        assert decide(this, a_world(**ELSEWHERE)).status.completion_time is None
        status = decide(self.confirmed(this), a_world(**ELSEWHERE)).status
        assert condition(status, ConditionType.FAILED) == ("True", "ClusterLost")
        assert status.cluster is not None
        assert status.cluster.status == TERMINATED

    def test_it_is_launched_again_on_the_new_server_if_the_object_retries(self) -> None:
        retried = RUNNING.model_copy(update={"spec": an_object(RUN, backoffLimit=1).spec})
        this = after(self.confirmed(retried), a_world(**ELSEWHERE))
        later = a_world(NOW + timedelta(minutes=1), **ELSEWHERE)
        decision = decide(this, later)
        assert isinstance(decision.action, Launch)
        assert decision.status.cluster is not None
        assert decision.status.cluster.server == "another"

    @pytest.mark.parametrize("this", [COMPLETE_STOPPING, RUNNING.model_copy(update={"deleted_at": NOW})], ids=["finished", "deleted"])
    def test_nothing_is_torn_down_there(self, this: SkyCluster) -> None:
        gone = after(self.confirmed(this), a_world(**ELSEWHERE))
        decision = decide(gone, a_world(**ELSEWHERE))
        assert decision.action in (None, RemoveFinalizer())
        assert decision.status.completion_time == this.status.completion_time

    def test_a_word_on_an_earlier_loss_says_nothing_about_a_later_one(self) -> None:
        """It vanished together with others, somebody said that it was gone, and it came back: then its server is another."""
        held = after(RUNNING, an_outage(NOW + timedelta(minutes=1)))
        confirmed = self.confirmed(held, NOW + timedelta(minutes=2))
        back = after(confirmed, a_world(NOW + timedelta(minutes=3), cluster=a_cluster()))
        moved = a_world(NOW + timedelta(minutes=4), **ELSEWHERE)
        assert decide(back, moved).status.completion_time is None
        told = after(back, moved)
        assert decide(told, a_world(NOW + timedelta(minutes=9), **ELSEWHERE)).status.completion_time is None
        again = self.confirmed(told, NOW + timedelta(minutes=5))
        assert decide(again, a_world(NOW + timedelta(minutes=9), **ELSEWHERE)).status.completion_time is not None

    def test_a_word_from_before_the_launch_says_nothing_about_it(self) -> None:
        stale = self.confirmed(RUNNING, NOW - timedelta(seconds=1))
        assert decide(stale, a_world(**ELSEWHERE)).status.completion_time is None

    def test_nothing_is_taken_for_lost_that_is_here(self) -> None:
        assert decide(self.confirmed(RUNNING), a_world(cluster=a_cluster())).status.completion_time is None
        assert decide(self.confirmed(RUNNING), an_outage()).status.completion_time is None


@pytest.mark.parametrize(
    ("annotations", "abandoned", "lost_at"),
    [
        ({}, False, None),
        (None, False, None),
        ({ABANDON: "true"}, True, None),
        ({ABANDON: "yes"}, False, None),
        ({CONFIRM_LOST: "2026-01-01T12:00:00Z"}, False, NOW),
        ({CONFIRM_LOST: "2026-01-01T12:00:00"}, False, None),
        ({CONFIRM_LOST: "true"}, False, None),
    ],
)
def test_what_the_annotations_say(annotations: dict[str, str] | None, abandoned: bool, lost_at: datetime | None) -> None:
    meta = {"name": "a", "namespace": "b", "uid": "c", "generation": 1, "resourceVersion": "1", "finalizers": [FINALIZER]}
    this = SkyCluster.from_body({"metadata": {**meta, "annotations": annotations}, "spec": {"task": RUN}})
    assert (this.abandoned, this.confirmed_lost_at) == (abandoned, lost_at)
