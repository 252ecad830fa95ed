"""What goes over the wire, and what comes back: kubernetes_asyncio's own client, and a server that is told what to answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_asyncio.client import ApiClient, Configuration
from skyoperator_provider import async_api
from skyoperator_provider.async_api import KubernetesSkyClusterApi, connected, key_of, lines
from skyoperator_provider.errors import ApiError, ChangedError
from skyoperator_provider.hooks.logs import LogPiece, Place
from skyoperator_provider.watches import Page

from tests.provider.kubernetes_server import LOG, OBJECTS, Handler, Server, serving, status_of

Json = dict[str, Any]


@asynccontextmanager
async def asked(answer: Handler, **seconds: float) -> AsyncIterator[tuple[KubernetesSkyClusterApi, Server]]:
    async with serving(answer) as server, ApiClient(server.configuration()) as client:
        yield KubernetesSkyClusterApi(client, **seconds), server


def always(response: Callable[[], web.Response]) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return response()

    return answer


async def error_of(response: Callable[[], web.Response], call: Callable[[KubernetesSkyClusterApi], Awaitable[Any]]) -> ApiError:
    async with asked(always(response)) as (api, _):
        with pytest.raises(ApiError) as caught:
            await call(api)
    return caught.value


async def test_a_list_is_had_page_by_page() -> None:
    pages = [
        {"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [{"metadata": {"name": "a"}}]},
        {"metadata": {"resourceVersion": "7"}, "items": []},
    ]
    async with asked(always(lambda: web.json_response(pages.pop(0)))) as (api, server):
        assert await api.list("ml", limit=50) == Page([{"metadata": {"name": "a"}}], "7", "next")
        assert await api.list("ml", limit=50, continue_="next") == Page([], "7", "")
    assert server.requests == [
        ("GET", OBJECTS, {"limit": "50"}),
        ("GET", OBJECTS, {"limit": "50", "continue": "next"}),
    ]
    assert server.authorizations == ["Bearer secret"] * 2


async def test_an_object_is_read() -> None:
    async with asked(always(lambda: web.json_response({"metadata": {"name": "train"}}))) as (api, server):
        assert await api.get("ml", "train") == {"metadata": {"name": "train"}}
    assert server.requests == [("GET", f"{OBJECTS}/train", {})]


async def test_an_object_is_not_there_if_kubernetes_says_so_itself() -> None:
    def no_object() -> web.Response:
        return status_of(404, "NotFound", '"train" not found', name="train", group="skyoperator.dev", kind="skyclusters")

    async with asked(always(no_object)) as (api, _):
        assert await api.get("ml", "train") is None
        await api.delete("ml", "train", uid="u", resource_version="1")


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=404, text="<html>not here</html>"),
        lambda: web.Response(status=404, text="404 page not found"),
        lambda: status_of(404, "NotFound", "the server could not find the requested resource"),
    ],
    ids=["proxy", "kube-apiserver without the CRD", "aggregator"],
)
async def test_a_404_of_something_else_is_no_absence(response: Callable[[], web.Response]) -> None:
    """Bug: a proxy's 404 ends a task with `gone`, and its cluster runs on."""
    error = await error_of(response, lambda api: api.get("ml", "train"))
    assert error.status == HTTPStatus.NOT_FOUND
    assert "does this cluster serve skyoperator.dev?" in str(error)


async def test_a_deletion_names_the_object_and_its_version() -> None:
    async with asked(always(lambda: web.json_response({"kind": "Status", "status": "Success"}))) as (api, server):
        await api.delete("ml", "train", uid="u-1", resource_version="42")
    assert server.requests == [("DELETE", f"{OBJECTS}/train", {})]
    assert json.loads(server.bodies[0])["preconditions"] == {"uid": "u-1", "resourceVersion": "42"}


async def test_a_deletion_of_what_has_changed_is_told_apart() -> None:
    def conflict() -> web.Response:
        return status_of(409, "Conflict", "the ResourceVersion in the precondition (42) does not match")

    error = await error_of(conflict, lambda api: api.delete("ml", "train", uid="u", resource_version="42"))
    assert isinstance(error, ChangedError)


@pytest.mark.parametrize(
    ("verb", "resource", "call"),
    [
        ("list", "skyclusters of skyoperator.dev", lambda api: api.list("ml", limit=5)),
        ("get", "skyclusters of skyoperator.dev", lambda api: api.get("ml", "train")),
        ("delete", "skyclusters of skyoperator.dev", lambda api: api.delete("ml", "train", uid="u", resource_version="1")),
        ("watch", "skyclusters of skyoperator.dev", lambda api: anext(api.watch("ml", resource_version="1", timeout_seconds=1))),
        ("get", "skyclusters/log of logs.skyoperator.dev", lambda api: api.log("ml", "train", Place("u"))),
    ],
)
async def test_a_missing_right_is_named(verb: str, resource: str, call: Callable[[KubernetesSkyClusterApi], Awaitable[Any]]) -> None:
    words = f'User "airflow" cannot {verb} resource "skyclusters"'
    error = await error_of(lambda: status_of(403, "Forbidden", words), call)
    assert (error.status, error.reason) == (HTTPStatus.FORBIDDEN, "Forbidden")
    assert f"account may not {verb} {resource} in namespace ml" in str(error)
    assert words in str(error)


