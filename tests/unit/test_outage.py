"""While the server is away: one look, ever more seldom, for all objects; one line in the log; nobody waits, nobody stampedes.

Which bug would turn this red: a probe per object, a look that waits for a server that is away, a wake for each look of an outage, everybody
woken in the same instant, a short outage that everybody hears of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from skyoperator.observe import LONGEST_OUTAGE_PAUSE_SECONDS, URGENT_SECONDS, outage_pause_seconds
from skyoperator.subject import Subject
from skyoperator.turns import WAKES_PER_SECOND

from tests.unit.watching import CALM, IDLE, LAUNCH, OUTAGE, QUEUE, RUNNING, Stage, a_request, a_row, staged, time

pytestmark = pytest.mark.looptime(start=1000)

MANY = 1000


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def with_many(stage: Stage) -> None:
    names = [f"n{number}" for number in range(MANY)]
    stage.sky.rows = tuple(a_row(name) for name in names)
    await asyncio.gather(*(stage.look(Subject(name, is_urgent=name.endswith("7"))) for name in names))
    await asyncio.sleep(60)
    stage.woken.clear()
    stage.woken_of.clear()


async def test_one_look_ever_more_seldom_stands_for_all(stage: Stage) -> None:
    await with_many(stage)
    stage.sky.failures = {"identity": OUTAGE, "active_requests": OUTAGE}
    await asyncio.sleep(URGENT_SECONDS + 1)
    stage.sky.calls.clear()
    for number in range(60):
        await stage.look(Subject(f"n{number}"))
        await stage.look(Subject(f"new{number}", request_id="r", attempt_name="x"))
        await asyncio.sleep(10)
    assert {call.name for call in stage.sky.calls} == {"identity"}
    pauses = [later - earlier for earlier, later in pairwise(stage.sky.asked("identity"))]
    assert max(pauses) == LONGEST_OUTAGE_PAUSE_SECONDS
    assert len(stage.sky.calls) <= 600 / LONGEST_OUTAGE_PAUSE_SECONDS + 3


def test_the_pauses_of_an_outage_grow_and_end_growing() -> None:
    pauses = [outage_pause_seconds(failures) for failures in (*range(1, 30), 10**6)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (URGENT_SECONDS, LONGEST_OUTAGE_PAUSE_SECONDS)


async def test_a_look_in_an_outage_waits_for_nobody(stage: Stage) -> None:
    await stage.look()
    stage.sky.failures["active_requests"], stage.sky.seconds = OUTAGE, {"active_requests": 20.0}
    await asyncio.sleep(60)
    before = time()
    assert (await stage.look(Subject("new"))).complaint == str(OUTAGE)
    stage.observer.acted("a")
    assert (await stage.look()).active is None
    assert time() == before


async def test_after_an_outage_a_look_is_fresh_again(stage: Stage) -> None:
    await stage.look()
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(60)
    stage.sky.failures.clear()
    await asyncio.sleep(LONGEST_OUTAGE_PAUSE_SECONDS + 1)
    stage.sky.active = (a_request(),)
    stage.observer.acted("a")
    assert (await stage.look()).active == (a_request(),)


async def test_nobody_waits_nobody_probes(stage: Stage) -> None:
    stage.sky.failures["active_requests"] = OUTAGE
    await stage.look()
    stage.observer.forget("a")
    await asyncio.sleep(60)
    asked = len(stage.sky.calls)
    await asyncio.sleep(1000)
    assert len(stage.sky.calls) == asked


async def test_everybody_hears_of_it_in_turn_the_urgent_first(stage: Stage) -> None:
    await with_many(stage)
    for failures in ({"clusters": OUTAGE}, {}):
        stage.sky.failures = dict(failures)
        await asyncio.sleep(LONGEST_OUTAGE_PAUSE_SECONDS + MANY / WAKES_PER_SECOND + 1)
        assert set(stage.woken_of.values()) == {1}
        assert len(stage.woken) == MANY
        assert stage.woken[-1] - stage.woken[0] == pytest.approx(MANY / WAKES_PER_SECOND, rel=0.05)
        assert all(name.endswith("7") for name in list(stage.woken_of)[:100])
        for name in stage.followed:
            await stage.look(Subject(name, is_urgent=name.endswith("7")))
        stage.woken.clear()
        stage.woken_of.clear()


async def test_a_short_outage_is_over_before_most_have_heard_of_it(stage: Stage) -> None:
    await with_many(stage)
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(2 * URGENT_SECONDS - 0.5)
    stage.sky.failures.clear()
    await asyncio.sleep(120)
    assert len(stage.woken_of) < MANY / 2


async def test_what_changed_meanwhile_is_told_at_the_end(stage: Stage) -> None:
    stage.sky.rows = (a_row(), a_row("b"))
    await stage.look(CALM)
    await stage.look(Subject("b", is_urgent=False))
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(60)
    stage.sky.rows, stage.sky.failures = (a_row("b"),), {}
    await asyncio.sleep(60)
    assert (await stage.look(CALM)).cluster is not a_row()
    assert stage.woken_of == {"a": 3, "b": 2}


@pytest.mark.parametrize("failure", [OUTAGE, ValueError("garbage")])
async def test_an_outage_is_logged_once_and_so_is_its_end(stage: Stage, failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    with caplog.at_level(logging.INFO):
        for name in ("active_requests", "clusters", "jobs"):
            stage.sky.failures[name] = failure
        await asyncio.sleep(600)
        stage.sky.failures.clear()
        await asyncio.sleep(60)
    expected = [logging.WARNING, logging.INFO]
    assert [record.levelno for record in caplog.records if "queue makes no sense" not in record.message] == expected


@pytest.mark.parametrize("subject", [IDLE, CALM, LAUNCH, QUEUE])
async def test_no_poll_asks_for_a_task(stage: Stage, subject: Subject) -> None:
    """Its body holds the user's secrets in plain text."""
    stage.sky.rows, stage.sky.queues, stage.sky.active = (a_row(),), {"a": (RUNNING,)}, (a_request(),)
    stage.sky.names = {"r1": "x"}
    for _ in range(10):
        await stage.fresh_look(subject)
    assert stage.sky.asked("task_name_of") == []
