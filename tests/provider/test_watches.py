"""One watch for a thousand who wait: nobody misses a state, nobody holds another up, and nothing is left open."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyoperator_provider import watches as module
from skyoperator_provider.errors import ApiError
from skyoperator_provider.feed import PAGE, READS_AT_ONCE, Pace, Page, Subscription
from skyoperator_provider.identity import OWNER_TRY
from skyoperator_provider.skycluster import WaitFor, verdict
from skyoperator_provider.watches import Key, Source, Watches, watches

from tests.provider.scripted_api import NAMESPACE, ScriptedApi, until

KEY = Key("https://kubernetes", "credentials", NAMESPACE)
AT_ONCE = Pace(first_pause_seconds=0.0, longest_pause_seconds=0.0, short_watch_seconds=0.0)
LOST = ApiError("connection lost")
FORBIDDEN = ApiError("Can't watch the SkyClusters of namespace ml. It needs the verb watch", status=HTTPStatus.FORBIDDEN)

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("MARK")


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture
async def shared(api: ScriptedApi) -> AsyncIterator[Watches]:
    """The watches under test; afterwards nothing of theirs may be left, whatever the test did."""
    yield Watches(pace=AT_ONCE)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (api.open_watches, api.open_clients) == (0, 0)


async def end_of(shared: Watches, api: ScriptedApi, name: str) -> str:
    async with shared.subscribe(Source(KEY, api.connect), name) as subscription:
        while True:
            end = verdict(await subscription.next(), WaitFor.COMPLETE)
            if end is not None:
                return str(end.outcome)


async def is_quiet(subscription: Subscription) -> bool:
    """Whether it has nothing new, after everything that was under way has arrived."""
    for _ in range(50):
        await asyncio.sleep(0)
    waiting = asyncio.ensure_future(subscription.next())
    await asyncio.sleep(0)
    is_done = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not is_done


async def test_a_thousand_wait_on_one_watch_and_half_of_them_leave(api: ScriptedApi, shared: Watches) -> None:
    names = [f"job-{number}" for number in range(1000)]
    for name in names:
        api.put(name, {"Accepted": "True"})
    waiting = [asyncio.create_task(end_of(shared, api, name)) for name in names]
    await until(lambda: api.calls["get"] == 1000)

    for task in waiting[::2]:
        task.cancel()
    for name in names:
        api.put(name, {"Complete": "True"})
    ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
    assert ends[1::2] == ["reached"] * 500
    assert (api.calls["watch"], api.calls["connect"], api.most_open_watches) == (1, 1, 1)
    assert api.calls["list"] == 1000 / PAGE


async def test_each_sees_its_own_object_without_its_spec(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine", {"Accepted": "True"})
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        first = await subscription.next()
        assert first is not None
        assert set(first) == {"metadata", "status"}
        api.put("other", {"Failed": "True"})
        assert await is_quiet(subscription)
        api.put("mine", {"Ready": "True"})
        second = await subscription.next()
        assert second is not None
        assert "spec" not in second


async def test_a_first_look_keeps_no_spec_either(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine", annotations={"kubectl.kubernetes.io/last-applied-configuration": "{spec}", OWNER_TRY: "2"})
    api.held["list"] = asyncio.Event()
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        first = await subscription.next()
        assert first is not None
        assert "spec" not in first
        assert first["metadata"]["annotations"] == {OWNER_TRY: "2"}


async def test_who_does_not_look_finds_the_newest_state_only(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        await subscription.next()
        for number in range(500):
            newest = api.put("mine", status={"phase": f"phase {number}"})
        await until(lambda: subscription._version == api.version)
        state = await subscription.next()
        assert state is not None
        assert state["metadata"]["resourceVersion"] == newest["metadata"]["resourceVersion"]
        assert await is_quiet(subscription)


async def test_two_wait_for_the_same_object(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    waiting = [asyncio.create_task(end_of(shared, api, "mine")) for _ in range(2)]
    await until(lambda: api.open_watches == 1 and api.calls["get"] == 2)
    api.put("mine", {"Failed": "True"})
    assert await asyncio.gather(*waiting) == ["failed", "failed"]


async def test_the_feed_inherits_no_context_of_who_comes_first(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")

    async def come(mark: str) -> None:
        MARK.set(mark)
        async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
            await subscription.next()
            assert MARK.get() == mark

    await asyncio.create_task(come("first"))
    assert [dict(context) for context in api.contexts] == [{}]


async def test_a_change_while_the_first_look_is_under_way_is_not_lost(api: ScriptedApi, shared: Watches) -> None:
    """Bug: subscribing after the look loses what happens between them for ever."""
    api.put("mine")
    api.put("other")
    async with shared.subscribe(Source(KEY, api.connect), "other"):
        await until(lambda: api.open_watches == 1)
        api.held["get"] = asyncio.Event()
        waiting = asyncio.create_task(end_of(shared, api, "mine"))
        await until(lambda: api.calls["get"] == 2)
        api.put("mine", {"Complete": "True"})
        await until(lambda: len(shared._feeds[KEY]._subscriptions["mine"]) == 1 and shared._feeds[KEY]._subscriptions["mine"][0]._is_known)
        api.held["get"].set()
        assert await waiting == "reached"


async def test_made_while_the_first_look_finds_nothing(api: ScriptedApi, shared: Watches) -> None:
    """Bug: an absence that was read before the object was made, and arrives after it, counts as a deletion."""
    api.held["get"] = asyncio.Event()
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1 and api.calls["get"] == 1)
    api.put("mine", {"Complete": "True"})
    await until(lambda: shared._feeds[KEY]._subscriptions["mine"][0]._is_known)
    api.held["get"].set()
    assert await waiting == "reached"


async def test_made_after_a_list_began_is_no_absence(api: ScriptedApi, shared: Watches) -> None:
    """Bug: a list that is older than the object, and arrives later, takes it away."""
    api.held["list"] = asyncio.Event()
    other = asyncio.create_task(end_of(shared, api, "other"))
    await until(lambda: api.calls["list"] == 1)
    api.put("mine", {"Accepted": "True"})
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        assert await subscription.next() is not None
        api.held["list"].set()
        await until(lambda: api.open_watches == 1)
        assert await is_quiet(subscription)
    assert await other == "gone"


async def test_what_comes_late_or_twice_changes_nothing(api: ScriptedApi, shared: Watches) -> None:
    before = api.put("mine", uid="before")
    api.remove("mine")
    api.put("mine", uid="now")
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        now = await subscription.next()
        assert now is not None
        await until(lambda: api.open_watches == 1)
        api.version += 1
        api.tell("DELETED", {**before, "metadata": {**before["metadata"], "resourceVersion": "102"}})
        api.tell("MODIFIED", api.objects["mine"])
        api.tell("MODIFIED", before)
        assert await is_quiet(subscription)
        api.remove("mine")
        assert await subscription.next() is None


@pytest.mark.parametrize("error", [LOST, None], ids=["lost", "ended"])
async def test_a_watch_goes_on_where_it_ended(api: ScriptedApi, shared: Watches, error: ApiError | None) -> None:
    api.put("mine")
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1)
    api.version += 50
    api.bookmark()
    await until(lambda: shared._feeds[KEY]._version == str(api.version))
    api.interrupt(error)
    await until(lambda: len(api.watched_from) == 2 and api.open_watches == 1)
    assert api.watched_from[1] == str(api.version)
    api.put("mine", {"Complete": "True"})
    assert await waiting == "reached"
    assert api.calls["list"] == 1
    assert api.calls["connect"] == (1 if error is None else 2)


@pytest.mark.parametrize("change", ["completed", "removed"])
async def test_after_a_410_everything_is_listed_anew(api: ScriptedApi, shared: Watches, change: str) -> None:
    """Bug: what happened in the gap is never told."""
    api.put("mine")
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1)
    api.held["watch"] = asyncio.Event()
    api.interrupt()
    await until(lambda: api.calls["watch"] == 2)
    if change == "completed":
        api.put("mine", {"Complete": "True"})
    else:
        api.remove("mine")
    api.expire()
    api.held["watch"].set()
    assert await waiting == ("reached" if change == "completed" else "gone")
    assert api.calls["list"] == 2


async def test_a_list_that_expires_between_its_pages_is_begun_anew(api: ScriptedApi, shared: Watches) -> None:
    for number in range(2 * PAGE + 1):
        api.put(f"job-{number:03}")
    api.faults["list"].extend([None, ApiError("the continue parameter is too old", status=HTTPStatus.GONE)])
    waiting = asyncio.create_task(end_of(shared, api, "job-100"))
    await until(lambda: api.open_watches == 1)
    assert api.calls["list"] == 2 + 3
    api.remove("job-100")
    assert await waiting == "gone"


async def test_a_gap_with_changes_in_order_ends_right(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1)
    for _ in range(5):
        api.interrupt(LOST)
        api.put("mine", {"Accepted": "True"})
        await until(lambda: api.open_watches == 1)
    api.put("mine", {"Complete": "True"})
    assert await waiting == "reached"


@pytest.mark.parametrize("method", ["list", "watch", "get"])
async def test_a_missing_right_is_told_to_all_at_once(api: ScriptedApi, shared: Watches, method: str) -> None:
    api.put("a")
    api.put("b")
    api.forever[method] = FORBIDDEN
    ends = await asyncio.gather(*(end_of(shared, api, name) for name in ("a", "b")), return_exceptions=True)
    for end in ends:
        assert isinstance(end, ApiError)
        assert (str(end), end.status) == (str(FORBIDDEN), HTTPStatus.FORBIDDEN)
    assert api.calls[method] == (2 if method == "get" else 1)
    assert method == "get" or ends[0] is not ends[1], "one instance collects the traceback of everybody"


async def test_failures_in_a_row_are_counted_and_given_up(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    api.forever["watch"] = LOST
    with pytest.raises(ApiError, match=r"connection lost \(tried 20 times\)"):
        await end_of(shared, api, "mine")
    assert api.calls["watch"] == AT_ONCE.attempts
    api.forever.clear()
    api.put("mine", {"Complete": "True"})
    assert await end_of(shared, api, "mine") == "reached"


async def test_a_version_that_no_watch_can_begin_at_is_given_up(api: ScriptedApi, shared: Watches) -> None:
    """Bug: after etcd was restored from a backup, a version from the future is asked for until everybody has failed."""
    api.put("mine")
    api.faults["watch"].extend([ApiError("Too large resource version", status=504)] * 3)
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1)
    assert (api.calls["watch"], api.calls["list"]) == (4, 2)
    api.put("mine", {"Complete": "True"})
    assert await waiting == "reached"


async def test_who_comes_after_a_feed_has_given_up_gets_another(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    api.faults["watch"].append(FORBIDDEN)
    async with shared.subscribe(Source(KEY, api.connect), "mine") as failed:
        await failed.next()
        with pytest.raises(ApiError):
            await failed.next()
        api.put("mine", {"Complete": "True"})
        assert await end_of(shared, api, "mine") == "reached"
    assert shared._feeds == {}


async def test_failures_between_successes_are_not_counted(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    for number in range(3 * AT_ONCE.attempts):
        await until(lambda: api.open_watches == 1)
        api.put("other", status={"phase": str(number)})
        await until(lambda: shared._feeds[KEY]._version == str(api.version))
        api.interrupt(LOST)
        await until(lambda number=number: api.calls["watch"] == number + 2)
    api.put("mine", {"Complete": "True"})
    assert await waiting == "reached"


async def test_nobody_is_given_a_client_that_is_closed(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        await until(lambda: api.open_watches == 1)
        api.held["connect"] = asyncio.Event()
        api.interrupt(LOST)
        await until(lambda: api.calls["connect"] == 2)
        asking = asyncio.create_task(subscription.api())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not asking.done()
        api.held["connect"].set()
        assert await asking is api


async def test_a_client_that_goes_before_who_waits_for_it_wakes_up_is_waited_for_again(shared: Watches) -> None:
    """Bug: the first list fails at once, and whoever was told of the client finds none: an AssertionError, and the task fails."""

    class Hasty(ScriptedApi):
        async def list(self, namespace: str, *, limit: int, continue_: str = "") -> Page:
            if self.calls["connect"] == 1:
                raise LOST
            return await super().list(namespace, limit=limit, continue_=continue_)

    hasty = Hasty()
    hasty.put("mine", {"Complete": "True"})
    assert await end_of(shared, hasty, "mine") == "reached"


async def test_first_looks_take_turns(api: ScriptedApi, shared: Watches) -> None:
    """Bug: a triggerer that starts sends a thousand requests at once, and kube-apiserver refuses most of them."""
    for number in range(100):
        api.put(f"job-{number}", {"Complete": "True"})
    api.held["get"] = asyncio.Event()
    waiting = [asyncio.create_task(end_of(shared, api, f"job-{number}")) for number in range(100)]
    await until(lambda: api.open_watches == 1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert api.calls["get"] == READS_AT_ONCE
    api.held["get"].set()
    assert await asyncio.gather(*waiting) == ["reached"] * 100


async def test_credentials_that_expire_are_met_with_a_new_client_but_not_for_ever(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    expired = ApiError("Unauthorized", status=HTTPStatus.UNAUTHORIZED)
    api.faults["watch"].append(expired)
    async with shared.subscribe(Source(KEY, api.connect), "mine"):
        await until(lambda: api.open_watches == 1)
    assert api.calls["connect"] == 2
    api.forever["watch"] = expired
    with pytest.raises(ApiError, match="Unauthorized"):
        await end_of(shared, api, "mine")
    assert api.calls["connect"] == 5


async def test_a_watch_that_ends_at_once_again_and_again_is_a_failure(api: ScriptedApi) -> None:
    """Bug: a proxy that ends every watch makes the triggerer ask as fast as it can, for ever."""
    shared = Watches(pace=Pace(first_pause_seconds=0.0, longest_pause_seconds=0.0))
    api.put("mine")

    async def end_them() -> None:
        while True:
            api.interrupt()
            await asyncio.sleep(0)

    ending = asyncio.create_task(end_them())
    with pytest.raises(ApiError, match="ends as soon as it has begun"):
        await end_of(shared, api, "mine")
    ending.cancel()
    assert api.calls["watch"] == AT_ONCE.attempts


async def test_what_nobody_thought_of_ends_in_words_too(api: ScriptedApi, shared: Watches, caplog: pytest.LogCaptureFixture) -> None:
    api.put("mine")
    api.faults["connect"].extend(KeyError("clusters") for _ in range(AT_ONCE.attempts))
    with pytest.raises(ApiError, match=r"Can't watch the SkyClusters of namespace ml: KeyError: 'clusters'"):
        await end_of(shared, api, "mine")


async def test_a_first_look_that_fails_is_taken_again(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine", {"Complete": "True"})
    api.faults["get"].extend([LOST, LOST])
    api.held["list"] = asyncio.Event()
    assert await end_of(shared, api, "mine") == "reached"


async def test_the_last_one_out_ends_the_feed_and_the_next_one_begins_another(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shared.subscribe(Source(KEY, api.connect), "mine"))
        async with shared.subscribe(Source(KEY, api.connect), "mine"):
            await until(lambda: api.open_watches == 1)
        assert api.open_watches == 1
    assert (api.open_watches, api.open_clients) == (0, 0)
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        assert await subscription.next() is not None
    assert api.calls["connect"] == 2


async def test_credentials_and_namespaces_are_not_mixed(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    other = Key(KEY.host, "others", KEY.namespace)
    async with shared.subscribe(Source(KEY, api.connect), "mine"), shared.subscribe(Source(other, api.connect), "mine"):
        await until(lambda: api.open_watches == 2)
    assert api.calls["connect"] == 2


async def test_cancelled_while_the_client_is_opened_leaves_nothing(api: ScriptedApi, shared: Watches) -> None:
    api.held["get"] = asyncio.Event()
    waiting = [asyncio.create_task(end_of(shared, api, "mine")) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert shared._feeds == {}


async def test_a_timeout_around_next_loses_no_state(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    async with shared.subscribe(Source(KEY, api.connect), "mine") as subscription:
        await subscription.next()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await subscription.next()
        api.put("mine", {"Complete": "True"})
        assert verdict(await subscription.next(), WaitFor.COMPLETE) is not None


async def test_a_feed_that_somebody_stops_says_so(api: ScriptedApi, shared: Watches) -> None:
    api.put("mine")
    waiting = asyncio.create_task(end_of(shared, api, "mine"))
    await until(lambda: api.open_watches == 1)
    shared._feeds[KEY]._task.cancel()
    with pytest.raises(ApiError, match="was stopped"):
        await waiting


async def test_a_source_is_found_once_for_all_who_are_the_same(api: ScriptedApi) -> None:
    """Bug: a triggerer that starts asks Airflow for the same connection a thousand times."""
    shared, going = Watches(), asyncio.Event()
    found: list[int] = []

    async def find() -> Source:
        found.append(len(found))
        await going.wait()
        return Source(KEY, api.connect)

    asking = [asyncio.create_task(shared.source(who, find)) for who in ("a", "a", "a", "b")]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    going.set()
    sources = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(sources[0], asyncio.CancelledError)
    assert sources[1] is sources[2] is not sources[3]
    assert len(found) == 3, "the first who asked was cancelled, so the second asked anew"
    assert await shared.source("a", find) is sources[1]


async def test_a_source_is_not_believed_for_ever(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOURCE_SECONDS", 0.0)
    shared = Watches()

    async def find() -> Source:
        return Source(KEY, api.connect)

    async def fail() -> Source:
        raise FileNotFoundError("/kubeconfig")

    first = await shared.source("a", find)
    assert await shared.source("a", find) is not first
    with pytest.raises(FileNotFoundError):
        await shared.source("b", fail)
    assert await shared.source("b", find) is not None
    assert len(shared._sources) == 1, "what is too old is forgotten"


async def test_a_client_is_shared_and_the_last_one_closes_it(api: ScriptedApi) -> None:
    shared, source = Watches(), Source(KEY, api.connect)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(shared.client(source))
        async with shared.client(source) as other:
            assert one is other
        assert api.open_clients == 1
    assert (api.open_clients, api.calls["connect"]) == (0, 1)
    api.faults["connect"].append(LOST)
    with pytest.raises(ApiError):
        async with shared.client(source):
            pass
    async with shared.client(source):
        assert api.open_clients == 1


def test_each_loop_has_its_own_watches_and_takes_them_along() -> None:
    async def mine() -> Watches:
        assert watches() is watches()
        return watches()

    kept = [asyncio.run(mine()), asyncio.run(mine())]
    assert kept[0] is not kept[1]
    gc.collect()


@given(failures=st.integers(1, 10**6))
def test_pauses_grow_and_stay_bounded(failures: int) -> None:
    assert 0.5 <= Pace().pause_seconds(failures) <= 30.0
    assert 0.5 <= Pace().pause_seconds(1) <= 1.0


@settings(max_examples=200)
@given(
    versions=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    seed=st.integers(1, 50),
    position=st.integers(0, 20),
)
def test_in_whatever_order_states_arrive_the_newest_stays(versions: list[int], seed: int, position: int) -> None:
    async def offered() -> Any:
        subscription = Subscription("mine", None)  # type: ignore[arg-type]
        for version in [*versions[:position], seed, *versions[position:]]:
            subscription.offer({"version": version}, str(version))
        subscription.offer_absence()
        return await subscription.next()

    assert asyncio.run(offered()) == {"version": max([*versions, seed])}
