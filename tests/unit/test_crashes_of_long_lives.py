"""Lives with more than one launch, or another end than the job's: retries, suspend, edits, deadline, time to live.

Each is lived with a crash at each of its calls, with each of its POSTs struck by each fault, with every pass made twice, and by two
controllers at once. The end must be the same, nothing may run twice under one name, and nothing may be left. The fence is off.

Which bug would turn this red: a retry that takes an old number, a launch before the last cluster is confirmed gone, an edit that is
launched twice or lost, a deadline that leaves its cluster, a finalizer that goes too early, a pass that is no longer the same when it is
made again, a controller that launches on a lease it no longer has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import Autostop, ConditionType, SkyCluster
from skyoperator.conditions import is_true
from skyoperator.kube import Key
from skyoperator.records import is_finished, is_up

from tests.unit.build import NAME, NO_RUN, UID, condition
from tests.unit.crashing import HELD, LATE_SECONDS, STALE, Lease, Stage, Until, a_stage, is_settled, never
from tests.unit.fakes import Process

A1, A2 = f"{UID[:8]}-a1", f"{UID[:8]}-a2"
WITH_SETUP = {**NO_RUN, "setup": "pip install x"}
NO_CAPACITY = {"type": "ResourcesUnavailableError", "message": "no GPU"}
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
STRIDE = 1 if THOROUGH else 9
KINDS = ("lost", "before", "after", "late", "delayed")
OPS = ("launch", "down", "api_cancel", "cancel", "autostop", "status", "queue")
FEW_FAULTS = [
    *(("launch", kind) for kind in KINDS),
    *(("down", kind) for kind in ("lost", "before", "delayed")),
    *((op, kind) for op in ("api_cancel", "cancel") for kind in ("lost", "before")),
    ("status", "before"),
    ("queue", "lost"),
]
FAULTS = [(op, kind) for op in OPS for kind in KINDS] if THOROUGH else FEW_FAULTS

pytestmark = pytest.mark.looptime


def is_over(this: SkyCluster) -> bool:
    return is_finished(this.status) and is_settled(this)


@dataclass(frozen=True)
class Life:
    """A way to live: what is asked for, what happens meanwhile, when it is over, and what must be true then."""

    launches: list[str]
    executions: dict[str, int]
    end: tuple[ConditionType, str] | None
    """None: the object is gone."""
    task: dict[str, Any] | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    meanwhile: Callable[[Stage, Key], Coroutine[Any, Any, None]] | None = None
    until: Until = is_over
    clusters: dict[str, str] = field(default_factory=dict)
    perhaps: frozenset[str] = frozenset()
    """What may have run, once, before its end."""


async def _first_launch_fails(stage: Stage, _: Key) -> None:
    stage.control.launches(seconds=3, row_after=2, error=NO_CAPACITY)
    await _until(lambda: any(request.status == "FAILED" for request in stage.control.world.requests.values()))
    stage.control.launches(seconds=6, row_after=4)


async def _suspended_in_mid_launch(stage: Stage, key: Key) -> None:
    await _until(lambda: NAME in stage.control.world.clusters)
    stage.kube.edit(key, suspend=True)
    await _until(lambda: is_true(stage.kube.objects[key.uid].status.conditions, ConditionType.SUSPENDED))
    stage.kube.edit(key, suspend=False)


async def _edited(stage: Stage, key: Key, task: dict[str, Any]) -> None:
    await _until(lambda: is_up(stage.kube.objects[key.uid].status))
    stage.kube.edit(key, task=task)


async def _setup_is_edited(stage: Stage, key: Key) -> None:
    await _edited(stage, key, {**WITH_SETUP, "setup": "pip install y"})


async def _resources_are_edited(stage: Stage, key: Key) -> None:
    await _edited(stage, key, {"resources": {"infra": "k8s", "cpus": 8}})


async def _job_takes_long(stage: Stage, _: Key) -> None:
    stage.control.jobs(pending=1, seconds=10_000)


async def _until(condition_: Callable[[], bool]) -> None:
    while not condition_():
        await asyncio.sleep(0.5)


def _second_is_up(this: SkyCluster) -> bool:
    return this.status.launch is not None and this.status.launch.attempt == 2 and is_up(this.status)


def _job_is_cancelled(this: SkyCluster) -> bool:
    return this.status.job is not None and this.status.job.status == "CANCELLED"


RETRIED = Life([A1, A2], {A2: 1}, (ConditionType.COMPLETE, "JobSucceeded"), spec={"backoffLimit": 2}, meanwhile=_first_launch_fails)
SUSPENDED = Life([A1, A2], {A2: 1}, (ConditionType.COMPLETE, "JobSucceeded"), meanwhile=_suspended_in_mid_launch, perhaps=frozenset({A1}))
UP = {"end": (ConditionType.READY, "ClusterUp"), "until": _second_is_up, "clusters": {NAME: "UP"}}
SAME_CLUSTER: Life = Life([A1, A2], {}, task=WITH_SETUP, meanwhile=_setup_is_edited, **UP)  # type: ignore[arg-type]
NEW_CLUSTER: Life = Life([A1, A2], {}, task=NO_RUN, meanwhile=_resources_are_edited, **UP)  # type: ignore[arg-type]
OVERDUE = Life([A1], {A1: 1}, (ConditionType.FAILED, "DeadlineExceeded"), spec={"activeDeadlineSeconds": 20}, meanwhile=_job_takes_long)
OVERDUE_KEPT = Life(
    [A1],
    {A1: 1},
    (ConditionType.FAILED, "DeadlineExceeded"),
    spec={"activeDeadlineSeconds": 20, "whenFinished": "Keep"},
    meanwhile=_job_takes_long,
    until=_job_is_cancelled,
    clusters={NAME: "UP"},
)
SHORT_LIVED = Life([A1], {A1: 1}, None, spec={"ttlSecondsAfterFinished": 5}, until=never)

LIVES = {
    "retried": RETRIED,
    "suspended and resumed": SUSPENDED,
    "edited, same cluster": SAME_CLUSTER,
    "edited, new cluster": NEW_CLUSTER,
    "overdue": OVERDUE,
    "overdue, kept": OVERDUE_KEPT,
    "time to live": SHORT_LIVED,
}
CALLS_AT_MOST = 160
"""No life makes more calls: test_no_life_outlasts_the_crashes."""

every_life = pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
before_or_after = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage() as made:
        yield made


@dataclass
class Lived:
    """A life that has begun."""

    stage: Stage
    life: Life
    key: Key
    meanwhile: asyncio.Task[None] | None

    async def go_on(self, slam_at: int | None = None, *, before: bool = False) -> Process:
        return await self.stage.live(self.key, until=self.life.until, slam_at=slam_at, before=before)

    async def assert_right_end(self) -> None:
        if self.meanwhile is not None:
            await self.meanwhile
        state = await self.stage.aftermath()
        assert [launch["job"] for launch in state["launches"]] == self.life.launches
        assert all(times == 1 for times in state["executions"].values())
        assert state["executions"].keys() - self.life.perhaps == self.life.executions.keys()
        assert (state["clusters"], state["active"]) == (self.life.clusters, [])
        if self.life.end is None:
            assert self.stage.kube.objects == {}
        else:
            this = await self.stage.kube.get(self.key)
            assert condition(this.status, self.life.end[0]) == ("True", self.life.end[1])


def begin(stage: Stage, life: Life) -> Lived:
    key = stage.create(life.task, **life.spec)
    meanwhile = asyncio.create_task(life.meanwhile(stage, key)) if life.meanwhile else None
    return Lived(stage, life, key, meanwhile)


@every_life
async def test_no_life_outlasts_the_crashes(stage: Stage, life: Life) -> None:
    lived = begin(stage, life)
    process = await lived.go_on()
    assert len(process.calls) <= CALLS_AT_MOST
    await lived.assert_right_end()


@every_life
@before_or_after
@pytest.mark.parametrize("slam_at", range(2, CALLS_AT_MOST, STRIDE))
async def test_a_crash_changes_no_end(stage: Stage, life: Life, slam_at: int, before: bool) -> None:
    lived = begin(stage, life)
    await lived.go_on(slam_at, before=before)
    await lived.go_on()
    await lived.assert_right_end()


@every_life
@pytest.mark.parametrize(("op", "kind"), FAULTS)
async def test_a_fault_changes_no_end(stage: Stage, life: Life, op: str, kind: str) -> None:
    stage.control.fault(op, kind, seconds=LATE_SECONDS)
    lived = begin(stage, life)
    await lived.go_on()
    await lived.assert_right_end()


@every_life
async def test_a_pass_can_be_made_again(stage: Stage, life: Life) -> None:
    lived = begin(stage, life)
    await stage.run(Process(), lived.key, until=life.until, replays=2)
    await lived.assert_right_end()


@every_life
@pytest.mark.parametrize("seconds", [0.0, 0.3], ids=["as quick", "slow"])
@pytest.mark.parametrize("lease", [STALE, HELD], ids=["on a stale lease", "in the belief to be the one"])
async def test_another_controller_at_once_changes_no_end(stage: Stage, life: Life, lease: Lease, seconds: float) -> None:
    lived = begin(stage, life)
    other = stage.run(Process(seconds=seconds), lived.key, until=life.until, holder=lease)
    await asyncio.gather(stage.run(Process(), lived.key, until=life.until), other)
    await lived.assert_right_end()


async def test_autostop_by_us_ends_a_plain_cluster(stage: Stage) -> None:
    key = stage.create(NO_RUN, autostop=Autostop(idle_minutes=1).model_dump())
    await stage.live(key, until=is_settled)
    assert condition((await stage.kube.get(key)).status, ConditionType.COMPLETE) == ("True", "Autostopped")
    assert (await stage.aftermath())["clusters"] == {}
