"""What of an answer of SkyPilot is new. Pure.

SkyPilot tells a job's last N lines, or all of them, but knows no offset. So what is known is found again in what it tells, and whatever
follows is new. Where that could be in more than one place, as in a log that repeats one line, it counts as not found: more is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

BEGINNING: Final = b"Waiting for task resources on "
"""In the line with which SkyPilot begins to stream a job's log (sky/skylet/log_lib.py:41)."""

OVERLAP_BYTES: Final = 2 << 10
"""How much of what is known is looked for."""

LINE_LIMIT_BYTES: Final = 1 << 20
"""What is longer is kept as several lines. Where a line is broken is told by its own bytes alone, however they come."""

_FAREWELL: Final = re.compile(
    rb"(?:\x1b\[[0-9;]*m)*\xe2\x9c\x93 Job finished \(status: [A-Z_]{1,20}\)\.(?:\x1b\[[0-9;]*m)*\n?"
    rb"(?:command terminated with exit code \d{1,3}\n?)?\Z"
)
"""What SkyPilot itself puts behind the log of a job that has ended (log_lib.py:708, ux_utils.py:179); not in the log that it reads from.
Without gRPC kubectl speaks last, where the job did not succeed: SkyPilot's reader then exits with 100 (sky/exceptions.py: JobExitCode)."""

_CONTROL_HEAD: Final = b"<sky-payload"
_CONTROL_END: Final = b"</sky-payload>"
_TYPE: Final = rb"[^<>\n]{0,64}"
_LONGEST_CONTROL_BYTES: Final = 1 << 10
_CONTROL: Final = re.compile(rb"%b%b>[^\n]{0,%d}?%b(?:\n|(?=.))" % (_CONTROL_HEAD, _TYPE, _LONGEST_CONTROL_BYTES, _CONTROL_END), re.DOTALL)
_LAST_CONTROL: Final = re.compile(rb"%b%b>[^\n]{0,%d}?%b\Z" % (_CONTROL_HEAD, _TYPE, _LONGEST_CONTROL_BYTES, _CONTROL_END))
"""What is meant for SkyPilot's own CLI, such as the heartbeat: JSON, so on one line, and that line's end is SkyPilot's as well
(sky/utils/message_utils.py: encode_payload). It may stand in the middle of a job's line that has no end yet."""
_UNDECIDED: Final = re.compile(
    rb"(?:%b(?:%b|%b>[^\n]{0,%d})|%b)\Z"
    % (
        _CONTROL_HEAD,
        _TYPE,
        _TYPE,
        _LONGEST_CONTROL_BYTES + len(_CONTROL_END),
        b"|".join(_CONTROL_HEAD[:length] for length in range(len(_CONTROL_HEAD) - 1, 0, -1)),
    )
)
"""What may become one of these, or is one and may yet turn out to have a line end of its own."""


