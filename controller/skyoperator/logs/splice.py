"""What of an answer of SkyPilot is new. Pure.

SkyPilot tells a job's last N lines, or all of them, but knows no offset. So what is known is found again in what it tells, and whatever
follows is new. Where that could be in more than one place, as in a log that repeats one line, it counts as not found: more is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

BEGINNING: Final = b"Waiting for task resources on "
"""In the line with which SkyPilot begins to stream a job's log (sky/skylet/log_lib.py:41)."""

OVERLAP_BYTES: Final = 2 << 10
"""How much of what is known is looked for."""

_FAREWELL: Final = re.compile(
    rb"(?:\x1b\[[0-9;]*m)*\xe2\x9c\x93 Job finished \(status: [A-Z_]{1,20}\)\.(?:\x1b\[[0-9;]*m)*\n?"
    rb"(?:command terminated with exit code \d{1,3}\n?)?\Z"
)
"""What SkyPilot itself puts behind the log of a job that has ended (log_lib.py:708, ux_utils.py:179); not in the log that it reads from.
Without gRPC kubectl speaks last, where the job did not succeed: SkyPilot's reader then exits with 100 (sky/exceptions.py: JobExitCode)."""

_CONTROL: Final = re.compile(rb"<sky-payload[^>]*>.*?</sky-payload>(?:\n|(?=.))", re.DOTALL)
_LAST_CONTROL: Final = re.compile(rb"<sky-payload[^>]*>.*?</sky-payload>\Z", re.DOTALL)
"""What is meant for SkyPilot's own CLI, such as the heartbeat; it may stand in the middle of a line that has no end yet."""
_CONTROL_BEGINS: Final = b"<sky-payload"
_CONTROL_LIMIT_BYTES: Final = 64 << 10
"""What is longer and never ends is a line of the job's, that looks like one of SkyPilot's."""


class Lines:
    """A stream of SkyPilot's, put into the form in which logs are kept: whole lines that end in a line feed."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now."""
        text = _CONTROL.sub(b"", self._rest + chunk)
        certain = text[: _control_begins(text)]
        whole = _unix(certain.removesuffix(b"\r"))
        end = whole.rfind(b"\n") + 1
        self._rest = whole[end:] + (b"\r" if certain.endswith(b"\r") else b"") + text[len(certain) :]
        return whole[:end]

    def rest(self) -> bytes:
        """Return what came after the last line end; nothing follows it any more."""
        text, self._rest = _unix(_LAST_CONTROL.sub(b"", self._rest)), b""
        return text


def _control_begins(text: bytes) -> int:
    """Where something of SkyPilot's begins that has no end yet, perhaps just its first letter; the text's end if nothing does."""
    at = text.find(_CONTROL_BEGINS)
    if at >= 0:
        return at if len(text) - at <= _CONTROL_LIMIT_BYTES else len(text)
    begun = next((length for length in range(len(_CONTROL_BEGINS) - 1, 0, -1) if text.endswith(_CONTROL_BEGINS[:length])), 0)
    return len(text) - begun


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


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
        """Return the rest, and whether SkyPilot said farewell: then the log has ended. Only then a line without an end counts."""
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
