"""The contract's calls. BARE ones need a server and no cloud; CLOUD ones launch clusters and take them down again."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from skyoperator.logs.frames import is_frame
from skyoperator.logs.splice import Reading
from skyoperator.sky import (
    USER,
    Cluster,
    ClusterNotUp,
    ClusterStatus,
    Job,
    JobStatus,
    Launched,
    NoCredentials,
    NoSuchCluster,
    RequestError,
    RequestFailed,
    RequestStatus,
    SecretDirectory,
    SkyPilotUnreachable,
    UnknownRequest,
)

from tests.contract import shapes
from tests.contract.stage import Stage, fresh

NOBODY = "00000000-0000-4000-8000-000000000000"


async def the_right_credentials_pass(stage: Stage, _: Path) -> None:
    await stage.sky.check()


async def wrong_credentials_are_unreachable_and_name_the_secret(stage: Stage, tmp: Path) -> None:
    (tmp / "username").write_text("operator")
    (tmp / "password").write_text("wrong")
    basic = SecretDirectory(tmp, "Secret sky/wrong")
    for credentials in (NoCredentials(), basic):
        with pytest.raises(SkyPilotUnreachable, match="HTTP 401.*" + re.escape(credentials.advice)):
            await stage.client(credentials).check()
    (tmp / "token").write_text("sky_wrong")
    with pytest.raises(SkyPilotUnreachable, match=r"HTTP 401.*Secret sky/wrong"):
        await stage.client(basic).launch(fresh("wrong"), stage.task("wrong", run="true"))


async def an_old_client_is_told_so(stage: Stage, _: Path) -> None:
    answer = await stage.raw("GET", "/api/status", headers={"X-SkyPilot-API-Version": "3"})
    assert (answer.status, answer.json["error"]) == (400, "version_mismatch")


async def an_unknown_request_is_unknown_everywhere(stage: Stage, _: Path) -> None:
    with pytest.raises(UnknownRequest):
        await stage.sky.result_of(NOBODY)
    with pytest.raises(UnknownRequest):
        await stage.sky.task_name_of(NOBODY)
    assert await stage.result(await stage.sky.cancel([NOBODY])) == Launched(job_id=None)


async def its_identity_is_the_same_whoever_asks(stage: Stage, tmp: Path) -> None:
    """A user that the client makes is as good as the credentials it was made with, and is told of the same server."""
    minted = stage.client(await _minted(stage, tmp))
    await minted.check()
    identity = await stage.sky.identity()
    assert (await minted.identity(), await stage.sky.identity()) == (identity, identity)
    assert re.fullmatch(r"[0-9a-z-]+@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", identity)
    shapes.check("user", (await stage.raw("GET", "/users")).json[0])


async def a_minted_user_is_an_administrator(stage: Stage, tmp: Path) -> None:
    """Nobody else sees what others have asked of SkyPilot, and a launch that is not seen is not cancelled before a teardown."""
    name = fresh("wrong")
    request_id = await stage.sky.launch(name, stage.task("a1", run="true", bogus=1))
    (seen,) = await stage.client(await _minted(stage, tmp)).requests_of(name)
    assert seen.id == request_id


async def a_minted_user_has_a_short_id(stage: Stage, tmp: Path) -> None:
    """It ends up in the names of pods; that of a service account, of 19 characters, leaves our names no room to differ."""
    minted = stage.client(await _minted(stage, tmp))
    request_id = await minted.launch(fresh("wrong"), stage.task("a1", run="true", bogus=1))
    (listed,) = (await stage.raw("GET", "/api/status", params={"request_ids": request_id})).json
    assert len(listed["user_id"]) == 8


async def a_name_that_is_taken_makes_no_user(stage: Stage, _: Path) -> None:
    body = {"csv_content": f"username,password,role\n{fresh('skyoperator')},{{SHA}}bm90aGluZw==,admin\n", "env_vars": dict(USER)}
    first = await stage.raw("POST", "/users/import", json=body)
    again = await stage.raw("POST", "/users/import", json=body)
    assert [(answer.status, answer.json["success_count"], answer.json["error_count"]) for answer in (first, again)] == [
        (200, 1, 0),
        (200, 0, 1),
    ]
    shapes.check("import", again.json)


async def nobody_without_credentials_makes_a_user(stage: Stage, _: Path) -> None:
    with pytest.raises(SkyPilotUnreachable, match="HTTP 401"):
        await stage.client(NoCredentials()).mint_login()
    with pytest.raises(SkyPilotUnreachable, match="HTTP 401"):
        await stage.client(NoCredentials()).identity()


async def a_launch_whose_answer_nobody_hears_happens_all_the_same(stage: Stage, _: Path) -> None:
    """What was posted is found under its name by who asks again. (Hang up before the body was read, and nothing happens.)"""
    name = fresh("wrong")
    body = {"cluster_name": name, "task": stage.task("a1", run="true", bogus=1), "env_vars": dict(USER)}
    async with stage.posting("/launch", body):
        (request,) = await stage.until(lambda: stage.sky.requests_of(name), lambda found: len(found) == 1)
    assert await stage.sky.task_name_of(request.id) == "a1"
    error = await stage.result(request.id)
    assert isinstance(error, RequestError)
    assert error.type == "InvalidSkyPilotConfigError"


async def cancelling_nothing_cancels_nothing(stage: Stage, _: Path) -> None:
    assert await stage.result(await stage.sky.cancel([])) == Launched(job_id=None)


async def an_unknown_cluster_is_absent_everywhere(stage: Stage, _: Path) -> None:
    name = fresh("nobody")
    assert await stage.sky.requests_of(name) == ()
    assert name not in {row.name for row in await stage.sky.clusters()}
    with pytest.raises(NoSuchCluster, match=f"^Cluster '{name}' does not exist.$"):
        await stage.sky.jobs(name)
    with pytest.raises(NoSuchCluster, match=f"^Cluster '{name}' does not exist.$"):
        await stage.sky.log_tail(name, 1, 10)
    with pytest.raises(ClusterNotUp, match=f"^Cluster '{name}' not found.$"):
        await stage.sky.endpoints(name)
    gone = RequestError("ClusterDoesNotExist", f"Cluster '{name}' does not exist.")
    asked = [await stage.sky.cancel_jobs(name, [1]), await stage.sky.set_autostop(name, 10), await stage.sky.set_autostop(name, None)]
    assert [await stage.result(request_id) for request_id in asked] == [gone, gone, gone]
    assert {request.name for request in await stage.sky.requests_of(name)} >= {"cancel", "autostop", "endpoints"}


async def down_of_an_unknown_cluster_fails_each_time(stage: Stage, _: Path) -> None:
    name = fresh("nobody")
    gone = RequestError("ClusterDoesNotExist", f"Cluster '{name}' does not exist.")
    assert [await stage.down(name), await stage.down(name)] == [gone, gone]
    assert {request.name for request in await stage.sky.requests_of(name)} == {"down"}


async def a_body_that_does_not_fit_is_refused_and_comes_back(stage: Stage, _: Path) -> None:
    """A 422 repeats what it was sent, secrets and all: the client must not show it."""
    answer = await stage.raw("POST", "/launch", json={"cluster_name": "x", "env_vars": {}})
    (wrong,) = answer.json["detail"]
    assert (answer.status, wrong["loc"], wrong["input"]["cluster_name"]) == (422, ["body", "task"], "x")


async def an_unknown_column_is_a_400(stage: Stage, _: Path) -> None:
    answer = await stage.raw("GET", "/api/status", params={"fields": "bogus"})
    assert (answer.status, answer.json["detail"][:27]) == (400, "Unknown request field(s): [")


async def a_wrong_task_is_accepted_and_fails_later(stage: Stage, _: Path) -> None:
    name = fresh("wrong")
    request_id = await stage.sky.launch(name, stage.task("wrong-a1", run="true", bogus=1))
    error = await stage.result(request_id)
    assert error == RequestError("InvalidSkyPilotConfigError", "Invalid task YAML: Found unsupported field 'bogus'.")
    (request,) = await stage.sky.requests_of(name)
    assert (request.id, request.name, request.status) == (request_id, "launch", RequestStatus.FAILED)
    assert await stage.sky.task_name_of(request_id) == "wrong-a1"
    assert name not in {row.name for row in await stage.sky.clusters()}


async def text_that_is_no_yaml_is_accepted_and_fails_later(stage: Stage, _: Path) -> None:
    request_id = await stage.sky.launch(fresh("wrong"), "resources: {infra: k8s\n")
    error = await stage.result(request_id)
    assert isinstance(error, RequestError)
    assert error.type == "ParserError"
    assert await stage.sky.task_name_of(request_id) is None


async def polls_never_carry_bodies(stage: Stage, _: Path) -> None:
    """Bodies hold the task's secrets. Without `fields` they come along, and `request_ids` ignores `fields`."""
    name = fresh("secret")
    request_id = await stage.sky.launch(name, stage.task("a1", run="true", bogus=1, secrets={"A": "s3cret"}))
    await stage.result(request_id)
    query = {"cluster_name": name, "all_status": "true"}
    (listed,) = (await stage.raw("GET", "/api/status", params={**query, "fields": "request_id"})).json
    assert listed["request_body"] == "null"
    for params in (query, {"request_ids": request_id, "fields": "request_id"}):
        (listed,) = (await stage.raw("GET", "/api/status", params=params)).json
        assert "s3cret" in json.loads(listed["request_body"])["task"]
        shapes.check("request", listed)


