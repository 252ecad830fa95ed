"""One log, brought from SkyPilot into the archive: looked at now and then, or followed while somebody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

from skyoperator.logs import frames
from skyoperator.logs.metrics import COLLECTED
from skyoperator.logs.splice import OVERLAP_BYTES, Reading, beginning_of, new_parts
from skyoperator.logs.types import Piece
from skyoperator.sky.logs import LogSource, gathered, lively
from skyoperator.sky.types import SkyPilotError, SkyPilotUnreachable

FEWEST_LINES: Final = 64
MOST_LINES: Final = 1 << 18
ANSWER_LIMIT_BYTES: Final = 8 << 20
"""What is held in memory of one answer; what is longer is streamed."""
WHOLE_BYTES_A_SECOND: Final = 256 << 10
"""At most so much SkyPilot is asked for by reading a log whole again and again while its job runs."""
LONGEST_PAUSE_SECONDS: Final = 3600.0
"""After which it is read whole again all the same."""


class Sink(Protocol):
    """Where a log is kept: the part of a StoredLog that is needed here. Its calls block on a disk."""

    @property
    def size(self) -> int:
        """How many bytes it has had so far."""

    def read(self, offset: int, limit_bytes: int) -> Piece:
        """Return bytes of it."""

    def append(self, data: bytes) -> None:
        """Keep whole lines."""

    def take_frame(self, line: bytes) -> None:
        """Keep a line that carries a part of what the job returns."""


LOOK_SECONDS: Final = 60.0
"""How long SkyPilot may be silent in the middle of an answer."""
PROOF_LIMIT_BYTES: Final = 64 << 20
"""A log that is not longer is read whole when its job has ended. That also proves that it was taken up in the right places: one that says
the same hundred lines again and again, and had said them twice between two looks, was not."""


class StrangeLogError(SkyPilotError):
    """SkyPilot's log is not the one that it was before."""


class Upstream(Protocol):
    """Brings one log. One call at a time."""

    async def look(self, *, is_over: bool = False, is_last: bool = False) -> bool:
        """Bring what is new. Return whether that is the end. Raises SkyPilotError, StrangeLogError.

        `is_over`: its job has ended. `is_last`: what is not had now may be lost, so no trouble is too much.
        """

    async def follow(self) -> bool:
        """Bring what is new, and what comes until the end of it. Return and raise as `look` does."""


class JobUpstream:
    """The log of one job."""

    def __init__(self, source: LogSource, sink: Sink, cluster_name: str, job_id: int) -> None:
        self._source = source
        self._cluster = cluster_name
        self._job = job_id
        self._keeper = Keeper(sink)
        self._lines = FEWEST_LINES
        self._whole_again_at = float("-inf")
        self._is_torn = False
        """Whether its last lines do not tell all that is new."""

    async def look(self, *, is_over: bool = False, is_last: bool = False) -> bool:
        """See `Upstream.look`.

        As few lines as may do are asked for: SkyPilot keeps on its own volume, for a day, all that it ever told (requests.py: log_path).
        What they do not tell is had by reading the log whole: one that floods, or says the same again and again, would need that each time.
        """
        if is_over and self._keeper.size <= PROOF_LIMIT_BYTES:
            return await self._whole(is_over=True)
        if is_over or is_last or not self._is_torn:
            has_ended = await self._last_lines(is_over=is_over)
            self._is_torn = has_ended is None
            if has_ended is not None:
                return has_ended and (self._keeper.size > PROOF_LIMIT_BYTES or await self._whole(is_over=True))
        return (is_over or is_last or _now() >= self._whole_again_at) and await self._whole(is_over=is_over)

    async def _last_lines(self, *, is_over: bool) -> bool | None:
        """Bring what is new by the last lines of the log. Return whether that is the end; None if not all that is new is in them."""
        known = await self._keeper.end_of_known()
        while known and self._lines <= MOST_LINES:
            told = await gathered(self._stream(self._lines, follow=False), ANSWER_LIMIT_BYTES)
            if told is None:
                break
            reading = Reading(frames.is_frame, from_the_beginning=False, is_over=is_over)
            text = reading.feed(told)
            rest, has_ended = reading.end()
            places = new_parts(known, text + rest)
            if len(places) > 1:
                break
            if places:
                (new,) = places
                await self._keeper.keep(new, reading)
                self._lines = min(MOST_LINES, max(FEWEST_LINES, 2 * (known.count(b"\n") + new.count(b"\n"))))
                return has_ended
            self._lines *= 16
        self._lines = FEWEST_LINES
        return None

    async def _whole(self, *, is_over: bool) -> bool:
        has_ended = await self._all(follow=False, is_over=is_over)
        self._is_torn = False
        self._whole_again_at = _now() + whole_pause_seconds(self._keeper.size)
        return has_ended

    async def follow(self) -> bool:
        """See `Upstream.follow`."""
        self._is_torn = False
        return await self._all(follow=True, is_over=False)

    async def _all(self, *, follow: bool, is_over: bool) -> bool:
        reading = Reading(frames.is_frame, from_the_beginning=True, is_over=is_over)
        return await self._keeper.keep_beyond(self._stream(None, follow=follow), reading, is_once=True)

    def _stream(self, lines: int | None, *, follow: bool) -> AsyncGenerator[bytes, None]:
        chunks = self._source.job_log(self._cluster, self._job, lines=lines, follow=follow)
        return chunks if follow else lively(chunks, LOOK_SECONDS)


