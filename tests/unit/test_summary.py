"""What tools read off an object. kstatus' rules are written down here as they are in cli-utils (pkg/kstatus/status/generic.go)."""

from __future__ import annotations

from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ConditionType, SkyCluster, SkyClusterStatus

from tests.unit.build import a_cluster, a_job, a_world, after, an_object, condition, decide
from tests.unit.states import COMPLETE, EDITED, EVERY_STATE, FAILED, KEPT, LAUNCHING, READY, REJECTED, RUNNING

every_written_state = pytest.mark.parametrize("this", [this for this in EVERY_STATE.values() if this.status.phase], ids=str)


def kstatus(this: SkyCluster) -> str:
    content: dict[str, Any] = this.status.as_json()
    if this.deleting:
        return "Terminating"
    if content.get("observedGeneration") != this.generation:
        return "InProgress"
    found = {condition["type"]: condition["status"] for condition in content["conditions"]}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready") == "True" else "InProgress"


@pytest.mark.parametrize(
    ("this", "expected"),
    [
        (REJECTED, "Failed"),
        (LAUNCHING, "InProgress"),
        (RUNNING, "Current"),
        (READY, "Current"),
        (COMPLETE, "Current"),
        (KEPT, "Current"),
        (FAILED, "Failed"),
        (EDITED, "InProgress"),
        (RUNNING.model_copy(update={"deleting": True}), "Terminating"),
    ],
)
def test_kstatus(this: SkyCluster, expected: str) -> None:
    assert kstatus(this) == expected


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


def test_a_transition_time_moves_only_with_the_status() -> None:
    later = after(RUNNING, a_world(RUNNING.status.start_time.replace(hour=20), cluster=a_cluster(), jobs=(a_job(),)))  # type: ignore[union-attr]
    assert [found.last_transition_time for found in later.status.conditions] == [
        found.last_transition_time for found in RUNNING.status.conditions
    ]


def test_a_long_message_fits_a_condition() -> None:
    status = after(an_object({f"key-{number}": 1 for number in range(5000)}), a_world()).status
    assert all(len(found.message) <= 32768 for found in status.conditions)
