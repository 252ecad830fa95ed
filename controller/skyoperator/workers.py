"""One task per object, which owns its loop: a pass, then a pause that a change ends early.

kopf's own daemons and timers are not used: they are not started for an object that is already being deleted when the controller
starts, and die for good at the first status write that fails (docs/design/architecture.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from skyoperator.kube import Conflict, Gone, Key, KubeError
from skyoperator.metrics import RECONCILE_SECONDS, RECONCILES
from skyoperator.reconcile import LeaseTooShortError, Reconciler
from skyoperator.sky.types import SkyPilotError

logger = logging.getLogger(__name__)

PASSES_AT_ONCE: Final = 32
FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 60.0
STOP_SECONDS: Final = 25.0
"""How long a pass that is under way may take to finish when the controller stops: longer than a POST, shorter than the 30 s that
Kubernetes waits before it kills. One that is cut off is taken up by the next process."""


@dataclass(slots=True)
class Worker:
    """The task of one object."""

    key: Key
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    phase: str = ""
    busy_since: float | None = None
    seen: object = None
    """What the last watch event said of it; a status write of our own says nothing new."""


class Workers:
    """All objects' tasks."""

    def __init__(self, reconciler: Reconciler, forget: Callable[[Key], None]) -> None:
        self._reconciler = reconciler
        self._forget = forget
        self._workers: dict[str, Worker] = {}
        self._passes = asyncio.Semaphore(PASSES_AT_ONCE)
        self._stopping = False

    def saw(self, key: Key, what: object) -> None:
        """Take note of a watch event: start the object's task, or wake it if `what` is new."""
        worker = self._workers.get(key.uid)
        if worker is None:
            if self._stopping:
                return
            worker = self._workers[key.uid] = Worker(key)
            worker.task = asyncio.create_task(self._loop(worker), name=str(key))
        if worker.seen != what:
            worker.seen = what
            worker.wake.set()

    def uids(self) -> Iterable[str]:
        """Return the uids of the objects that are watched."""
        return list(self._workers)

    def phases(self) -> Iterable[str]:
        """Return the phase of each object, as last stored."""
        return [worker.phase or "Pending" for worker in self._workers.values()]

    def oldest_pass_seconds(self) -> float:
        """Return for how long the pass that is under way longest has been so."""
        now = asyncio.get_running_loop().time()
        return max((now - worker.busy_since for worker in self._workers.values() if worker.busy_since is not None), default=0.0)

    async def stop(self) -> None:
        """Return once no pass is under way."""
        self._stopping = True
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        for worker in self._workers.values():
            worker.wake.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _loop(self, worker: Worker) -> None:
        failures = 0
        try:
            while not self._stopping:
                worker.wake.clear()
                try:
                    pause = await self._pass(worker)
                    failures = 0
                except Gone:
                    return
                except Conflict:
                    pause = random.uniform(0.05, 0.3)
                except Exception as error:  # noqa: BLE001 - one object's trouble must end neither its own task nor another's
                    failures += 1
                    pause = backoff_seconds(failures, random.random())
                    _report(worker.key, error, pause)
                await _pause(worker.wake, pause)
        finally:
            self._workers.pop(worker.key.uid, None)
            self._forget(worker.key)

    async def _pass(self, worker: Worker) -> float | None:
        loop = asyncio.get_running_loop()
        async with self._passes:
            if self._stopping:
                return None
            worker.busy_since = loop.time()
            try:
                with _counted():
                    this, pause = await self._reconciler.reconcile(worker.key, worker.wake.set)
            finally:
                RECONCILE_SECONDS.observe(loop.time() - worker.busy_since)
                worker.busy_since = None
        worker.phase = str(this.status.phase or "")
        return pause


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Count the pass by how it ended."""
    try:
        yield
    except Conflict:
        RECONCILES.labels("conflict").inc()
        raise
    except Gone:
        RECONCILES.labels("gone").inc()
        raise
    except Exception:
        RECONCILES.labels("error").inc()
        raise
    RECONCILES.labels("success").inc()


def backoff_seconds(failures: int, chance: float) -> float:
    """Return how long to wait after so many failed passes in a row: doubling, with full jitter in its upper half; chance is in [0, 1)."""
    longest = min(FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), LONGEST_BACKOFF_SECONDS)
    return longest * (0.5 + chance / 2)


def _report(key: Key, error: Exception, pause: float) -> None:
    expected = isinstance(error, (KubeError, SkyPilotError, LeaseTooShortError))
    logger.log(
        logging.WARNING if expected else logging.ERROR,
        "%s: %s; next try in %.0f s",
        key,
        error if expected else repr(error),
        pause,
        exc_info=None if expected else error,
    )


async def _pause(wake: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
