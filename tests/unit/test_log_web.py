"""What a reader gets of a log: the bytes that he asked for, holes said, no escape sequences, and no more of it in memory than a piece."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from skyoperator.logs.metrics import REGISTRY, Archived, serve_metrics
from skyoperator.logs.types import Kind, NoLogError, NoObjectError, Piece, ResultLostError, State, Wanted
from skyoperator.logs.web import Pace
from skyoperator.logs.web.capacity import Capacity
from skyoperator.logs.web.parameters import reading
from skyoperator.logs.web.rendering import OneNode, Plain, Rendering
from skyoperator.logs.web.status import RefusedError, UnavailableError
from skyoperator.logs.web.streaming import PIECE_BYTES

from tests.unit.log_server import LOG, RESULT, ROOT, EndlessLog, MemoryLog, MemoryLogs, Rights, Running, client_context, running
from tests.unit.volume import Place, key_of

LINES = b"".join(b"line %d\n" % number for number in range(10))  # 7 bytes each


async def got(server: Running, path: str, **headers: str) -> tuple[int, bytes, Any]:
    async with server.client() as client, client.get(path, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def status_of(server: Running, path: str, method: str = "GET") -> dict[str, Any]:
    """The metav1.Status that a request is refused with."""
    async with server.client() as client, client.request(method, path) as answer:
        body: dict[str, Any] = await answer.json()
    assert answer.content_type == "application/json"
    assert (body["kind"], body["apiVersion"], body["status"], body["code"]) == ("Status", "v1", "Failure", answer.status)
    return body


class TestRange:
    @pytest.mark.parametrize(
        ("query", "body", "next_offset"),
        [
            ("", LINES, 70),
            ("?tailLines=2", LINES[56:], 70),
            ("?tailLines=0", b"", 70),
            ("?tailLines=100", LINES, 70),
            ("?offsetBytes=63", LINES[63:], 70),
            ("?offsetBytes=70", b"", 70),
            ("?offsetBytes=7&limitBytes=14", LINES[7:21], 21),
            ("?limitBytes=3", LINES[:3], 3),
            ("?tailLines=2&limitBytes=7", LINES[56:63], 63),
            ("?limitBytes=1000", LINES, 70),
        ],
    )
    async def test_it_gets_what_it_asks_for_and_where_to_go_on(self, query: str, body: bytes, next_offset: int) -> None:
        async with running(MemoryLogs(MemoryLog(LINES))) as server:
            status, found, headers = await got(server, LOG + query)
        assert (status, found, headers["Skyoperator-Next-Offset"]) == (200, body, str(next_offset))
        assert headers["Content-Type"] == "text/plain; charset=utf-8"

    @pytest.mark.parametrize("limit_bytes", [1, 5, 7, 50, 10_000])
    async def test_pages_put_together_are_the_whole_log(self, limit_bytes: int) -> None:
        """A page too many or too few at the edge of the hole would lose or double bytes."""
        log = MemoryLog(LINES, hole=(14, 35))
        found, offset, cut = b"", 0, 0
        async with running(MemoryLogs(log)) as server:
            while offset < log.size:
                _, page, headers = await got(server, f"{LOG}?offsetBytes={offset}&limitBytes={limit_bytes}")
                assert int(headers["Skyoperator-Next-Offset"]) > offset
                offset = int(headers["Skyoperator-Next-Offset"])
                for line in page.splitlines(keepends=True):
                    if line.startswith(b"[skyoperator: "):
                        cut += int(line.split()[1])
                    else:
                        found += line
        assert found.replace(b"\n", b"") == (LINES[:14] + LINES[35:]).replace(b"\n", b"")
        assert cut == 21

    async def test_a_hole_is_a_line_of_its_own(self) -> None:
        log = MemoryLog(LINES, hole=(10, 35), state=State.INCOMPLETE, message="the volume was full\nat noon")
        async with running(MemoryLogs(log)) as server:
            _, body, headers = await got(server, LOG)
            _, inside, _ = await got(server, f"{LOG}?offsetBytes=20")
            _, first, at_hole = await got(server, f"{LOG}?offsetBytes=20&limitBytes=7")
        assert body == b"line 0\nlin\n[skyoperator: 25 bytes were cut here]\n" + LINES[35:]
        assert inside == b"[skyoperator: 15 bytes were cut here]\n" + LINES[35:]
        assert (first, at_hole["Skyoperator-Next-Offset"]) == (b"[skyoperator: 15 bytes were cut here]\n" + LINES[35:42], "42")
        assert headers["Skyoperator-Log-State"] == "incomplete"
        assert headers["Skyoperator-Log-Message"] == "the volume was full at noon"

    async def test_an_offset_beyond_the_log_is_another_logs(self) -> None:
        async with running(MemoryLogs(MemoryLog(LINES))) as server:
            found = await status_of(server, f"{LOG}?offsetBytes=71")
        assert (found["code"], found["details"]["causes"][0]["field"]) == (400, "offsetBytes")

    async def test_a_log_of_many_pieces_is_whole(self) -> None:
        data = b"".join(b"%08d\n" % number for number in range(50_000))
        async with running(MemoryLogs(MemoryLog(data))) as server:
            assert (await got(server, LOG))[1] == data

    async def test_what_comes_while_it_is_read_is_the_next_answers(self) -> None:
        """The offset to go on from is told before the first byte: the answer has to end there."""
        log = GrowingLog(LINES)
        async with running(MemoryLogs(log)) as server:
            _, body, headers = await got(server, LOG)
        assert (body, headers["Skyoperator-Next-Offset"]) == (LINES, "70")


class GrowingLog(MemoryLog):
    """Has a line more after each read."""

    def read(self, offset: int, limit_bytes: int) -> Piece:
        found = super().read(offset, min(limit_bytes, 20))
        self._data += b"late\n"
        return found


class TestParameters:
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("follow=yes", "follow"),
            ("follow=", "follow"),
            ("tailLines=-1", "tailLines"),
            ("tailLines=many", "tailLines"),
            ("tailLines=1&tailLines=2", "tailLines"),
            ("offsetBytes=1.5", "offsetBytes"),
            ("offsetBytes=99999999999999999999", "offsetBytes"),
            ("offsetBytes=%C2%B2", "offsetBytes"),
            ("limitBytes=0", "limitBytes"),
            ("job=0", "job"),
            ("rank=head", "rank"),
            ("uid=../etc", "uid"),
            ("ansi=1", "ansi"),
            ("tail=5", "tail"),
            ("waitSeconds=5", "waitSeconds"),
            ("follow=true&waitSeconds=3601", "waitSeconds"),
            ("tailLines=1&offsetBytes=0", "offsetBytes"),
            ("attempt=0", "attempt"),
            ("previous=true&attempt=1", "attempt"),
            ("provision=true&rank=0", "rank"),
        ],
    )
    async def test_a_word_that_means_nothing_is_refused_by_its_name(self, query: str, field: str) -> None:
        logs = MemoryLogs(MemoryLog(LINES))
        async with running(logs) as server:
            found = await status_of(server, f"{LOG}?{query}")
        assert (found["code"], found["reason"], found["details"]["causes"][0]["field"]) == (400, "BadRequest", field)
        assert field in found["message"]
        assert logs.asked == []

    @pytest.mark.parametrize(
        ("query", "wanted"),
        [
            ("", Wanted("ml", "train")),
            ("?job=3", Wanted("ml", "train", job=3)),
            ("?attempt=2", Wanted("ml", "train", attempt=2)),
            ("?previous=true", Wanted("ml", "train", previous=True)),
            ("?provision=true", Wanted("ml", "train", kind=Kind.LAUNCH)),
            ("?uid=1-a", Wanted("ml", "train", uid="1-a")),
        ],
    )
    async def test_which_log_is_wanted(self, query: str, wanted: Wanted) -> None:
        logs = MemoryLogs(MemoryLog(LINES))
        async with running(logs) as server:
            assert (await got(server, LOG + query))[0] == 200
        assert logs.asked == [wanted]

    @pytest.mark.parametrize("name", ["a%2Fb", "..%2Fother", "UPPER", "-", "a%0Ab", "x" * 254])
    async def test_what_can_be_no_name_is_looked_up_nowhere(self, name: str) -> None:
        logs = MemoryLogs(MemoryLog(LINES))
        async with running(logs) as server:
            assert (await status_of(server, f"{ROOT}/namespaces/ml/skyclusters/{name}/log"))["code"] == 400
            assert (await status_of(server, f"{ROOT}/namespaces/a.b/skyclusters/x/log"))["code"] == 400
        assert logs.asked == []

    async def test_the_page_for_readers_names_them_all(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
        (section,) = re.findall(r"^## Parameters of `log`$(.*?)^## ", page, flags=re.MULTILINE | re.DOTALL)
        documented = set(re.findall(r"^\| `([A-Za-z]+)(?:=true)?` \|", section, flags=re.MULTILINE))
        async with running(MemoryLogs(MemoryLog(LINES))) as server:
            message = (await status_of(server, f"{LOG}?unknown=1"))["message"]
        assert documented == set(message.partition("; there are ")[2].split(", "))

    @given(st.dictionaries(st.sampled_from(["follow", "tailLines", "limitBytes", "uid", "x"]), st.lists(st.text(), min_size=1, max_size=2)))
    def test_any_query_is_read_or_refused(self, query: dict[str, list[str]]) -> None:
        with suppress(RefusedError):
            reading("ml", "train", query)


class TestRefusals:
    async def test_without_a_log_it_is_404(self) -> None:
        async with running(MemoryLogs()) as server:
            found = await status_of(server, LOG)
        assert (found["code"], found["reason"], found["details"]["name"]) == (404, "NotFound", "train")
        assert found["message"] == "SkyCluster ml/train has no log yet"

    async def test_nobody_learns_without_a_right_whether_it_exists(self) -> None:
        there, not_there = MemoryLogs(MemoryLog(LINES)), MemoryLogs(failure=NoObjectError("no such object"))
        answers = []
        for logs in (there, not_there):
            async with running(logs, authorizer=Rights(allowed=False)) as server:
                answers += [await status_of(server, LOG), await status_of(server, f"{LOG}?tail=1"), await status_of(server, RESULT)]
            assert logs.asked == []
        assert {answer["code"] for answer in answers} == {403}
        assert answers[:3] == answers[3:]
        assert answers[0]["message"] == (
            'skyclusters.logs.skyoperator.dev "train" is forbidden: User "jane" cannot get resource "skyclusters/log" '
            'in API group "logs.skyoperator.dev" in the namespace "ml"'
        )

    async def test_who_is_nobody_gets_401_everywhere_but_at_the_probes(self) -> None:
        rights = Rights()
        async with running(MemoryLogs(MemoryLog(LINES)), authorizer=rights) as server, server.client(headers={}) as client:
            for path in (LOG, RESULT, "/apis", ROOT, "/openapi/v2", "/", "/metrics"):
                async with client.get(path) as answer:
                    assert (answer.status, (await answer.json())["reason"]) == (401, "Unauthorized"), path
            for path in ("/healthz", "/readyz"):
                async with client.get(path) as answer:
                    assert answer.status == 200
        assert rights.asked == []

    async def test_who_can_not_be_asked_has_not_said_yes(self) -> None:
        logs = MemoryLogs(MemoryLog(LINES))
        async with running(logs, authorizer=Rights(failure=UnavailableError("away"))) as server:
            assert (await status_of(server, LOG))["reason"] == "ServiceUnavailable"
        assert logs.asked == []

    async def test_another_method_and_another_path_are_refused_as_kubernetes_does(self) -> None:
        async with running(MemoryLogs(MemoryLog(LINES))) as server:
            assert (await status_of(server, LOG, "POST"))["reason"] == "MethodNotAllowed"
            assert (await status_of(server, f"{ROOT}/namespaces/ml/skyclusters/train"))["reason"] == "NotFound"
            assert (await status_of(server, f"{ROOT}/namespaces/ml/skyclusters/train/exec"))["reason"] == "NotFound"

    async def test_an_error_of_ours_says_nothing_of_the_inside(self, caplog: pytest.LogCaptureFixture) -> None:
        logs = MemoryLogs(failure=NoLogError())
        logs.find = broken  # type: ignore[method-assign,assignment]
        async with running(logs) as server:
            found = await status_of(server, LOG)
        assert (found["code"], found["reason"]) == (500, "InternalError")
        assert "secret" not in json.dumps(found)
        assert "secret detail" in caplog.text

    async def test_a_disk_that_fails_in_the_middle_does_not_look_like_an_end(self) -> None:
        log = MemoryLog(LINES * 20_000)
        log.read = broken_after(3, log.read)  # type: ignore[method-assign]
        async with running(MemoryLogs(log)) as server:
            with pytest.raises(aiohttp.ClientPayloadError):
                await got(server, LOG)

    async def test_not_ready_is_not_unhealthy(self) -> None:
        async with running(MemoryLogs(), is_ready=False) as server:
            assert ((await got(server, "/readyz"))[0], (await got(server, "/healthz"))[0]) == (503, 200)


async def broken(_wanted: Wanted) -> Any:
    raise RuntimeError("secret detail")


def broken_after(count: int, read: Any) -> Any:
    reads = iter(range(count))

    def failing(offset: int, limit_bytes: int) -> Piece:
        if next(reads, None) is None:
            raise OSError(5, "Input/output error")
        found: Piece = read(offset, limit_bytes)
        return found

    return failing


class TestResult:
    async def test_it_comes_with_its_digest(self) -> None:
        logs = MemoryLogs(result_json=b'{"loss": 0.5}')
        async with running(logs) as server:
            status, body, headers = await got(server, f"{RESULT}?job=2&attempt=1&uid=u-1")
        assert (status, body, headers["Content-Type"]) == (200, b'{"loss": 0.5}', "application/json")
        assert headers["Skyoperator-Result-SHA256"] == sha256(body).hexdigest()
        assert logs.asked == [Wanted("ml", "train", uid="u-1", attempt=1, job=2)]

    async def test_not_yet_and_never_are_told_apart(self) -> None:
        async with running(MemoryLogs()) as server:
            assert (await status_of(server, RESULT))["reason"] == "NotFound"
        async with running(MemoryLogs(no_result=ResultLostError("the job's log was cut"))) as server:
            found = await status_of(server, RESULT)
        assert (found["code"], found["reason"], found["message"]) == (410, "Gone", "the job's log was cut")

    async def test_a_job_that_returned_nothing_has_lost_nothing(self, tmp_path: Path) -> None:
        """To whom every job is one that may return a value, 410 would be a failure of each that does not."""
        place = Place(tmp_path / "logs")
        whole, cut = place.log(key_of(1)), place.log(key_of(2))
        whole.finish(State.COMPLETE, "")
        cut.finish(State.INCOMPLETE, "its cluster was gone")
        answers = []
        for log in (whole, cut):
            with pytest.raises(LookupError) as raised:
                log.result()
            async with running(MemoryLogs(no_result=raised.value)) as server:
                answers.append((await status_of(server, RESULT))["code"])
        assert answers == [404, 410]

    async def test_a_parameter_of_logs_is_none_of_results(self) -> None:
        async with running(MemoryLogs(result_json=b"1")) as server:
            assert (await status_of(server, f"{RESULT}?follow=true"))["details"]["causes"][0]["field"] == "follow"


@asynccontextmanager
async def following(
    log: MemoryLog, query: str = "", *, rights: Rights | None = None, pace: Pace | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        running(MemoryLogs(log), authorizer=rights, pace=pace) as server,
        server.client() as client,
        client.get(f"{LOG}?follow=true{query}") as answer,
    ):
        yield answer


class TestFollow:
    async def test_it_ends_when_the_log_does(self) -> None:
        log = MemoryLog(b"one\n", state=State.LIVE)
        logs = MemoryLogs(log)
        async with running(logs) as server, server.client() as client, client.get(f"{LOG}?follow=true") as answer:
            assert await answer.content.readline() == b"one\n"
            assert "Skyoperator-Next-Offset" not in answer.headers
            assert answer.headers["Skyoperator-Log-State"] == "live"
            assert logs.followers == 1
            log.append(b"two\n")
            assert await answer.content.readline() == b"two\n"
            log.append(b"three\n", State.COMPLETE)
            assert await answer.content.read() == b"three\n"
        assert logs.followers == 0

    async def test_a_log_that_has_ended_is_followed_to_its_end(self) -> None:
        async with running(MemoryLogs(MemoryLog(LINES))) as server:
            assert (await got(server, f"{LOG}?follow=true&tailLines=1"))[1] == b"line 9\n"

    async def test_a_limit_ends_it_too(self) -> None:
        log = MemoryLog(b"one\n", state=State.LIVE)
        async with following(log, "&limitBytes=6") as answer:
            assert await answer.content.readline() == b"one\n"
            log.append(b"two\n")
            assert await answer.content.read() == b"tw"

    async def test_it_waits_for_a_log_to_begin(self) -> None:
        logs = MemoryLogs()
        async with running(logs, pace=Pace(look_seconds=0.01)) as server, server.client() as client:
            asking = asyncio.ensure_future(client.get(f"{LOG}?follow=true"))
            while len(logs.asked) < 3:
                await asyncio.sleep(0.01)
            logs.log = MemoryLog(LINES)
            async with await asking as answer:
                assert await answer.read() == LINES

    async def test_it_looks_again_as_soon_as_something_is_heard_of_the_object_and_not_before(self) -> None:
        logs = MemoryLogs()
        async with running(logs, pace=Pace(look_seconds=3600)) as server, server.client() as client:
            asking = asyncio.ensure_future(client.get(f"{LOG}?follow=true"))
            while not logs.asked:
                await asyncio.sleep(0.01)
            logs.log = MemoryLog(LINES)
            logs.changed.set()
            async with await asking as answer:
                assert await answer.read() == LINES
        assert len(logs.asked) == 2

    async def test_it_waits_neither_longer_than_it_said_nor_for_an_object_that_is_gone(self) -> None:
        async with running(MemoryLogs(), pace=Pace(look_seconds=0.01)) as server:
            assert (await status_of(server, f"{LOG}?follow=true&waitSeconds=0"))["code"] == 404
        async with running(MemoryLogs(failure=NoObjectError("it is gone"))) as server:
            assert (await status_of(server, f"{LOG}?follow=true"))["message"] == "it is gone"

    @pytest.mark.parametrize("failure", [None, UnavailableError("kube-apiserver is away")], ids=["taken away", "not to be told"])
    async def test_it_ends_when_the_right_does_and_does_not_look_whole(self, failure: Exception | None) -> None:
        log, rights = MemoryLog(b"one\n", state=State.LIVE), Rights()
        async with following(log, rights=rights, pace=Pace(recheck_seconds=0.05)) as answer:
            assert await answer.content.readline() == b"one\n"
            while len(rights.asked) < 3:
                await asyncio.sleep(0.01)
            rights.allowed, rights.failure = False, failure
            assert (await answer.content.readline()).startswith(b"[skyoperator: this ends here: ")
            log.append(b"secret\n")
            with pytest.raises(aiohttp.ClientPayloadError):
                assert await answer.content.read() == b""

    async def test_open_followers_are_counted_and_one_that_leaves_is_let_go(self) -> None:
        log = MemoryLog(b"one\n", state=State.LIVE)
        logs = MemoryLogs(log)
        async with running(logs) as server:
            async with server.client() as client, client.get(f"{LOG}?follow=true") as answer:
                await answer.content.readline()
                assert await followers() == 1
                answer.close()
            while logs.followers or log.waiters:
                await asyncio.sleep(0.01)
            assert await followers() == 0

    async def test_fifty_read_at_the_same_time(self) -> None:
        log = MemoryLog(LINES, state=State.LIVE)
        logs = MemoryLogs(log)
        async with running(logs) as server, server.client() as client:

            async def one() -> bytes:
                async with client.get(f"{LOG}?follow=true") as answer:
                    return await answer.read()

            reading_all = asyncio.gather(*(one() for _ in range(50)))
            while log.waiters < 50:
                await asyncio.sleep(0.01)
            log.append(b"end\n", State.COMPLETE)
            assert await reading_all == [LINES + b"end\n"] * 50


async def followers() -> float:
    runner = await serve_metrics(0, host="127.0.0.1")
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{runner.addresses[0][1]}/metrics") as answer:
            assert "skyoperator_log_followers" in await answer.text()
    finally:
        await runner.cleanup()
    return REGISTRY.get_sample_value("skyoperator_log_followers") or 0.0


class TestBounds:
    """Four at a time, so one for each user."""

    async def test_who_follows_one_too_many_is_told_to_come_again(self) -> None:
        log = MemoryLog(b"one\n", state=State.LIVE)
        async with running(MemoryLogs(log), max_followers=4) as server, server.client() as client:
            async with client.get(f"{LOG}?follow=true") as first:
                assert await first.content.readline() == b"one\n"
                async with client.get(f"{LOG}?follow=true") as second:
                    assert (second.status, second.headers["Retry-After"]) == (429, "5")
                    refused = await second.json()
                assert (await status_of(server, f"{LOG}?follow=true&tail=1"))["code"] == 400, "what is asked for is judged first"
                assert (await got(server, LOG))[0] == 200, "who reads and goes is not held up by who stays"
                log.append(b"two\n", State.COMPLETE)
                await first.read()
            assert (await got(server, f"{LOG}?follow=true"))[0] == 200
        assert (refused["code"], refused["reason"], refused["details"]["retryAfterSeconds"]) == (429, "TooManyRequests", 5)
        assert "jane" in refused["message"]

    async def test_those_who_wait_count_too(self) -> None:
        logs = MemoryLogs()
        async with running(logs, max_followers=4) as server, server.client() as client:
            waiting = asyncio.ensure_future(client.get(f"{LOG}?follow=true"))
            while not logs.asked:
                await asyncio.sleep(0.01)
            assert (await status_of(server, f"{LOG}?follow=true"))["code"] == 429
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    async def test_all_together_have_a_bound_and_no_user_all_of_it(self) -> None:
        capacity = Capacity(8, "followers")
        with ExitStack() as stack:
            for user in ("ann", "ann", "bob", "bob", "eve", "eve"):
                stack.enter_context(capacity.one_more(user))
            with pytest.raises(RefusedError, match=r"2 followers .* ann"), capacity.one_more("ann"):
                raise AssertionError
            for user in ("joe", "kim"):
                stack.enter_context(capacity.one_more(user))
            with pytest.raises(RefusedError, match="8 followers"), capacity.one_more("lee"):
                raise AssertionError
        with capacity.one_more("ann"), capacity.one_more("lee"):
            pass

    async def test_results_and_pieces_have_a_bound_of_their_own(self) -> None:
        stuck, let_go = MemoryLogs(MemoryLog(LINES), result_json=b"1"), asyncio.Event()

        async def slow(wanted: Wanted) -> bytes:
            stuck.asked.append(wanted)
            await let_go.wait()
            return b"1"

        stuck.result = slow  # type: ignore[method-assign]
        async with running(stuck, max_followers=4) as server:
            first = asyncio.ensure_future(got(server, RESULT))
            while not stuck.asked:
                await asyncio.sleep(0.01)
            assert (await got(server, LOG))[0] == 429
            assert (await got(server, f"{LOG}?follow=true"))[0] == 200
            let_go.set()
            assert (await first)[0] == 200


def test_the_page_for_operators_names_all_metrics() -> None:
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text().partition("## Metrics")[2]
    documented = set(re.findall(r"^\| `(skyoperator_\w+)` \|", page, flags=re.MULTILINE))
    archived = CollectorRegistry()
    archived.register(Archived(lambda: 0, lambda: 0))
    told = "".join(generate_latest(registry).decode() for registry in (REGISTRY, archived))
    assert documented == {name for name in re.findall(r"^# TYPE (\w+) ", told, flags=re.MULTILINE) if not name.endswith("_created")}


class TestSlowReader:
    async def test_one_who_takes_nothing_costs_a_few_pieces_and_is_closed_in_the_end(self) -> None:
        log = EndlessLog()
        async with running(MemoryLogs(log), pace=Pace(stall_seconds=0.5)) as server:
            reader, writer = await connected_with_small_buffers(server)
            writer.write(f"GET {LOG} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer jane\r\n\r\n".encode())
            (connection,) = server.runner.server.connections  # type: ignore[union-attr]
            while log.reads < 2 or connection.transport is None or not connection.transport.get_write_buffer_size():
                await asyncio.sleep(0.01)
            reads = await settled(log)
            assert reads <= 6
            while server.runner.server.connections:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            assert log.reads == reads
            writer.transport.abort()
            del reader

    async def test_one_who_only_waits_for_more_is_not_slow(self) -> None:
        log = MemoryLog(b"one\n", state=State.LIVE)
        async with following(log, pace=Pace(stall_seconds=0.05, recheck_seconds=0.05)) as answer:
            await answer.content.readline()
            await asyncio.sleep(0.3)
            log.append(b"two\n", State.COMPLETE)
            assert await answer.content.read() == b"two\n"


async def connected_with_small_buffers(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """What the kernel holds is not ours; here it holds next to nothing."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=plain, ssl=client_context(), server_hostname="localhost", limit=1024)
    while not server.runner.server.connections:  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
    (connection,) = server.runner.server.connections  # type: ignore[union-attr]
    assert connection.transport is not None
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return reader, writer


