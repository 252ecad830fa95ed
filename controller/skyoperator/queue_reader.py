"""Reads one cluster's job queue again and again, so that no pass over an object ever waits for a cluster.

Often when something has just happened, ever more seldom while nothing does; and a cluster that does not answer, more seldom still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from skyoperator.failures import last_words
from skyoperator.jobs import own_job
from skyoperator.lanes import PATIENCE_SECONDS, Lanes
from skyoperator.sky.types import Job, JobStatus, SkyPilot, SkyPilotError
from skyoperator.snapshot import monotonic

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 10.0
"""So a job's end is seen after 5 s on average, as long as there are few."""
LONGEST_IDLE_PAUSE_SECONDS: Final = 60.0
"""Of a queue in which no job is ours: idleness is counted in minutes."""
LONGEST_SLOW_PAUSE_SECONDS: Final = 60.0
SLOWER: Final = 1.3
"""By this much each pause is longer than the one before, while nothing changes."""

WORDS_TRIES: Final = 3
TAIL_LINES: Final = 20


class QueueReader:
    """`jobs` is the queue as last read, None while it can't be; `taken_at` when that read began, negative before the first.

    Without a `job_name` it just reports the jobs.
    """

    def __init__(self, sky: SkyPilot, *, cluster_name: str, job_name: str, lanes: Lanes, changed: Callable[[], None]) -> None:
        self.jobs: tuple[Job, ...] | None = None
        self.words = ""
        self.taken_at = -1.0
        self.job_name = job_name
        self._sky = sky
        self._cluster_name = cluster_name
        self._lanes = lanes
        self._changed = changed
        self._asked_at = -1.0
        self._time_outs = 0
        self._task = asyncio.create_task(self._run(), name=f"queue of {cluster_name}")

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    async def _run(self) -> None:
        self._lanes.readers += 1
        try:
            pause = FIRST_PAUSE_SECONDS
            while True:
                first, before = self.taken_at < 0, self.jobs
                await self._read()
                if first or self.jobs != before:
                    pause = FIRST_PAUSE_SECONDS
                    self._changed()
                await asyncio.sleep(max(pause, self._slow_pause_seconds()))
                pause = min(pause * SLOWER, self._longest_pause_seconds())
        finally:
            self._lanes.readers -= 1

    def _longest_pause_seconds(self) -> float:
        return self._lanes.longest_pause_seconds(LONGEST_PAUSE_SECONDS if self.job_name else LONGEST_IDLE_PAUSE_SECONDS)

    def _slow_pause_seconds(self) -> float:
        return min(2.0 ** (self._time_outs + 1), LONGEST_SLOW_PAUSE_SECONDS) if self._time_outs else 0.0

    async def _read(self) -> None:
        jobs = await self._lanes.read(self._queue, is_slow=self._time_outs > 0)
        job = own_job(jobs or (), self.job_name) if self.job_name else None
        if job is not None and job.status.terminal and job.status is not JobStatus.SUCCEEDED:
            self.words = await self._words(job)
        self.jobs, self.taken_at = jobs, self._asked_at

    async def _queue(self) -> tuple[Job, ...] | None:
        self._asked_at = monotonic()
        jobs = None
        try:
            jobs = await self._sky.jobs(self._cluster_name)
        except SkyPilotError as error:
            logger.debug("%s: not known right now: %s", self._cluster_name, error)
        except Exception:
            is_news = self.jobs is not None or self.taken_at < 0
            logger.log(logging.ERROR if is_news else logging.DEBUG, "%s: its queue makes no sense", self._cluster_name, exc_info=True)
        is_quick = monotonic() - self._asked_at <= PATIENCE_SECONDS
        self._time_outs = 0 if is_quick else self._time_outs + 1
        return jobs

    async def _words(self, job: Job) -> str:
        """Return what the log says of the end. Its last line may be written a moment after the status; it holds up nothing for long."""
        for _ in range(WORDS_TRIES):
            tail = await self._tail(job)
            if words := last_words(tail):
                return words
            await asyncio.sleep(1)
        return ""

    async def _tail(self, job: Job) -> str:
        try:
            return await self._sky.log_tail(self._cluster_name, job.id, TAIL_LINES)
        except SkyPilotError as error:
            logger.debug("%s: log of job %s not known right now: %s", self._cluster_name, job.id, error)
        except Exception:
            logger.exception("%s: the log of job %s makes no sense", self._cluster_name, job.id)
        return ""
