"""What each way of answering, or of not answering, means to the caller of the SkyPilot client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from skyoperator.sky import (
    JobStatus,
    Launched,
    NoCredentials,
    RequestError,
    RequestFailed,
    SecretDirectory,
    SkyPilotClient,
    SkyPilotRefused,
    SkyPilotUnreachable,
    UnknownRequest,
    client,
)

from tests.standin.control import Control
from tests.standin.server import serving

TASK = "name: a1\nrun: echo hello\n"


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
async def sky(control: Control) -> AsyncIterator[SkyPilotClient]:
    async with serving(control) as address, SkyPilotClient.connect(address, NoCredentials()) as connected:
        yield connected


@asynccontextmanager
async def client_of(*routes: web.RouteDef) -> AsyncIterator[SkyPilotClient]:
    """Yield a client of a server that has these routes."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with SkyPilotClient.connect(f"http://127.0.0.1:{runner.addresses[0][1]}", NoCredentials()) as connected:
            yield connected
    finally:
        await runner.cleanup()


def says(status: int, text: str = "", headers: dict[str, str] | None = None) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


def answering(status: int, text: str = "", headers: dict[str, str] | None = None) -> AbstractAsyncContextManager[SkyPilotClient]:
    """Yield a client of something that gives every call the same answer."""
    return client_of(web.route("*", "/{path:.*}", says(status, text, headers)))


async def until_ended(sky: SkyPilotClient, name: str) -> JobStatus:
    for _ in range(500):
        if (job := (await sky.jobs(name))[-1]).status.terminal:
            return job.status
    raise AssertionError(f"{name} still has {job}")


@pytest.mark.parametrize("kind", ["lost", "before", "after"])
async def test_a_post_without_an_answer_leaves_its_fate_unknown(sky: SkyPilotClient, control: Control, kind: str) -> None:
    control.fault("launch", kind)
    with pytest.raises(SkyPilotUnreachable):
        await sky.launch("c", TASK)
    assert len(control.world.launches) == (0 if kind == "before" else 1)


async def test_a_post_gives_up_after_its_time_out(sky: SkyPilotClient, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POST_TIMEOUT_SECONDS", 0.05)
    control.fault("launch", "late", seconds=30)
    with pytest.raises(SkyPilotUnreachable, match=r"did not answer POST /launch within 0.05 s"):
        await sky.launch("c", TASK)


async def test_a_refused_post_was_not_executed_and_gives_no_secret_away(sky: SkyPilotClient, control: Control) -> None:
    control.fault("launch", "refused")
    with pytest.raises(SkyPilotRefused) as refused:
        await sky.launch("c", TASK)
    assert (refused.value.status, refused.value.words) == (422, "body.task: Refused by the script")
    assert "s3cret" not in str(refused.value)
    assert control.world.launches == []


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503])
async def test_what_a_proxy_says_is_never_skypilots_refusal(status: int) -> None:
    async with answering(status, "<html>nginx</html>") as sky:
        with pytest.raises(SkyPilotUnreachable, match=f"HTTP {status}: <html>nginx</html>"):
            await sky.launch("c", TASK)


@pytest.mark.parametrize("text", ["<html>404</html>", '{"detail": "Not Found"}'])
async def test_what_a_proxy_does_not_find_is_not_an_unknown_request(text: str) -> None:
    async with answering(404, text) as sky:
        with pytest.raises(SkyPilotUnreachable):
            await sky.result_of("r")


@pytest.mark.parametrize("text", ["<html>login</html>", '{"a": 1}', "[1]", "null", '[{"name": "no id"}]'])
async def test_an_answer_of_something_else_is_not_an_empty_list(text: str) -> None:
    async with answering(200, text) as sky:
        with pytest.raises(SkyPilotUnreachable, match=r"Is it SkyPilot\?"):
            await sky.active_requests()


async def test_a_200_without_request_id_is_no_acknowledgement() -> None:
    async with answering(200, "null") as sky:
        with pytest.raises(SkyPilotUnreachable, match="named no request id"):
            await sky.launch("c", TASK)


async def test_a_login_page_is_not_followed() -> None:
    async with answering(302, headers={"Location": "/login"}) as sky:
        with pytest.raises(SkyPilotUnreachable, match="redirects us"):
            await sky.check()


async def test_an_older_server_fails_the_check() -> None:
    async with answering(200, "[]", {"X-SkyPilot-API-Version": "61"}) as sky:
        with pytest.raises(SkyPilotUnreachable, match=r"speaks API version 61, we need 62"):
            await sky.check()