async def a_launch_runs_its_job_and_goes_down(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-good") as name:
        request_id = await stage.sky.launch(name, stage.task("a1", run="echo hello; sleep 2", setup="echo setting up"))
        assert request_id in {request.id for request in await stage.sky.active_requests() if request.cluster_name == name}
        assert await stage.result(request_id) == Launched(job_id=1)
        row = await _row(stage, name)
        assert (row.status, row.nodes, row.uid_label) == (ClusterStatus.UP, 1, "0123")
        assert row.infra.startswith("Kubernetes/")
        assert row.resources.startswith("1x(")
        (job,) = await _ended(stage, name)
        assert (job.id, job.name, job.status) == (1, "a1", JobStatus.SUCCEEDED)
        assert None not in (job.submitted_at, job.started_at, job.finished_at)
        assert "hello" in await stage.sky.log_tail(name, 1, 20)
        await _check_shapes(stage, name, request_id)

        again = await stage.sky.launch(name, stage.task("a1", run="echo again"))
        assert await stage.result(again) == Launched(job_id=2), "a launch is not idempotent: each submits a job"
        assert await stage.down(name) == Launched(job_id=None)
        assert name not in {row.name for row in await stage.sky.clusters()}
        assert await stage.down(name) == RequestError("ClusterDoesNotExist", f"Cluster '{name}' does not exist.")


async def a_log_is_told_whole_and_by_its_last_lines(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-log") as name:
        await stage.result(await stage.sky.launch(name, stage.task("a1", run="for i in 1 2 3 4; do echo line $i; done")))
        await _ended(stage, name)
        await stage.until(lambda: stage.sky.log_tail(name, 1, 20), lambda log: "line 4" in log)
        whole = await _read(stage, name, lines=None, follow=False)
        assert re.findall(rb"line (\d)\n", whole) == [b"1", b"2", b"3", b"4"]
        assert await _read(stage, name, lines=None, follow=True) == whole
        last_two = await _read(stage, name, lines=2, follow=False)
        assert whole.endswith(last_two)
        assert last_two.count(b"\n") == 2
        assert b"".join([chunk async for chunk in stage.logs.launch_log(name)])


async def _read(stage: Stage, name: str, *, lines: int | None, follow: bool) -> bytes:
    """The log of job 1, which has ended, as it is kept."""
    reading, text = Reading(is_frame, from_the_beginning=lines is None, is_over=True), b""
    async for chunk in stage.logs.job_log(name, 1, lines=lines, follow=follow):
        text += reading.feed(chunk)
    rest, has_ended = reading.end()
    assert has_ended, "SkyPilot says farewell"
    return text + rest


async def a_cancelled_job_leaves_the_cluster_up(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-long") as name:
        assert await stage.result(await stage.sky.launch(name, stage.task("a1", run="sleep 600"))) == Launched(job_id=1)
        assert await stage.result(await stage.sky.cancel_jobs(name, [])) == Launched(job_id=None)
        await stage.until(lambda: _jobs(stage, name), lambda jobs: jobs[0].status is JobStatus.RUNNING)
        assert await stage.result(await stage.sky.cancel_jobs(name, [1, 7])) == Launched(job_id=None)
        (job,) = await _ended(stage, name)
        assert (job.status, job.finished_at is not None) == (JobStatus.CANCELLED, True)
        assert (await _row(stage, name)).status is ClusterStatus.UP


async def autostop_is_set_and_taken_back_and_no_port_is_open(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-norun") as name:
        assert await stage.result(await stage.sky.launch(name, stage.task("a1"))) == Launched(job_id=None)
        assert await stage.sky.endpoints(name) == {}
        for minutes, shown in ((600, (600, True)), (None, (-1, False))):
            assert await stage.result(await stage.sky.set_autostop(name, minutes)) == Launched(job_id=None)
            assert await _autostop(stage, name) == shown


async def a_job_that_exits_3_is_failed_and_its_launch_is_not(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-exit3") as name:
        request_id = await stage.sky.launch(name, stage.task("a1", run="echo before; exit 3"))
        assert await stage.result(request_id) == Launched(job_id=1)
        (job,) = await _ended(stage, name)
        assert job.status is JobStatus.FAILED
        # The log's last line is written a moment after the status.
        log = await stage.until(lambda: stage.sky.log_tail(name, 1, 20), lambda log: "failed with return code list: [3]" in log)
        assert "\x1b" not in log


async def a_setup_that_fails_is_failed_setup(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-setup") as name:
        request_id = await stage.sky.launch(name, stage.task("a1", setup="exit 4", run="echo never"))
        assert await stage.result(request_id) == Launched(job_id=1)
        (job,) = await _ended(stage, name)
        assert job.status is JobStatus.FAILED_SETUP


async def a_task_without_run_has_no_job_and_each_open_port_an_address(stage: Stage, _: Path) -> None:
    """On Kubernetes with `ports: podip`: a load balancer would have to be there first."""
    task = stage.task("a1", resources={**stage.resources, "ports": [9000, "8000-8001"]})
    async with stage.cluster("ct-norun") as name:
        assert await stage.result(await stage.sky.launch(name, task)) == Launched(job_id=None)
        assert await _jobs(stage, name) == ()
        found = await stage.sky.endpoints(name)
        assert list(found) == ["8000", "8001", "9000"]
        (host,) = {url.rpartition(":")[0] for url in found.values()}
        assert found == {port: f"{host}:{port}" for port in found}


async def a_launch_cancelled_midway_leaves_a_row_that_down_removes(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-slow") as name:
        request_id = await stage.sky.launch(name, stage.task("a1", run="echo never"))
        await stage.until(stage.sky.clusters, lambda rows: name in {row.name for row in rows})
        assert (await _row(stage, name)).init_kind == "launching"
        with pytest.raises(ClusterNotUp):
            await stage.sky.jobs(name)
        assert await stage.result(await stage.sky.cancel([request_id])) == Launched(job_id=None)
        cancelled = await stage.result(request_id)
        assert isinstance(cancelled, RequestError)
        assert cancelled.type == "RequestCancelled"
        assert name in {row.name for row in await stage.sky.clusters()}
        assert await stage.down(name) == Launched(job_id=None)
        assert name not in {row.name for row in await stage.sky.clusters()}


async def down_midway_cancels_the_launch(stage: Stage, _: Path) -> None:
    async with stage.cluster("ct-slow") as name:
        request_id = await stage.sky.launch(name, stage.task("a1", run="echo never"))
        await stage.until(stage.sky.clusters, lambda rows: name in {row.name for row in rows})
        assert await stage.down(name) == Launched(job_id=None)
        assert await stage.result(request_id) == RequestError("RequestCancelled", "The request was cancelled before it finished.")
        assert name not in {row.name for row in await stage.sky.clusters()}


BARE = (
    the_right_credentials_pass,
    wrong_credentials_are_unreachable_and_name_the_secret,
    an_old_client_is_told_so,
    an_unknown_request_is_unknown_everywhere,
    cancelling_nothing_cancels_nothing,
    an_unknown_cluster_is_absent_everywhere,
    down_of_an_unknown_cluster_fails_each_time,
    a_body_that_does_not_fit_is_refused_and_comes_back,
    an_unknown_column_is_a_400,
    a_wrong_task_is_accepted_and_fails_later,
    text_that_is_no_yaml_is_accepted_and_fails_later,
    polls_never_carry_bodies,
    its_identity_is_the_same_whoever_asks,
    a_minted_user_is_an_administrator,
    a_minted_user_has_a_short_id,
    a_name_that_is_taken_makes_no_user,
    nobody_without_credentials_makes_a_user,
    a_launch_whose_answer_nobody_hears_happens_all_the_same,
)
CLOUD = (
    a_launch_runs_its_job_and_goes_down,
    a_log_is_told_whole_and_by_its_last_lines,
    a_cancelled_job_leaves_the_cluster_up,
    autostop_is_set_and_taken_back_and_no_port_is_open,
    a_job_that_exits_3_is_failed_and_its_launch_is_not,
    a_setup_that_fails_is_failed_setup,
    a_task_without_run_has_no_job_and_each_open_port_an_address,
    a_launch_cancelled_midway_leaves_a_row_that_down_removes,
    down_midway_cancels_the_launch,
)


async def _row(stage: Stage, name: str) -> Cluster:
    return next(row for row in await stage.sky.clusters() if row.name == name)


async def _jobs(stage: Stage, name: str) -> tuple[Job, ...]:
    """The cluster's queue, as soon as its node answers: on a busy machine SkyPilot's tunnel to a new node may time out."""

    async def look() -> tuple[Job, ...] | None:
        with suppress(RequestFailed):
            return await stage.sky.jobs(name)
        return None

    seen = await stage.until(look, lambda found: found is not None)
    assert seen is not None
    return seen


async def _ended(stage: Stage, name: str) -> tuple[Job, ...]:
    return await stage.until(lambda: _jobs(stage, name), lambda jobs: all(job.status.terminal for job in jobs))


async def _check_shapes(stage: Stage, name: str, launch_id: str) -> None:
    """Hold what the server says of a live cluster against the recorded shapes."""
    shapes.check("launch", await _value(stage, launch_id, "launch"))
    asked = {"env_vars": dict(USER), "all_users": True, "summary_response": True, "include_credentials": False}
    for path, row, body in (
        ("/status", "cluster", {"cluster_names": [name], "include_handle": False}),
        ("/queue", "job", {"cluster_name": name}),
    ):
        posted = await stage.raw("POST", path, json={**asked, **body})
        shapes.check(row, (await _value(stage, posted.request_id, row))[0])


async def _minted(stage: Stage, tmp: Path) -> SecretDirectory:
    """Return the credentials of a new user."""
    name, _, password = (await stage.sky.mint_login()).partition(":")
    (tmp / "username").write_text(name)
    (tmp / "password").write_text(password)
    return SecretDirectory(tmp, "the new user")


async def _autostop(stage: Stage, name: str) -> tuple[int, bool]:
    """Return what the row says of autostop: the client has no use for it."""
    body = {"cluster_names": [name], "summary_response": True, "include_handle": False, "env_vars": dict(USER)}
    posted = await stage.raw("POST", "/status", json=body)
    (row,) = await _value(stage, posted.request_id, "cluster")
    return row["autostop"], row["to_down"]


async def _value(stage: Stage, request_id: str, what: str) -> Any:
    answer = await stage.raw("GET", "/api/get", params={"request_id": request_id})
    shapes.check(f"{what} result", answer.json)
    return json.loads(answer.json["return_value"])
