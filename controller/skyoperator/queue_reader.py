"""Reads one cluster's job queue again and again, so that no pass over an object ever waits for a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from skyoperator.failures import last_words
from skyoperator.jobs import own_job
from skyoperator.sky.types import Job, JobStatus, SkyPilot, SkyPilotError
from skyoperator.snapshot import monotonic

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 15.0
SLOWER: Final = 1.3
"""By this much each pause is longer than the one before, while nothing changes."""

WORDS_TRIES: Final = 3
TAIL_LINES: Final = 20

T = TypeVar("T")


class QueueReader:
    """`jobs` is the queue as last read, None while it can't be; `taken_at` when that read began, negative before the first."""

    def __init__(self, sky: SkyPilot, *, cluster_name: str, job_name: str, gate: asyncio.Semaphore, changed: Callable[[], None]) -> None:
        self.jobs: tuple[Job, ...] | None = None
        self.words = ""
        self.taken_at = -1.0
        self.job_name = job_name
        self._sky = sky
        self._cluster_name = cluster_name
        self._gate = gate
        self._changed = changed
        self._task = asyncio.create_task(self._run(), name=f"queue of {cluster_name}")

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            first, before = self.taken_at < 0, self.jobs
            await self._read()
            if first or self.jobs != before:
                pause = FIRST_PAUSE_SECONDS
                self._changed()
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER, LONGEST_PAUSE_SECONDS)

    async def _read(self) -> None:
        async with self._gate:
            taken_at = monotonic()
            jobs = await self._or_none(self._sky.jobs(self._cluster_name))
        job = own_job(jobs or (), self.job_name)
        if job is not None and job.status.terminal and job.status is not JobStatus.SUCCEEDED:
            self.words = await self._words(job)
        self.jobs, self.taken_at = jobs, taken_at

    async def _words(self, job: Job) -> str:
        """Return what the log says of the end. Its last line may be written a moment after the status; it holds up nothing for long."""
        for _ in range(WORDS_TRIES):
            tail = await self._or_none(self._sky.log_tail(self._cluster_name, job.id, TAIL_LINES)) or ""
            if words := last_words(tail):
                return words
            await asyncio.sleep(1)
        return ""

    async def _or_none(self, question: Awaitable[T]) -> T | None:
        try:
            return await question
        except SkyPilotError as error:
            logger.debug("%s: not known right now: %s", self._cluster_name, error)
        except Exception:
            logger.exception("%s: SkyPilot's answer makes no sense", self._cluster_name)
        return None
