"""The controller dies at each of its calls in turn, before and after the call has had its effect. What it leaves must end the same.

Which bug would turn this red: a launch sent before it is written down, an attempt posted again while it is under way or on its way, a
finalizer that goes while a launch may still arrive, a launch taken for ours by its cluster's name, a status written over a newer one.
The attempt fence is off: a second execution is not caught on the cluster, it must never be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.conditions import is_true
from skyoperator.kube import Key
from skyoperator.sky.client import POST_TIMEOUT_SECONDS, SkyPilotClient
from skyoperator.sky.credentials import NoCredentials
from skyoperator.teardown import SETTLE_TIME

from tests.unit.build import JOB, NAME
from tests.unit.crashing import HELD, LATE_SECONDS, Stage, a_stage, is_settled, never
from tests.unit.fakes import Process

CALLS_AT_MOST = 75
"""No life below makes more calls: test_no_life_outlasts_the_crashes."""
CRASHES = [*range(30), *range(30, CALLS_AT_MOST, 3)]
UNTIL_LAUNCHED = range(13)
"""The first calls of a life, up to the look that follows its POST."""
DELETES = {"before the row": 1.0, "with the row": 4.5, "while the job runs": 7.5}
BEFORE_OR_AFTER = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage() as made:
        yield made


CALLS_OF_A_LIFE: dict[float | None, int] = {}


async def calls_of_a_life(delete_after: float | None) -> int:
    """Return how many calls a life without a crash makes."""
    if delete_after not in CALLS_OF_A_LIFE:
        async with a_stage() as stage:
            key = stage.create()
            if delete_after is not None:
                stage.delete(key, after_seconds=delete_after)
            life = await stage.live(key, until=is_settled if delete_after is None else never)
        CALLS_OF_A_LIFE[delete_after] = len(life.calls)
    return CALLS_OF_A_LIFE[delete_after]


async def assert_ran_once(stage: Stage, key: Key) -> None:
    this, state = await stage.kube.get(key), await stage.aftermath()
    assert is_true(this.status.conditions, ConditionType.COMPLETE)
    assert [launch["job"] for launch in state["launches"]] == [JOB]
    assert state["executions"] == {JOB: 1}
    assert (state["clusters"], state["active"]) == ({}, [])


async def assert_nothing_is_left(stage: Stage) -> None:
    state = await stage.aftermath()
    assert stage.kube.objects == {}
    assert (state["clusters"], state["active"]) == ({}, [])
    assert [launch["job"] for launch in state["launches"]] in ([], [JOB])
    assert state["executions"].get(JOB, 0) <= 1


@pytest.mark.looptime
@pytest.mark.parametrize("delete_after", [None, *DELETES.values()], ids=["no delete", *DELETES])
async def test_no_life_outlasts_the_crashes(delete_after: float | None) -> None:
    assert await calls_of_a_life(delete_after) <= CALLS_AT_MOST


@pytest.mark.looptime
@BEFORE_OR_AFTER
@pytest.mark.parametrize("slam_at", CRASHES)
async def test_it_runs_once_and_leaves_nothing(stage: Stage, slam_at: int, before: bool) -> None:
    key = stage.create()
    life = await stage.live(key, until=is_settled, slam_at=slam_at, before=before)
    assert life.crashed.is_set() is (slam_at < await calls_of_a_life(None))
    await stage.live(key, until=is_settled)

    await assert_ran_once(stage, key)


@pytest.mark.looptime
@BEFORE_OR_AFTER
@pytest.mark.parametrize("slam_at", range(1, CALLS_AT_MOST, 8))
@pytest.mark.parametrize("delete_after", DELETES.values(), ids=DELETES)
async def test_a_delete_at_any_time_leaves_nothing(stage: Stage, delete_after: float, slam_at: int, before: bool) -> None:
    key = stage.create()
    deleted_at = stage.delete(key, after_seconds=delete_after)
    life = await stage.live(key, until=never, slam_at=slam_at, before=before)
    assert life.crashed.is_set() is (slam_at < await calls_of_a_life(delete_after))
    await asyncio.sleep(max(0.0, deleted_at - asyncio.get_running_loop().time()))
    await stage.live(key, until=never)

    await assert_nothing_is_left(stage)


@pytest.mark.looptime
@pytest.mark.parametrize("delete_at", range(1, 30))
async def test_a_delete_between_any_two_calls_leaves_nothing(stage: Stage, delete_at: int) -> None:
    key = stage.create()
    process = Process(meanwhile=lambda number: stage.kube.delete_by_user(key) if number == delete_at else None)
    await stage.run(process, key, until=never)

    assert len(process.calls) > delete_at
    await assert_nothing_is_left(stage)


@pytest.mark.looptime
async def test_a_delete_takes_back_a_launch_that_still_waits_its_turn(stage: Stage) -> None:
    stage.control.set(long_workers=0)
    key = stage.create()
    stage.delete(key, after_seconds=5)
    life = await stage.live(key, until=never)

    assert life.calls[-1].at < 30
    assert len(stage.control.state()["launches"]) == 1
    await assert_nothing_is_left(stage)


@pytest.mark.looptime
@BEFORE_OR_AFTER
@pytest.mark.parametrize("slam_at", UNTIL_LAUNCHED)
async def test_a_launch_that_acts_long_after_its_answer_was_lost_is_adopted(stage: Stage, slam_at: int, before: bool) -> None:
    stage.control.fault("launch", "delayed", seconds=LATE_SECONDS)
    key = stage.create()
    life = await stage.live(key, until=is_settled, slam_at=slam_at, before=before)
    assert life.crashed.is_set()
    await stage.live(key, until=is_settled)

    await assert_ran_once(stage, key)


@pytest.mark.looptime
@pytest.mark.parametrize("slam_at", [None, *UNTIL_LAUNCHED[::2]])
@pytest.mark.parametrize("delete_after", [2.0, POST_TIMEOUT_SECONDS + 2.0, LATE_SECONDS + 2.0])
async def test_a_delete_waits_for_a_launch_that_may_still_act(stage: Stage, delete_after: float, slam_at: int | None) -> None:
    stage.control.fault("launch", "delayed", seconds=LATE_SECONDS)
    key = stage.create()
    stage.delete(key, after_seconds=delete_after)
    life = await stage.live(key, until=never, slam_at=slam_at)
    assert life.crashed.is_set() is (slam_at is not None)
    await stage.live(key, until=never)

    await assert_nothing_is_left(stage)


@pytest.mark.looptime
@pytest.mark.parametrize("slam_at", [None, 10, 16])
@pytest.mark.parametrize("kind", ["lost", "after", "late", "delayed"])
async def test_one_post_is_enough_however_its_answer_was_lost(stage: Stage, kind: str, slam_at: int | None) -> None:
    stage.control.fault("launch", kind, seconds=LATE_SECONDS)
    key = stage.create()
    life = await stage.live(key, until=is_settled, slam_at=slam_at)
    assert life.crashed.is_set() is (slam_at is not None)
    await stage.live(key, until=is_settled)

    assert len(stage.launch_calls()) == 1
    await assert_ran_once(stage, key)


@pytest.mark.looptime
async def test_the_settle_time_counts_from_when_the_answer_was_given_up(stage: Stage) -> None:
    stage.control.fault("launch", "delayed", seconds=POST_TIMEOUT_SECONDS + SETTLE_TIME.total_seconds() - 5)
    key = stage.create()
    await stage.live(key, until=is_settled)

    await assert_ran_once(stage, key)


@pytest.mark.looptime
async def test_what_never_arrived_is_sent_again_once_it_could_no_longer_show_up(stage: Stage) -> None:
    stage.control.fault("launch", "before")
    key = stage.create()
    await stage.live(key, until=is_settled)

    first, second = stage.launch_calls()
    assert second - first >= SETTLE_TIME.total_seconds()
    await assert_ran_once(stage, key)


@pytest.mark.looptime
async def test_a_teardown_that_is_refused_is_said_and_asked_again_ever_more_seldom(stage: Stage) -> None:
    for _ in range(4):
        stage.control.fault("down", "refused")
    key = stage.create()
    process = await stage.live(key, until=is_settled)

    posts = [call.at for call in process.calls if call.name == "down"]
    pauses = [later - earlier for earlier, later in pairwise(posts)]
    assert pauses == pytest.approx([2, 4, 8, 16])
    assert [reason for reason, _ in stage.kube.events].count("DownFailed") == 1
    await assert_ran_once(stage, key)


@dataclass
class RunsDown:
    """Credentials that have to be fetched, and a lease that is not renewed meanwhile: both from the first launch on, for once."""

    process: Process
    advice: str = ""
    fetched: bool = False

    async def authorization(self) -> str | None:
        if self._launches() and not self.fetched:
            self.fetched = True
            await asyncio.sleep(HELD.left - POST_TIMEOUT_SECONDS)
        return None

    def rejected(self) -> None:
        """Nothing is rejected here."""

    def seconds_left(self) -> float:
        launches = self._launches()
        return HELD.left - (asyncio.get_running_loop().time() - launches[0] if len(launches) == 1 else 0.0)

    def _launches(self) -> list[float]:
        return [call.at for call in self.process.calls if call.name == "launch"]


@pytest.mark.looptime
async def test_what_is_left_of_the_lease_counts_once_the_credentials_are_there(stage: Stage) -> None:
    key, process = stage.create(), Process()
    slow = RunsDown(process)
    await stage.run(process, key, until=is_settled, holder=slow, credentials=slow)

    assert len(stage.launch_calls()) == 2
    await assert_ran_once(stage, key)


@pytest.mark.looptime
async def test_a_request_is_recorded_for_the_attempt_that_was_sent_and_for_no_other(stage: Stage) -> None:
    key, process = stage.create(), Process()

    def renumber(_: int) -> None:
        launch = stage.kube.objects[key.uid].status.launch
        if launch is not None and launch.attempt == 1 and process.calls[-1].name == "launch":
            status = stage.kube.objects[key.uid].status
            stage.kube.annotate(key, status=status.model_copy(update={"launch": launch.model_copy(update={"attempt": 2})}))

    process.meanwhile = renumber
    await stage.run(process, key, until=lambda this: this.status.launch is not None)

    launch = stage.kube.objects[key.uid].status.launch
    assert launch is not None
    assert (launch.attempt, launch.request_id) == (2, None)


@pytest.mark.looptime
async def test_a_launch_of_another_task_on_our_cluster_is_not_ours(stage: Stage) -> None:
    async with SkyPilotClient.connect(stage.address, NoCredentials()) as somebody:
        await somebody.result_of(await somebody.launch(NAME, "name: theirs\nrun: python theirs.py\n"))
        await somebody.result_of(await somebody.down(NAME))
    stage.control.fault("launch", "before")
    key = stage.create()
    await stage.live(key, until=is_settled)

    this, state = await stage.kube.get(key), await stage.aftermath()
    assert is_true(this.status.conditions, ConditionType.COMPLETE)
    assert [launch["job"] for launch in state["launches"]] == ["theirs", JOB]
    assert state["executions"][JOB] == 1


@pytest.mark.looptime
async def test_a_launch_that_failed_behind_a_lost_answer_is_the_one_that_failed(stage: Stage) -> None:
    stage.control.launches(seconds=1, error={"type": "ResourcesUnavailableError", "message": "no GPU"})
    stage.control.fault("launch", "lost")
    key = stage.create()
    await stage.live(key, until=is_settled)

    this, state = await stage.kube.get(key), await stage.aftermath()
    assert is_true(this.status.conditions, ConditionType.FAILED)
    assert [launch["job"] for launch in state["launches"]] == [JOB]
