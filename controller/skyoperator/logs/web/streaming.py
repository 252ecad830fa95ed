"""A log, piece by piece, to one reader: what it holds in memory is that piece, however long the log and however slow the reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import web

from skyoperator.logs.types import Log, Piece, State
from skyoperator.logs.web.parameters import Reading
from skyoperator.logs.web.rendering import Rendering
from skyoperator.logs.web.status import RefusedError

PIECE_BYTES: Final = 64 * 1024
STALL_SECONDS: Final = 600.0
"""For so long a reader may take nothing of what is there for him."""
RECHECK_SECONDS: Final = 60.0
"""How often it is asked again whether he still may."""
READERS: Final = 4
"""Threads that read from the disk, for all: whoever else needs the loop's own threads gets them."""

Result = TypeVar("Result")


class Disk:
    """Where reads that block are done."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or ThreadPoolExecutor(READERS, thread_name_prefix="log-reader")

    async def do(self, read: Callable[..., Result], *arguments: int) -> Result:
        """Return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, read, *arguments)

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()


class RightGoneError(Exception):
    """The reader may no longer read; says why."""


@dataclass(frozen=True, slots=True)
class Range:
    """Which bytes of a log an answer is of. A hole at the start counts for nothing; one further on as the bytes that it was."""

    offset: int
    """Where the reader left off."""
    end: int | None
    """The offset of the byte after the last; None: as far as the log goes."""


async def range_of(log: Log, reading: Reading, disk: Disk) -> Range:
    """Return which bytes are wanted, of the log as it stands; a follower without a limit wants all that come.

    Raises RefusedError, 400, if the log is not that long.
    """
    size, offset = log.size, reading.offset_bytes
    if offset > size:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST,
            f"offsetBytes is {offset}, and the log has {size} bytes so far. Is the offset one of another attempt's log?",
            field="offsetBytes",
        )
    if reading.tail_lines is not None:
        offset = await disk.do(log.offset_of_last_lines, reading.tail_lines)
    end = None if reading.follow else size
    if reading.limit_bytes is not None:
        first = await disk.do(log.read, offset, 1)
        limited = first.offset + reading.limit_bytes
        end = limited if end is None else min(limited, end)
    return Range(offset, end)


@dataclass(slots=True)
class Rights:
    """Whether the reader still may, asked again every minute."""

    check: Callable[[], Awaitable[None]]
    """Raises RightGoneError."""
    seconds: float = RECHECK_SECONDS
    _due: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._due = asyncio.get_running_loop().time() + self.seconds

    def seconds_left(self) -> float:
        """Return when to ask next."""
        return max(self._due - asyncio.get_running_loop().time(), 0.0)

    async def ask_if_due(self) -> None:
        """Raises RightGoneError."""
        if self.seconds_left() <= 0.0:
            await self.check()
            self._due = asyncio.get_running_loop().time() + self.seconds


class StalledError(Exception):
    """The reader takes nothing."""


class Pump:
    """Writes a range of a log to an answer that has begun."""

    def __init__(self, log: Log, answer: web.StreamResponse, disk: Disk, rights: Rights, *, stall_seconds: float = STALL_SECONDS) -> None:
        self._log = log
        self._answer = answer
        self._disk = disk
        self._rights = rights
        self._stall_seconds = stall_seconds

    async def run(self, wanted: Range, rendering: Rendering, *, follow: bool) -> None:
        """Return at the end of the range, or of a log that has ended.

        Raises RightGoneError, StalledError, ConnectionError if the reader is gone, and what reading the log raises.
        """
        offset = wanted.offset
        while wanted.end is None or offset < wanted.end:
            await self._rights.ask_if_due()
            may_grow = follow and self._log.state is State.LIVE
            piece = await self._piece(offset, wanted.end)
            await self.write(rendering.feed(piece))
            if piece.end > offset:
                offset = piece.end
            elif may_grow:
                await self._growth(offset)
            else:
                break
        await self.write(rendering.finish())

    async def write(self, data: bytes) -> None:
        """Return once the reader has room for more. Raises StalledError, ConnectionError."""
        if not data:
            return
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._answer.write(data)
        except TimeoutError as error:
            raise StalledError(f"took less than a piece of {PIECE_BYTES} bytes in {self._stall_seconds:.0f} s") from error

    async def _piece(self, offset: int, end: int | None) -> Piece:
        if end is None:
            return await self._disk.do(self._log.read, offset, PIECE_BYTES)
        piece = await self._disk.do(self._log.read, offset, min(PIECE_BYTES, end - offset))
        start = min(piece.offset, end)
        return Piece(start, piece.data[: end - start])

    async def _growth(self, offset: int) -> None:
        """Return when there is more, or when the reader's right is to be asked for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rights.seconds_left()):
                await self._log.grown(offset)
