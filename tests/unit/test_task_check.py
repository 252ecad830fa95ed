from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.task import Policy, TaskRejected, check, digest, render

from tests.parser.tasks import LABELS, POLICY, tasks

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = (
    "name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "volumes", "setup", "run", "secrets", "config", "url",
    "ref", "infra", "gpus", "accelerators", "any_of", "ordered", "labels", "image_id", "ports", "source", "mode", "priority",
    "docker", "_x", "$A", "/x", "cpus", "size", "GIT_URL",
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=5),
    max_leaves=20,
)
any_task = st.dictionaries(st.sampled_from(KEYS) | st.text(), anything, max_size=6)


def refusal(task: Any, policy: Policy = POLICY) -> TaskRejected | None:
    try:
        check(task, policy=policy)
    except TaskRejected as error:
        return error
    return None


def rejected(task: Any, policy: Policy = POLICY) -> TaskRejected:
    error = refusal(task, policy)
    assert error, "the task was accepted"
    return error


def keys_of(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {str(key) for key in value} | {key for inner in value.values() for key in keys_of(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys_of(inner)}
    return set()


@given(task=any_task)
def test_any_input_is_rejected_or_rendered(task: dict[str, Any]) -> None:
    if error := refusal(task):
        assert error.problems
        assert error.reason in ("InvalidTask", "PolicyDenied")
        assert all(problem.startswith("spec.task") for problem in error.problems)
    else:
        assert not [key for key in keys_of(task) if key.startswith("_")]
        assert render(task, job_name="0b4f6d1e-a1", labels=LABELS, policy=POLICY)
        assert digest(task)


@given(task=tasks(), data=st.data())
def test_a_key_with_an_underscore_is_refused_at_any_depth(task: dict[str, Any], data: st.DataObject) -> None:
    objects = [task]
    for found in objects:
        objects.extend(inner for inner in found.values() if isinstance(inner, dict))
        objects.extend(item for inner in found.values() if isinstance(inner, list) for item in inner if isinstance(item, dict))
    data.draw(st.sampled_from(objects))["_x"] = data.draw(scalars)
    assert "_x" in str(rejected(task))


@given(task=tasks())
def test_a_task_out_of_the_ordinary_vocabulary_is_accepted(task: dict[str, Any]) -> None:
    check(task, policy=POLICY)


@given(task=tasks())
def test_without_a_policy_no_bucket_and_no_volume_is_reached(task: dict[str, Any]) -> None:
    if task.get("file_mounts") or task.get("volumes"):
        assert rejected(task, Policy()).reason == "PolicyDenied"
    else:
        check(task)


def test_every_problem_is_told_at_once_with_its_path_and_a_way_out() -> None:
    error = rejected({"runn": "x", "num_nodes": 0, "resources": {"acelerators": "H100", "any_of": [{"cpus": []}]}})
    assert error.problems == (
        "spec.task.runn: there is no such key; did you mean run?",
        "spec.task.num_nodes: 0 must be a whole number from 1",
        "spec.task.resources.acelerators: there is no such key; did you mean accelerators?",
        'spec.task.resources.any_of[0].cpus: must be a number of CPUs, such as 4 or "4+", not list',
    )
    assert all(problem in str(error) for problem in error.problems)


def test_a_mistake_outweighs_a_denial_in_the_reason() -> None:
    assert rejected({"config": {}, "runn": "x"}).reason == "InvalidTask"


def test_a_message_stays_readable_and_bounded() -> None:
    error = rejected({f"key{number}": "x" for number in range(500)})
    assert len(error.problems) == 500
    assert str(error).endswith("and 480 more")
    assert len(str(rejected({"name": "x" * 100_000}))) < 300
    assert len(str(rejected({"x" * 100_000: 1}))) < 300


def test_secrets_are_never_repeated() -> None:
    told = str(
        rejected(
            {
                "secrets": {"TOKEN": "s3cret"},
                "envs": {"SKYPILOT_DOCKER_PASSWORD": "s3cret", "A B": "s3cret"},
                "resources": {"_docker_login_config": {"password": "s3cret"}},
                "workdir": {"url": "https://user:s3cret@h/o/r", "ref": "x"},
            }
        )
    )
    assert "s3cret" not in told
    assert "s3cret" not in str(rejected({"workdir": {"url": "ssh://u:s3cret@h/a b"}}))


def test_what_workdir_sets_cannot_be_set_beside_it() -> None:
    workdir = {"url": "https://h/o/r"}
    for name in ("GIT_URL", "GIT_BRANCH", "GIT_TAG", "GIT_COMMIT_HASH", "GIT_TOKEN", "GIT_SSH_KEY"):
        assert f"spec.task.envs.{name}" in str(rejected({"workdir": workdir, "envs": {name: "x"}}))
    assert "~/sky_workdir" in str(rejected({"workdir": workdir, "file_mounts": {"~/sky_workdir": "s3://datasets"}}))


def test_a_long_script_is_refused_with_its_size() -> None:
    told = str(rejected({"run": "x" * 30_000, "setup": "é" * 15_000}))
    assert "60000 bytes" in told
    assert "workdir" in told


class TestVariables:
    @pytest.mark.parametrize("name", ["$V", "${V}"])
    @pytest.mark.parametrize("value", ['k", "/y": "/etc', "/../../x", "; id", "\n", "$HOME", "${W}", "é", " "], ids=ascii)
    def test_a_value_is_judged_where_it_lands(self, name: str, value: str) -> None:
        rejected({"envs": {"V": value, "W": "x"}, "file_mounts": {"/x": f"s3://datasets/{name}"}})
        rejected({"envs": {"V": value, "W": "x"}, "file_mounts": {f"/x/{name}": "s3://datasets"}})
        rejected({"envs": {"V": value, "W": "x"}, "workdir": {"url": f"https://h/{name}"}})
        rejected({"envs": {"V": value, "W": "x"}, "volumes": {"/x": {"name": "scratch", "sub_path": f"{name}"}}})

    def test_a_value_cannot_become_a_key_of_skypilots_own(self) -> None:
        storage = {"source": "s3://datasets", "$V": True}
        assert rejected({"envs": {"V": "_force_delete"}, "file_mounts": {"/x": storage}}).reason == "PolicyDenied"

    def test_a_value_cannot_name_another_bucket(self) -> None:
        mounts = {"/x": "s3://datasets$V"}
        assert rejected({"envs": {"V": "-of-others"}, "file_mounts": mounts}).reason == "PolicyDenied"

    def test_a_value_cannot_be_a_path_of_the_server(self) -> None:
        assert rejected({"envs": {"V": "/etc"}, "file_mounts": {"/x": "$V"}}).reason == "PolicyDenied"

    @pytest.mark.parametrize("left", ["$", "$UNKNOWN", "${V", "$1", "${V:-x}", "$$V"])
    def test_nothing_is_left_for_skypilot_to_replace(self, left: str) -> None:
        told = rejected({"envs": {"V": "a"}, "file_mounts": {"/x": f"s3://datasets/{left}"}})
        assert "holds a $" in str(told)

    def test_a_value_cannot_make_a_path_without_end(self) -> None:
        for name in ("$A", "$A" * 1000):
            told = rejected({"envs": {"A": "a" * 5000}, "workdir": {"url": f"https://h/{name}"}})
            assert "too long" in str(told)
            assert "spec.task.workdir.url" in str(told)

    def test_two_variables_cannot_hide_a_mount(self) -> None:
        told = rejected({"envs": {"A": "x", "B": "x"}, "file_mounts": {"/$A": "s3://datasets", "/$B": "s3://datasets"}})
        assert "two keys are the same" in str(told)


def test_aliases_that_multiply_or_contain_themselves_are_refused() -> None:
    bomb: list[Any] = ["x"] * 10
    for _ in range(10):
        bomb = [bomb] * 10
    assert "make it smaller" in str(rejected({"envs": bomb}))
    loop: dict[str, Any] = {}
    loop["resources"] = loop
    assert "make it smaller" in str(rejected(loop))
