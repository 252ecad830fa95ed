"""A stand-in server, an in-memory Kubernetes, and controllers that live in front of them, each with an end of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from skyoperator.admission import Admission
from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.hold import Hold
from skyoperator.kube import Conflict, Gone, Key
from skyoperator.observe import Observer
from skyoperator.reconcile import Holder, LeaseTooShortError, Reconciler
from skyoperator.sky.client import POST_TIMEOUT_SECONDS, SkyPilotClient
from skyoperator.sky.credentials import Credentials, NoCredentials
from skyoperator.sky.types import SkyPilotError

from tests.standin.control import Control
from tests.standin.server import serving
from tests.unit.build import NAME, NOW, an_object
from tests.unit.fakes import AnInstallation, Crash, Door, FakeKube, Process

LONGEST_LIFE_SECONDS = 600
LATE_SECONDS = POST_TIMEOUT_SECONDS + 15.0
"""When a server acts on a POST that nobody waits for any more."""
AFTERMATH_SECONDS = 90.0
"""What is still on its way when an object is done or gone would show up in this time."""

Until = Callable[[SkyCluster], bool]


@dataclass(frozen=True)
class Lease:
    """A lease of which always so much is left."""

    left: float

    def seconds_left(self) -> float:
        return self.left


HELD = Lease(60.0)
STALE = Lease(0.0)
NO_CREDENTIALS = NoCredentials()


def now() -> datetime:
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Stage:
    kube: FakeKube
    control: Control
    address: str
    lives: list[Process] = field(default_factory=list)

    async def live(self, key: Key, *, until: Until, slam_at: int | None = None, before: bool = False) -> Process:
        """One life of a controller; ends when the object is as wanted or gone, or when the process dies, in whichever of its tasks."""
        return await self.run(Process(slam_at, before), key, until=until)

    async def run(
        self,
        process: Process,
        key: Key,
        *,
        until: Until,
        holder: Holder = HELD,
        credentials: Credentials = NO_CREDENTIALS,
        replays: int = 0,
    ) -> Process:
        self.lives.append(process)
        async with SkyPilotClient.connect(self.address, credentials) as client:
            sky: Any = Door(client, process)
            kube: Any = Door(self.kube, process)
            observer = Observer(sky, admission=Admission(8), hold=Hold(), now=now)
            reconciler = Reconciler(
                kube=kube,
                sky=sky,
                observer=observer,
                holder=holder,
                installation=AnInstallation(),
                post_timeout_seconds=POST_TIMEOUT_SECONDS,
                now=now,
            )
            works = (observer.run(), self._passes(reconciler, key, until, replays), process.crashed.wait())
            tasks = [asyncio.create_task(work) for work in works]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_LIFE_SECONDS)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            observer.forget(NAME)
        assert done, f"stuck: {self.kube.objects}"
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, (Crash, asyncio.CancelledError)):
                raise result
        return process

    async def _passes(self, reconciler: Reconciler, key: Key, until: Until, replays: int) -> None:
        """A pass, then as many again of what may be the same situation, then the pause that the last one asked for."""
        wake = asyncio.Event()
        self.kube.watchers.append(wake)
        while True:
            wake.clear()
            try:
                for _ in range(1 + replays):
                    this, pause = await reconciler.reconcile(key, wake.set)
            except Gone:
                return
            except Conflict:
                continue
            except (SkyPilotError, LeaseTooShortError):
                await asyncio.sleep(1)
                continue
            if until(this):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wake.wait()

    def create(self, task: dict[str, Any] | None = None, **spec: Any) -> Key:
        return self.kube.create(an_object(task, finalizers=(), **spec))

    def delete(self, key: Key, *, after_seconds: float) -> float:
        """Delete the object so many seconds from now; return when that is, by the loop's clock."""
        loop = asyncio.get_running_loop()
        return loop.call_later(after_seconds, self.kube.delete_by_user, key).when()

    async def aftermath(self) -> dict[str, Any]:
        """Return the server's state once nothing can be on its way any more."""
        await asyncio.sleep(AFTERMATH_SECONDS)
        return self.control.state()

    def launch_calls(self) -> list[float]:
        return [call.at for life in self.lives for call in life.calls if call.name == "launch"]


@contextlib.asynccontextmanager
async def a_stage() -> AsyncIterator[Stage]:
    control = Control()
    control.launches(seconds=6, row_after=4)
    control.jobs(pending=1, seconds=2)
    control.set(fence=False, cancel_lag_seconds=4)
    async with serving(control) as address:
        yield Stage(FakeKube(), control, address)


def is_settled(this: SkyCluster) -> bool:
    return this.status.cluster is not None and this.status.cluster.status == "TERMINATED"


def never(_: SkyCluster) -> bool:
    return False
