"""Keeps each log that is wanted up to date: one task for each, woken by its object, its readers, or time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.failures import bounded
from skyoperator.kube import Key
from skyoperator.logs.about import Origin
from skyoperator.logs.metrics import ENDED
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import StoredLog
from skyoperator.logs.types import Kind, LogKey, State
from skyoperator.logs.upstream import ANSWER_LIMIT_BYTES, JobUpstream, LaunchUpstream, StrangeLogError, Upstream
from skyoperator.logs.wanted import Pull, pulls
from skyoperator.sky.logs import LogSource
from skyoperator.sky.types import ClusterNotUp, NoSuchCluster, SkyPilotError, SkyPilotUnreachable

logger = logging.getLogger(__name__)

LAST_CALL_SECONDS: Final = 60.0
"""How long a log that must be had now is tried for."""
AGAIN_SECONDS: Final = 2.0
STRANGE_TIMES: Final = 3
"""So often in a row a log must be another than it was before that is believed: what SkyPilot tells may also be cut short."""
FOLLOW_LIMIT_BYTES: Final = 64 << 20
"""A log that is longer is looked at every AGAIN_SECONDS instead of followed: to follow is to be told all of it first."""
EASY_BYTES: Final = ANSWER_LIMIT_BYTES // 4
"""So much of a log may come between two looks. Where more does, the next is sooner: beyond ANSWER_LIMIT_BYTES it takes all of the log."""
VAIN_FACTOR: Final = 4
"""So many times as long as a look took in vain, the next one waits: a node that died takes LOOK_SECONDS of others' turn each time."""
LINGER_SECONDS: Final = 30.0
"""How long a log is still followed after its last reader has gone: readers that poll come back."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how many at a time. SkyPilot has 128 threads for all that is streamed (sky/server/requests/executor.py:97)."""

    interval_seconds: float = 30.0
    looks: int = 8
    last_calls: int = 16
    followed: int = 64
    """Logs beyond that are looked at every AGAIN_SECONDS while they are read."""


class Turns:
    """Who may ask SkyPilot now. Logs whose end must be had do not wait for those that grow."""

    def __init__(self, pace: Pace) -> None:
        self.look = asyncio.Semaphore(pace.looks)
        self.last_call = asyncio.Semaphore(pace.last_calls)
        self.follow = asyncio.Semaphore(pace.followed)


def seconds_to_next(seconds: float, *, grown_bytes: int, vain_seconds: float) -> float:
    """Return when to look next at a log that is to be looked at so often, by what the last look brought, or took in vain."""
    sooner_seconds = max(AGAIN_SECONDS, seconds * EASY_BYTES / max(grown_bytes, 1))
    return max(min(seconds, sooner_seconds), VAIN_FACTOR * vain_seconds)


class Readers:
    """Those who follow one log, from before it is had until after."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        """Set when one comes."""
        self.count = 0
        self._read_at = float("-inf")

    @property
    def are_there(self) -> bool:
        """Whether there is one, or was a moment ago."""
        return self.count > 0 or _now() - self._read_at < LINGER_SECONDS

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one for as long as this is open."""
        self.count += 1
        self.woken.set()
        try:
            yield
        finally:
            self.count -= 1
            self._read_at = _now()


