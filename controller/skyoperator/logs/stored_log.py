"""One log on the volume: its bytes, what its job returned, and about.json, which tells what happened to them."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from skyoperator.logs import frames, segments
from skyoperator.logs.about import ABOUT, About, Origin
from skyoperator.logs.body import Body, SegmentError
from skyoperator.logs.disk import Folder
from skyoperator.logs.results import Results
from skyoperator.logs.segments import LONGEST_LINE_BYTES, Cache
from skyoperator.logs.types import LogKey, NoLogError, NothingKnownError, NothingReturnedError, Piece, ResultLostError, State
from skyoperator.logs.waiters import Waiters

logger = logging.getLogger(__name__)

ALL_LIVE: Final = "all logs together take as much of the volume as they may, and none is left that could be removed"
DAMAGED: Final = "a segment was damaged on the volume"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and for how long after the object is gone. Raises ValueError."""

    log_bytes: int
    """Of one log, uncompressed."""
    total_bytes: int
    """Of all of them, on the volume."""
    retention: timedelta
    segment_bytes: int = 2**20

    def __post_init__(self) -> None:
        if self.segment_bytes < 1 or self.log_bytes < 4 * self.segment_bytes:
            raise ValueError(f"a log of {self.log_bytes} bytes must have room for 4 segments of {self.segment_bytes} bytes, 1 at least")


