"""What of an answer of SkyPilot is new. Pure.

SkyPilot tells a job's last N lines, or all of them, but knows no offset. So what is known is found again in what it tells, and whatever
follows is new. Where that could be in more than one place, as in a log that repeats one line, all of it is asked for.
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

_COLOURS: Final = rb"(?:\x1b\[[0-9;]{0,16}m){0,8}"
_FAREWELL: Final = re.compile(
    rb"%b\xe2\x9c\x93 Job finished \(status: [A-Z_]{1,20}\)\.%b\n?(?:command terminated with exit code \d{1,3}\n?)?\Z"
    % (_COLOURS, _COLOURS)
)
"""What SkyPilot itself puts behind the log of a job that has ended (log_lib.py:708, ux_utils.py:179); not in the log that it reads from.
Without gRPC kubectl speaks last, where the job did not succeed: SkyPilot's reader then exits with 100 (sky/exceptions.py: JobExitCode)."""
_FAREWELL_BYTES: Final = 512

_CONTROL_HEAD: Final = b"<sky-payload"
_CONTROL_END: Final = b"</sky-payload>"
_LONGEST_CONTROL_BYTES: Final = 1 << 10
_OPENING: Final = re.compile(rb"%b[^<>\n]{0,64}>" % _CONTROL_HEAD)
"""What is meant for SkyPilot's own CLI, such as the heartbeat: JSON, so on one line, and that line's end is SkyPilot's as well
(sky/utils/message_utils.py: encode_payload). It may stand in the middle of a job's line that has no end yet."""
_UNDECIDED: Final = re.compile(
    rb"(?:%b[^<>\n]{0,64}(?:>[^\n]{0,%d})?|%b)\Z"
    % (
        _CONTROL_HEAD,
        _LONGEST_CONTROL_BYTES + len(_CONTROL_END),
        b"|".join(_CONTROL_HEAD[:length] for length in range(len(_CONTROL_HEAD) - 1, 0, -1)),
    )
)
"""What may become one of these, or is one and may yet turn out to have a line end of its own."""
_UNDECIDED_BYTES: Final = 2 * _LONGEST_CONTROL_BYTES
"""More than it can be."""


