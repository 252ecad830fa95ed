"""kubectl sky logs: a job's log, and with -f the job's result as exit code."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli import pace, say
from skyoperator.cli.door import Door, DoorOptions, opened
from skyoperator.cli.errors import CliError, EndedError, ExitCode, StatusError
from skyoperator.cli.fields import at, holds, name_of, text
from skyoperator.cli.http import Json, Query
from skyoperator.cli.kube import Kube, connected
from skyoperator.cli.reading import POLL_SECONDS, Reading, Stand
from skyoperator.cli.results import Again, Followed, await_outcome, outcome
from skyoperator.cli.sink import Sink
from skyoperator.cli.target import Target
from skyoperator.logs.types import State


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which log, and how much of it."""

    name: str
    follow: bool = False
    tail_lines: int | None = None
    job: int | None = None
    attempt: int | None = None
    previous: bool = False
    provision: bool = False
    rank: int | None = None
    uid: str | None = None

    def query(self, *, uid: str | None, attempt: int | None) -> Query:
        """Return the parameters that choose the log."""
        chosen = {"uid": uid, "attempt": attempt, "job": self.job, "rank": self.rank}
        flags = {"previous": self.previous, "provision": self.provision}
        return [(key, str(value)) for key, value in chosen.items() if value is not None] + [
            (key, "true") for key, is_set in flags.items() if is_set
        ]


def run(target: Target, options: LogOptions, way: DoorOptions, sink: Sink) -> int:
    """Write the log, and return the exit code. Raises CliError, BrokenPipeError."""
    with connected(target) as kube, opened(kube, options.name, way) as door:
        try:
            if options.follow and options.uid is None:
                return _Following(kube, door, options, sink).run()
            return _show(kube, door, options, sink)
        finally:
            sink.end()


def _show(kube: Kube, door: Door, options: LogOptions, sink: Sink) -> int:
    """Write what there is; also all that comes, of an object that is known by its uid alone."""
    query = options.query(uid=options.uid, attempt=options.attempt)
    reading = Reading(door, query, sink, tail_lines=options.tail_lines, streams=options.rank is None)
    try:
        stand = reading.follow(_raise) if options.follow else reading.to_end()
    except StatusError as error:
        if error.code == HTTPStatus.NOT_FOUND and options.uid is None:
            kube.get(options.name)
        raise
    return _ended(stand)


def _raise(error: StatusError) -> None:
    raise error


def _ended(stand: Stand) -> int:
    """Say what is missing. An incomplete log is no reason to fail: what there is was shown."""
    if stand.message:
        say.note(stand.message)
    elif stand.state is State.INCOMPLETE:
        say.note("The log is incomplete.")
    return ExitCode.OK


class _Following:
    """An object's log, attempt after attempt, until the object says how it ended."""

    def __init__(self, kube: Kube, door: Door, options: LogOptions, sink: Sink) -> None:
        self._kube = kube
        self._door = door
        self._options = options
        self._sink = sink
        self._has_said_waiting = False
        self._tail_lines = options.tail_lines

    def run(self) -> int:
        """Return the exit code. Raises CliError, BrokenPipeError."""
        this = self._kube.get(self._options.name)
        followed = self._followed(this, self._options.attempt or at(this, "status.launch.attempt"))
        while True:
            followed = self._until_launched(followed)
            again = self._followed_to_end(followed)
            if again is None:
                return ExitCode.OK
            say.note(f"Attempt {again.attempt} follows.")
            self._tail_lines = None
            followed = self._followed(this, again.attempt)

    def _followed(self, this: Json, attempt: int | None) -> Followed:
        return Followed(
            name=self._options.name,
            uid=text(this, "metadata.uid"),
            attempt=attempt,
            is_launch=self._options.provision,
            is_chosen=self._options.attempt is not None or self._options.job is not None,
        )

    def _until_launched(self, followed: Followed) -> Followed:
        """Return it with its attempt, once there is one: an offset means nothing in another attempt's log."""
        while followed.attempt is None:
            this = self._still_open(followed)
            followed = self._followed(this, at(this, "status.launch.attempt"))
            if followed.attempt is None:
                self._wait(this)
        return followed

    def _followed_to_end(self, followed: Followed) -> Again | None:
        """Write the attempt's log; return the attempt that came after it, or None if this one succeeded."""
        query = self._options.query(uid=followed.uid, attempt=followed.attempt)
        reading = Reading(self._door, query, self._sink, tail_lines=self._tail_lines, streams=self._options.rank is None)
        try:
            _ended(reading.follow(lambda error: self._not_there(error, followed)))
        except _NextAttemptError as next_:
            return next_.again
        self._has_said_waiting = False
        if self._is_other_job():
            return None
        end = await_outcome(self._kube, followed)
        return end if isinstance(end, Again) else None

    def _is_other_job(self) -> bool:
        """Return whether it is an earlier launch's job: of that the object says nothing, and its log is all there is."""
        return self._options.job is not None and self._options.job != at(self._kube.get(self._options.name), "status.job.id")

    def _not_there(self, error: StatusError, followed: Followed) -> None:
        """Wait for a log that may still come. Raises the error if it can't."""
        this = self._kube.get(self._options.name)
        end = outcome(this, followed)
        if isinstance(end, Again):
            raise _NextAttemptError(end)
        if end is not None or holds(this, ConditionType.COMPLETE):
            raise error
        self._wait(this)

    def _still_open(self, followed: Followed) -> Json:
        """Return the object, which may still be launched. Raises EndedError if not."""
        this = self._kube.get(self._options.name)
        if text(this, "metadata.uid") != followed.uid or holds(this, ConditionType.FAILED) or holds(this, ConditionType.COMPLETE):
            outcome(this, followed)
            raise EndedError(f"{name_of(this)} has ended, and nothing was launched.")
        return this

    def _wait(self, this: Json) -> None:
        if not self._has_said_waiting:
            self._has_said_waiting = True
            say.note(f"{name_of(this)} has no log yet ({text(this, 'status.phase') or 'Pending'}). Waiting for it.")
        pace.pause(POLL_SECONDS)


class _NextAttemptError(CliError):
    """The attempt that was followed is over, without a log; there is another one."""

    def __init__(self, again: Again) -> None:
        super().__init__(f"Attempt {again.attempt} follows.")
        self.again = again
