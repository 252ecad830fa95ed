"""SkyPilot's words and rows, as they arrive, become ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from skyoperator.sky import Cluster, ClusterStatus, Job, JobStatus, Request, RequestError, RequestStatus, parse

ROW = {"name": "c", "status": "UP", "nodes": 2, "cloud": "Kubernetes", "region": "in-cluster", "launched_at": 1795448900}


def test_a_cluster_row_reads_as_people_know_it() -> None:
    row = ROW | {"resources_str": "\x1b[1m2x(cpus=1)\x1b[0m", "labels": {"skyoperator-uid": "u"}}
    assert parse.cluster(row) == Cluster(
        name="c",
        status=ClusterStatus.UP,
        infra="Kubernetes/in-cluster",
        resources="2x(cpus=1)",
        nodes=2,
        launched_at=datetime(2026, 11, 23, 15, 48, 20, tzinfo=UTC),
        labels={"skyoperator-uid": "u"},
    )
    assert parse.cluster(row).uid_label == "u"


@pytest.mark.parametrize(("kind", "unhealthy"), [("launching", False), ("unhealthy", True), (None, False)])
def test_an_init_row_tells_launching_from_broken(kind: str | None, unhealthy: bool) -> None:
    row = parse.cluster(ROW | {"status": "INIT", "init_kind": kind, "init_status_reason": "\x1b[33mwhy\x1b[0m"})
    assert (row.unhealthy, row.message) == (unhealthy, "why")


@pytest.mark.parametrize(("cloud", "region", "infra"), [("AWS", "us-east-1", "AWS/us-east-1"), ("AWS", None, "AWS"), (None, None, "")])
def test_infra_is_as_much_as_is_known(cloud: str | None, region: str | None, infra: str) -> None:
    assert parse.cluster(ROW | {"cloud": cloud, "region": region}).infra == infra


def test_a_newer_servers_words_are_unknown_and_neither_done_nor_lost() -> None:
    assert parse.cluster(ROW | {"status": "MELTING"}).status is ClusterStatus.UNKNOWN
    job = parse.job({"job_id": 1, "job_name": "j", "status": "MELTING"})
    assert job.status is JobStatus.UNKNOWN
    assert not job.status.terminal
    assert parse.request({"request_id": "r", "name": "sky.launch", "status": "MELTING"}).status.active


@pytest.mark.parametrize("status", list(JobStatus))
def test_only_ends_are_terminal(status: JobStatus) -> None:
    going = {"INIT", "PENDING", "SETTING_UP", "RUNNING", "UNKNOWN"}
    assert status.terminal == (status not in going)


@pytest.mark.parametrize("status", list(RequestStatus))
def test_a_parked_request_is_active(status: RequestStatus) -> None:
    assert status.active == (status in {"PENDING", "WAITING", "RUNNING"})


def test_a_job_that_has_not_started_has_no_times() -> None:
    row = {"job_id": 1, "job_name": "a1", "status": "PENDING", "submitted_at": 1795448900.5, "start_at": -1.0, "end_at": None}
    assert parse.job(row) == Job(
        id=1, name="a1", status=JobStatus.PENDING, submitted_at=datetime(2026, 11, 23, 15, 48, 20, 500000, tzinfo=UTC)
    )


def test_a_request_loses_its_prefix_and_colours() -> None:
    row = {
        "request_id": "r",
        "name": "sky.launch",
        "status": "WAITING",
        "cluster_name": "c",
        "created_at": 0,
        "status_msg": "\x1b[2mlock\x1b[0m",
    }
    assert parse.request(row) == Request("r", "launch", RequestStatus.WAITING, "c", None, "lock")


@pytest.mark.parametrize(
    ("row", "value", "error"),
    [
        ({"status": "SUCCEEDED", "return_value": '{"job_id": 1}', "error": "null"}, {"job_id": 1}, None),
        ({"status": "CANCELLED", "return_value": "null", "error": "null"}, None, "RequestCancelled"),
        ({"status": "FAILED", "error": json.dumps({"type": "E", "message": "\x1b[33mno\x1b[0m", "object": "x"})}, None, "E"),
    ],
)
def test_an_outcome_is_a_value_or_an_error(row: dict[str, Any], value: object, error: str | None) -> None:
    outcome = parse.outcome(row)
    assert (outcome.value, outcome.error and outcome.error.type) == (value, error)


def test_an_error_keeps_skypilots_words_without_colours() -> None:
    error = json.dumps({"type": "ResourcesUnavailableError", "message": "\x1b[31mReason: X\x1b[0m\nhint", "object": "x"})
    assert parse.outcome({"status": "FAILED", "error": error}).error == RequestError("ResourcesUnavailableError", "Reason: X\nhint")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (json.dumps({"task": "name: u-a1\nrun: x"}), "u-a1"),
        (json.dumps({"task": "run: x"}), None),
        (json.dumps({"task": "name: 7"}), None),
        (json.dumps({"task": "- a"}), None),
        (json.dumps({"task": "{"}), None),
        (json.dumps({"task": None}), None),
        (json.dumps({"cluster_name": "c"}), None),
        ("null", None),
        ("not json", None),
    ],
)
def test_a_task_name_is_read_or_none(body: str, name: str | None) -> None:
    assert parse.task_name({"request_body": body}) == name


def test_a_log_is_for_people() -> None:
    raw = b'<sky-payload type="x">"spinner"</sky-payload>\nhello \x1b[31mred\x1b[0m\n\xff\n'
    assert parse.log_text(raw) == "hello red\n�\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"error": "version_mismatch", "message": "\\u001b[33mtoo old\\u001b[0m"}', "too old"),
        ('"Authentication required"', "Authentication required"),
        ("\n<html>Bad Gateway</html>\nmore", "<html>Bad Gateway</html>"),
        ("", ""),
        ("[1]", ""),
        ('{"detail": {"a": 1}}', ""),
    ],
)
def test_a_complaint_is_said_in_its_own_words(body: str, words: str) -> None:
    assert parse.words(body) == words


def test_a_complaint_about_a_body_does_not_repeat_the_body() -> None:
    body = {"detail": [{"loc": ["body", "task"], "msg": "Field required", "input": {"secrets": "s3cret"}}]}
    assert parse.words(json.dumps(body)) == "body.task: Field required"
    assert len(parse.words("x" * 10_000)) == 500