class Collecting:
    """One log that is being had."""

    def __init__(self, key: LogKey, pull: Pull, log: StoredLog, source: LogSource, readers: Readers, *, pace: Pace, turns: Turns) -> None:
        self.key = key
        self.log = log
        self._error: SkyPilotError | None = None
        self._strange = 0
        self._vain_seconds = 0.0
        self._pull = pull
        self._pace = pace
        self._turns = turns
        self._upstream = _upstream(source, log, pull)
        self._readers = readers
        self._woken = readers.woken

    def update(self, pull: Pull) -> None:
        """Take note of what has become of the object."""
        if pull != self._pull:
            self._pull = pull
            self._woken.set()

    def vanished(self) -> None:
        """Take note that the object no longer calls for this log: what can still be had of it is had now."""
        if not self._pull.is_last_call:
            self.update(replace(self._pull, is_last_call=True, was_cut_short=self._pull.kind is Kind.JOB))

    async def run(self) -> None:
        """Return once the log has ended, one way or the other."""
        while self.log.state is State.LIVE:
            self._woken.clear()
            if self._pull.is_last_call:
                await self._last_call()
            else:
                await self._look_and_pause()

    async def _look_and_pause(self) -> None:
        before = self.log.size
        if await self._look():
            await self._finish(State.COMPLETE)
            return
        seconds = AGAIN_SECONDS if self._readers.are_there else self._pace.interval_seconds
        await self._pause(seconds_to_next(seconds, grown_bytes=self.log.size - before, vain_seconds=self._vain_seconds))

    async def _look(self) -> bool:
        """Look once, or follow. Return whether the log has ended."""
        if (
            self._readers.are_there
            and self.log.size <= FOLLOW_LIMIT_BYTES
            and self._pull.kind is Kind.JOB
            and not self._turns.follow.locked()
        ):
            self._vain_seconds = 0.0
            async with self._turns.follow:
                return await self._until_woken(self._bring(self._upstream.follow))
        async with self._turns.look:
            began_at = _now()
            has_ended = await self._bring(self._upstream.look)
            self._vain_seconds = _now() - began_at if self._error else 0.0
            return has_ended

    async def _bring(self, how: Callable[[], Awaitable[bool]]) -> bool:
        try:
            has_ended = await how()
        except OSError as error:
            self._error = SkyPilotUnreachable(f"The volume does not answer: {error}")
            return False
        except SkyPilotError as error:
            self._error = error
            self._strange = self._strange + 1 if isinstance(error, StrangeLogError) else 0
            if self._strange == STRANGE_TIMES:
                await self._finish(State.INCOMPLETE, str(error))
            return False
        self._error, self._strange = None, 0
        return has_ended

    async def _until_woken(self, following: Awaitable[bool]) -> bool:
        """Follow until the log ends, its readers are gone for a while, or it is the last call."""
        task = asyncio.ensure_future(following)
        watch = asyncio.create_task(self._until_unwanted())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            return task.done() and task.result()
        finally:
            for each in (task, watch):
                each.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def _until_unwanted(self) -> None:
        while self._readers.are_there and not self._pull.is_last_call:
            self._woken.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), 1.0)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _last_call(self) -> None:
        """Get all there is: as SkyPilot says itself of a job that has ended, and by one look at what says no end, or is cut short."""
        spent_seconds, pause_seconds = 0.0, AGAIN_SECONDS
        while self.log.state is State.LIVE:
            async with self._turns.last_call:
                has_ended = await self._bring(partial(self._upstream.look, is_over=not self._pull.was_cut_short, is_last=True))
            if self.log.about.ended_at is not None:
                return
            if has_ended or (self._error is None and (self._pull.kind is Kind.LAUNCH or self._pull.was_cut_short)):
                await self._finish_whole()
            elif self._is_in_vain or spent_seconds > LAST_CALL_SECONDS:
                await self._finish(State.INCOMPLETE, f"The end of the log could not be had: {self._error or 'SkyPilot does not tell it.'}")
            else:
                await asyncio.sleep(pause_seconds)
                spent_seconds += 0 if self._is_only_away else pause_seconds
                pause_seconds = min(2 * pause_seconds, self._pace.interval_seconds)

    @property
    def _is_in_vain(self) -> bool:
        """Whether there is nothing any more that could tell the log."""
        return self._pull.is_gone or isinstance(self._error, (NoSuchCluster, ClusterNotUp))

    @property
    def _is_only_away(self) -> bool:
        """Whether a job's log is not had for a reason that says nothing of its cluster: it may take as long as it likes to go away."""
        return self._pull.kind is Kind.JOB and isinstance(self._error, SkyPilotUnreachable)

    async def _finish_whole(self) -> None:
        if self._pull.was_cut_short:
            await self._finish(State.INCOMPLETE, "The cluster was taken down while the job ran: its last lines may be missing.")
        else:
            await self._finish(State.COMPLETE)

    async def _finish(self, state: State, message: str = "") -> None:
        if message:
            message = bounded(message)
            logger.warning("The %s log of %s, attempt %d: %s", self.key.kind, self._pull.cluster_name, self.key.attempt, message)
        ENDED.labels(state).inc()
        await asyncio.to_thread(self.log.finish, state, message)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _upstream(source: LogSource, log: StoredLog, pull: Pull) -> Upstream:
    if pull.job_id is None:
        return LaunchUpstream(source, log, pull.cluster_name)
    return JobUpstream(source, log, pull.cluster_name, pull.job_id)


