"""A value that a job returns by lines in its log: which lines those are, and what they say together. See docs/design/logs.md, Frames."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

VALUE_BYTES: Final = 512 * 1024
"""The longest JSON text that may be returned."""
PART_CHARACTERS: Final = 3072
PARTS: Final = 9999
"""More than any value needs: base64 of what zlib can't make shorter is 228 parts."""

_MARK: Final = b"skyoperator:result:1 "
_FRAME: Final = re.compile(
    rb"\[skyoperator:result:1 (?P<id>[A-Za-z0-9_-]{8,64}) (?P<i>[1-9][0-9]{0,3})/(?P<n>[1-9][0-9]{0,3})"
    rb" (?P<sha256>[0-9a-f]{64}) (?P<part>[A-Za-z0-9+/=]{1,3072})\]"
)
_ANSI: Final = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")


class BrokenValueError(ValueError):
    """A value came complete, but it is none; says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One part of one value."""

    id: bytes
    i: int
    n: int
    sha256: bytes
    part: bytes

    @property
    def value(self) -> tuple[bytes, int, bytes]:
        """What the frames of one value have in common."""
        return (self.id, self.n, self.sha256)


def is_frame(line: bytes) -> bool:
    """Tell whether the line carries a part of a value, and so is taken out of the log."""
    return parse(line) is not None


def parse(line: bytes) -> Frame | None:
    """Return the first frame in the line, whatever stands before it; None if there is none.

    SkyPilot puts `(name, pid=1) ` or `(head, rank=0, pid=1) ` before each line of a job, coloured (sky/backends/task_codegen.py:668).
    """
    if _MARK not in line:
        return None
    every = _FRAME.finditer(_ANSI.sub(b"", line))
    found = next((one for one in every if int(one["i"]) <= int(one["n"])), None)
    if found is None:
        return None
    return Frame(id=found["id"], i=int(found["i"]), n=int(found["n"]), sha256=found["sha256"], part=found["part"])


def encode(text: bytes, identifier: str) -> list[str]:
    """Return the lines, without their ends, that return this JSON text. Raises ValueError if it is none, or too long."""
    if not _ID.fullmatch(identifier):
        raise ValueError(f"{identifier!r} is not 8 to 64 letters, digits, underscores and dashes")
    check_json(text)
    whole = base64.b64encode(zlib.compress(text, 9)).decode()
    parts = [whole[at : at + PART_CHARACTERS] for at in range(0, len(whole), PART_CHARACTERS)]
    digest = hashlib.sha256(text).hexdigest()
    return [f"[skyoperator:result:1 {identifier} {i}/{len(parts)} {digest} {part}]" for i, part in enumerate(parts, 1)]


def assemble(frames: Iterable[Frame]) -> bytes | None:
    """Return the JSON text of the value that was complete last; None if none is. Raises BrokenValueError.

    A broken one hides those before it: the job meant to return it, and not them.
    """
    last = _Values(frames).complete_last
    return None if last is None else _text_of(*last)


def missing(frames: Iterable[Frame]) -> str:
    """Return what is missing of the value that came last, for people."""
    values = _Values(frames)
    if values.last is None:
        return "no part of a value came"
    have, of = len(values.parts[values.last]), values.last[1]
    return f"only {have} of the {of} parts of the value came"


def that_count(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames without those of values that another one, complete later, has taken the place of."""
    values = _Values(frames)
    return list(values.frames_that_count())


class _Values:
    """The values that frames belong to. A frame that comes again, as after a connection was lost, changes nothing."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.parts: dict[tuple[bytes, int, bytes], dict[int, bytes]] = {}
        self.last: tuple[bytes, int, bytes] | None = None
        self._complete: tuple[bytes, int, bytes] | None = None
        for frame in frames:
            self._add(frame)

    def _add(self, frame: Frame) -> None:
        parts = self.parts.setdefault(frame.value, {})
        if parts.get(frame.i) == frame.part:
            return
        parts[frame.i] = frame.part
        self.last = frame.value
        if len(parts) == frame.n:
            self._complete = frame.value

    @property
    def complete_last(self) -> tuple[bytes, bytes] | None:
        """The base64 of the value that was complete last, and its digest."""
        if self._complete is None:
            return None
        parts = self.parts[self._complete]
        return b"".join(parts[i] for i in sorted(parts)), self._complete[2]

    def frames_that_count(self) -> Iterator[Frame]:
        """Give the frames of the value that was complete last, then those of values that may yet be."""
        for value in sorted(self.parts, key=lambda value: value != self._complete):
            identifier, n, sha256 = value
            if value == self._complete or len(self.parts[value]) < n:
                for i, part in self.parts[value].items():
                    yield Frame(id=identifier, i=i, n=n, sha256=sha256, part=part)


def line_of(frame: Frame) -> bytes:
    """Return the frame as a line, with its end."""
    return b"[skyoperator:result:1 %b %d/%d %b %b]\n" % (frame.id, frame.i, frame.n, frame.sha256, frame.part)


def _text_of(whole: bytes, sha256: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(base64.b64decode(whole, validate=True), VALUE_BYTES + 1)
    except (binascii.Error, zlib.error) as error:
        raise BrokenValueError(f"the returned value can't be decoded: {error}") from error
    if len(text) <= VALUE_BYTES and not inflating.eof:
        raise BrokenValueError("the returned value can't be decoded: its end is missing")
    try:
        check_json(text)
    except ValueError as error:
        raise BrokenValueError(f"the returned value is not taken: {error}") from error
    if hashlib.sha256(text).hexdigest().encode() != sha256:
        raise BrokenValueError("the returned value is not the one that was sent: its SHA-256 differs")
    return text


def check_json(text: bytes) -> None:
    """Raise ValueError, with the reason, unless this is JSON in UTF-8, not too long, and without NaN and Infinity (which JSON has not)."""
    if len(text) > VALUE_BYTES:
        raise ValueError(f"it is longer than {VALUE_BYTES} bytes")
    try:
        json.loads(text.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