async def test_nobody_listening_names_the_address_and_not_the_password() -> None:
    async with SkyPilotClient.connect("http://me:s3cret@127.0.0.1:9", NoCredentials()) as sky:
        with pytest.raises(SkyPilotUnreachable, match=r"http://127\.0\.0\.1:9 can't be reached") as error:
            await sky.check()
    assert "s3cret" not in str(error.value)


async def test_a_rotated_token_works_at_once(control: Control, tmp_path: Path) -> None:
    credentials = SecretDirectory(tmp_path, "Secret sky/token")
    control.require(token="sky_new")
    async with serving(control) as address, SkyPilotClient.connect(address, credentials) as sky:
        (tmp_path / "token").write_text("sky_old\n")
        with pytest.raises(SkyPilotUnreachable, match="Check Secret sky/token"):
            await sky.check()
        (tmp_path / "token").write_text("sky_new\n")
        await sky.check()


async def test_a_user_and_password_will_do_and_half_of_them_will_not(control: Control, tmp_path: Path) -> None:
    credentials = SecretDirectory(tmp_path, "Secret sky/basic")
    control.require(username="operator", password="p:w")
    async with serving(control) as address, SkyPilotClient.connect(address, credentials) as sky:
        (tmp_path / "username").write_text("operator")
        with pytest.raises(SkyPilotUnreachable, match="Secret sky/basic has neither the key token nor"):
            await sky.check()
        (tmp_path / "password").write_text("p:w\n")
        await sky.check()


