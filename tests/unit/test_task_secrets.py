"""Secrets of an object: their names, their way into the rendered task, and that nothing else ever shows them."""

import logging
import traceback
from contextlib import nullcontext
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from skyoperator.task import TaskRejected, check, check_values, render

from tests.parser.tasks import LABELS, POLICY, secrets, tasks

JOB = "0b4f6d1e-a3"
CANARY = "c4n4ry-5ecret"

unhurried = settings(deadline=None, max_examples=50)


def rendered(task: dict[str, Any], values: dict[str, str], **options: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(render(task, job_name=JOB, labels=LABELS, policy=POLICY, secrets=values, **options))
    return loaded


def rejected(task: dict[str, Any], *names: str) -> TaskRejected:
    with pytest.raises(TaskRejected) as raised:
        check(task, policy=POLICY, secret_names=names)
    return raised.value


class TestNames:
    @pytest.mark.parametrize(
        "names",
        [
            ("HF_TOKEN",),
            ("GIT_TOKEN", "GIT_SSH_KEY"),
            ("SKYPILOT_DOCKER_USERNAME", "SKYPILOT_DOCKER_PASSWORD", "SKYPILOT_DOCKER_SERVER"),
        ],
    )
    def test_what_a_job_and_what_skypilot_reads(self, names: tuple[str, ...]) -> None:
        check({"workdir": {"url": "https://h/o/r"}}, secret_names=names)

    @pytest.mark.parametrize(
        "name",
        ["A-B", "1A", "", "A\n", "secrets:A", "_A", "SKYPILOT_TASK_ID", "SKYPILOT_RUNPOD_DOCKER_USERNAME", "GIT_URL", "GIT_BRANCH", "ENV"],
    )
    def test_a_name_that_is_not_free_is_refused_where_it_stands(self, name: str) -> None:
        error = rejected({"workdir": {"url": "https://h/o/r"}, "envs": {"ENV": "x"}}, "FINE", name)
        assert error.reason == "InvalidTask"
        assert [problem.partition(": ")[0] for problem in error.problems] == ["spec.secrets[1].name"]

    def test_a_part_of_a_login_is_refused_with_what_is_missing(self) -> None:
        told = str(rejected({}, "SKYPILOT_DOCKER_PASSWORD", "SKYPILOT_DOCKER_USERNAME"))
        assert told.endswith("add SKYPILOT_DOCKER_SERVER")

    def test_a_secret_is_no_variable_for_paths(self) -> None:
        told = rejected({"file_mounts": {"/x": "s3://datasets/$TOKEN"}}, "TOKEN")
        assert "holds a $" in str(told)


class TestRendering:
    @unhurried
    @given(task=tasks(), values=secrets)
    def test_every_value_arrives_to_the_letter_and_changes_nothing_else(self, task: dict[str, Any], values: dict[str, str]) -> None:
        with_secrets, without = rendered(task, values), rendered(task, {})
        assert with_secrets.pop("secrets", {}) == values
        assert with_secrets == without

    def test_text_that_looks_like_another_type_stays_text(self) -> None:
        values = {"A": "yes", "B": "012", "C": "null", "D": "", "E": "1e3", "F": "!!int 3"}
        assert rendered({}, values)["secrets"] == values

    @pytest.mark.parametrize("value", ["a\x00b", "\ud800"], ids=ascii)
    def test_what_no_variable_can_hold_is_refused_without_being_shown(self, value: str) -> None:
        with pytest.raises(TaskRejected) as raised:
            rendered({}, {"A": "x", "TOKEN": value + CANARY})
        assert raised.value.problems[0].startswith("spec.secrets[1]: the value of TOKEN ")
        assert CANARY not in str(raised.value)

    def test_a_secret_too_long_for_the_script_is_refused_with_its_size(self) -> None:
        check({"run": "x" * 40_000}, secret_names=("TOKEN",))
        with pytest.raises(TaskRejected, match="setup, run, envs and secrets are 50005 bytes"):
            rendered({"run": "x" * 40_000}, {"TOKEN": "y" * 10_000})

    @pytest.mark.parametrize(("value", "fits"), [("y" * 8_000, True), ("y" * 10_000, False), ("\0", False)], ids=["fits", "long", "NUL"])
    def test_what_would_be_refused_is_known_before_it_is_rendered(self, value: str, fits: bool) -> None:
        with nullcontext() if fits else pytest.raises(TaskRejected):
            check_values({"run": "x" * 40_000}, {"TOKEN": value})

    @unhurried
    @given(
        task=tasks(),
        broken=st.sampled_from(
            [{"run": 1}, {"resources": {"cpus": []}}, {"envs": {"TOKEN": "x"}}, {"x": 1}, {"file_mounts": {"/a": "/b"}}]
        ),
    )
    def test_whatever_goes_wrong_no_value_is_told(self, task: dict[str, Any], broken: dict[str, Any]) -> None:
        with pytest.raises(TaskRejected) as raised:
            rendered({**task, **broken}, {"TOKEN": CANARY})
        assert CANARY not in "".join(traceback.format_exception(raised.value))
        assert CANARY not in repr(raised.value)

    @pytest.mark.parametrize("options", [{"job_name": "A B"}, {"labels": {"team": "x"}}, {"autostop_minutes": 0}], ids=str)
    def test_a_bug_of_ours_tells_no_value_either(self, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises(ValueError, match=r"label|job name|autostop") as raised:
            render({"run": "true"}, **{"job_name": JOB, "labels": LABELS, "secrets": {"TOKEN": CANARY}, **options})
        assert CANARY not in "".join(traceback.format_exception(raised.value)) + caplog.text


class TestAutostop:
    def test_it_ends_the_cluster_whichever_alternative_is_taken(self) -> None:
        out = rendered({"resources": {"any_of": [{"infra": "k8s"}, {"infra": "aws"}]}}, {}, autostop_minutes=120)
        assert out["resources"]["autostop"] == {"idle_minutes": 120, "down": True}
        assert all("autostop" not in item for item in out["resources"]["any_of"])

    def test_without_it_skypilot_never_ends_a_cluster_itself(self) -> None:
        assert "autostop" not in rendered({"run": "true"}, {})["resources"]

    @pytest.mark.parametrize(
        "resources", [{"infra": "hyperbolic"}, {"cloud": "Verda"}, {"any_of": [{"infra": "k8s"}, {"infra": "yotta/x"}]}], ids=str
    )
    def test_a_cloud_that_cannot_is_not_asked_to(self, resources: dict[str, Any]) -> None:
        assert "autostop" not in rendered({"resources": resources}, {}, autostop_minutes=120)["resources"]
