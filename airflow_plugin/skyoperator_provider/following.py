"""What a worker does while a SkyCluster runs: look at it now and then, and print what its log has got meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, BinaryIO, Final, Protocol

from skyoperator_provider.errors import ApiError, SkyClusterError
from skyoperator_provider.hooks.skycluster import LogPiece
from skyoperator_provider.ownership import Log, Target
from skyoperator_provider.skycluster import Verdict, WaitFor, attempt_of, log_is_coming, verdict, words
from skyoperator_provider.tail import Lines

PIECE_BYTES: Final = 256 * 1024
LAST_LINES: Final = 20
_END_SECONDS: Final = 45
"""For how long the end of a log is waited for after its job's: the log process comes by every 30 s (docs/logs.md, logs.intervalSeconds)."""

_NO_END: Final = "its end has not come by now. Does the skyoperator's log process run?"

PATIENCE_SECONDS: Final = 600
"""How long an API server may be away."""

Body = dict[str, Any]


class Source(Protocol):
    """What is asked of kube-apiserver: SkyClusterHook's part that this module needs."""

    def read(self, namespace: str, name: str) -> Body | None:
        """As SkyClusterHook.read."""
        ...

    def read_log(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        offset_bytes: int = 0,
        limit_bytes: int | None = None,
        tail_lines: int | None = None,
        attempt: int | None = None,
    ) -> LogPiece:
        """As SkyClusterHook.read_log."""
        ...


class LogStream:
    """One object's log, printed from an offset on, line by line.

    A log that can't be read fails no task: what the job does is not in it.
    """

    def __init__(self, source: Source, target: Target, *, log: Log, offset_bytes: int = 0, attempt: int | None = None) -> None:
        self.offset_bytes = offset_bytes
        self.attempt = attempt
        self.is_over = False
        self._source = source
        self._target = target
        self._log = log
        self._lines = Lines()
        self._complaint = ""

    def turn_to(self, attempt: int | None) -> None:
        """From now on it is that attempt's log: each launch has its own, which begins at its own offset 0."""
        if attempt == self.attempt or attempt is None:
            return
        if self.attempt is not None:
            self.advance()
            self.finish()
            self._log.info("Attempt %s of %s", attempt, self._target)
            self.offset_bytes, self.is_over = 0, False
        self.attempt = attempt

    def advance(self) -> None:
        """Print what there is by now."""
        while not self.is_over:
            piece = self._piece()
            if piece is None:
                return
            self._say(self._lines.feed(piece.data))
            grown = piece.next_offset_bytes is not None and piece.next_offset_bytes > self.offset_bytes
            self.offset_bytes = piece.next_offset_bytes if piece.next_offset_bytes is not None else self.offset_bytes
            if not grown:
                self._note_end(piece)
                return

    def finish(self) -> None:
        """Print the last line, though it has no end."""
        self._say(self._lines.finish())

    def _piece(self) -> LogPiece | None:
        target = self._target
        try:
            return self._source.read_log(
                target.namespace,
                target.name,
                uid=target.uid,
                offset_bytes=self.offset_bytes,
                limit_bytes=PIECE_BYTES,
                attempt=self.attempt,
            )
        except ApiError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log.warning("The log of %s can't be read now: %s", target, error)
            return None

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            self._log.info("%s", line)

    def _note_end(self, piece: LogPiece) -> None:
        self.is_over = piece.state in {"complete", "incomplete"}
        if piece.state == "incomplete":
            self._log.warning("The log of %s is not whole: %s", self._target, piece.message)


