"""The log of a job that still runs, piece by piece into a task's log: at most so much at a time, and never a reason to fail.

Offsets count the bytes of the log as it was written, and so does everything here: pieces are asked for with their escape sequences, which
are taken out line by line. A line is shown once its end is there; until then its bytes count as not yet read, so that who goes on at
`offset_bytes` begins at the beginning of a line.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from skyoperator_provider.errors import ApiError
from skyoperator_provider.skycluster import attempt_of

if TYPE_CHECKING:
    from skyoperator_provider.feed import SkyClusterApi
    from skyoperator_provider.hooks.logs import LogPiece

LIMIT_BYTES: Final = 64 * 1024
"""Of one log, at one time."""
LONGEST_INTERVAL_SECONDS: Final = 60.0
READ_SECONDS: Final = 15.0
LONGEST_LINE_BYTES: Final = 16 * 1024
"""A line that does not end is shown in parts."""
FAILURES_TO_TELL: Final = 3
"""A log process that restarts is no news."""
LINES_WITHOUT_PAUSE: Final = 100
"""After so many lines the other triggers have their turn."""

_ESCAPE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])?")


class Lines:
    """Bytes, as lines of text. Of a line that a progress bar wrote over and over, the last state that is whole is shown."""

    def __init__(self) -> None:
        self._begun = b""

    @property
    def begun_bytes(self) -> int:
        """How much of the last line is there, and not shown."""
        return len(self._begun)

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that ended."""
        *whole, self._begun = (self._begun + data).split(b"\n")
        before, _, rest = self._begun.rpartition(b"\r")
        if rest:
            self._begun = rest
            whole.extend([before] if before else [])
        if len(self._begun) > LONGEST_LINE_BYTES:
            whole.append(self._begun)
            self._begun = b""
        return [_text(line) for line in whole]

    def finish(self) -> list[str]:
        """Return what has no end and will not have one."""
        begun, self._begun = self._begun, b""
        return [_text(begun)] if begun else []


def _text(line: bytes) -> str:
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return _ESCAPE.sub(b"", shown).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Log:
    """Whose log it is."""

    namespace: str
    name: str
    uid: str
    attempt: int | None
    """The launch whose job runs, or has run; None while there is no job."""


def log_of(body: Mapping[str, Any]) -> Log:
    """Return where an object's log is read, by what the object says."""
    metadata = body["metadata"]
    return Log(metadata["namespace"], metadata["name"], metadata["uid"], attempt_of(body))


class Tail:
    """Shows what a log grew by, as often as it is worth it: less often while nothing comes."""

    def __init__(
        self,
        show: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        offset_bytes: int = 0,
        attempt: int | None = None,
        interval_seconds: float = 10.0,
    ) -> None:
        self._show = show
        self._warn = warn
        self._offset = offset_bytes
        self.attempt = attempt
        """Whose offset it is; None until there was a job."""
        self._shortest_seconds = interval_seconds
        self._interval_seconds = interval_seconds
        self._lines = Lines()
        self._failures = 0
        self._has_told = False
        self._due = self._now() + interval_seconds * random.uniform(0.1, 1.0)

    @property
    def offset_bytes(self) -> int:
        """Where the first byte is that was not shown."""
        return self._offset - self._lines.begun_bytes

    @property
    def seconds_left(self) -> float:
        """How long until the next look."""
        return max(self._due - self._now(), 0.0)

    async def look(self, log: Log, api: Callable[[], Awaitable[SkyClusterApi]], *, at_most_seconds: float = READ_SECONDS) -> None:
        """Show what is new, at most LIMIT_BYTES of it. Whatever keeps it from being read is told once, in the log."""
        before = (self.attempt, self._offset)
        self.attempt = log.attempt if self.attempt is None else self.attempt
        try:
            if self.attempt is not None:
                async with asyncio.timeout(min(READ_SECONDS, at_most_seconds)):
                    await self._read(log, await api())
            self._failures = 0
        except (ApiError, TimeoutError) as error:
            self._failed(error)
        self._rest(is_quiet=before == (self.attempt, self._offset))

    def _rest(self, *, is_quiet: bool) -> None:
        longest = max(LONGEST_INTERVAL_SECONDS, self._shortest_seconds)
        self._interval_seconds = min(self._interval_seconds * 2, longest) if is_quiet else self._shortest_seconds
        self._due = self._now() + self._interval_seconds * random.uniform(0.9, 1.1)

    def _failed(self, error: ApiError | TimeoutError) -> None:
        self._failures += 1
        status = error.status if isinstance(error, ApiError) else None
        if status == HTTPStatus.BAD_REQUEST and self._offset:
            self._begin(self.attempt)
        elif not self._has_told and (self._failures >= FAILURES_TO_TELL or status == HTTPStatus.FORBIDDEN):
            self._has_told = True
            words = str(error) or f"no answer within {READ_SECONDS:.0f} s"
            self._warn(f"The job's log can't be shown here for now: {words}. The task goes on all the same.")

    async def _read(self, log: Log, api: SkyClusterApi) -> None:
        """Read the log of the attempt that was begun; of the next one only when that has no more to give."""
        piece = await self._piece(log, api, offset_bytes=self._offset, limit_bytes=LIMIT_BYTES)
        begin, self._offset = self._offset, piece.next_offset_bytes or self._offset
        await self._say(self._lines.feed(piece.data))
        if self._offset - begin >= LIMIT_BYTES:
            await self._catch_up(log, api)
        elif self._offset == begin and log.attempt not in {None, self.attempt}:
            await self._say(self._lines.finish())
            self._show(f"[skyoperator: attempt {log.attempt} follows]")
            self._begin(log.attempt)

    async def _catch_up(self, log: Log, api: SkyClusterApi) -> None:
        """Skip what can't be shown the next time, if the log grows faster than it may be shown. `tailLines=0` tells where it ends."""
        end = (await self._piece(log, api, tail_lines=0)).next_offset_bytes or self._offset
        behind_bytes = end - self._offset
        if behind_bytes <= LIMIT_BYTES:
            return
        skipped_bytes = behind_bytes - LIMIT_BYTES
        await self._say(self._lines.finish())
        self._show(f"[skyoperator: {skipped_bytes} bytes skipped; kubectl sky logs -n {log.namespace} {log.name} has all of them]")
        self._offset = end - LIMIT_BYTES

    async def _piece(self, log: Log, api: SkyClusterApi, **range_: int) -> LogPiece:
        from skyoperator_provider.hooks.logs import Place  # noqa: PLC0415 - it loads Kubernetes; parsing a DAG must not

        return await api.log(log.namespace, log.name, Place(log.uid, self.attempt, **range_))

    def _begin(self, attempt: int | None) -> None:
        self.attempt, self._offset, self._lines = attempt, 0, Lines()

    async def _say(self, lines: list[str]) -> None:
        for number, line in enumerate(lines, 1):
            self._show(line)
            if number % LINES_WITHOUT_PAUSE == 0:
                await asyncio.sleep(0)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