async def test_expired_credentials_are_asked_about() -> None:
    error = await error_of(lambda: status_of(401, "Unauthorized", "Unauthorized"), lambda api: api.get("ml", "train"))
    assert error.status == HTTPStatus.UNAUTHORIZED
    assert "credentials expired" in str(error)


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with asked(never, request_seconds=0.05) as (api, _):
        with pytest.raises(ApiError, match=r"Can't read SkyCluster ml/train: no answer within"):
            await api.get("ml", "train")


async def test_a_server_that_is_not_there_is_an_api_error() -> None:
    async with serving(always(web.Response)) as server:
        configuration = server.configuration()
    async with ApiClient(configuration) as client:
        with pytest.raises(ApiError, match=r"Can't read SkyCluster ml/train: ") as caught:
            await KubernetesSkyClusterApi(client).get("ml", "train")
    assert caught.value.status is None


async def test_a_client_that_was_closed_is_an_api_error() -> None:
    async with serving(always(web.Response)) as server:
        client = ApiClient(server.configuration())
        await client.close()
        with pytest.raises(ApiError, match="closed"):
            await KubernetesSkyClusterApi(client).get("ml", "train")


def watching(*chunks: bytes, then: Callable[[web.StreamResponse], Awaitable[None]] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then is not None:
            await then(response)
        return response

    return answer


def event(type_: str, **found: Any) -> bytes:
    return json.dumps({"type": type_, "object": found}).encode() + b"\n"


async def watch_into(found: list[Json], api: KubernetesSkyClusterApi, *, timeout_seconds: int = 50) -> None:
    """What came before an error counts, too."""
    async for one in api.watch("ml", resource_version="5", timeout_seconds=timeout_seconds):
        found.append(one)  # noqa: PERF401 - it would be lost with the error


async def test_a_watch_asks_for_bookmarks_and_ends_with_the_server() -> None:
    told = [event("ADDED", metadata={"name": "a"}), event("BOOKMARK", metadata={"resourceVersion": "9"})]
    whole = b"".join(told)
    async with asked(watching(whole[:10], whole[10:50], whole[50:])) as (api, server):
        found = [event async for event in api.watch("ml", resource_version="5", timeout_seconds=50)]
    assert found == [json.loads(line) for line in told]
    assert server.requests == [
        ("GET", OBJECTS, {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "5", "timeoutSeconds": "50"})
    ]


@pytest.mark.parametrize("size_bytes", [64 * 1024, 5 * 1024 * 1024])
async def test_the_lines_of_a_watch_may_be_long(size_bytes: int) -> None:
    """Bug: aiohttp's readline gives up at twice its buffer, which was 64 KiB in older clients and is 2 MiB in newer ones."""
    async with asked(watching(event("ADDED", spec="x" * size_bytes), event("DELETED"))) as (api, _):
        found = [event async for event in api.watch("ml", resource_version="5", timeout_seconds=50)]
    assert [len(event["object"].get("spec", "")) for event in found] == [size_bytes, 0]


async def test_a_watch_that_is_too_old_says_410() -> None:
    gone = event("ERROR", kind="Status", code=410, reason="Expired", message="too old resource version: 5 (9)")
    async with asked(watching(event("ADDED"), gone)) as (api, _):
        found: list[Json] = []
        with pytest.raises(ApiError, match="too old resource version") as caught:
            await watch_into(found, api)
    assert len(found) == 1
    assert (caught.value.status, caught.value.reason) == (HTTPStatus.GONE, "Expired")


@pytest.mark.parametrize("line", [b"<html>\n", b"[]\n", b"{}\n", b"\n"])
async def test_what_is_no_event_is_an_api_error(line: bytes) -> None:
    async with asked(watching(line)) as (api, _):
        with pytest.raises(ApiError, match="is no event"):
            await anext(api.watch("ml", resource_version="5", timeout_seconds=50))


async def test_a_watch_that_breaks_is_an_api_error_and_half_a_line_is_no_event() -> None:
    async def broken(response: web.StreamResponse) -> None:
        transport = response._req.transport if response._req is not None else None
        assert transport is not None
        transport.abort()

    async with asked(watching(event("ADDED"), b'{"type":"DELETED","obj', then=broken)) as (api, _):
        found: list[Json] = []
        with pytest.raises(ApiError, match="Can't watch the SkyClusters of namespace ml"):
            await watch_into(found, api)
    assert [one["type"] for one in found] in (["ADDED"], [])


async def test_a_watch_may_be_silent_as_long_as_it_lasts() -> None:
    async def later(response: web.StreamResponse) -> None:
        await asyncio.sleep(0.2)
        await response.write(event("ADDED"))

    async with asked(watching(event("BOOKMARK"), then=later)) as (api, _):
        found = [one["type"] async for one in api.watch("ml", resource_version="5", timeout_seconds=50)]
    assert found == ["BOOKMARK", "ADDED"]


async def test_a_watch_that_outlasts_its_time_is_held_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a connection that a firewall forgot is waited on for ever."""

    async def forgotten(_: web.StreamResponse) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(async_api, "WATCH_EXTRA_SECONDS", 0.5)
    async with asked(watching(event("ADDED"), then=forgotten)) as (api, _):
        found: list[Json] = []
        with pytest.raises(ApiError, match="no answer within"):
            await watch_into(found, api, timeout_seconds=0)
    assert len(found) == 1


async def test_a_watch_that_is_left_closes_its_connection() -> None:
    left = asyncio.Event()

    async def until_left(_: web.StreamResponse) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with asked(watching(event("ADDED"), then=until_left)) as (api, _):
        async with aclosing(api.watch("ml", resource_version="5", timeout_seconds=50)) as events:
            assert (await anext(events))["type"] == "ADDED"
        async with asyncio.timeout(60):
            await left.wait()


async def test_a_piece_of_a_log_comes_as_it_was_written() -> None:
    data = b"\x1b[31mred\x1b[0m \xff\r\n"
    headers = {"Skyoperator-Next-Offset": "1234", "Skyoperator-Log-State": "incomplete", "Skyoperator-Log-Message": "the end is missing"}
    async with asked(always(lambda: web.Response(body=data, headers=headers))) as (api, server):
        piece = await api.log("ml", "train", Place("u-1", 2, offset_bytes=1000, limit_bytes=65536))
        await api.log("ml", "train", Place("u-1", tail_lines=0))
    assert piece == LogPiece(data, 1234, "incomplete", "the end is missing")
    assert server.requests == [
        ("GET", LOG, {"uid": "u-1", "offsetBytes": "1000", "limitBytes": "65536", "attempt": "2", "ansi": "true"}),
        ("GET", LOG, {"uid": "u-1", "tailLines": "0", "ansi": "true"}),
    ]


async def test_a_log_that_has_not_begun_is_absent() -> None:
    def no_log() -> web.Response:
        return status_of(404, "NotFound", "train has no log yet", group="logs.skyoperator.dev", kind="skyclusters", name="train")

    async with asked(always(no_log)) as (api, _):
        assert await api.log("ml", "train", Place("u")) == LogPiece(b"", None, "absent", "train has no log yet")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (lambda: status_of(404, "NotFound", "the server could not find the requested resource"), "logs.apiService.enabled"),
        (lambda: web.Response(text="welcome"), "is not skyoperator's log service"),
        (lambda: status_of(503, "ServiceUnavailable", "try again"), "Can't read the log of SkyCluster ml/train: try again"),
    ],
)
async def test_what_is_no_log_api_is_an_api_error(response: Callable[[], web.Response], words: str) -> None:
    assert words in str(await error_of(response, lambda api: api.log("ml", "train", Place("u"))))


async def test_a_client_that_is_yet_to_be_opened_is_closed_again() -> None:
    closed = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[ApiClient]:
        async with ApiClient(Configuration(host="http://127.0.0.1:1")) as client:
            yield client
        closed.append(True)

    async with connected(opened()) as api:
        assert isinstance(api, KubernetesSkyClusterApi)
        assert not closed
    assert closed


def configuration(**fields: Any) -> Configuration:
    found = Configuration(host=fields.pop("host", "https://one"))
    found.api_key["BearerToken"] = fields.pop("token", "Bearer one")
    for key, value in fields.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "other", [{"host": "https://two"}, {"token": "Bearer two"}, {"cert_file": "/two"}, {"username": "two"}, {"ssl_ca_cert": "/two"}]
)
def test_who_differs_shares_no_watch(other: dict[str, Any]) -> None:
    assert key_of(configuration(), "ml") == key_of(configuration(), "ml")
    assert key_of(configuration(), "ml") != key_of(configuration(**other), "ml")
    assert key_of(configuration(), "ml") != key_of(configuration(), "research")
    assert "one" not in key_of(configuration(), "ml").credentials


def test_a_token_that_is_renewed_is_nobodys_name() -> None:
    """Bug: each hour's tasks have a watch of their own."""
    renewed = {"refresh_api_key_hook": lambda _: None}
    assert key_of(configuration(**renewed), "ml") == key_of(configuration(token="Bearer two", **renewed), "ml")
    made = [key_of(configuration(token=f"Bearer {number}"), "ml", renewed_by="eks\nNone") for number in range(2)]
    assert made[0] == made[1]
    assert made[0] != key_of(configuration(), "ml", renewed_by="gke\nNone")


@given(st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"x"))), st.binary(max_size=5), st.lists(st.integers(0, 300)))
def test_lines_are_the_same_however_they_are_cut(whole: list[bytes], rest: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in whole) + rest.replace(b"\n", b"")
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]

    async def chunks() -> AsyncIterator[bytes]:
        for begin, end in pairwise(edges):
            yield stream[begin:end]

    async def found() -> list[bytes]:
        return [line async for line in lines(chunks())]

    assert asyncio.run(found()) == whole
