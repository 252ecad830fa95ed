"""What people and tools read off an object: the conditions, as metav1 has them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from skyoperator.api.v1alpha1 import ConditionStatus, ConditionType, SkyCluster, SkyClusterStatus
from skyoperator.sky.types import JobStatus
from skyoperator.transitions import transitions

from tests.unit.build import a_cluster, a_job, a_world, after, an_object, an_outage, condition, decide, edited
from tests.unit.states import EDITED, EVERY_STATE, LAUNCHING, deleted, gone, idle, launched, reached, with_job

WRITTEN = {name: this for name, this in EVERY_STATE.items() if this.status.phase}
every_written_state = pytest.mark.parametrize("this", WRITTEN.values(), ids=WRITTEN)


@every_written_state
def test_every_condition_is_there_from_the_first_write_on(this: SkyCluster) -> None:
    assert [condition.type for condition in this.status.conditions] == [type_.value for type_ in ConditionType]


@every_written_state
def test_work_under_way_and_stuck_are_never_said_together(this: SkyCluster) -> None:
    pair = {condition(this.status, type_)[0] for type_ in (ConditionType.RECONCILING, ConditionType.STALLED)}
    assert pair != {"True"}


@every_written_state
def test_complete_and_failed_are_never_said_together(this: SkyCluster) -> None:
    pair = [condition(this.status, type_)[0] for type_ in (ConditionType.COMPLETE, ConditionType.FAILED)]
    assert pair.count("True") <= 1


def test_an_edit_that_is_not_taken_is_stuck() -> None:
    status = decide(EDITED, a_world(cluster=a_cluster(), jobs=(a_job(),))).status
    assert condition(status, ConditionType.READY) == ("False", "ImmutableTask")
    assert condition(status, ConditionType.STALLED) == ("True", "ImmutableTask")


@every_written_state
def test_a_status_survives_kube_apiserver(this: SkyCluster) -> None:
    assert SkyClusterStatus.model_validate(this.status.as_json()) == this.status


@pytest.mark.parametrize("change", ["nothing", "outage", "deleted", "suspended", "gone", "idle"])
@every_written_state
def test_a_transition_time_moves_only_with_the_status(this: SkyCluster, change: str) -> None:
    later = reached(this) + timedelta(hours=3)
    world = {"outage": an_outage(later), "gone": gone(later), "idle": idle(later)}.get(change, with_job(JobStatus.RUNNING, later))
    moved = {"deleted": deleted(this), "suspended": edited(this, suspend=True)}.get(change, this)
    for before, now in zip(this.status.conditions, decide(moved, world).status.conditions, strict=True):
        assert before.type == now.type
        assert now.last_transition_time == (before.last_transition_time if now.status is before.status else later)


@every_written_state
def test_conditions_are_those_of_metav1(this: SkyCluster) -> None:
    """apimachinery, pkg/apis/meta/v1/types.go: the markers of Condition."""
    for found in this.status.as_json()["conditions"]:
        assert set(found) == {"type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"}
        assert found["status"] in {"True", "False", "Unknown"}
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", found["reason"])
        assert len(found["reason"]) <= 1024
        assert len(found["message"]) <= 32768
        assert found["observedGeneration"] == this.status.observed_generation
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["lastTransitionTime"])


@every_written_state
def test_what_is_not_as_asked_says_why(this: SkyCluster) -> None:
    ready = next(found for found in this.status.conditions if found.type == ConditionType.READY)
    assert ready.status is ConditionStatus.TRUE or ready.message


def test_a_job_whose_number_nobody_told_yet_is_called_the_job() -> None:
    """SkyPilot may not tell it (sky/server/requests/requests.py:271); it is then found by its name."""
    untold = after(LAUNCHING, launched(None))
    lost = after(untold, gone())
    said = [found.message for this in (untold, lost) for found in this.status.conditions]
    said += [
        transition.note for before, now in ((LAUNCHING, untold), (untold, lost)) for transition in transitions(before.status, now.status)
    ]
    assert "The job was submitted." in said
    assert not [message for message in said if "None" in message]


def test_a_long_message_fits_a_condition() -> None:
    status = after(an_object({f"key-{number}": 1 for number in range(5000)}), a_world()).status
    assert all(len(found.message) <= 32768 for found in status.conditions)
