"""The words that collecting, keeping and serving a log share."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

OWN_LINE: Final = "[skyoperator: "
"""How a line of the server's own begins; it is no part of the log. The words of those that a reader must know:"""
CUT_HERE: Final = "bytes were cut here"
ENDS_HERE: Final = "this ends here: "


class Kind(StrEnum):
    """Whose log it is."""

    JOB = "job"
    LAUNCH = "launch"


class State(StrEnum):
    """How far a log has come."""

    LIVE = "live"
    """More of it may come."""
    COMPLETE = "complete"
    """It has ended, and was had to its end. Bytes may have been cut from its middle, by the bound."""
    INCOMPLETE = "incomplete"
    """It has ended, but not all of it was had."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """Which log. By uids: a namespace or an object that was made anew never reads its predecessor's."""

    namespace_uid: str
    object_uid: str
    attempt: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a log, and where they stand in it. `offset` is beyond the one that was asked for where bytes were cut."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset of the byte after these."""
        return self.offset + len(self.data)


class Log(Protocol):
    """One log as it stands: bytes 0 to size, some of which may have been cut."""

    @property
    def size(self) -> int:
        """How many bytes it has had so far, those that were cut included: the offset of the next one."""

    @property
    def state(self) -> State:
        """How far it has come."""

    @property
    def message(self) -> str:
        """What is missing and why, for people; empty if nothing is."""

    def read(self, offset: int, limit_bytes: int) -> Piece:
        """Return at most so many bytes from there on; none at the end. Blocks on a disk: call it in a thread."""

    def offset_of_last_lines(self, lines: int) -> int:
        """Return where the last so many lines begin. Blocks on a disk."""

    async def grown(self, beyond: int) -> None:
        """Return as soon as size is greater, or the state is no longer LIVE."""


class NoLogError(LookupError):
    """There is no such log; says what there is instead, and what to do."""


class NoObjectError(NoLogError):
    """There is no such log, and no object that could get one: waiting for it is in vain."""


class ResultLostError(LookupError):
    """The job returned a value, but it can't be had any more; says why."""


class NothingReturnedError(NoLogError):
    """The log was had to its end, and the job returned nothing."""


class NothingKnownError(ResultLostError):
    """Nothing tells that the job returned a value; but it may have been in what is missing of its log."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log of an object a reader asks for. Without `job`, `attempt` and `previous` it is the latest attempt's."""

    namespace: str
    name: str
    kind: Kind = Kind.JOB
    uid: str | None = None
    """An object's, to read of one that is gone; it must have lived in this very namespace."""
    attempt: int | None = None
    job: int | None = None
    previous: bool = False


class Changed(Protocol):
    """An asyncio.Event, as far as who waits for it knows it."""

    def clear(self) -> None:
        """Have the next `wait` wait for what comes from now on."""

    async def wait(self) -> object:
        """Return once something has changed."""


class Logs(Protocol):
    """All the logs there are."""

    async def find(self, wanted: Wanted) -> Log:
        """Return it. Raises NoLogError."""

    def changes(self, wanted: Wanted) -> AbstractContextManager[Changed]:
        """While this is open, it is told when `find` may answer otherwise than before."""

    def following(self, log: Log) -> AbstractAsyncContextManager[None]:
        """While this is open the log is kept as fresh as can be; all its readers share one stream from SkyPilot."""

    async def result(self, wanted: Wanted) -> bytes:
        """Return the JSON that the job returned. Raises NoLogError while there is none yet, ResultLostError if there never will be."""
