"""One log read through a door, to its end or while it grows, with offsets that are exact.

The log is always asked for with its terminal codes, so that the bytes that arrive are the bytes that offsets count. A broken
connection is found again at the byte where it broke: neither lost nor written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from skyoperator.cli import pace
from skyoperator.cli.door import Door
from skyoperator.cli.errors import CliError, DroppedError, StatusError
from skyoperator.cli.http import Answer, Query
from skyoperator.cli.meter import Meter
from skyoperator.cli.sink import Sink
from skyoperator.logs.types import State

PAGE_BYTES: Final = 4 * 1024 * 1024
"""How much is asked for at a time. A page is written once it is there as a whole, so one that breaks off is asked for again."""
SILENT_SECONDS: Final = 300.0
"""A stream that is silent for so long is asked for anew: it may be dead, and a dead one does not say so."""
POLL_SECONDS: Final = 2.0
PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0)
"""After each broken connection in a row that brought nothing; together two and a half minutes, in which a server restarts."""
PASSING: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
"""Refusals that pass by themselves."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How far reading has come, and the log itself."""

    offset: int
    state: State
    message: str


def stand_of(answer: Answer) -> Stand:
    """Return what the headers say. Raises CliError if they say nothing: what answered is no log service."""
    headers = answer.headers
    try:
        return Stand(
            int(headers["Skyoperator-Next-Offset"]), State(headers["Skyoperator-Log-State"]), headers.get("Skyoperator-Log-Message", "")
        )
    except (KeyError, ValueError) as error:
        raise CliError(f"The answer is not that of skyoperator's log service, or of another version's: {error}") from error


def _is_final(error: DroppedError | StatusError) -> bool:
    """Return whether asking again would be refused again."""
    return isinstance(error, StatusError) and error.code not in PASSING


class Reading:
    """A log and the place in it where reading stands."""

    def __init__(self, door: Door, query: Query, sink: Sink, *, tail_lines: int | None = None, streams: bool = True) -> None:
        self._door = door
        self._query = [*query, ("ansi", "true")]
        self._sink = sink
        self._start = [] if tail_lines is None else [("tailLines", str(tail_lines))]
        self._offset: int | None = 0 if tail_lines is None else None
        self._streams = streams

    def to_end(self) -> Stand:
        """Write all there is by now. Raises StatusError, DroppedError, CliError."""
        while True:
            answer = self._door.request([*self._query, *self._where(), *self._limit()])
            stand = stand_of(answer)
            self._sink.write(answer.read())
            if stand.offset == self._offset:
                return stand
            self._offset = stand.offset

    def follow(self, not_there: Callable[[StatusError], None]) -> Stand:
        """Write all there is and all that comes, until the log has ended.

        While there is no such log `not_there` is called: it waits, or raises. Raises StatusError, DroppedError, CliError.
        """
        failures = 0
        while True:
            before = self._offset
            try:
                stand = self.to_end()
            except (DroppedError, StatusError) as error:
                failures = failures + 1 if self._offset == before else 0
                self._recover(error, failures, not_there)
                continue
            if stand.state is not State.LIVE:
                return stand
            failures = 0
            self._more()

    def _recover(self, error: DroppedError | StatusError, failures: int, not_there: Callable[[StatusError], None]) -> None:
        """Wait, if what went wrong may pass; raise it if not."""
        if isinstance(error, StatusError) and error.code == HTTPStatus.NOT_FOUND:
            not_there(error)
            return
        if _is_final(error) or failures >= len(PAUSES_SECONDS):
            raise error
        self._door.renew()
        pace.pause(PAUSES_SECONDS[failures])

    def _more(self) -> None:
        """Write what comes until the stream ends or breaks. A log that is filtered is polled: what it leaves out counts in offsets too."""
        before = self._offset
        try:
            if self._streams:
                self._stream()
        except (DroppedError, StatusError) as error:
            if _is_final(error):
                raise
            self._door.renew()
        if self._offset == before:
            pace.pause(POLL_SECONDS)

    def _stream(self) -> None:
        answer = self._door.request([*self._query, *self._where(), ("follow", "true")], SILENT_SECONDS)
        meter = Meter(self._offset or 0)
        for chunk in answer.chunks():
            self._sink.write(meter.feed(chunk))
            self._offset = meter.offset

    def _where(self) -> Query:
        return self._start if self._offset is None else [("offsetBytes", str(self._offset))]

    def _limit(self) -> Query:
        return [] if self._offset is None else [("limitBytes", str(PAGE_BYTES))]
