"""What a reader may ask for, from the query; a word that means nothing is refused with its name, not passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from skyoperator.logs.types import Kind, Wanted
from skyoperator.logs.web.status import RefusedError

WAIT_SECONDS: Final = 300
"""How long a follower waits for a log to begin unless he says otherwise."""
MAX_WAIT_SECONDS: Final = 3600

_LOG: Final = frozenset(
    "follow tailLines offsetBytes limitBytes job previous provision attempt uid rank ansi waitSeconds".split()  # noqa: SIM905
)
_RESULT: Final = frozenset({"job", "attempt", "uid"})
_TOGETHER_MEANINGLESS: Final = (
    ("tailLines", "offsetBytes"),
    ("previous", "attempt"),
    ("previous", "job"),
    ("provision", "job"),
    ("provision", "rank"),
)
_MAX: Final = 2**63 - 1
"""Kubernetes' own numbers are int64."""
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a log is wanted, and how."""

    wanted: Wanted
    follow: bool = False
    wait_seconds: int = WAIT_SECONDS
    tail_lines: int | None = None
    offset_bytes: int = 0
    limit_bytes: int | None = None
    rank: int | None = None
    """Only the lines of that node."""
    ansi: bool = False
    """Leave escape sequences in."""


def reading(namespace: str, name: str, query: Mapping[str, list[str]]) -> Reading:
    """Return what the query of `log` asks for. Raises RefusedError, 400, with the name of the parameter."""
    given = _Given(query, _LOG)
    _check_object(namespace, name)
    given.refuse_together()
    if "waitSeconds" in query and not given.flag("follow"):
        raise _bad("waitSeconds", "waitSeconds means something only with follow=true")
    return Reading(
        wanted=_wanted(namespace, name, given, Kind.LAUNCH if given.flag("provision") else Kind.JOB),
        follow=given.flag("follow"),
        wait_seconds=given.number("waitSeconds", most=MAX_WAIT_SECONDS, default=WAIT_SECONDS),
        tail_lines=given.maybe_number("tailLines"),
        offset_bytes=given.number("offsetBytes", default=0),
        limit_bytes=given.maybe_number("limitBytes", least=1),
        rank=given.maybe_number("rank"),
        ansi=given.flag("ansi"),
    )


def wanted_result(namespace: str, name: str, query: Mapping[str, list[str]]) -> Wanted:
    """Return whose result the query of `result` asks for. Raises RefusedError, 400, with the name of the parameter."""
    given = _Given(query, _RESULT)
    _check_object(namespace, name)
    return _wanted(namespace, name, given, Kind.JOB)


def _wanted(namespace: str, name: str, given: _Given, kind: Kind) -> Wanted:
    return Wanted(
        namespace,
        name,
        kind=kind,
        uid=given.uid(),
        attempt=given.maybe_number("attempt", least=1),
        job=given.maybe_number("job", least=1),
        previous=given.flag("previous"),
    )


def _check_object(namespace: str, name: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise _bad("namespace", f"{namespace!r} can't be the name of a namespace")
    if not _NAME.fullmatch(name):
        raise _bad("name", f"{name!r} can't be the name of a SkyCluster")


class _Given:
    """The parameters that were given, each once."""

    def __init__(self, query: Mapping[str, list[str]], known: frozenset[str]) -> None:
        for key, values in query.items():
            if key not in known:
                raise _bad(key, f"there is no parameter {key!r}; there are {', '.join(sorted(known))}")
            if len(values) > 1:
                raise _bad(key, f"{key} is given {len(values)} times")
        self._values = {key: values[0] for key, values in query.items()}

    def flag(self, key: str) -> bool:
        text = self._values.get(key, "false")
        if text not in {"true", "false"}:
            raise _bad(key, f"{key} must be true or false, not {text!r}")
        return text == "true"

    def number(self, key: str, *, most: int = _MAX, default: int) -> int:
        found = self.maybe_number(key, most=most)
        return default if found is None else found

    def maybe_number(self, key: str, *, least: int = 0, most: int = _MAX) -> int | None:
        text = self._values.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
            limits = f"a whole number of at least {least}" if most == _MAX else f"a whole number from {least} to {most}"
            raise _bad(key, f"{key} must be {limits}, not {text!r}")
        return int(text)

    def uid(self) -> str | None:
        text = self._values.get("uid")
        if text is not None and not _UID.fullmatch(text):
            raise _bad("uid", f"uid must be the metadata.uid of a SkyCluster, not {text!r}")
        return text

    def refuse_together(self) -> None:
        for one, other in _TOGETHER_MEANINGLESS:
            if self._says_something(one) and self._says_something(other):
                raise _bad(other, f"{one} and {other} can't be had together")

    def _says_something(self, key: str) -> bool:
        return self._values.get(key, "false") != "false"


def _bad(field: str, message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message, field=field)