def whole_pause_seconds(size_bytes: int) -> float:
    """Return how long a log is not read whole again that was just read whole."""
    return 0.0 if size_bytes <= ANSWER_LIMIT_BYTES else min(LONGEST_PAUSE_SECONDS, size_bytes / WHOLE_BYTES_A_SECOND)


def _now() -> float:
    return asyncio.get_running_loop().time()


class LaunchUpstream:
    """The log of a cluster's latest launch. It is short, and has no end that could be told."""

    def __init__(self, source: LogSource, sink: Sink, cluster_name: str) -> None:
        self._source = source
        self._cluster = cluster_name
        self._keeper = Keeper(sink)

    async def look(self, *, is_over: bool = False, is_last: bool = False) -> bool:  # noqa: ARG002 - an Upstream is asked so
        """See `Upstream.look`; False always. A launch that SkyPilot has forgotten is sent again: its new log comes behind the old one."""
        try:
            await self._all()
        except StrangeLogError:
            await self._keeper.take_up(await self._told())
            await self._all()
        return False

    async def _told(self) -> bytes:
        told = await gathered(self._source.launch_log(self._cluster), ANSWER_LIMIT_BYTES)
        reading = Reading(frames.is_frame, from_the_beginning=False, is_over=False)
        return reading.feed(told or b"") + reading.end()[0]

    async def follow(self) -> bool:
        """See `look`: SkyPilot would end to follow it where it likes (sky/server/stream_utils.py:517)."""
        return await self.look()

    async def _all(self) -> None:
        await self._keeper.keep_beyond(
            self._source.launch_log(self._cluster), Reading(frames.is_frame, from_the_beginning=False, is_over=False)
        )


class Keeper:
    """Writes what is new to a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._base = 0
        self._known: bytes | None = None

    async def take_up(self, told: bytes) -> None:
        """Take what is told for another log than what was kept first: of it there is what was kept last, if it begins so, or nothing."""
        offset = max(0, self._sink.size - ANSWER_LIMIT_BYTES)
        kept = await asyncio.to_thread(self._read_from, offset)
        self._base, self._known = self._sink.size - len(kept) + beginning_of(told, kept), None

    @property
    def size(self) -> int:
        """How long what was kept is."""
        return self._sink.size

    async def end_of_known(self) -> bytes:
        """Return the last OVERLAP_BYTES, or all; nothing if there is nothing, or it was not kept."""
        if self._known is None:
            self._known = await asyncio.to_thread(self._read_end)
        return self._known

    def _read_end(self) -> bytes:
        return self._read_from(max(self._base, self._sink.size - OVERLAP_BYTES))

    def _read_from(self, at: int) -> bytes:
        end = b""
        while at < self._sink.size:
            piece = self._sink.read(at, OVERLAP_BYTES)
            if piece.offset != at or not piece.data:
                return b""
            end, at = end + piece.data, piece.end
        return end

    async def keep_beyond(self, chunks: AsyncGenerator[bytes, None], reading: Reading, *, is_once: bool = False) -> bool:
        """Keep what of a whole log is beyond what was kept. Return whether it has ended. Raises StrangeLogError.

        `is_once`: a log that begins again in the middle of the stream ends it, as SkyPilot's connection to the node was lost, and it
        tells all of it anew (sky/backends/backend_utils.py: invoke_skylet_streaming_with_retries).
        """
        behind = Skip(self._sink.size - self._base, await self.end_of_known())
        async with aclosing(chunks):
            has_begun = False
            async for chunk in chunks:
                lines = reading.feed(chunk)
                if is_once and has_begun and reading.begins_again(lines):
                    raise SkyPilotUnreachable("SkyPilot lost its connection to the node, and tells the log from its beginning.")
                has_begun = has_begun or bool(lines)
                await self.keep(behind.new(lines), reading)
        rest, has_ended = reading.end()
        await self.keep(behind.new(rest), reading)
        behind.check()
        return has_ended

    async def keep(self, new: bytes, reading: Reading) -> None:
        """Keep this, and the frames that were read."""
        taken, reading.frames = reading.frames, []
        if new or taken:
            await self._uninterrupted(new, taken)
        if new:
            self._known = ((self._known or b"") + new)[-OVERLAP_BYTES:]

    async def _uninterrupted(self, new: bytes, taken: list[bytes]) -> None:
        """A thread can't be cancelled: who is, waits for it, and what is known is looked up again."""
        writing = asyncio.create_task(asyncio.to_thread(self._write, new, taken))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            self._known = None
            raise

    def _write(self, new: bytes, taken: list[bytes]) -> None:
        if new:
            self._sink.append(new)
            COLLECTED.inc(len(new))
        for line in taken:
            self._sink.take_frame(line)


class Skip:
    """Lets pass what comes after the first so many bytes, if these end as they are known to."""

    def __init__(self, size: int, known: bytes) -> None:
        self._left = size
        self._known = known
        self._end = b""

    def new(self, text: bytes) -> bytes:
        """Return what of this is beyond. Raises StrangeLogError."""
        if self._left == 0:
            return text
        behind = text[: self._left]
        self._left -= len(behind)
        self._end = (self._end + behind)[-OVERLAP_BYTES:]
        if self._left == 0:
            self.check()
        return text[len(behind) :]

    def check(self) -> None:
        """Return if the first so many bytes were all there, and ended as known. Raises StrangeLogError."""
        if self._left > 0 or not self._end.endswith(self._known):
            raise StrangeLogError("SkyPilot's log of the job is not the one that it was: what was kept is not how it begins.")