async def test_a_wiped_server_is_unreachable_and_not_empty(control: Control, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sky_t")
    control.require(token="sky_t")
    async with serving(control) as address, SkyPilotClient.connect(address, SecretDirectory(tmp_path, "S")) as sky:
        assert await sky.clusters() == ()
        control.wipe()
        for look in (sky.clusters, sky.active_requests, sky.check):
            with pytest.raises(SkyPilotUnreachable, match="HTTP 401"):
                await look()


async def test_a_restart_forgets_requests_and_keeps_clusters(sky: SkyPilotClient, control: Control) -> None:
    request_id = await sky.launch("c", TASK)
    assert isinstance(await sky.result_of(request_id), Launched)
    await control.restart()
    with pytest.raises(UnknownRequest):
        await sky.result_of(request_id)
    assert [row.name for row in await sky.clusters()] == ["c"]


async def test_asking_for_the_result_of_a_running_launch_does_not_block(
    sky: SkyPilotClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RESULT_TIMEOUT_SECONDS", 0.05)
    control.launches(seconds=30)
    request_id = await sky.launch("c", TASK)
    async with asyncio.timeout(5):
        with pytest.raises(SkyPilotUnreachable, match="did not answer GET /api/get"):
            await sky.result_of(request_id)


async def test_a_slow_queue_holds_up_nobody_else(sky: SkyPilotClient, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "JOBS_TIMEOUT_SECONDS", 2)
    control.set(queue_seconds=30)
    async with asyncio.timeout(20):
        slow = [asyncio.create_task(sky.jobs(f"c{n}")) for n in range(200)]
        assert await sky.clusters() == ()
        assert not any(task.done() for task in slow)
        for error in await asyncio.gather(*slow, return_exceptions=True):
            assert isinstance(error, SkyPilotUnreachable)


async def test_a_question_that_fails_inside_skypilot_leaves_the_server_reachable() -> None:
    error = json.dumps({"type": "CommandError", "message": "\x1b[31mssh: no route\x1b[0m"})
    failed = json.dumps({"detail": {"request_id": "r", "status": "FAILED", "error": error}})
    accepted = says(200, "null", {"X-SkyPilot-Request-ID": "r"})
    async with client_of(web.post("/queue", accepted), web.get("/api/get", says(500, failed))) as sky:
        with pytest.raises(RequestFailed, match="CommandError: ssh: no route"):
            await sky.jobs("c")


FAILED_ROW = {
    "request_id": "r",
    "cluster_name": "c",
    "status": "FAILED",
    "error": json.dumps({"type": "ResourcesUnavailableError", "message": "Failed."}),
}
FAILED_LAUNCH = json.dumps({"detail": FAILED_ROW})


async def test_a_launch_that_failed_brings_the_end_of_its_provision_log() -> None:
    asked: list[tuple[str, str]] = []

    async def logs(http: web.Request) -> web.StreamResponse:
        asked.append((http.query_string, (await http.json())["cluster_name"]))
        return web.Response(text="\x1b[33mW\x1b[0m exceeded quota: team\n")

    async with client_of(web.get("/api/get", says(500, FAILED_LAUNCH)), web.post("/provision_logs", logs)) as sky:
        error = await sky.result_of("r")
    assert isinstance(error, RequestError)
    assert error.log == "W exceeded quota: team\n"
    assert asked == [("follow=false&tail=200", "c")]


@pytest.mark.parametrize("status", [404, 500])
async def test_a_launch_that_failed_is_known_without_its_log(status: int) -> None:
    async with client_of(web.get("/api/get", says(500, FAILED_LAUNCH)), web.post("/provision_logs", says(status))) as sky:
        error = await sky.result_of("r")
    assert error == RequestError("ResourcesUnavailableError", "Failed.")
    assert isinstance(error, RequestError)
    assert error.log == ""


async def test_polling_requests_is_one_get_and_writes_nothing(sky: SkyPilotClient, control: Control) -> None:
    control.launches(seconds=30)
    await sky.launch("c", TASK)
    control.world.calls.clear()
    (request,) = await sky.active_requests()
    assert (request.name, request.cluster_name) == ("launch", "c")
    assert control.world.calls == {"GET /api/status": 1}


async def test_what_a_launch_and_a_down_ask_for(sky: SkyPilotClient, control: Control) -> None:
    """The controller decides on retries, and a purge would forget a cluster that still costs."""
    launch, down = await sky.launch("c", TASK), await sky.down("c")
    bodies = {request_id: control.world.requests[request_id].body for request_id in (launch, down)}
    assert bodies[launch]["retry_until_up"] is False
    assert bodies[down]["purge"] is False
    assert {body["env_vars"]["SKYPILOT_USER_ID"] for body in bodies.values()} == {"3cf75ab7"}


@pytest.mark.parametrize(("minutes", "idle", "down"), [(10, 10, True), (0, 0, True), (None, -1, False)])
async def test_what_autostop_asks_for(sky: SkyPilotClient, control: Control, minutes: int | None, idle: int, down: bool) -> None:
    """Down and not stop: Kubernetes can't stop pods. No minutes at all take the setting back; zero of them does not."""
    body = control.world.requests[await sky.set_autostop("c", minutes)].body
    assert (body["idle_minutes"], body["down"], body["wait_for"]) == (idle, down, "jobs_and_ssh")


@pytest.mark.parametrize("ids", [[1], []])
async def test_cancelling_jobs_names_them_always(sky: SkyPilotClient, control: Control, ids: list[int]) -> None:
    """Null would be the latest job of the cluster, and `all` every one."""
    body = control.world.requests[await sky.cancel_jobs("c", ids)].body
    assert (body["job_ids"], body["all"], body["all_users"]) == (ids, False, False)


async def test_endpoints_are_in_the_order_of_the_ports(sky: SkyPilotClient) -> None:
    await sky.result_of(await sky.launch("c", "name: a1\nresources: {ports: [10000, 8080]}\n"))
    assert list((await sky.endpoints("c")).items()) == [("8080", "203.0.113.7:8080"), ("10000", "203.0.113.7:10000")]


async def test_endpoints_of_another_shape_are_no_endpoints() -> None:
    failed = json.dumps({"request_id": "r", "status": "SUCCEEDED", "return_value": json.dumps({"http": "x"}), "error": None})
    accepted = says(200, "null", {"X-SkyPilot-Request-ID": "r"})
    async with client_of(web.post("/endpoints", accepted), web.get("/api/get", says(200, failed))) as sky:
        with pytest.raises(SkyPilotUnreachable, match=r"Is it SkyPilot\?"):
            await sky.endpoints("c")


@pytest.mark.parametrize("text", ["[]", "{}", '[{"id": "a"}]', "null"])
async def test_a_server_that_names_no_user_of_its_own_is_nobody(text: str) -> None:
    async with answering(200, text) as sky:
        with pytest.raises(SkyPilotUnreachable, match=r"Is it SkyPilot\?"):
            await sky.identity()


async def test_a_long_log_is_cut_to_its_last_whole_lines(sky: SkyPilotClient, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    control.jobs(log="".join(f"\x1b[31mline {n}\x1b[0m\n" for n in range(99)), seconds=0)
    await sky.result_of(await sky.launch("c", TASK))
    assert await until_ended(sky, "c") is JobStatus.SUCCEEDED
    whole = (await sky.log_tail("c", 1, 0)).splitlines()
    assert whole[-2:] == ["(a1, pid=709) line 98", "✓ Job finished (status: SUCCEEDED)."]
    monkeypatch.setattr(client, "LOG_LIMIT_BYTES", 200)
    cut = (await sky.log_tail("c", 1, 0)).splitlines()
    assert 2 <= len(cut) < 10
    assert cut == whole[-len(cut) :]
