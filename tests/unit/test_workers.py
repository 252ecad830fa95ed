"""One task per object: no wake-up is lost, no failure ends it, and it ends with its object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from skyoperator.api.v1alpha1 import Phase, SkyCluster, SkyClusterStatus
from skyoperator.kube import Conflict, Gone, Key, KubeError
from skyoperator.workers import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, PASSES_AT_ONCE, STOP_SECONDS, Workers

from tests.unit.build import UID, an_object

pytestmark = pytest.mark.looptime

KEY = Key("ml", "train", UID)
Answer = Exception | float | None


@dataclass
class FakeReconciler:
    """Takes `seconds` for a pass, then raises or returns the next of `answers`; None, nothing left to do, once they are used up."""

    answers: Iterator[Answer] = field(default_factory=lambda: iter(()))
    seconds: float = 0.0
    phase: Phase | None = None
    began: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    wake: Callable[[], None] = lambda: None

    async def reconcile(self, key: Key, wake: Callable[[], None]) -> tuple[SkyCluster, float | None]:
        self.began.append(time())
        self.wake = wake
        await asyncio.sleep(self.seconds)
        self.ended.append(time())
        answer = next(self.answers, None)
        if isinstance(answer, Exception):
            raise answer
        return an_object(status=SkyClusterStatus(phase=self.phase)), answer

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in pairwise(self.began)]


@dataclass
class Stage:
    reconciler: FakeReconciler
    workers: Workers
    forgotten: list[Key]

    def answers(self, *answers: Answer) -> None:
        self.reconciler.answers = iter(answers)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    reconciler, forgotten = FakeReconciler(), list[Key]()
    workers = Workers(cast("Any", reconciler), forgotten.append)
    yield Stage(reconciler, workers, forgotten)
    async with asyncio.timeout(1):
        await workers.stop()


def time() -> float:
    return asyncio.get_running_loop().time()


async def test_one_event_makes_one_pass_and_the_same_again_none(stage: Stage) -> None:
    for _ in range(3):
        stage.workers.saw(KEY, "generation 1")
        await asyncio.sleep(10)
    assert len(stage.reconciler.began) == 1
    stage.workers.saw(KEY, "generation 2")
    await asyncio.sleep(10)
    assert stage.reconciler.pauses == [30]


async def test_it_looks_again_after_the_pause_it_was_told(stage: Stage) -> None:
    stage.answers(7.0, 30.0)
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(1000)
    assert stage.reconciler.pauses == [7, 30]


async def test_a_pass_that_fails_is_tried_again_ever_more_seldom(stage: Stage) -> None:
    stage.answers(*[KubeError("no"), ValueError("a bug")] * 6)
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(1000)
    pauses = stage.reconciler.pauses
    assert len(pauses) == 12
    for number, pause in enumerate(pauses):
        longest = min(FIRST_BACKOFF_SECONDS * 2**number, LONGEST_BACKOFF_SECONDS)
        assert longest / 2 <= pause <= longest


async def test_a_pass_that_succeeds_ends_the_backing_off(stage: Stage) -> None:
    stage.answers(*[KubeError("no")] * 8, 5.0, KubeError("no"))
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(1000)
    assert stage.reconciler.pauses[-1] <= FIRST_BACKOFF_SECONDS


async def test_a_conflict_is_no_failure_and_read_again_at_once(stage: Stage) -> None:
    stage.answers(*[Conflict("stale")] * 20, KubeError("no"))
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(100)
    *conflicts, failure = stage.reconciler.pauses
    assert len(conflicts) == 20
    assert max(conflicts) <= 0.5
    assert failure <= FIRST_BACKOFF_SECONDS


async def test_one_objects_trouble_is_not_anothers(stage: Stage) -> None:
    stage.answers(ValueError("a bug"))
    stage.workers.saw(KEY, 1)
    stage.workers.saw(Key("ml", "other", "other"), 1)
    await asyncio.sleep(0.1)
    assert len(stage.reconciler.began) == 2
    assert len(list(stage.workers.phases())) == 2


async def test_a_task_ends_with_its_object_and_a_later_event_starts_a_new_one(stage: Stage) -> None:
    stage.answers(Gone("gone"))
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(100)
    assert len(stage.reconciler.began) == 1
    assert stage.forgotten == [KEY]
    assert list(stage.workers.phases()) == []
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(100)
    assert len(stage.reconciler.began) == 2
    assert stage.forgotten == [KEY]


async def test_a_wake_up_during_a_pass_makes_another(stage: Stage) -> None:
    stage.reconciler.seconds = 5
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(3)
    stage.reconciler.wake()
    await asyncio.sleep(100)
    assert stage.reconciler.began == [0, 5]


async def test_an_event_during_a_pass_makes_another(stage: Stage) -> None:
    stage.reconciler.seconds = 5
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(3)
    stage.workers.saw(KEY, 2)
    await asyncio.sleep(100)
    assert stage.reconciler.began == [0, 5]


async def test_a_wake_up_ends_a_pause(stage: Stage) -> None:
    stage.answers(1000.0)
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(3)
    stage.reconciler.wake()
    await asyncio.sleep(1)
    assert stage.reconciler.began == [0, 3]


async def test_an_object_has_one_pass_at_a_time(stage: Stage) -> None:
    stage.reconciler.seconds = 5
    for number in range(10):
        stage.workers.saw(KEY, number)
        await asyncio.sleep(1)
    await asyncio.sleep(100)
    passes = list(zip(stage.reconciler.began, stage.reconciler.ended, strict=True))
    assert all(before[1] <= after[0] for before, after in pairwise(passes))


async def test_so_many_passes_at_once_and_no_more(stage: Stage) -> None:
    stage.reconciler.seconds = 5
    for number in range(PASSES_AT_ONCE + 1):
        stage.workers.saw(Key("ml", str(number), str(number)), 1)
    await asyncio.sleep(1)
    assert len(stage.reconciler.began) == PASSES_AT_ONCE
    await asyncio.sleep(5)
    assert len(stage.reconciler.began) == PASSES_AT_ONCE + 1


async def test_a_stop_waits_for_the_pass_under_way_and_begins_no_other(stage: Stage) -> None:
    stage.reconciler.seconds = 20
    stage.answers(0.0, 0.0)
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(5)
    await stage.workers.stop()
    assert (time(), stage.reconciler.ended) == (20, [20])
    stage.workers.saw(KEY, 2)
    stage.workers.saw(Key("ml", "new", "new"), 1)
    await asyncio.sleep(100)
    assert stage.reconciler.began == [0]
    assert stage.forgotten == [KEY]


async def test_a_stop_ends_pauses(stage: Stage) -> None:
    stage.answers(1000.0)
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(5)
    await stage.workers.stop()
    assert (time(), stage.reconciler.began) == (5, [0])


async def test_a_stop_cuts_off_a_pass_that_does_not_end(stage: Stage) -> None:
    stage.reconciler.seconds = 1000
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(5)
    await stage.workers.stop()
    assert (time(), stage.reconciler.ended) == (5 + STOP_SECONDS, [])


async def test_the_oldest_pass_is_the_one_under_way_longest(stage: Stage) -> None:
    assert stage.workers.oldest_pass_seconds() == 0
    stage.reconciler.seconds = 20
    stage.workers.saw(KEY, 1)
    await asyncio.sleep(5)
    stage.workers.saw(Key("ml", "other", "other"), 1)
    await asyncio.sleep(5)
    assert stage.workers.oldest_pass_seconds() == 10
    await asyncio.sleep(11)
    assert stage.workers.oldest_pass_seconds() == 16
    await asyncio.sleep(20)
    assert stage.workers.oldest_pass_seconds() == 0


async def test_the_phase_is_the_one_stored_last(stage: Stage) -> None:
    stage.workers.saw(KEY, 1)
    assert list(stage.workers.phases()) == ["Pending"]
    stage.reconciler.phase = Phase.RUNNING
    await asyncio.sleep(1)
    assert list(stage.workers.phases()) == ["Running"]


async def test_a_stop_begins_no_pass_that_waits_for_its_turn(stage: Stage) -> None:
    stage.reconciler.seconds = 5
    for number in range(PASSES_AT_ONCE + 1):
        stage.workers.saw(Key("ml", str(number), str(number)), 1)
    await asyncio.sleep(1)
    await stage.workers.stop()
    assert len(stage.reconciler.began) == PASSES_AT_ONCE
