"""At most so many launches are with SkyPilot; the rest is in line, in order, and costs nothing until its turn.

Which bug would turn this red: a launch too many (after a restart, for a stranger's, before the server lists it), a slot that is never
given back, somebody overtaken, somebody woken who must still wait, or never woken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from skyoperator.admission import UNSEEN_SECONDS, Admission
from skyoperator.sky.types import Request, RequestStatus
from skyoperator.snapshot import Snapshot
from skyoperator.subject import Subject

from tests.unit.watching import OUTAGE, Stage, a_request, staged, time

pytestmark = pytest.mark.looptime(start=1000)

LIMIT = 2


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged(limit=LIMIT) as stage:
        yield stage


def wants(name: str) -> Subject:
    return Subject(name, wants_launch=True)


async def may_launch(stage: Stage, name: str) -> bool:
    """What a pass over an object that wants to launch is shown; with a no, the pass ends there."""
    world = await stage.look(wants(name))
    if not world.may_launch:
        stage.follow(wants(name))
    return world.may_launch


def launches(stage: Stage, name: str, *, status: RequestStatus = RequestStatus.PENDING) -> None:
    """The pass sends its launch, and SkyPilot's request is written down."""
    stage.sky.active = (*stage.sky.active, a_request(f"of-{name}", cluster=name, status=status))
    stage.observer.acted(name)
    stage.follow(Subject(name, request_id=f"of-{name}"))


def ends(stage: Stage, name: str) -> None:
    stage.sky.active = tuple(request for request in stage.sky.active if request.cluster_name != name)


async def test_what_is_too_much_waits_in_order_and_is_woken_one_by_one(stage: Stage) -> None:
    for name in "ab":
        assert await may_launch(stage, name)
        launches(stage, name)
    assert [await may_launch(stage, name) for name in "cde"] == [False, False, False]
    assert (stage.admission.in_flight, stage.admission.queued) == (2, 3)
    stage.woken_of.clear()
    for ended, following in zip("abc", "cde", strict=True):
        ends(stage, ended)
        await asyncio.sleep(5)
        assert {name for name in stage.woken_of if name >= following} == {following}
        assert await may_launch(stage, following)
        launches(stage, following)
        await asyncio.sleep(5)
        stage.woken_of.clear()


async def test_a_slot_is_taken_before_the_server_lists_the_launch(stage: Stage) -> None:
    assert [await may_launch(stage, name) for name in "abc"] == [True, True, False]


async def test_nobody_overtakes_who_was_called_and_did_not_come_yet(stage: Stage) -> None:
    for name in "ab":
        await may_launch(stage, name)
        launches(stage, name)
    assert not await may_launch(stage, "c")
    ends(stage, "a")
    await asyncio.sleep(5)
    assert not await may_launch(stage, "d")
    assert await may_launch(stage, "c")


@pytest.mark.parametrize("status", [RequestStatus.PENDING, RequestStatus.WAITING, RequestStatus.RUNNING])
async def test_what_the_server_lists_counts_whoever_sent_it(stage: Stage, status: RequestStatus) -> None:
    """Also after a restart of ours: the new process knows of no slot."""
    strangers = Request("s", "launch", status, None, None)
    stage.sky.active = (a_request("x1", cluster="x", status=status), strangers)
    assert not await may_launch(stage, "a")
    stage.sky.active = (strangers, a_request("d1", "down", cluster="x"), a_request("q1", "queue", cluster="y"))
    await asyncio.sleep(5)
    assert await may_launch(stage, "a")
    assert not await may_launch(stage, "b")


@pytest.mark.parametrize("what", ["refused", "over at once", "gone", "wants no more"])
async def test_a_slot_comes_free_when_its_launch_is_no_more(stage: Stage, what: str) -> None:
    for name in "ab":
        await may_launch(stage, name)
    assert not await may_launch(stage, "c")
    match what:
        case "refused":
            stage.observer.acted("a")
            stage.follow(Subject("a"))
        case "over at once":
            stage.observer.acted("a")
            stage.follow(Subject("a", request_id="r1"))
        case "gone":
            stage.observer.forget("a")
        case _:
            stage.follow(Subject("a"))
    await asyncio.sleep(5)
    assert await may_launch(stage, "c")


async def test_a_pass_that_sends_nothing_gives_its_slot_back_and_is_not_called_again(stage: Stage) -> None:
    for name in "ab":
        assert await may_launch(stage, name)
    for name in "cd":
        assert not await may_launch(stage, name)
    stage.woken_of.clear()
    stage.follow(wants("a"))
    assert stage.woken_of == {"c": 1}
    stage.follow(wants("b"))
    await asyncio.sleep(60)
    assert stage.woken_of == {"c": 1, "d": 1}


async def test_who_waits_and_goes_away_holds_up_nobody(stage: Stage) -> None:
    for name in "ab":
        await may_launch(stage, name)
        launches(stage, name)
    for name in "cd":
        await may_launch(stage, name)
    stage.observer.forget("c")
    ends(stage, "a")
    await asyncio.sleep(5)
    assert await may_launch(stage, "d")


