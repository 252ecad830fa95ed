"""Of two controllers one is active, and each knows for how long: by its own clock, counted to its own disadvantage."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from skyoperator.lease import DURATION_SECONDS, RENEW_SECONDS, REQUEST_TIMEOUT_SECONDS, Lease, LeaseLostError

pytestmark = pytest.mark.looptime


@dataclass
class FakeLeases:
    """One Lease, kept as kube-apiserver does. `failure` strikes every call; a call takes `seconds`."""

    lease: dict[str, Any] | None = None
    failure: Exception | None = None
    seconds: float = 0.0
    writes: int = 0
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def get_namespaced_custom_object(self, *where: str, _request_timeout: float) -> dict[str, Any]:
        await self._answer(_request_timeout)
        if self.lease is None:
            raise ApiException(status=404)
        return copy.deepcopy(self.lease)

    async def create_namespaced_custom_object(self, *where: Any, _request_timeout: float) -> dict[str, Any]:
        await self._answer(_request_timeout)
        if self.lease is not None:
            raise ApiException(status=409)
        return self._store({**where[-1], "metadata": {**where[-1]["metadata"], "uid": "lease-uid"}})

    async def replace_namespaced_custom_object(self, *where: Any, _request_timeout: float) -> None:
        await self._answer(_request_timeout)
        if self.lease is None:
            raise ApiException(status=404)
        if where[-1]["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiException(status=409)
        self._store(where[-1])

    async def _answer(self, timeout_seconds: float) -> None:
        await asyncio.sleep(min(self.seconds, timeout_seconds))
        if self.seconds >= timeout_seconds:
            raise TimeoutError
        if self.failure is not None:
            raise self.failure

    def _store(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(next(self.versions))
        return copy.deepcopy(self.lease)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return cast("dict[str, Any]", self.lease["spec"])

    def touch(self, **spec: Any) -> None:
        """Write the Lease as somebody else would."""
        assert self.lease is not None
        self._store({**self.lease, "spec": {**self.spec, **spec}})


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> FakeLeases:
    fake = FakeLeases()
    monkeypatch.setattr("skyoperator.lease.CustomObjectsApi", lambda _: fake)
    return fake


def time() -> float:
    return asyncio.get_running_loop().time()


def a_lease(holder: str) -> Lease:
    return Lease(cast("Any", None), namespace="sky", name="controller", holder=holder, clock=time)


async def seconds_until(work: Any) -> float:
    """Return how long the work takes; it is to end by itself."""
    began_at = time()
    async with asyncio.timeout(1000):
        await work
    return time() - began_at


async def seconds_until_lost(lease: Lease) -> float:
    began_at = time()
    async with asyncio.timeout(1000):
        with pytest.raises(LeaseLostError, match=r"sky/controller is no longer held by a"):
            await lease.hold()
    return time() - began_at


async def test_a_free_lease_is_taken_at_once(leases: FakeLeases) -> None:
    lease = a_lease("a")
    assert lease.seconds_left() < 0
    assert await seconds_until(lease.acquire()) == 0
    assert (lease.seconds_left(), leases.spec["holderIdentity"]) == (DURATION_SECONDS, "a")


async def test_another_takes_over_only_after_the_time_it_has_itself_seen_no_renewal(leases: FakeLeases) -> None:
    await a_lease("a").acquire()
    await asyncio.sleep(DURATION_SECONDS * 2)
    assert DURATION_SECONDS <= await seconds_until(a_lease("b").acquire()) <= DURATION_SECONDS + RENEW_SECONDS
    assert (leases.spec["holderIdentity"], leases.spec["leaseTransitions"]) == ("b", 2)


async def test_a_renewal_begins_the_time_anew(leases: FakeLeases) -> None:
    await a_lease("a").acquire()
    taking = asyncio.create_task(seconds_until(a_lease("b").acquire()))
    await asyncio.sleep(DURATION_SECONDS - RENEW_SECONDS)
    leases.touch()
    assert await taking >= 2 * DURATION_SECONDS - RENEW_SECONDS


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
async def test_what_the_holders_clock_says_does_not_matter(leases: FakeLeases, renewed: str) -> None:
    await a_lease("a").acquire()
    leases.touch(renewTime=renewed, leaseDurationSeconds=15)
    assert 15 <= await seconds_until(a_lease("b").acquire()) <= 15 + RENEW_SECONDS


async def test_the_time_left_counts_from_before_we_asked(leases: FakeLeases) -> None:
    leases.seconds = 2.0
    lease = a_lease("a")
    assert await seconds_until(lease.acquire()) == 4.0
    assert lease.seconds_left() == DURATION_SECONDS - 4.0


async def test_who_holds_renews_and_shuts_the_other_out(leases: FakeLeases) -> None:
    first = a_lease("a")
    await first.acquire()
    holding, taking = asyncio.create_task(first.hold()), asyncio.create_task(a_lease("b").acquire())
    await asyncio.sleep(10 * DURATION_SECONDS)
    assert not holding.done()
    assert not taking.done()
    assert first.seconds_left() >= DURATION_SECONDS - RENEW_SECONDS
    assert (leases.spec["holderIdentity"], leases.spec["leaseTransitions"]) == ("a", 1)
    assert leases.writes >= 10 * DURATION_SECONDS / RENEW_SECONDS - 1
    holding.cancel()
    taking.cancel()


@pytest.mark.parametrize("failure", [ApiException(status=500), aiohttp.ClientConnectionError(), TimeoutError()])
async def test_a_lost_renewal_ends_it_only_once_the_time_is_over(leases: FakeLeases, failure: Exception) -> None:
    lease = a_lease("a")
    await lease.acquire()
    leases.failure = failure
    assert DURATION_SECONDS <= await seconds_until_lost(lease) <= DURATION_SECONDS + RENEW_SECONDS


async def test_an_outage_shorter_than_the_lease_ends_nothing(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    holding = asyncio.create_task(lease.hold())
    leases.failure = aiohttp.ClientConnectionError()
    await asyncio.sleep(DURATION_SECONDS - RENEW_SECONDS - 1)
    assert 0 < lease.seconds_left() < 2 * RENEW_SECONDS
    leases.failure = None
    await asyncio.sleep(2 * DURATION_SECONDS)
    assert not holding.done()
    holding.cancel()


async def test_connection_errors_do_not_end_the_wait(leases: FakeLeases) -> None:
    leases.failure = aiohttp.ClientConnectionError()
    acquiring = asyncio.create_task(a_lease("a").acquire())
    await asyncio.sleep(DURATION_SECONDS)
    leases.failure = None
    assert await seconds_until(acquiring) <= RENEW_SECONDS


async def test_of_two_that_ask_at_the_same_moment_one_gets_it(leases: FakeLeases) -> None:
    leases.seconds = 1.0
    for holder in ("", "gone"):
        leases.lease = {"metadata": {"name": "controller", "resourceVersion": "x"}, "spec": {"holderIdentity": holder}}
        both = [a_lease("a"), a_lease("b")]
        tries = [asyncio.create_task(lease.acquire()) for lease in both]
        await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(DURATION_SECONDS / 2)
        assert sorted(lease.seconds_left() > 0 for lease in both) == [False, True]
        for task in tries:
            task.cancel()


async def test_who_was_overtaken_stops_at_once(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    leases.touch(holderIdentity="b")
    assert await seconds_until_lost(lease) <= RENEW_SECONDS + REQUEST_TIMEOUT_SECONDS
    assert leases.spec["holderIdentity"] == "b"


async def test_a_release_lets_another_in_at_once(leases: FakeLeases) -> None:
    first = a_lease("a")
    await first.acquire()
    taking = asyncio.create_task(a_lease("b").acquire())
    await asyncio.sleep(RENEW_SECONDS)
    await first.release()
    assert first.seconds_left() < 0
    assert await seconds_until(taking) <= RENEW_SECONDS
    assert leases.spec["holderIdentity"] == "b"


async def test_a_release_leaves_anothers_lease_alone(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    leases.touch(holderIdentity="b")
    await lease.release()
    assert leases.spec["holderIdentity"] == "b"


async def test_a_release_that_fails_only_takes_longer(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    leases.failure = aiohttp.ClientConnectionError()
    await lease.release()
    assert lease.seconds_left() < 0


async def test_holding_ends_as_soon_as_somebody_else_may_be_active(leases: FakeLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that is slow and a write that hangs do not prolong it."""
    lease = a_lease("a")
    await lease.acquire()
    leases.seconds = REQUEST_TIMEOUT_SECONDS - 0.1

    async def hang(*_: object, _request_timeout: float) -> None:
        await asyncio.sleep(_request_timeout)
        raise TimeoutError

    monkeypatch.setattr(leases, "replace_namespaced_custom_object", hang)
    assert await seconds_until_lost(lease) <= DURATION_SECONDS