class Patience:
    """A job of hours is not given up for an API server that is away for some minutes."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_since: float | None = None

    def bear(self, error: ApiError) -> None:
        """Raises what does not pass by itself, or has not passed for too long."""
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        passes = error.status is None or error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if not passes or now - self._away_since > PATIENCE_SECONDS:
            raise error

    def renew(self) -> None:
        """Take in that there was an answer."""
        self._away_since = None


class Follower:
    """Waits for one object, in a worker's slot."""

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        log: Log,
        poll_seconds: float = 3,
        saw: Callable[[Body | None], None] = lambda _: None,
        is_killed: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._poll_seconds = poll_seconds
        self._saw = saw
        self._is_killed = is_killed
        self._clock = clock
        self._sleep = sleep
        self._said = ""
        self._patience = Patience(clock=clock)

    def wait(self, wait_for: WaitFor, stream: LogStream | None = None) -> Verdict:
        """Return how it ended, with the log printed that far. There is no deadline here: execution_timeout interrupts it.

        Raises ApiError if Kubernetes refuses, or has not answered for so long that nobody knows how the job fares.
        """
        while True:
            self._check()
            end = self._look(wait_for, stream)
            if end is not None:
                return end
            self._sleep(self._poll_seconds)

    def _look(self, wait_for: WaitFor, stream: LogStream | None) -> Verdict | None:
        try:
            body = self._source.read(self._target.namespace, self._target.name)
        except ApiError as error:
            self._patience.bear(error)
            self._log.warning("%s can't be looked at now, and is waited for all the same. %s", self._target, error)
            return None
        self._patience.renew()
        self._saw(body)
        self._tell(body)
        if stream is not None:
            stream.turn_to(attempt_of(body))
            stream.advance()
        return verdict(body, wait_for, uid=self._target.uid)

    def drain(self, stream: LogStream) -> None:
        """Print the rest of the log of a job that has ended. Its end comes some seconds after the job's; if it does not, that is said."""
        deadline = self._clock() + _END_SECONDS
        while True:
            self._check()
            body = self._body_if_it_can_be_had()
            is_ours = body is not None and body["metadata"]["uid"] == self._target.uid
            stream.turn_to(attempt_of(body) if is_ours else None)
            stream.advance()
            if stream.is_over or (is_ours and not log_is_coming(body or {})):
                return stream.finish()
            if not is_ours or self._clock() > deadline:
                return self._give_up(stream)
            self._sleep(self._poll_seconds)

    def _give_up(self, stream: LogStream) -> None:
        stream.finish()
        self._log.warning("The log of %s is not whole: %s", self._target, _NO_END)

    def _body_if_it_can_be_had(self) -> Body | None:
        """The job has ended, and only the end of its log is at stake."""
        try:
            body = self._source.read(self._target.namespace, self._target.name)
        except ApiError:
            return None
        self._saw(body)
        return body

    def last_lines(self) -> list[str]:
        """Return the last lines of the log; none if it can't be had, since there is another error to tell of."""
        target = self._target
        try:
            piece = self._source.read_log(target.namespace, target.name, uid=target.uid, tail_lines=LAST_LINES)
        except ApiError:
            return []
        return [line.decode(errors="replace") for line in piece.data.splitlines()]

    def copy_log(self, to: BinaryIO) -> str:
        """Write the whole log; return what is missing from it, or nothing. Then the last line says so too. Raises ApiError."""
        last_byte, missing = b"\n", ""
        for piece in self._pieces():
            to.write(piece.data)
            last_byte = piece.data[-1:] or last_byte
            missing = "" if piece.state == "complete" else piece.message or _NO_END
        if missing:
            to.write((b"" if last_byte == b"\n" else b"\n") + f"[This log is not whole: {missing}]\n".encode())
        return missing

    def _pieces(self) -> Iterator[LogPiece]:
        """Yield the whole log; the last piece tells how it ended. Raises ApiError."""
        target, offset = self._target, 0
        while True:
            piece = self._source.read_log(target.namespace, target.name, uid=target.uid, offset_bytes=offset, limit_bytes=PIECE_BYTES)
            yield piece
            if piece.next_offset_bytes is None or piece.next_offset_bytes <= offset:
                return
            offset = piece.next_offset_bytes

    def _check(self) -> None:
        if self._is_killed():
            raise SkyClusterError(f"The task was killed while it waited for {self._target}.", reason="Killed")

    def _tell(self, body: Mapping[str, Any] | None) -> None:
        """Say where it is, once for each change."""
        said = words(body)
        if said and said != self._said:
            self._said = said
            self._log.info("%s: %s", self._target, said)


def resumed(source: Source, target: Target, event: Mapping[str, Any], *, log: Log) -> LogStream:
    """Return the log from where the trigger has printed it to."""
    offset_bytes, attempt = event.get("log_offset_bytes") or 0, event.get("log_attempt")
    return LogStream(source, target, log=log, offset_bytes=offset_bytes, attempt=attempt)
