"""The controller dies at each of its calls in turn, before and after the call has had its effect. What it leaves must end the same.

Which bug would turn this red: a launch sent before it is written down, an attempt posted again while it is under way, a finalizer
that goes while a launch may still arrive, a status written over a newer one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.conditions import is_true
from skyoperator.kube import Conflict, Gone, Key
from skyoperator.observe import Observer
from skyoperator.reconcile import Reconciler
from skyoperator.sky.client import SkyPilotClient
from skyoperator.sky.credentials import NoCredentials

from tests.standin.control import Control
from tests.standin.server import serving
from tests.unit.build import JOB, NAME, NOW, an_object
from tests.unit.fakes import Crash, Door, FakeKube

CALLS_AT_MOST = 46
"""As many as the lives below make; a crash that is not reached is a life without one."""


LONGEST_LIFE_SECONDS = 600


class AlwaysHeld:
    def seconds_left(self) -> float:
        return 60.0


def now() -> datetime:
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Stage:
    kube: FakeKube
    control: Control
    address: str

    async def live(self, key: Key, *, until: Any, slam_at: int | None = None, before: bool = False) -> bool:
        """One life of a controller; returns whether it crashed."""
        counter = itertools.count()
        async with SkyPilotClient.connect(self.address, NoCredentials()) as client:
            sky: Any = Door(client, counter, slam_at, before)
            kube: Any = Door(self.kube, counter, slam_at, before)
            observer = Observer(sky, server=self.address, now=now)
            reconciler = Reconciler(kube=kube, sky=sky, observer=observer, holder=AlwaysHeld(), post_timeout_seconds=20, now=now)
            eyes = asyncio.create_task(observer.run())
            life = asyncio.create_task(self._passes(reconciler, key, until))
            await asyncio.wait({eyes, life}, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_LIFE_SECONDS)
            stuck = not eyes.done() and not life.done()
            for task in (eyes, life):
                task.cancel()
            results = await asyncio.gather(eyes, life, return_exceptions=True)
            observer.forget(NAME)
        assert not stuck, self.kube.objects
        for result in results:
            if isinstance(result, Exception):
                raise result
        return any(isinstance(result, Crash) for result in results)

    async def _passes(self, reconciler: Reconciler, key: Key, until: Any) -> None:
        wake = self.kube.watched = asyncio.Event()
        while True:
            wake.clear()
            try:
                this, pause = await reconciler.reconcile(key, wake.set)
            except Gone:
                return
            except Conflict:
                continue
            if until(this):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wake.wait()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    control = Control()
    control.launches(seconds=5, row_after=2)
    control.jobs(pending=1, seconds=2)
    async with serving(control) as address:
        yield Stage(FakeKube(), control, address)


def settled(this: Any) -> bool:
    return this.status.cluster is not None and this.status.cluster.status == "TERMINATED"


@pytest.mark.looptime
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("slam_at", range(CALLS_AT_MOST))
async def test_it_runs_once_and_leaves_nothing(stage: Stage, slam_at: int, before: bool) -> None:
    key = stage.kube.create(an_object(finalizers=()))
    if await stage.live(key, until=settled, slam_at=slam_at, before=before):
        await stage.live(key, until=settled)

    this = await stage.kube.get(key)
    state = stage.control.state()
    assert is_true(this.status.conditions, ConditionType.COMPLETE)
    assert state["executions"] == {JOB: 1}
    assert state["clusters"] == {}
    assert state["active"] == []


@pytest.mark.looptime
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("slam_at", range(1, CALLS_AT_MOST, 4))
@pytest.mark.parametrize("delete_after", [0.0, 1.0, 6.0])
async def test_a_delete_at_any_time_leaves_nothing(stage: Stage, delete_after: float, slam_at: int, before: bool) -> None:
    key = stage.kube.create(an_object(finalizers=()))
    asyncio.get_running_loop().call_later(delete_after, stage.kube.delete, key)
    if await stage.live(key, until=lambda _: False, slam_at=slam_at, before=before):
        await asyncio.sleep(max(0.0, delete_after))
        await stage.live(key, until=lambda _: False)

    state = stage.control.state()
    assert stage.kube.objects == {}
    assert state["clusters"] == {}
    assert state["active"] == []
    assert state["executions"].get(JOB, 0) <= 1
