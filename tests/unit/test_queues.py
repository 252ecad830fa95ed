"""Queues are read often enough, under a cap, and a cluster that does not answer holds up no other.

Which bug would turn this red: dead clusters that hold every place, a cluster that answers again and is still left alone, reads while the
server is away, a stampede when it is back, a pause that grows without end or never.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest
from skyoperator.lanes import PATIENCE_SECONDS, QUICK_READERS, READS_PER_SECOND, SLOW_READERS, Lanes
from skyoperator.queue_reader import LONGEST_IDLE_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from skyoperator.sky.types import Job, JobStatus
from skyoperator.subject import Subject

from tests.unit.build import JOB
from tests.unit.watching import OUTAGE, QUEUE, RUNNING, SUCCEEDED, Stage, a_row, staged, time

pytestmark = pytest.mark.looptime(start=1000)

DEAD_SECONDS = 60.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


def job_on(name: str) -> Subject:
    return Subject(name, job_name=JOB, is_urgent=False)


async def with_clusters(stage: Stage, *names: str, **seconds: float) -> None:
    """Follow a running job on each; the queues of some take long."""
    stage.sky.rows = tuple(a_row(name) for name in names)
    stage.sky.queues = dict.fromkeys(names, (RUNNING,))
    stage.sky.seconds = seconds
    await asyncio.gather(*(stage.look(job_on(name)) for name in names))


def reads(stage: Stage, name: str) -> list[float]:
    return [call.at for call in stage.sky.calls if call.name == "jobs" and call.of == name]


async def test_dead_clusters_hold_up_the_others_once_and_not_for_long(stage: Stage) -> None:
    dead, healthy = [f"dead{number}" for number in range(QUICK_READERS)], [f"h{number}" for number in range(40)]
    await with_clusters(stage, *dead, *healthy, **dict.fromkeys(dead, DEAD_SECONDS))
    began_at = time()
    await asyncio.sleep(PATIENCE_SECONDS + 1)
    assert all(reads(stage, name) for name in healthy)
    await asyncio.sleep(600)
    pauses = [later - earlier for name in healthy for earlier, later in pairwise(reads(stage, name)) if earlier > began_at + 60]
    assert max(pauses) <= 2 * LONGEST_PAUSE_SECONDS


async def test_a_dead_cluster_is_read_ever_more_seldom_and_as_any_other_once_it_answers(stage: Stage) -> None:
    await with_clusters(stage, "a", a=DEAD_SECONDS)
    await asyncio.sleep(1000)
    asked = reads(stage, "a")
    assert [later - earlier - DEAD_SECONDS for earlier, later in pairwise(asked)][:6] == [4, 8, 16, 32, 60, 60]
    stage.sky.seconds.clear()
    await asyncio.sleep(DEAD_SECONDS * 3)
    answers = len(reads(stage, "a"))
    await asyncio.sleep(100)
    assert len(reads(stage, "a")) - answers >= 100 / LONGEST_PAUSE_SECONDS - 1


async def test_so_many_are_read_at_once_and_no_more() -> None:
    lanes, at_once, most = Lanes(), {True: 0, False: 0}, {True: 0, False: 0}

    async def question(*, is_slow: bool) -> None:
        at_once[is_slow] += 1
        most[is_slow] = max(most[is_slow], at_once[is_slow])
        await asyncio.sleep(1)
        at_once[is_slow] -= 1

    def ask(*, is_slow: bool) -> asyncio.Future[None]:
        return asyncio.ensure_future(lanes.read(lambda: question(is_slow=is_slow), is_slow=is_slow))

    await asyncio.gather(*(ask(is_slow=is_slow) for is_slow in (True, False) for _ in range(30)))
    assert most == {False: QUICK_READERS, True: SLOW_READERS}


async def test_who_stops_reading_frees_his_place_and_his_question() -> None:
    lanes, ended = Lanes(), []

    async def question() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(time())

    async def quick() -> bool:
        return True

    reading = [asyncio.create_task(lanes.read(question, is_slow=False)) for _ in range(QUICK_READERS)]
    await asyncio.sleep(1)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert await lanes.read(quick, is_slow=False)
    assert len(ended) == QUICK_READERS


async def test_a_queue_in_which_nothing_happens_is_read_ever_more_seldom_and_a_change_is_followed_closely(stage: Stage) -> None:
    await with_clusters(stage, "a")
    await asyncio.sleep(300)
    pauses = [round(later - earlier, 1) for earlier, later in pairwise(reads(stage, "a"))]
    assert pauses[0] == 2
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    stage.sky.queues["a"] = (replace(RUNNING, status=JobStatus.PENDING),)
    await asyncio.sleep(LONGEST_PAUSE_SECONDS + 3)
    assert 2 in [later - earlier for earlier, later in pairwise(reads(stage, "a")[-3:])]


async def test_the_more_queues_the_longer_each_is_left_alone(stage: Stage) -> None:
    names = [f"n{number}" for number in range(200)]
    await with_clusters(stage, *names)
    await asyncio.sleep(600)
    before = len(stage.sky.asked("jobs"))
    await asyncio.sleep(300)
    assert (len(stage.sky.asked("jobs")) - before) / 300 <= READS_PER_SECOND * 1.1


async def test_no_queue_is_read_while_the_server_is_away_and_not_all_at_once_when_it_is_back(stage: Stage) -> None:
    names = [f"n{number}" for number in range(50)]
    await with_clusters(stage, *names)
    await asyncio.sleep(60)
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(20)
    before = len(stage.sky.asked("jobs"))
    await asyncio.sleep(600)
    assert len(stage.sky.asked("jobs")) == before
    stage.sky.failures.clear()
    stage.sky.seconds = {"jobs": 1.0}
    await asyncio.sleep(60)
    first = [at for at in stage.sky.asked("jobs")[before:] if at < stage.sky.asked("jobs")[before] + 1]
    assert len(first) == QUICK_READERS
    assert all(reads(stage, name)[-1] > time() - 60 for name in names)


async def test_the_queue_of_a_cluster_without_a_job_of_ours_is_reported_as_it_is(stage: Stage) -> None:
    idle = Subject("a", job_name="", is_urgent=False)
    theirs = Job(7, "", JobStatus.FAILED)
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (theirs,)}
    await stage.look(idle)
    assert (await stage.fresh_look(idle)).jobs == (theirs,)
    await asyncio.sleep(1000)
    pauses = [later - earlier for earlier, later in pairwise(reads(stage, "a"))]
    assert max(pauses) == LONGEST_IDLE_PAUSE_SECONDS
    assert stage.sky.asked("log_tail") == []


async def test_a_reader_goes_with_the_job_that_is_looked_for(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (Job(1, JOB, JobStatus.FAILED),)}
    stage.sky.logs = {1: "Job 1 failed with return code list: [3]"}
    await stage.look(Subject("a", job_name="", is_urgent=False))
    assert (await stage.fresh_look(QUEUE)).job_words == ""
    assert (await stage.fresh_look(QUEUE)).job_words == stage.sky.logs[1]


async def test_a_senseless_queue_is_logged_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await with_clusters(stage, "a")
    stage.sky.failures["jobs"] = ValueError("garbage")
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(300)
    assert [record.message for record in caplog.records] == ["a: its queue makes no sense"]
    stage.sky.failures.clear()
    stage.sky.queues["a"] = (SUCCEEDED,)
    assert (await stage.fresh_look(QUEUE)).jobs == (SUCCEEDED,)
