"""A name is a task instance's own, and stays its own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.identity import COLLECTED, TASK_LABEL, Identity, said
from skyoperator_provider.reattach import Step, next_step

IDENTITY = Identity("prod", "train", "manual__2026-01-01T00:00:00+00:00", "group.fit_model", map_index=3, series=1)
TEXTS = st.text(min_size=1, max_size=300)
IDENTITIES = st.builds(Identity, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(-1, 9999), st.integers(0, 99))


def object_of(identity: Identity, **status: str) -> dict[str, Any]:
    """An object as this identity made it, whose conditions are as told, of its present generation."""
    conditions = [{"type": key, "status": value, "reason": "R", "message": "m", "observedGeneration": 2} for key, value in status.items()]
    metadata = {"name": identity.name, "uid": "u1", "generation": 2, "annotations": dict(identity.annotations), "labels": identity.labels}
    return {"metadata": metadata, "status": {"conditions": conditions}}


@given(IDENTITIES)
def test_names_and_labels_are_what_kubernetes_takes(identity: Identity) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,33}[a-z0-9])?", identity.name)
    for value in identity.labels.values():
        assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)


@given(IDENTITIES, IDENTITIES)
def test_two_task_instances_never_share_a_name(one: Identity, other: Identity) -> None:
    assert (one.name == other.name) == (one == other)
    assert (one.labels[TASK_LABEL] == other.labels[TASK_LABEL]) == (replace(one, series=0) == replace(other, series=0))


@pytest.mark.parametrize(
    "changed",
    [{"deployment": "dev"}, {"dag_id": "x"}, {"run_id": "x"}, {"task_id": "group.fit_model2"}, {"map_index": 4}, {"series": 2}],
    ids=lambda changed: next(iter(changed)),
)
def test_each_part_makes_another_name(changed: dict[str, Any]) -> None:
    other = replace(IDENTITY, **changed)
    assert other.name != IDENTITY.name
    assert not other.owns(object_of(IDENTITY))


def test_the_name_tells_the_task_and_never_changes() -> None:
    """A name that another version made must be found by this one: a change of it would launch every running task again."""
    assert IDENTITY.name == "group-fit-model-bb3d47e542"


def test_parts_are_never_mixed_up() -> None:
    assert Identity("a", "b", "c", "d,e").name != Identity("a", "b", "c,d", "e").name


def test_long_values_keep_apart_in_labels() -> None:
    one, other = (replace(IDENTITY, run_id="r" * 70 + end).labels["airflow.skyoperator.dev/run-id"] for end in "ab")
    assert one != other


def test_said() -> None:
    assert "task-id 'group.fit_model'" in said(object_of(IDENTITY))
    assert said({"metadata": {}}) == "nobody that Airflow knows"


def finished(*annotations: str, **status: str) -> dict[str, Any]:
    body = object_of(IDENTITY, **status)
    body["metadata"]["annotations"].update(dict.fromkeys(annotations, "true"))
    return body


def leaving(**status: str) -> dict[str, Any]:
    body = object_of(IDENTITY, **status)
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return body


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (None, Step.CREATE),
        (object_of(IDENTITY), Step.ADOPT),
        (object_of(IDENTITY, Accepted="True", Ready="False"), Step.ADOPT),
        (object_of(IDENTITY, Accepted="Unknown"), Step.ADOPT),
        (finished(Complete="True"), Step.COLLECT),
        (finished(COLLECTED, Complete="True"), Step.REPLACE),
        (finished(Failed="True"), Step.REPLACE),
        (finished(Accepted="False"), Step.REPLACE),
        (leaving(Complete="True"), Step.AWAIT_GONE),
        (leaving(Failed="True"), Step.AWAIT_GONE),
        (leaving(), Step.AWAIT_GONE),
        (object_of(replace(IDENTITY, deployment="dev")), Step.CONFLICT),
        ({"metadata": {"name": IDENTITY.name, "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, Step.CONFLICT),
    ],
)
def test_what_a_try_does_about_what_it_finds(found: dict[str, Any] | None, step: Step) -> None:
    assert next_step(found, IDENTITY) is step


def test_a_failure_of_an_older_generation_is_no_news() -> None:
    found = object_of(IDENTITY, Failed="True")
    found["metadata"]["generation"] = 3
    assert next_step(found, IDENTITY) is Step.ADOPT
