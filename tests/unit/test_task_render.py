import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.task import TaskRejected, digest, has_run, render

from tests.parser.tasks import LABELS, POLICY, tasks

JOB = "0b4f6d1e-a3"
LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


def rendered(task: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(render(task, job_name=JOB, labels=LABELS, policy=POLICY))
    return loaded


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


@given(task=tasks(), loader=st.sampled_from(LOADERS))
def test_one_yaml_document_that_reads_back_as_it_was_meant(task: dict[str, Any], loader: Any) -> None:
    text = render(task, job_name=JOB, labels=LABELS, policy=POLICY)
    (document,) = yaml.load_all(text, Loader=loader)  # both loaders are safe ones
    assert document["name"] == JOB
    assert {key: value for key, value in document["envs"].items() if not key.startswith("GIT_")} == {
        key: str(value) for key, value in task["envs"].items()
    }
    untouched = ("num_nodes", "workdir")
    assert {key: document.get(key) for key in untouched} == {key: task.get(key) for key in untouched}
    own = dict(task.get("resources") or {})
    assert {**own, "labels": {**own.get("labels", {}), **LABELS}} == document["resources"]
    for stage in ("setup", "run"):
        assert document.get(stage, "").endswith(task.get(stage, ""))


@given(task=tasks())
def test_nothing_is_left_for_skypilot_to_substitute(task: dict[str, Any]) -> None:
    out = rendered(task)
    for field in ("file_mounts", "workdir", "volumes"):
        assert not [text for text in strings(out.get(field)) if "$" in text]


@given(task=tasks())
def test_rendering_changes_nothing_of_what_it_was_given(task: dict[str, Any]) -> None:
    before = copy.deepcopy(task)
    first = render(task, job_name=JOB, labels=LABELS, policy=POLICY)
    assert render(task, job_name=JOB, labels=LABELS, policy=POLICY) == first
    assert task == before


def test_variables_are_replaced_in_paths_and_addresses_only() -> None:
    out = rendered(
        {
            "envs": {"V": "v1", "N": 2},
            "file_mounts": {"/data/$V": "s3://datasets/${V}/part-$N"},
            "workdir": {"url": "https://h/o/r", "ref": "${V}"},
            "volumes": {"/scratch/$N": "scratch"},
            "run": "echo $V",
        }
    )
    assert out["file_mounts"] == {"/data/v1": "s3://datasets/v1/part-2"}
    assert out["volumes"] == {"/scratch/2": "scratch"}
    assert out["envs"]["GIT_BRANCH"] == "v1"
    assert out["run"].endswith("echo $V")


def test_alternatives_keep_our_labels() -> None:
    out = rendered({"resources": {"labels": {"a": "b"}, "any_of": [{"labels": {"a": "c"}}, {"cpus": 1}]}})
    assert out["resources"]["labels"] == {"a": "b", **LABELS}
    assert out["resources"]["any_of"] == [{"labels": {"a": "c"}}, {"cpus": 1}]


@pytest.mark.parametrize(
    ("workdir", "expected"),
    [
        ({"url": "https://h/o/r"}, {"GIT_URL": "https://h/o/r"}),
        ({"url": "https://h/o/r.git/", "ref": "main"}, {"GIT_URL": "https://h/o/r.git", "GIT_BRANCH": "main"}),
        ({"url": "git@h.io:o/r.git"}, {"GIT_URL": "ssh://git@h.io/o/r.git"}),
        ({"url": "https://h/r", "ref": "refs/heads/0123abc"}, {"GIT_URL": "https://h/r", "GIT_BRANCH": "0123abc"}),
        ({"url": "https://h/r", "ref": "refs/tags/v1"}, {"GIT_URL": "https://h/r", "GIT_TAG": "v1"}),
        ({"url": "https://h/r", "ref": "0123abc"}, {"GIT_URL": "https://h/r", "GIT_COMMIT_HASH": "0123abc"}),
        ({"url": "https://h/r", "ref": "a" * 40}, {"GIT_URL": "https://h/r", "GIT_COMMIT_HASH": "a" * 40}),
    ],
)
def test_a_repository_becomes_the_variables_that_clone_it(workdir: dict[str, Any], expected: dict[str, str]) -> None:
    out = rendered({"workdir": workdir, "run": "ls"})
    assert out["envs"] == expected
    assert out["workdir"] == workdir, "SkyPilot clones only if the key is there"


def test_what_check_refuses_is_never_rendered() -> None:
    with pytest.raises(TaskRejected):
        render({"file_mounts": {"/x": "/etc"}}, job_name=JOB, labels=LABELS)


@pytest.mark.parametrize("job_name", ["", "a b", "a/../b", "$(id)", "A"])
def test_a_job_name_of_another_make_is_a_bug(job_name: str) -> None:
    with pytest.raises(ValueError, match="job name"):
        render({"run": "true"}, job_name=job_name, labels=LABELS)


@pytest.mark.parametrize("labels", [{"team": "x"}, {"skyoperator-a\n": "x"}, {"skyoperator-a": "a b"}])
def test_a_label_of_another_make_is_a_bug(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        render({"run": "true"}, job_name=JOB, labels=labels)


@pytest.mark.parametrize(("task", "expected"), [({"run": "x"}, True), ({"run": " "}, False), ({"setup": "x"}, False)])
def test_a_job_is_what_run_says(task: dict[str, Any], expected: bool) -> None:
    assert has_run(task) is expected


class TestDigest:
    def test_the_order_of_keys_and_the_form_of_numbers_do_not_matter(self) -> None:
        first: dict[str, Any] = {"num_nodes": 1, "resources": {"cpus": 2, "infra": "k8s", "gpus": None}, "setup": None}
        assert digest(first) == digest({"resources": {"infra": "k8s", "cpus": 2.0}, "num_nodes": 1})

    @pytest.mark.parametrize(
        "other", [{"run": "b"}, {"run": "a", "num_nodes": 1}, {"run": "a", "envs": {"A": True}}, {"run": "a", "envs": {"A": 1}}]
    )
    def test_another_task_has_another_digest(self, other: dict[str, Any]) -> None:
        assert digest(other) != digest({"run": "a"})

    def test_text_and_numbers_are_not_alike(self) -> None:
        assert len({digest({"envs": {"A": value}}) for value in (1, "1", True, "True", 1.5)}) == 5

    @given(task=tasks())
    def test_a_copy_has_the_same_digest(self, task: dict[str, Any]) -> None:
        assert digest(task) == digest(dict(reversed(copy.deepcopy(task).items())))
        assert len(digest(task)) == 16