async def settled(log: MemoryLog) -> int:
    """How many reads there were once there are no more for a while."""
    reads = -1
    while reads != log.reads:
        reads = log.reads
        await asyncio.sleep(0.1)
    return reads


COLOURED = (
    b"\x1b[36m(head, rank=0, pid=12)\x1b[0m \x1b[1;31mred\x1b[0m\n"
    b"\x1b[36m(worker1, rank=1, pid=13, ip=10.0.0.2)\x1b[0m loss \x1b]8;;http://x\x1b\\link\x1b]8;;\x07\n"
    b"Job finished.\n"
)


class TestRendering:
    async def test_escape_sequences_are_taken_out_unless_asked_for(self) -> None:
        async with running(MemoryLogs(MemoryLog(COLOURED))) as server:
            _, plain, headers = await got(server, LOG)
            assert (await got(server, f"{LOG}?ansi=true"))[1] == COLOURED
        assert plain == b"(head, rank=0, pid=12) red\n(worker1, rank=1, pid=13, ip=10.0.0.2) loss link\nJob finished.\n"
        assert headers["Skyoperator-Next-Offset"] == str(len(COLOURED)), "an offset is one of the log, not of what is shown"

    async def test_one_that_two_pieces_share_is_taken_out(self) -> None:
        data = b"x" * (PIECE_BYTES - 2) + b"\x1b[1;31mred\n"
        async with running(MemoryLogs(MemoryLog(data))) as server:
            assert (await got(server, LOG))[1] == b"x" * (PIECE_BYTES - 2) + b"red\n"

    @given(
        st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"0;1", b"m", b"\x07", b"\\", b"\n", b"P", b"(B", b"text", b"\x1b[0m"])), st.data()
    )
    def test_where_it_is_split_makes_no_difference(self, parts: list[bytes], data: st.DataObject) -> None:
        text = b"".join(parts)
        at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        whole, split = Plain(), Plain()
        found = b"".join(split.feed(text[a:b]) for a, b in zip([0, *at], [*at, len(text)], strict=True)) + split.finish()
        assert found == whole.feed(text) + whole.finish()
        assert b"\x1b" not in found

    @given(st.binary(max_size=6000))
    def test_no_escape_byte_ever_comes_through(self, data: bytes) -> None:
        assert b"\x1b" not in Plain().feed(b"\x1b]" + data)

    def test_one_that_never_ends_holds_nothing_back_for_ever(self) -> None:
        plain = Plain()
        assert len(b"".join(plain.feed(b"\x1b]" if not number else b"x" * 100) for number in range(100))) > 7000

    async def test_one_nodes_lines(self) -> None:
        async with running(MemoryLogs(MemoryLog(COLOURED))) as server:
            assert (await got(server, f"{LOG}?rank=1"))[1] == b"(worker1, rank=1, pid=13, ip=10.0.0.2) loss link\n"
            assert (await got(server, f"{LOG}?rank=0"))[1] == b"(head, rank=0, pid=12) red\n"
            assert (await got(server, f"{LOG}?rank=10"))[1] == b""

    @given(st.data())
    def test_a_nodes_lines_are_whole_wherever_they_are_split(self, data: st.DataObject) -> None:
        long = b"(worker1, rank=1, pid=13, ip=10.0.0.2) " + b"y" * 2000 + b"\n"
        text = (
            b"(setup pid=1) no\n" + long + b"(head, rank=0, pid=1) (worker1, rank=1, pid=2) no\n" + long + b"(worker1, rank=1, pid=13) end"
        )
        at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        node = OneNode(1)
        found = b"".join(node.feed(text[a:b]) for a, b in zip([0, *at], [*at, len(text)], strict=True)) + node.finish()
        assert found == long + long + b"(worker1, rank=1, pid=13) end"

    def test_the_only_node_is_rank_0(self) -> None:
        text = b"(train, pid=7) hello\n(setup pid=7) no\nJob\n"
        assert (OneNode(0).feed(text), OneNode(1).feed(text)) == (b"(train, pid=7) hello\n", b"")

    def test_a_hole_ends_what_was_begun_before_it(self) -> None:
        """A line cut in its middle must not lend its rank, nor a sequence its beginning, to what comes after the hole."""
        rendering = Rendering(0, rank=1, ansi=False)
        seen = rendering.feed(Piece(0, b"(worker1, rank=1, pid=1) a\x1b[3")) + rendering.feed(
            Piece(100, b"1m of another\n(w, rank=1, pid=1) b\n")
        )
        assert seen == b"(worker1, rank=1, pid=1) a\n[skyoperator: 71 bytes were cut here]\n(w, rank=1, pid=1) b\n"
