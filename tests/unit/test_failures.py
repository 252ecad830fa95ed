"""SkyPilot's errors, as real servers gave them (failures.json), and what users are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.api.v1alpha1 import Reason, RetryReason, SkyClusterSpec
from skyoperator.failures import (
    ALL_KILLED,
    HEAD_LIMIT,
    LOST,
    MESSAGE_LIMIT,
    Failure,
    bounded,
    last_words,
    launch_refused,
    of_job,
    of_launch,
    verdict,
)
from skyoperator.sky.types import JobStatus, RequestError

ROOT: Final = Path(__file__).resolve().parents[2]
ANSWERS: Final[dict[str, dict[str, Any]]] = json.loads(Path(__file__).with_name("failures.json").read_text())
LAUNCHES: Final = {**ANSWERS["recorded"], **ANSWERS["written"]}
REFUSED: Final = "Failed to acquire resources in context in-cluster for {Kubernetes(cpus=1)}."
JOBS: Final = ANSWERS["jobs"]


def error_of(name: str) -> RequestError:
    answer = LAUNCHES[name]
    return RequestError(answer["type"], answer["message"], answer["log"])


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_that_failed_has_its_reason_and_its_cause(name: str) -> None:
    failure = of_launch(error_of(name))
    assert failure.reason == LAUNCHES[name]["reason"]
    assert LAUNCHES[name]["shows"] in failure.message


@pytest.mark.parametrize("name", LAUNCHES)
def test_nothing_is_shown_that_helps_nobody(name: str) -> None:
    message = of_launch(error_of(name)).message
    for useless in ("HTTP response headers", "Audit-Id", "--retry-until-up", "Check Per Resource Hint", " PID=", "\x1b["):
        assert useless not in message


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_failed_says_it_in_its_own_words(name: str) -> None:
    answer = JOBS[name]
    failure = of_job(1, JobStatus(answer["status"]), last_words(answer["log"]))
    assert failure.reason == answer["reason"]
    assert answer["shows"] in failure.message


def documented() -> dict[str, str]:
    """Reason to whether it is retried, as the table in docs/failures.md has it."""
    table = (ROOT / "docs" / "failures.md").read_text().partition("## Reasons")[2].partition("## ")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    return {row[0].strip("|` "): row[2] for row in rows}


def test_the_documentation_names_every_reason_of_a_failure_and_whether_it_is_retried() -> None:
    by_default = SkyClusterSpec(task={}).retry_on
    expected = {word.value: "yes" if word in by_default else "can be" for word in RetryReason}
    said = documented()
    assert {answer["reason"] for answer in [*LAUNCHES.values(), *JOBS.values()]} <= said.keys()
    assert {reason: retried for reason, retried in said.items() if retried != "no"} == expected


def test_a_log_that_does_not_speak_of_the_end_yet_has_no_last_words() -> None:
    assert last_words("(train, pid=12) step 1 failed, trying again\n(train, pid=12) step 2\n") == ""


def test_the_last_lines_before_the_end_are_told_behind_it() -> None:
    lines = "".join(f"(train, pid=12) line {number}\n" for number in range(30))
    log = f"├── Waiting for task resources on 1 node.\n{lines}\nERROR: Job 1 failed with return code list: [3]\n"
    told = last_words(log).splitlines()
    assert told[0] == "ERROR: Job 1 failed with return code list: [3]"
    assert told[1:] == [f"(train, pid=12) line {number}" for number in range(20, 30)]
    assert verdict(last_words(log)) == told[0]
    assert verdict(ALL_KILLED) == ALL_KILLED
    assert last_words("├── Waiting for task resources on 1 node.\nJob 1 failed with return code list: [3]").count("\n") == 0


def test_a_job_that_did_not_run_because_of_the_fence_says_so() -> None:
    assert (
        last_words("(train, pid=12) skyoperator: not running a second time\n") == "(train, pid=12) skyoperator: not running a second time"
    )


def test_the_last_refusal_counts() -> None:
    """One zone after the other refuses; SkyPilot gives up after the last."""
    refusal = "D 11-25 21:34:21.097 PID=95 provisioner.py:361] botocore.exceptions.ClientError: An error occurred ({code}): no\n"
    log = refusal.format(code="InsufficientInstanceCapacity") + refusal.format(code="VcpuLimitExceeded")
    assert of_launch(RequestError("ResourcesUnavailableError", REFUSED, log)).reason is Reason.QUOTA_EXCEEDED


def test_what_the_error_says_itself_outranks_its_log() -> None:
    log = LAUNCHES["resource-quota"]["log"]
    error = RequestError("ResourcesUnavailableError", f"{REFUSED}\nReason: ErrImagePull: not found", log)
    assert of_launch(error).reason is Reason.IMAGE_PULL_FAILED


def test_the_log_of_an_earlier_launch_is_not_taken_for_this_ones() -> None:
    error = RequestError("ResourcesUnavailableError", LAUNCHES["no-node-has-the-gpu"]["message"], LAUNCHES["resource-quota"]["log"])
    assert of_launch(error).reason is Reason.NO_CAPACITY


def test_of_a_refusal_only_the_message_is_shown() -> None:
    """An API may repeat what it was sent, and that may hold a secret."""
    body = {"kind": "Status", "message": "no", "details": {"causes": [{"message": "hf_canary"}]}, "object": {"env": "hf_canary"}}
    log = f"W 11-25 21:34:21.097 PID=95 instance.py:2628] HTTP response body: {json.dumps(body)}\nexport HF_TOKEN=hf_canary\n"
    message = of_launch(RequestError("ResourcesUnavailableError", REFUSED, log)).message
    assert message == f"{REFUSED}\nReason: no"


@pytest.mark.parametrize("type_", sorted(LOST))
def test_a_launch_that_the_server_dropped_blames_nobody(type_: str) -> None:
    assert of_launch(RequestError(type_, "will not be resumed")).reason is Reason.SKYPILOT_ERROR


def test_a_refused_launch_keeps_the_servers_words() -> None:
    assert launch_refused("body.task: Field required") == Failure(Reason.INVALID_TASK, "body.task: Field required")


def test_a_long_message_keeps_what_failed_and_why() -> None:
    message = bounded("Command setup failed.\n" + "x\n" * 10_000 + "\n\n  the cause  \n")
    assert len(message) == MESSAGE_LIMIT
    assert message.startswith("Command setup failed.\n…")
    assert message.endswith("x\n  the cause")


@given(st.text())
def test_any_message_is_bounded_and_stays_as_it_is_when_bounded_again(text: str) -> None:
    message = bounded(text)
    assert len(message) <= MESSAGE_LIMIT
    assert bounded(message) == message


@given(st.text(min_size=MESSAGE_LIMIT + HEAD_LIMIT, max_size=MESSAGE_LIMIT * 2))
def test_a_long_message_is_cut_to_the_limit(text: str) -> None:
    assert len(bounded(text)) <= MESSAGE_LIMIT


@given(type_=st.sampled_from(sorted({answer["type"] for answer in LAUNCHES.values()})), message=st.text(), log=st.text())
def test_any_words_have_a_reason(type_: str, message: str, log: str) -> None:
    failure = of_launch(RequestError(type_, message, log + '\nHTTP response body: {"message": 7}\nHTTP response body: {[}'))
    assert failure.reason in Reason
    assert len(failure.message) <= MESSAGE_LIMIT