@pytest.mark.parametrize("spec", [{}, {"spec": {"holderIdentity": "a"}}], ids=["no spec", "ours, no times"])
async def test_a_lease_that_says_little_can_be_taken(leases: FakeLeases, spec: dict[str, Any]) -> None:
    leases.lease = {"metadata": {"name": "controller", "resourceVersion": "x"}, **spec}
    await seconds_until(a_lease("a").acquire())


async def test_a_bystanders_write_between_our_read_and_our_write_ends_nothing(leases: FakeLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = a_lease("a")
    await lease.acquire()
    get = leases.get_namespaced_custom_object

    async def get_then_touch(*where: str, _request_timeout: float) -> dict[str, Any]:
        found = await get(*where, _request_timeout=_request_timeout)
        leases.touch()
        monkeypatch.setattr(leases, "get_namespaced_custom_object", get)
        return found

    monkeypatch.setattr(leases, "get_namespaced_custom_object", get_then_touch)
    holding = asyncio.create_task(lease.hold())
    await asyncio.sleep(2 * DURATION_SECONDS)
    assert not holding.done()
    holding.cancel()


async def test_an_annotation_outlives_renewals_and_disturbs_none(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    assert lease.uid == "lease-uid"
    assert await lease.annotation("note") == ""
    leases.seconds = 1.0
    holding = asyncio.create_task(lease.hold())
    for number in range(12):
        await lease.annotate("note", str(number))
        await asyncio.sleep(RENEW_SECONDS / 3)
        assert await lease.annotation("note") == str(number)
        assert lease.seconds_left() > DURATION_SECONDS - 2 * RENEW_SECONDS - 4
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding


async def test_an_annotation_is_not_written_over_somebody_elses(leases: FakeLeases) -> None:
    lease = a_lease("a")
    await lease.acquire()
    leases.seconds = 1.0
    writing = asyncio.create_task(lease.annotate("note", "1"))
    await asyncio.sleep(1.5)
    leases.touch(holderIdentity="b")
    with pytest.raises(ApiException, match="409"):
        await writing