class Collector:
    """All logs that are being had."""

    def __init__(self, source: LogSource, store: Store, report: Callable[[Key, LogKey, StoredLog], Awaitable[None]], pace: Pace) -> None:
        self._source = source
        self._store = store
        self._report = report
        self._pace = pace
        self._turns = Turns(pace)
        self._seen: set[str] = set()
        self._collecting: dict[LogKey, Collecting] = {}
        self._readers: dict[LogKey, Readers] = {}
        self._tasks: dict[LogKey, asyncio.Task[None]] = {}
        self._again: dict[str, asyncio.TimerHandle] = {}

    def saw(self, this: SkyCluster, namespace_uid: str) -> None:
        """Have the logs that this object calls for; make an end of those of its that it calls for no more.

        What the volume refuses is tried again after a while, or when the object changes.
        """
        self._not_again(this.uid)
        try:
            self._take(this, namespace_uid)
        except OSError as error:
            self._take_again(this, namespace_uid, error)

    def _take_again(self, this: SkyCluster, namespace_uid: str, error: OSError) -> None:
        logger.warning("The logs of SkyCluster %s/%s can't be kept now: %s", this.namespace, this.name, error)
        self._not_again(this.uid)
        self._again[this.uid] = asyncio.get_running_loop().call_later(self._pace.interval_seconds, self.saw, this, namespace_uid)

    def _not_again(self, uid: str) -> None:
        timer = self._again.pop(uid, None)
        if timer is not None:
            timer.cancel()

    def _take(self, this: SkyCluster, namespace_uid: str) -> None:
        wanted = {LogKey(namespace_uid, this.uid, pull.attempt, pull.kind): pull for pull in pulls(this)}
        for key, pull in wanted.items():
            if key in self._collecting:
                self._collecting[key].update(pull)
            else:
                self._begin(this, key, pull)
        self._vanish(key for key in self._collecting if key.object_uid == this.uid and key not in wanted)
        if this.uid not in self._seen:
            self._end_earlier(namespace_uid, this.uid, wanted)
            self._seen.add(this.uid)

    def _end_earlier(self, namespace_uid: str, uid: str, wanted: Collection[LogKey]) -> None:
        """Make an end of the logs of earlier attempts that nobody collected to their ends: their clusters are gone."""
        for key, about in self._store.logs_of(namespace_uid, uid):
            if about.state is State.LIVE and key not in wanted:
                log = self._store.get(key)
                if log is not None:
                    log.finish(State.INCOMPLETE, "Its end came while nobody collected it.")

    def gone(self, uid: str) -> None:
        """Make an end of the logs of an object that is no more, and forget them then."""
        self._seen.discard(uid)
        self._not_again(uid)
        keys = [key for key in self._collecting if key.object_uid == uid]
        self._vanish(keys)
        for key in keys:
            self._tasks[key].add_done_callback(partial(self._forget, key))

    def _forget(self, key: LogKey, _task: object) -> None:
        self._collecting.pop(key, None)
        self._tasks.pop(key, None)
        self._let_go(key)

    @property
    def collecting(self) -> Collection[LogKey]:
        """The logs that are being had, or were, of objects that are there."""
        return self._collecting.keys()

    @asynccontextmanager
    async def reading(self, key: LogKey) -> AsyncIterator[None]:
        """While this is open, the log is kept as fresh as can be, also if its object is first seen meanwhile."""
        readers = self._readers.setdefault(key, Readers())
        try:
            with readers.one_more():
                yield
        finally:
            self._let_go(key)

    def _let_go(self, key: LogKey) -> None:
        readers = self._readers.get(key)
        if readers is not None and not readers.count and key not in self._collecting:
            del self._readers[key]

    async def stop(self) -> None:
        """End all tasks; what they had is kept."""
        for uid in list(self._again):
            self._not_again(uid)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _vanish(self, keys: Iterable[LogKey]) -> None:
        for key in list(keys):
            self._collecting[key].vanished()

    def _begin(self, this: SkyCluster, key: LogKey, pull: Pull) -> None:
        """Nothing of a cluster that is gone is begun anew. A log that the volume refuses holds up no other of the object."""
        try:
            if pull.is_gone and self._store.get(key) is None:
                return
            log = self._store.open(key, Origin(namespace=this.namespace, name=this.name, cluster=pull.cluster_name, job=pull.job_id))
        except OSError as error:
            self._take_again(this, key.namespace_uid, error)
            return
        readers = self._readers.setdefault(key, Readers())
        self._collecting[key] = Collecting(key, pull, log, self._source, readers, pace=self._pace, turns=self._turns)
        self._tasks[key] = asyncio.create_task(self._run(Key(this.namespace, this.name, this.uid), key), name=f"log of {this.name}")

    async def _run(self, of: Key, key: LogKey) -> None:
        """Have one log to its end, and report that. Whatever goes wrong with it, no other is held up."""
        collecting = self._collecting[key]
        is_told = False
        while not is_told:
            try:
                await collecting.run()
                await self._report(of, key, collecting.log)
                is_told = True
            except Exception:
                logger.exception("The %s log of %s, attempt %d, can't be had now.", key.kind, of, key.attempt)
                await asyncio.sleep(self._pace.interval_seconds)
