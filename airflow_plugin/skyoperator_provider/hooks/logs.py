"""What the log API answers about a job (docs/logs.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Literal, TypeAlias, get_args

from skyoperator_provider.errors import ApiError
from skyoperator_provider.hooks.api import Answer, Request, refusal
from skyoperator_provider.hooks.requests import LOGS_ROOT, is_absent

LogState: TypeAlias = Literal["live", "complete", "incomplete", "absent"]

_NEXT_OFFSET = "Skyoperator-Next-Offset"
_LOG_STATE = "Skyoperator-Log-State"
_LOG_MESSAGE = "Skyoperator-Log-Message"
_RESULT_SHA256 = "Skyoperator-Result-SHA256"


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Some bytes of a log, and where the next ones are. They may end within a line, and within a character."""

    data: bytes
    next_offset_bytes: int | None
    """None: there is no log yet, and nothing is known of its length."""
    state: LogState
    """live: more may come. complete: it has ended, and was had to its end. incomplete: it has ended, and not all of it was had.
    absent: there is no such log, or not yet."""
    message: str
    """What is missing, and why."""


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """What a job returned."""

    state: Literal["present", "not yet", "lost"]
    """not yet: there is none. Once the job has ended and its log was collected, that means that it returned none."""
    body: bytes
    """Its JSON text, the digest compared."""
    message: str
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose log, and where in it."""

    uid: str
    attempt: int | None = None
    offset_bytes: int = 0
    limit_bytes: int | None = None
    tail_lines: int | None = None
    """Counts in place of offset_bytes: the API takes one of them."""

    def query(self) -> list[tuple[str, str]]:
        """Return it as the log API's parameters."""
        return list(self._parameters())

    def _parameters(self) -> Iterator[tuple[str, str]]:
        yield "uid", self.uid
        if self.tail_lines is None:
            yield "offsetBytes", str(self.offset_bytes)
        for key, value in (("tailLines", self.tail_lines), ("limitBytes", self.limit_bytes), ("attempt", self.attempt)):
            if value is not None:
                yield key, str(value)


def piece(request: Request, answer: Answer) -> LogPiece:
    """Return the piece of a log that an answer is. Raises ApiError."""
    if is_absent(answer):
        return LogPiece(b"", None, "absent", answer.message)
    if not answer.is_good:
        raise _refused(request, answer)
    state, offset = answer.headers.get(_LOG_STATE), answer.headers.get(_NEXT_OFFSET, "")
    if state not in get_args(LogState) or not re.fullmatch(r"[0-9]{1,19}", offset):
        raise _stranger(request)
    return LogPiece(answer.body, int(offset), state, answer.headers.get(_LOG_MESSAGE, ""))  # type: ignore[arg-type]


def result(request: Request, answer: Answer) -> RemoteResult:
    """Return the result that an answer is. Raises ApiError, also if it is not the text of its digest."""
    if is_absent(answer):
        return RemoteResult("not yet", b"", answer.message)
    if answer.status == HTTPStatus.GONE:
        return RemoteResult("lost", b"", answer.message)
    if not answer.is_good:
        raise _refused(request, answer)
    expected = answer.headers.get(_RESULT_SHA256)
    if expected is None:
        raise _stranger(request)
    if sha256(answer.body).hexdigest() != expected:
        raise ApiError(f"Can't {request.action}: what arrived, {len(answer.body)} bytes, is not what was sent: its SHA-256 is another")
    return RemoteResult("present", answer.body, "")


def door_is_closed(answer: Answer) -> str:
    """Return why logs are not read through this Kubernetes API, by its answer to discovery; empty if they are."""
    if answer.is_good:
        return ""
    if answer.status == HTTPStatus.NOT_FOUND:
        return f"{_CLOSED} {_OPEN_IT}"
    return f"The log API does not answer: {answer.message}. See: kubectl get apiservice"


_CLOSED = f"This Kubernetes API does not serve logs ({LOGS_ROOT})."
_OPEN_IT = "Install the chart with logs.apiService.enabled=true (docs/logs.md)."


def _refused(request: Request, answer: Answer) -> ApiError:
    if answer.status == HTTPStatus.NOT_FOUND:
        return ApiError(f"Can't {request.action}: {answer.message}. {_CLOSED} {_OPEN_IT}", status=answer.status, reason=answer.reason)
    return refusal(request, answer)


def _stranger(request: Request) -> ApiError:
    return ApiError(f"Can't {request.action}: what answers at {request.path} is not skyoperator's log service, or of another version")