class StoredLog:
    """A `types.Log` that can be written. Made by `Store` alone."""

    def __init__(
        self,
        key: LogKey,
        folder: Folder,
        about: About,
        *,
        saved: bool,
        limits: Limits,
        cache: Cache,
        clock: Callable[[], datetime],
        room: Callable[[int], bool],
    ) -> None:
        self.key = key
        self._folder = folder
        self._about = about
        self._saved = about if saved else None
        self._clock = clock
        self._room = room
        self._segment_bytes = limits.segment_bytes
        self._body = Body(folder, cache, segment_bytes=limits.segment_bytes, log_bytes=limits.log_bytes)
        self._results = Results(folder)
        self._loaded = False
        self._writing = threading.RLock()
        self._waiters = Waiters()

    @property
    def size(self) -> int:
        """See `types.Log`."""
        return self._body.size

    @property
    def state(self) -> State:
        """See `types.Log`. INCOMPLETE too if bytes were lost here."""
        return self._about.outcome

    @property
    def message(self) -> str:
        """See `types.Log`. Tells also what was cut from the middle."""
        return self._about.words(self._cut_bytes())

    @property
    def holes(self) -> tuple[tuple[int, int], ...]:
        """Where bytes are missing: from, and up to but without."""
        return self._body.holes

    @property
    def about(self) -> About:
        """What is noted of it."""
        return self._about

    @property
    def used_bytes(self) -> int:
        """What it takes on the volume."""
        return self._folder.used_bytes

    @property
    def failures(self) -> int:
        """How often the volume refused something, since the process began."""
        return self._folder.failures

    @property
    def holds_result(self) -> bool:
        """Whether there is anything of what the job returned."""
        return self._results.there

    @property
    def live(self) -> bool:
        """Whether more of it may come."""
        return self._about.state is State.LIVE

    async def grown(self, beyond: int) -> None:
        """See `types.Log`."""
        await self._waiters.until(lambda: self.size > beyond or not self.live)

    def load(self) -> None:
        """Look at what is there, once. Raises OSError, and may then be asked again."""
        with self._writing:
            if not self._loaded:
                files = self._folder.scan()
                self._results.load(files)
                try:
                    self._body.load(files, self._about.size)
                except SegmentError as error:
                    self._damaged(error, 0)
                self._account_for_holes()
                self._loaded = True

    def _account_for_holes(self) -> None:
        known = sum(loss.lost_bytes for loss in self._about.losses)
        unknown = sum(end - start for start, end in self.holes) - self._cut_bytes() - known
        if unknown > 0 and not self._about.dropped:
            self._about = self._about.with_loss(unknown, "they are not on the volume any more")

    def take_up(self, origin: Origin) -> None:
        """Go on collecting it. One whose about.json was lost is LIVE again, as far as it is known."""
        with self._writing:
            if not self._about.origin.name:
                fresh = About(origin=origin, created_at=self._about.created_at, gone_since=self._about.gone_since)
                self._about = fresh.with_loss(None, self._about.message)
                self._note()
            elif self._about.origin != origin:
                self._about = self._about.model_copy(update={"origin": origin})
                if self._saved:
                    self._note()

    def append(self, data: bytes) -> None:
        """Add whole lines. What can't be written becomes a hole, of which `message` tells. Nothing is added once it has ended."""
        for piece in segments.pieces(data, self._segment_bytes):
            has_room = self._room(len(piece))  # It may remove other logs: without this one's lock.
            with self._writing:
                if self.live:
                    self._append(piece, has_room=has_room)
            self._waiters.wake()

    def _append(self, piece: bytes, *, has_room: bool) -> None:
        if not has_room:
            self._lost(len(piece), ALL_LIVE)
        elif len(piece) > LONGEST_LINE_BYTES:
            self._lost(len(piece), f"a line is longer than {LONGEST_LINE_BYTES} bytes")
        else:
            try:
                self._begin()
                self._body.write(piece)
            except OSError as error:
                self._lost(len(piece), self._refused("append", error))
        self._cut()

    def _begin(self) -> None:
        """Have about.json there before anything that it tells of."""
        if self._saved is None:
            self._save()

    def _cut(self) -> None:
        if cut := self._body.too_much():
            self._about = self._about.with_cut(cut[0].offset, cut[-1].end)
            self._note()
            self._body.remove(cut)

    def lose(self, count_bytes: int | None, why: str) -> None:
        """Note that so many bytes, or an unknown number, could not be had; what is appended next stands behind so many."""
        with self._writing:
            if self.live:
                self._lost(count_bytes, why)
        self._waiters.wake()

    def _lost(self, count_bytes: int | None, why: str) -> None:
        self._body.skip(count_bytes or 0)
        self._about = self._about.with_loss(count_bytes, why)
        self._note()

    def take_frame(self, line: bytes) -> None:
        """Keep a line that carries a part of the value that the job returns. Raises ValueError if it does not."""
        frame = frames.parse(line)
        if frame is None:
            raise ValueError(f"no frame: {line[:80]!r}")
        has_room = self._room(len(line))
        with self._writing:
            if self.live and not self._about.result_lost:
                try:
                    self._take(frame, has_room=has_room)
                except OSError as error:
                    self._result_lost(self._refused("keep a part of the result", error))
                except ResultLostError as error:
                    self._result_lost(str(error))

    def _take(self, frame: frames.Frame, *, has_room: bool) -> None:
        if not has_room:
            raise ResultLostError(ALL_LIVE)
        self._begin()
        self._results.take(frame)

    def _result_lost(self, why: str) -> None:
        self._about = self._about.model_copy(update={"result_lost": why})
        self._note()

    def finish(self, state: State, message: str) -> None:
        """Say how it ended; only the first time counts. What can't be written down now is tried again by `settle`."""
        with self._writing:
            if self.live and state is not State.LIVE:
                self._body.pack()
                self._settle_result()
                self._about = self._about.with_end(state, message, self._clock())
                self._note()
        self._waiters.wake()

    def _settle_result(self) -> None:
        if self._about.result_lost:
            self._results.forget()
            return
        try:
            self._results.settle()
        except ResultLostError as error:
            self._result_lost(str(error))
        except OSError as error:
            self._folder.failed("write the result", error)

    def result(self) -> bytes:
        """Return the JSON that the job returned. Raises NoLogError, ResultLostError; OSError where the disk does not answer."""
        if self.live:
            raise NoLogError(f"{self._name} has not ended: what it returns is known once it has")
        if self._about.result_lost:
            raise ResultLostError(f"what {self._name} returned can't be had: {self._about.result_lost}")
        value = self._results.read()
        if value is not None:
            return value
        if self.state is State.INCOMPLETE:
            raise NothingKnownError(f"if {self._name} returned a value, that was in what is missing: {self.message}")
        raise NothingReturnedError(f"{self._name} ended without returning a value")

    def read(self, offset: int, limit_bytes: int) -> Piece:
        """See `types.Log`. At most to the end of a segment. Raises OSError where the disk does not answer."""
        return self._had(lambda: self._body.read(offset, limit_bytes))

    def offset_of_last_lines(self, lines: int) -> int:
        """See `types.Log`. Lines before a hole count like others. Raises OSError where the disk does not answer."""
        return self._had(lambda: self._body.offset_of_last_lines(lines))

    def _had(self, reading: Callable[[], _T]) -> _T:
        while True:
            try:
                return reading()
            except SegmentError as error:
                with self._writing:
                    if self._body.has(error.segment):
                        self._body.remove([error.segment])
                        self._damaged(error, error.segment.length)

    def _damaged(self, error: SegmentError, lost_bytes: int) -> None:
        logger.warning("%s: the segment at %d is lost: %s", self._folder.path, error.segment.offset, error)
        self._about = self._about.with_loss(lost_bytes or None, DAMAGED)
        self._note()

    def set_gone(self, since: datetime | None) -> None:
        """Note since when its object is gone; None if it is there."""
        with self._writing:
            if self._about.gone_since != since:
                self._about = self._about.model_copy(update={"gone_since": since})
                if self._saved:
                    self._note()

    def settle(self) -> None:
        """Try again to write what could not be written."""
        with self._writing:
            begun = self._saved is not None or self.size > 0 or not self.live
            if begun and self._saved != self._about:
                self._note()
            if not self.live:
                self._body.pack()

    def drop(self, *, result_too: bool) -> None:
        """Make room: remove its bytes and, if asked to, what the job returned, but not what is noted of it. Raises OSError."""
        with self._writing:
            self.load()
            self._about = self._about.model_copy(update={"dropped": True})
            self._note()
            self._body.remove_all()
            if result_too:
                self._result_lost(self._about.result_lost or "it was removed to make room for others")
                self._results.forget()

    def remove(self) -> None:
        """Remove it altogether. Who has it still finds it ended, and empty."""
        with self._writing:
            about = self._about.with_end(State.INCOMPLETE, "it was removed", self._clock()) if self.live else self._about
            self._about = about.model_copy(update={"dropped": True, "result_lost": "it was removed with its log"})
            self._body.remove_all()
            self._folder.remove()
        self._waiters.wake()

    @property
    def _name(self) -> str:
        origin = self._about.origin
        return f"attempt {self.key.attempt} of {origin.namespace}/{origin.name}"

    def _cut_bytes(self) -> int:
        cut = self._about.cut
        return sum(max(0, min(end, cut.end) - max(start, cut.start)) for start, end in self.holes) if cut else 0

    def _refused(self, deed: str, error: OSError) -> str:
        self._folder.failed(deed, error)
        code = errno.errorcode.get(error.errno or 0, "no code")
        return f"the volume did not take them: {os.strerror(error.errno) if error.errno else error} ({code})"

    def _note(self) -> None:
        try:
            self._save()
        except OSError as error:
            self._folder.failed("note what is known of it", error)

    def _save(self) -> None:
        about = self._about.model_copy(update={"size": self.size})
        self._folder.replace(ABOUT, about.model_dump_json(indent=1).encode())
        self._about = self._saved = about