async def test_a_launch_whose_answer_was_lost_keeps_its_slot_for_the_settle_time(stage: Stage) -> None:
    for name in "ab":
        await may_launch(stage, name)
    launches(stage, "b")
    stage.observer.acted("a")
    stage.follow(wants("a"))
    await asyncio.sleep(UNSEEN_SECONDS - 5)
    assert not await may_launch(stage, "c")
    assert await may_launch(stage, "a")
    stage.follow(wants("a"))
    await asyncio.sleep(10)
    assert await may_launch(stage, "c")
    assert not await may_launch(stage, "a")


async def test_a_slot_that_is_not_used_is_for_the_next_in_line(stage: Stage) -> None:
    """The passes of an object may fail before they come to the launch, for ever."""
    for name in "ab":
        assert await may_launch(stage, name)
    assert not await may_launch(stage, "c")
    await asyncio.sleep(UNSEEN_SECONDS + 10)
    assert await may_launch(stage, "c")


async def test_a_slot_is_held_until_a_look_that_began_after_the_launch(stage: Stage) -> None:
    await may_launch(stage, "a")
    await may_launch(stage, "b")
    stage.sky.seconds = {"clusters": 5.0}
    await asyncio.sleep(3)
    stage.observer.acted("a")
    stage.follow(Subject("a", request_id="r1"))
    await asyncio.sleep(3)
    assert stage.admission.in_flight == 2
    await asyncio.sleep(20)
    assert stage.admission.in_flight == 1


async def test_while_the_server_is_away_nobody_is_admitted_and_nobody_loses_his_place(stage: Stage) -> None:
    for name in "ab":
        await may_launch(stage, name)
        launches(stage, name)
    await may_launch(stage, "c")
    stage.sky.failures["clusters"] = OUTAGE
    ends(stage, "a")
    await asyncio.sleep(60)
    world = await stage.look(wants("d"))
    assert world.active is None
    assert stage.admission.queued == 1
    stage.sky.failures.clear()
    await asyncio.sleep(60)
    assert not await may_launch(stage, "d")
    assert await may_launch(stage, "c")


async def test_a_thousand_in_line_are_asked_nothing(stage: Stage) -> None:
    for name in "ab":
        await may_launch(stage, name)
        launches(stage, name)
    names = [f"n{number}" for number in range(1000)]
    began_at = time()
    await asyncio.gather(*(may_launch(stage, name) for name in names))
    assert time() == began_at
    stage.woken_of.clear()
    await asyncio.sleep(600)
    assert not stage.woken_of
    ends(stage, "a")
    ends(stage, "b")
    await asyncio.sleep(5)
    assert {name for name in stage.woken_of if name.startswith("n")} == {"n0", "n1"}


@dataclass
class Crowd:
    """Objects that come, launch, fail, die and are restarted at random, in front of a server that lists launches late."""

    rng: random.Random
    limit: int = 3
    at: float = 0.0
    posted: dict[str, float] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def snapshot(self) -> Snapshot:
        active: dict[str, tuple[Request, ...]] = {name: (a_request(f"of-{name}", cluster=name),) for name in self.posted}
        return Snapshot(self.at, self.at, active=active, clusters={}, launches=len(active))


@pytest.mark.parametrize("seed", range(30))
async def test_never_too_many_and_everybody_gets_his_turn(seed: int) -> None:
    crowd = Crowd(random.Random(seed))
    admission = Admission(crowd.limit)
    admission.saw(crowd.snapshot())
    waiting = [f"n{number}" for number in range(40)]
    ready = list(waiting)
    for _ in range(3000):
        crowd.at += crowd.rng.random()
        if crowd.posted and crowd.rng.random() < 0.3:
            crowd.posted.pop(crowd.rng.choice(sorted(crowd.posted)))
        if crowd.rng.random() < 0.3:
            admission.saw(crowd.snapshot())
        ready += crowd.woken
        crowd.woken.clear()
        if not ready:
            continue
        name = ready.pop(crowd.rng.randrange(len(ready)))
        if name in crowd.done:
            continue
        admission.passed(name, wants_launch=True)
        if not admission.ask(name, lambda name=name: crowd.woken.append(name)):  # type: ignore[misc]
            continue
        match crowd.rng.choice(["launch", "launch", "dies", "fails"]):
            case "launch":
                crowd.posted[name] = crowd.at
                assert len(crowd.posted) <= crowd.limit
                admission.sent(name, crowd.at)
                admission.passed(name, wants_launch=False)
                crowd.done.add(name)
            case "dies":
                admission.leave(name)
                crowd.done.add(name)
            case _:
                admission.passed(name, wants_launch=True)
                ready.append(name)
    assert crowd.done == set(waiting)
    assert admission.queued == 0