class Lines:
    """A stream of SkyPilot's, put into the form in which logs are kept: whole lines that end in a line feed, none of them too long.

    Of the stream it holds what may be part of SkyPilot's remarks, and the line that has no end yet.
    """

    def __init__(self) -> None:
        self.last_words = b""
        """The end of what came, with the line ends that it had."""
        self._undecided = b""
        self._line = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now."""
        clean = self._without_controls(chunk)
        self._note(clean)
        whole = self._line + clean
        held = b"\r" if whole.endswith(b"\r") else b""
        text = _broken(_unix(whole.removesuffix(held)))
        end = text.rfind(b"\n") + 1
        self._line = text[end:] + held
        return text[:end]

    def rest(self) -> bytes:
        """Return what came after the last line end; nothing follows it any more."""
        undecided = b"" if any(_controls(self._undecided)) else self._undecided
        self._note(undecided)
        text = _broken(_unix(self._line + undecided))
        self._undecided, self._line = b"", b""
        return text

    def _note(self, clean: bytes) -> None:
        self.last_words = (self.last_words + clean)[-_FAREWELL_BYTES:]

    def _without_controls(self, chunk: bytes) -> bytes:
        text, at, clean = self._undecided + chunk, 0, list[bytes]()
        for begin, end in _controls(text):
            if end == len(text):
                break
            clean.append(text[at:begin])
            at = end + text.startswith(b"\n", end)
        undecided = _UNDECIDED.search(text, max(at, len(text) - _UNDECIDED_BYTES))
        end = len(text) if undecided is None else undecided.start()
        self._undecided = text[end:]
        return b"".join([*clean, text[at:end]])


def _controls(text: bytes) -> Iterator[tuple[int, int]]:
    """Tell where SkyPilot's remarks begin, and where they end but for their line ends."""
    at = 0
    for opening in _OPENING.finditer(text):
        begin, inner = opening.span()
        end = text.find(_CONTROL_END, inner, inner + _LONGEST_CONTROL_BYTES + len(_CONTROL_END))
        if begin >= at and end >= 0 and text.find(b"\n", inner, end) < 0:
            at = end + len(_CONTROL_END)
            yield begin, at


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

    def __init__(self, is_frame: Callable[[bytes], bool], *, from_the_beginning: bool, is_over: bool) -> None:
        self.frames: list[bytes] = []
        """The lines that carry a result, so far."""
        self._is_frame = is_frame
        self._has_begun = not from_the_beginning
        self._is_over = is_over
        self._first_line = b""
        self._lines = Lines()
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are certain now: all but one that may be SkyPilot's farewell, if nothing follows."""
        text = self._held + self._log_of(self._lines.feed(chunk))
        match = _farewell(text)
        held_at = len(text) if match is None else text.rfind(b"\n", 0, match.start()) + 1
        self._held = text[held_at:]
        return text[:held_at]

    def begins_again(self, lines: bytes) -> bool:
        """Whether the log's first line stands in these later lines of it once more."""
        return bool(self._first_line) and (b"\n" + lines).find(b"\n" + self._first_line) >= 0

    def end(self) -> tuple[bytes, bool]:
        """Return the rest, and whether SkyPilot said farewell: then the log has ended. Only then a line without an end counts.

        After a line feed it is SkyPilot's own: a job's lines begin with the job's name, which is put after each line feed
        (ray/_private/worker.py). After other words it is SkyPilot's if the job is over, and left a line without an end; one that runs may
        say so of another that it launched. (One that says so after a carriage return ends its own log: SkyPilot makes that a line feed.)
        """
        rest = self._lines.rest()
        text = self._held + self._log_of(rest)
        last_words = self._lines.last_words.replace(b"\r\n", b"\n")
        said = _FAREWELL.search(last_words)
        if not self._has_begun:
            return b"", said is not None
        match = _farewell(text)
        end = len(text) if match is None else match.start()
        if said is not None and (self._is_over or last_words.endswith(b"\n", 0, said.start())):
            return text[:end], True
        return text[: text.rfind(b"\n", 0, end) + 1], False

    def _log_of(self, lines: bytes) -> bytes:
        if not self._has_begun:
            at = lines.find(BEGINNING)
            if at < 0:
                return b""
            self._has_begun, lines = True, lines[lines.rfind(b"\n", 0, at) + 1 :]
            self._first_line = lines[: lines.find(b"\n") + 1]
        if not self._is_frame(lines):
            return lines
        each = lines.splitlines(keepends=True)
        self.frames += filter(self._is_frame, each)
        return b"".join(line for line in each if not self._is_frame(line))


def _farewell(text: bytes) -> re.Match[bytes] | None:
    return _FAREWELL.search(text, max(0, len(text) - _FAREWELL_BYTES))


def new_parts(known: bytes, told: bytes) -> list[bytes]:
    """Return what follows `known` in `told`, for the first two of the places where that is.

    `known` is the end of what is known, OVERLAP_BYTES of it or all there is; `told` the end of the log as it is now. Less would not do:
    a log may say the same few lines again and again, and what was told begins somewhere among them. In two places it is in none: more
    that is told has them still.
    """
    first = told.find(known) if known else -1
    second = told.find(known, first + 1) if first >= 0 else -1
    return [told[at + len(known) :] for at in (first, second) if at >= 0]


def beginning_of(told: bytes, kept: bytes) -> int:
    """Return from where on all that is kept is how `told` begins; its end if it does not begin so."""
    at = kept.rfind(told[:OVERLAP_BYTES])
    if at >= 0 and told.startswith(kept[at:]):
        return at
    lengths = range(min(len(told), len(kept), OVERLAP_BYTES), 0, -1)
    return next((len(kept) - length for length in lengths if kept.endswith(told[:length])), len(kept))