class Lines:
    """A stream of SkyPilot's, put into the form in which logs are kept: whole lines that end in a line feed, none of them too long.

    Of the stream it holds what may be part of SkyPilot's remarks, and the line that has no end yet.
    """

    def __init__(self) -> None:
        self._undecided = b""
        self._line = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now."""
        whole = self._line + self._without_controls(chunk)
        held = b"\r" if whole.endswith(b"\r") else b""
        text = _broken(_unix(whole.removesuffix(held)))
        end = text.rfind(b"\n") + 1
        self._line = text[end:] + held
        return text[:end]

    def rest(self) -> bytes:
        """Return what came after the last line end; nothing follows it any more."""
        text = _broken(_unix(self._line + _LAST_CONTROL.sub(b"", self._undecided)))
        self._undecided, self._line = b"", b""
        return text

    def _without_controls(self, chunk: bytes) -> bytes:
        text, at, clean = self._undecided + chunk, 0, list[bytes]()
        for found in _CONTROL.finditer(text):
            clean.append(text[at : found.start()])
            at = found.end()
        undecided = _UNDECIDED.search(text, at)
        end = len(text) if undecided is None else undecided.start()
        self._undecided = text[end:]
        return b"".join([*clean, text[at:end]])


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _broken(text: bytes) -> bytes:
    """Return the text, whose first byte begins a line, with line ends where a line would be too long: a job may never end one."""
    if len(text) <= LINE_LIMIT_BYTES:
        return text
    return b"\n".join(piece for line in text.split(b"\n") for piece in _pieces(line))


def _pieces(line: bytes) -> Iterator[bytes]:
    at = 0
    while len(line) - at > LINE_LIMIT_BYTES:
        end = _before_character(line, at + LINE_LIMIT_BYTES)
        yield line[at:end]
        at = end
    yield line[at:]


def _before_character(line: bytes, end: int) -> int:
    """Return the last place at or before this one that is not within a character of UTF-8, which has four bytes at most."""
    return next((at for at in range(end, end - 4, -1) if line[at] & 0xC0 != 0x80), end)


class Reading:
    """One answer of SkyPilot's, read as it comes: the log alone, without SkyPilot's remarks and without the lines that carry a result."""

    def __init__(self, is_frame: Callable[[bytes], bool], *, from_the_beginning: bool) -> None:
        self.frames: list[bytes] = []
        """The lines that carry a result, so far."""
        self._is_frame = is_frame
        self._has_begun = not from_the_beginning
        self._first_line = b""
        self._before = b""
        self._lines = Lines()
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are certain now: all but one that may be SkyPilot's farewell, if nothing follows."""
        text = self._held + self._log_of(self._lines.feed(chunk))
        match = _FAREWELL.search(text)
        held_at = len(text) if match is None else text.rfind(b"\n", 0, match.start()) + 1
        self._held = text[held_at:]
        return text[:held_at]

    def begins_again(self, lines: bytes) -> bool:
        """Whether the log's first line stands in these later lines of it once more."""
        return bool(self._first_line) and (b"\n" + lines).find(b"\n" + self._first_line) >= 0

    def end(self) -> tuple[bytes, bool]:
        """Return the rest, and whether what comes last reads like SkyPilot's farewell; only then a line without an end counts.

        Of a job that has ended it is one. A job that runs may have said so itself, as one does that launches others.
        """
        rest = self._lines.rest()
        text = self._held + self._log_of(rest)
        if not self._has_begun:
            return b"", _FAREWELL.search(self._before + rest) is not None
        match = _FAREWELL.search(text)
        if match is None:
            return text[: text.rfind(b"\n") + 1], False
        return text[: match.start()], True

    def _log_of(self, lines: bytes) -> bytes:
        if not self._has_begun:
            at = lines.find(BEGINNING)
            if at < 0:
                self._before = (self._before + lines)[-512:]
                return b""
            self._has_begun, lines = True, lines[lines.rfind(b"\n", 0, at) + 1 :]
            self._first_line = lines[: lines.find(b"\n") + 1]
        if not self._is_frame(lines):
            return lines
        each = lines.splitlines(keepends=True)
        self.frames += filter(self._is_frame, each)
        return b"".join(line for line in each if not self._is_frame(line))


def new_part(known: bytes, told: bytes) -> bytes | None:
    """Return what follows `known` in `told`; None if that is in no place, or in more than one.

    `known` is the end of what is known, OVERLAP_BYTES of it or all there is; `told` the end of the log as it is now. Less would not do:
    a log may say the same few lines again and again, and what was told begins somewhere among them.
    """
    at = told.find(known)
    if not known or at < 0 or told.find(known, at + 1) >= 0:
        return None
    return told[at + len(known) :]


def beginning_of(told: bytes, kept: bytes) -> int:
    """Return from where on all that is kept is how `told` begins; its end if it does not begin so."""
    first_line = told[: told.find(b"\n") + 1]
    at = kept.find(first_line) if first_line else -1
    while at >= 0 and not told.startswith(kept[at:]):
        at = kept.find(first_line, at + 1)
    return len(kept) if at < 0 else at
