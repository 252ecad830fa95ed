"""Who may read: nobody is taken for another, by whatever headers; and nobody is let in because nobody could be asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from multidict import CIMultiDict, CIMultiDictProxy
from skyoperator.kube import Json, KubeError
from skyoperator.logs.types import State
from skyoperator.logs.web import Pace, hang_up
from skyoperator.logs.web.access import Access, AccessReviews
from skyoperator.logs.web.front_proxy import FrontProxyWatch
from skyoperator.logs.web.identity import Asker, BearerDoor, FirstOf, FrontProxyDoor, User, front_proxy
from skyoperator.logs.web.reviews import Remembered
from skyoperator.logs.web.status import UnavailableError

from tests.unit.log_server import LOG, MemoryLog, MemoryLogs, Rights, Running, Signer, client_context, running, server_contexts

PROXY = "front-proxy-client"
SOMEBODY = [("X-Remote-User", "jane"), ("X-Remote-Group", "ml"), ("X-Remote-Group", "all"), ("X-Remote-Uid", "u-1")]


@dataclass
class PublishedProxy:
    """KubeApi.config_map over kube-system/extension-apiserver-authentication."""

    signer: Signer
    allowed_names: tuple[str, ...] = (PROXY,)
    failure: Exception | None = None

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        assert (namespace, name) == ("kube-system", "extension-apiserver-authentication")
        if self.failure is not None:
            raise self.failure
        return {
            "client-ca-file": "none of ours",
            "requestheader-client-ca-file": self.signer.pem,
            "requestheader-allowed-names": json.dumps(self.allowed_names),
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }


@dataclass
class Behind:
    """A server behind a front proxy."""

    server: Running
    watch: FrontProxyWatch
    rights: Rights
    kube: KubeReviews

    @asynccontextmanager
    async def client(
        self, headers: list[tuple[str, str]], certificate: tuple[bytes, bytes] | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        async with self.server.client(client_context(certificate=certificate), CIMultiDict(headers)) as client:  # type: ignore[arg-type]
            yield client

    async def get(self, headers: list[tuple[str, str]], certificate: tuple[bytes, bytes] | None = None) -> int:
        async with self.client(headers, certificate) as client, client.get(LOG) as answer:
            return answer.status

    @property
    def users(self) -> list[User]:
        return [user for user, _ in self.rights.asked]


@asynccontextmanager
async def behind(published: PublishedProxy, log: MemoryLog | None = None, pace: Pace | None = None) -> AsyncIterator[Behind]:
    contexts, rights, kube = server_contexts(), Rights(), KubeReviews()
    door = FrontProxyDoor(contexts.trusts)
    watch = FrontProxyWatch(published, door, contexts)
    await watch.step()
    both = FirstOf(door, BearerDoor(kube))
    async with running(MemoryLogs(log or MemoryLog(b"x\n")), authenticator=both, authorizer=rights, contexts=contexts, pace=pace) as server:
        watch.hang_up = lambda: hang_up(server.runner)
        yield Behind(server, watch, rights, kube)


@dataclass
class KubeReviews:
    """KubeApi.call for TokenReview and SubjectAccessReview."""

    tokens: dict[str, Json] = field(default_factory=lambda: {"good": {"username": "token-user", "groups": ["a"], "extra": {"k": ["v"]}}})
    allowed: bool = True
    failure: Exception | None = None
    asked: list[tuple[str, Json]] = field(default_factory=list)

    async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
        assert (method, names) == ("POST", {})
        assert body is not None
        self.asked.append((path, body))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if path == "/apis/authentication.k8s.io/v1/tokenreviews":
            user = self.tokens.get(body["spec"]["token"])
            return {"status": {"authenticated": True, "user": user} if user else {"error": "no such token"}}
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return {"status": {"allowed": self.allowed}}


class TestFrontProxy:
    async def test_it_speaks_for_others(self) -> None:
        signer = Signer()
        extra = [("X-Remote-Extra-Scopes%2FA", "one"), ("X-Remote-Extra-Scopes%2FA", "two")]
        async with behind(PublishedProxy(signer)) as ours:
            assert await ours.get(SOMEBODY + extra, signer.client(PROXY)) == 200
            assert ours.users == [User("jane", "u-1", ("ml", "all"), (("scopes/a", ("one", "two")),))]
            assert ours.kube.asked == []

    async def test_headers_without_its_certificate_are_worth_nothing(self) -> None:
        async with behind(PublishedProxy(Signer())) as ours:
            assert await ours.get([*SOMEBODY, ("X-Remote-Group", "system:masters")]) == 401
            assert ours.users == []

    async def test_headers_beside_a_token_change_nothing(self) -> None:
        async with behind(PublishedProxy(Signer())) as ours:
            assert await ours.get([*SOMEBODY, ("Authorization", "Bearer good")]) == 200
            assert ours.users == [User("token-user", groups=("a",), extra=(("k", ("v",)),))]

    async def test_another_authority_of_the_same_name_is_another(self) -> None:
        async with behind(PublishedProxy(Signer())) as ours:
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await ours.get(SOMEBODY, Signer().client(PROXY))
            assert ours.users == []

    async def test_its_name_has_to_be_one_of_the_allowed(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            assert await ours.get(SOMEBODY, signer.client("kubelet")) == 401
        async with behind(PublishedProxy(signer, allowed_names=())) as ours:
            assert await ours.get(SOMEBODY, signer.client("kubelet")) == 200

    async def test_who_has_the_right_name_by_the_wrong_certificate_still_has_his_token(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            assert await ours.get([*SOMEBODY, ("Authorization", "Bearer good")], signer.client("kubelet")) == 200
            assert [user.name for user in ours.users] == ["token-user"]

    async def test_a_certificate_that_has_run_out_is_none(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await ours.get(SOMEBODY, signer.client(PROXY, timedelta(days=-1)))
            assert ours.users == []

    async def test_a_certificate_runs_out_within_a_connection(self) -> None:
        door = FrontProxyDoor(lambda _: True, clock=lambda: 1_800_000_000.0)
        door.accept(front_proxy(await PublishedProxy(Signer()).config_map("kube-system", "extension-apiserver-authentication") or {}))
        headers = CIMultiDictProxy(CIMultiDict(SOMEBODY))
        subject = ((("commonName", PROXY),),)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        good = {"subject": subject, "notAfter": "Jan 15 08:00:01 2027 GMT"}
        over = {"subject": subject, "notAfter": "Jan 15 08:00:00 2027 GMT"}
        assert await door.user(Asker(headers, good, context)) is not None
        assert await door.user(Asker(headers, over, context)) is None
        assert await door.user(Asker(headers, {}, context)) is None

    async def test_it_names_nobody_without_the_header_of_the_user(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            assert await ours.get([("X-Remote-Group", "system:masters")], signer.client(PROXY)) == 401
            assert await ours.get([("X-Remote-User", "")], signer.client(PROXY)) == 401
            assert await ours.get([("X_Remote_User", "jane")], signer.client(PROXY)) == 401

    async def test_bytes_that_are_no_text_are_no_name(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            status = await raw_get(ours.server, client_context(certificate=signer.client(PROXY)), b"X-Remote-User: \xff\xfe")
            assert (status, ours.users) == (401, [])

    async def test_a_line_end_in_a_header_makes_no_second_one(self) -> None:
        signer = Signer()
        async with behind(PublishedProxy(signer)) as ours:
            status = await raw_get(
                ours.server, client_context(certificate=signer.client(PROXY)), b"X-Remote-User: jane\rX-Remote-Group: root"
            )
            assert (status, ours.users) == (400, [])


async def raw_get(server: Running, context: ssl.SSLContext, header: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
    writer.write(b"GET " + LOG.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + header + b"\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    return status


class TestRotation:
    async def test_new_authorities_count_at_once_and_old_ones_no_more(self) -> None:
        old, new = Signer("old"), Signer("new")
        published = PublishedProxy(old)
        async with behind(published) as ours, ours.client(SOMEBODY, old.client(PROXY)) as kept_open:
            async with kept_open.get(LOG) as answer:
                assert (answer.status, await answer.read()) == (200, b"x\n")
            published.signer = new
            await ours.watch.step()
            assert await ours.get(SOMEBODY, new.client(PROXY)) == 200
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await ours.get(SOMEBODY, old.client(PROXY))
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await kept_open.get(LOG)

    async def test_an_answer_under_way_is_not_cut_off(self) -> None:
        old = Signer("old")
        published, log = PublishedProxy(old), MemoryLog(b"x\n", state=State.LIVE)
        async with behind(published, log) as ours, ours.client(SOMEBODY, old.client(PROXY)) as client:
            async with client.get(f"{LOG}?follow=true") as answer:
                assert await answer.content.readline() == b"x\n"
                published.signer = Signer("new")
                await ours.watch.step()
                log.append(b"y\n", State.COMPLETE)
                assert await answer.content.read() == b"y\n"
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await client.get(LOG)

    async def test_a_connection_of_old_authorities_speaks_for_nobody(self) -> None:
        """Even if it was not hung up, which a request under way isn't."""
        old = Signer("old")
        published = PublishedProxy(old)
        async with behind(published) as ours, ours.client(SOMEBODY, old.client(PROXY)) as kept_open:
            ours.watch.hang_up = lambda: None
            async with kept_open.get(LOG) as answer:
                assert (answer.status, await answer.read()) == (200, b"x\n")
            published.signer = Signer("new")
            await ours.watch.step()
            async with kept_open.get(LOG) as answer:
                assert answer.status == 401

    async def test_a_follower_of_old_authorities_is_ended(self) -> None:
        old = Signer("old")
        published, log = PublishedProxy(old), MemoryLog(b"x\n", state=State.LIVE)
        async with (
            behind(published, log, Pace(recheck_seconds=0.05)) as ours,
            ours.client(SOMEBODY, old.client(PROXY)) as client,
            client.get(f"{LOG}?follow=true") as answer,
        ):
            assert await answer.content.readline() == b"x\n"
            published.signer = Signer("new")
            await ours.watch.step()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()

    @pytest.mark.parametrize("failure", [KubeError("away"), ValueError("no list")], ids=str)
    async def test_what_can_not_be_read_changes_nothing(self, failure: Exception) -> None:
        signer = Signer()
        published = PublishedProxy(signer)
        async with behind(published) as ours:
            published.failure = failure
            await ours.watch.step()
            assert await ours.get(SOMEBODY, signer.client(PROXY)) == 200

    async def test_what_was_never_read_opens_nothing(self) -> None:
        signer = Signer()
        published = PublishedProxy(signer, failure=KubeError("HTTP 403"))
        async with behind(published) as ours:
            assert await ours.get([*SOMEBODY, ("Authorization", "Bearer good")]) == 200
            assert [user.name for user in ours.users] == ["token-user"]
            published.failure = None
            await ours.watch.step()
            assert await ours.get(SOMEBODY, signer.client(PROXY)) == 200

    @pytest.mark.parametrize(
        "data",
        [
            {"requestheader-allowed-names": "front-proxy-client"},
            {"requestheader-allowed-names": '"front-proxy-client"'},
            {"requestheader-allowed-names": '[""]'},
            {"requestheader-username-headers": "[1]"},
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_no_list_of_anybody(self, data: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=r"requestheader|Expecting"):
            front_proxy({"requestheader-client-ca-file": "pem", **data})

    def test_a_cluster_without_aggregation_has_no_front_proxy(self) -> None:
        assert front_proxy({"client-ca-file": "pem"}) is None


class TestBearer:
    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("Authorization", "Bearer ")],
            [("Authorization", "Bearer bad")],
            [("Authorization", "Basic good")],
            [("Authorization", "good")],
            [("Authorization", "Bearer bad"), ("Authorization", "Bearer good")],
        ],
        ids=str,
    )
    async def test_without_a_good_token_nobody_comes_in(self, headers: list[tuple[str, str]]) -> None:
        async with behind(PublishedProxy(Signer())) as ours:
            assert await ours.get(headers) == 401
            assert ours.users == []

    async def test_a_token_is_asked_about_once_in_ten_seconds_and_kept_nowhere(self) -> None:
        kube, clock = KubeReviews(), Clock()
        remembered: Remembered[User | None] = Remembered(clock=clock)
        door = BearerDoor(kube, remembered)
        for seconds, asked in [(0.0, 1), (9.9, 1), (10.1, 2)]:
            clock.now = seconds
            assert (await door.user(bearer("good"))) is not None
            assert len(kube.asked) == asked
        assert "good" not in repr(vars(remembered))

    async def test_a_token_that_is_taken_back_or_given_out_counts_within_seconds(self) -> None:
        kube, clock = KubeReviews(), Clock()
        door = BearerDoor(kube, Remembered(clock=clock))
        assert await door.user(bearer("new")) is None
        kube.tokens = {"new": {"username": "jane"}}
        clock.now = 5.1
        assert await door.user(bearer("new")) == User("jane")
        kube.tokens = {}
        clock.now = 15.2
        assert await door.user(bearer("new")) is None

    @pytest.mark.parametrize(
        "failure", [ApiException(status=500), ApiException(status=403), aiohttp.ClientError(), TimeoutError()], ids=repr
    )
    async def test_no_answer_is_no_user_and_is_not_remembered(self, failure: Exception) -> None:
        kube = KubeReviews(failure=failure)
        door = BearerDoor(kube)
        with pytest.raises(UnavailableError):
            await door.user(bearer("good"))
        kube.failure = None
        assert await door.user(bearer("good")) is not None

    async def test_a_reader_sees_503_while_kube_apiserver_is_away(self) -> None:
        async with behind(PublishedProxy(Signer())) as ours:
            ours.kube.failure = aiohttp.ClientError()
            assert await ours.get([("Authorization", "Bearer good")]) == 503

    async def test_a_user_without_a_name_is_nobody(self) -> None:
        assert await BearerDoor(KubeReviews(tokens={"good": {"groups": ["system:masters"]}})).user(bearer("good")) is None


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> Asker:
    return Asker(CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {token}"})), {}, None)


JANE = User("jane", "u-1", ("ml",), (("scope", ("a", "b")),))
THE_LOG = Access("ml", "train", "log")


class TestAccess:
    async def test_kube_apiserver_is_asked_for_this_very_user_and_object(self) -> None:
        kube = KubeReviews()
        assert await AccessReviews(kube).may(JANE, THE_LOG)
        ((_, body),) = kube.asked
        assert body["spec"] == {
            "user": "jane",
            "uid": "u-1",
            "groups": ["ml"],
            "extra": {"scope": ["a", "b"]},
            "resourceAttributes": {
                "group": "logs.skyoperator.dev",
                "version": "v1alpha1",
                "resource": "skyclusters",
                "subresource": "log",
                "verb": "get",
                "namespace": "ml",
                "name": "train",
            },
        }

    @pytest.mark.parametrize(
        ("user", "access"),
        [
            (User("john", "u-1", ("ml",), JANE.extra), THE_LOG),
            (User("jane", "u-2", ("ml",), JANE.extra), THE_LOG),
            (User("jane", "u-1", (), JANE.extra), THE_LOG),
            (User("jane", "u-1", ("ml",)), THE_LOG),
            (JANE, Access("other", "train", "log")),
            (JANE, Access("ml", "other", "log")),
            (JANE, Access("ml", "train", "result")),
        ],
        ids=str,
    )
    async def test_a_yes_is_remembered_for_nothing_else(self, user: User, access: Access) -> None:
        kube = KubeReviews()
        reviews = AccessReviews(kube)
        assert await reviews.may(JANE, THE_LOG)
        kube.allowed = False
        assert await reviews.may(JANE, THE_LOG)
        assert not await reviews.may(user, access)

    async def test_a_yes_counts_ten_seconds_and_a_no_five(self) -> None:
        kube, clock = KubeReviews(), Clock()
        reviews = AccessReviews(kube, Remembered(clock=clock))
        assert await reviews.may(JANE, THE_LOG)
        kube.allowed, clock.now = False, 10.0
        assert not await reviews.may(JANE, THE_LOG)
        kube.allowed, clock.now = True, 14.9
        assert not await reviews.may(JANE, THE_LOG)
        clock.now = 15.0
        assert await reviews.may(JANE, THE_LOG)

    @pytest.mark.parametrize("status", [{}, {"allowed": False}, {"allowed": "true"}, {"allowed": True, "denied": True}, None], ids=str)
    async def test_anything_but_yes_is_no(self, status: Any) -> None:
        class Answering(KubeReviews):
            async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
                return {"status": status}

        assert not await AccessReviews(Answering()).may(JANE, THE_LOG)


class TestRemembered:
    async def test_who_asks_the_same_at_the_same_time_gets_one_answer(self) -> None:
        kube = KubeReviews()
        reviews = AccessReviews(kube)
        assert await asyncio.gather(*(reviews.may(JANE, THE_LOG) for _ in range(50))) == [True] * 50
        assert len(kube.asked) == 1

    async def test_one_who_leaves_takes_no_answer_from_the_others(self) -> None:
        kube = KubeReviews()
        reviews = AccessReviews(kube)
        first, second = (asyncio.ensure_future(reviews.may(JANE, THE_LOG)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second

    async def test_the_unknown_are_asked_about_a_few_at_a_time_and_hold_up_nobody_who_is_known(self) -> None:
        clock = Clock()
        remembered: Remembered[bool] = Remembered(at_once=3, clock=clock)
        asking, answered = 0, asyncio.Event()

        async def yes() -> bool:
            return True

        async def slow() -> bool:
            nonlocal asking
            asking += 1
            await answered.wait()
            return False

        assert await remembered.get("known", yes)
        flood = [asyncio.ensure_future(remembered.get(number, slow)) for number in range(50)]
        clock.now = 11.0
        assert await asyncio.wait_for(remembered.get("known", yes), 10)
        assert asking == 3
        answered.set()
        assert await asyncio.gather(*flood) == [False] * 50

    async def test_a_flood_of_the_unknown_lets_nobody_be_forgotten_who_is_known(self) -> None:
        remembered: Remembered[bool] = Remembered(most=3)
        asked: list[object] = []

        async def ask(key: object) -> bool:
            asked.append(key)
            return key == "known"

        for key in ("known", 0, 1, 2, 3, "known", 3, 0):
            await remembered.get(key, lambda key=key: ask(key))  # type: ignore[misc]
        assert asked == ["known", 0, 1, 2, 3, 0]

    async def test_it_holds_so_many_and_no_more(self) -> None:
        remembered: Remembered[bool] = Remembered(most=3)
        asked: list[int] = []

        async def ask(number: int) -> bool:
            asked.append(number)
            return True

        for number in [0, 1, 2, 3, 3, 0]:
            await remembered.get(number, lambda number=number: ask(number))  # type: ignore[misc]
        assert asked == [0, 1, 2, 3, 0], "the oldest was forgotten, the newest not"
