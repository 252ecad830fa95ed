"""From a log's bytes to what a reader sees, piece by piece: one node's lines, no escape sequences, holes as lines of their own."""

from __future__ import annotations

import re
from typing import Final

from skyoperator.logs.types import CUT_HERE, OWN_LINE, Piece

MAX_SEQUENCE_BYTES: Final = 2048
"""Longer than any that a program sends: beyond that an escape byte is just dropped, so that what is held back is bounded."""
MAX_PREFIX_BYTES: Final = 512
"""SkyPilot's prefix is the name of a task or node, a rank, a pid and an address, in colours."""

# ECMA-48: control sequences (CSI), strings up to their terminator (OSC, DCS, SOS, PM, APC), and the short ones.
_CSI: Final = rb"\[[0-?]{0,64}[ -/]{0,8}"
_STRING: Final = rb"\][^\x07\x1b\n]{0,%d}" % MAX_SEQUENCE_BYTES
_OTHER_STRING: Final = rb"[PX^_][^\x1b\n]{0,%d}" % MAX_SEQUENCE_BYTES
_ESCAPE: Final = re.compile(
    rb"\x1b(?:"
    rb"(?:" + _CSI + rb"[@-~]|" + _STRING + rb"(?:\x07|\x1b\\)|" + _OTHER_STRING + rb"\x1b\\|[ -/]{1,8}[0-~]|[0-OQ-WYZ\\`-~])"
    rb"|(?P<begun>(?:" + _CSI + rb"|" + _STRING + rb"\x1b?|" + _OTHER_STRING + rb"\x1b?|[ -/]{0,8})\Z)"
    rb")?"
)

# (head, rank=0, pid=12) and (worker1, rank=1, pid=12, ip=10.0.0.2); on one node (task, pid=12): sky/skylet/executor/slurm.py:256,
# sky/backends/task_codegen.py:660, and Ray appends pid and ip. The name of a task may hold anything but a line end.
_PREFIX: Final = re.compile(rb"(?:\x1b\[[0-9;]*m)*\((?:[^,\n]+, rank=(?P<rank>[0-9]+), pid=[0-9]+(?:, ip=[^)\n]+)?|[^,\n]+, pid=[0-9]+)\)")


class Plain:
    """Takes escape sequences out, also those that two pieces share. No escape byte ever comes through."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is plain by now."""
        if not self._begun and b"\x1b" not in data:
            return data
        data, self._begun = self._begun + data, b""
        return _ESCAPE.sub(self._taken_out, data)

    def finish(self) -> bytes:
        """Return what is left at the end. A sequence that was begun there is none of it."""
        self._begun = b""
        return b""

    def _taken_out(self, match: re.Match[bytes]) -> bytes:
        if match["begun"] is not None:
            self._begun = match[0]
        return b""


class OneNode:
    """Lets through the lines of one node of several, whatever their length."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._head = b""
        self._verdict: bool | None = None
        """Whether the line we are in is one of them; None while its prefix is not whole."""

    def feed(self, data: bytes) -> bytes:
        """Return the part of it that belongs to the node's lines, as far as that is known."""
        return b"".join(self._of_line(part) for part in data.splitlines(keepends=True))

    def finish(self) -> bytes:
        """Return what is left at the end."""
        head, self._head = self._head, b""
        is_ours = self._verdict is None and self._is_ours(head)
        self._verdict = None
        return head if is_ours else b""

    def _of_line(self, part: bytes) -> bytes:
        if self._verdict is None:
            part, self._head = self._head + part, b""
            if len(part) < MAX_PREFIX_BYTES and not part.endswith(b"\n"):
                self._head = part
                return b""
            self._verdict = self._is_ours(part)
        is_ours = self._verdict
        if part.endswith(b"\n"):
            self._verdict = None
        return part if is_ours else b""

    def _is_ours(self, head: bytes) -> bool:
        """A line without a rank is one of a cluster of one node, or none of a task."""
        found = _PREFIX.match(head[:MAX_PREFIX_BYTES])
        return found is not None and int(found["rank"] or 0) == self._rank


class Rendering:
    """What a reader sees of pieces that follow one another, from an offset on."""

    def __init__(self, offset: int, *, rank: int | None, ansi: bool) -> None:
        self._offset = offset
        self._filters: tuple[OneNode | Plain, ...] = (*([OneNode(rank)] if rank is not None else []), *([] if ansi else [Plain()]))
        self._is_at_line_start = True

    def feed(self, piece: Piece) -> bytes:
        """Return what is to be seen of it: first of all, that something was cut before it."""
        cut_bytes = piece.offset - self._offset
        self._offset = piece.end
        return (self.line(f"{cut_bytes} {CUT_HERE}") if cut_bytes > 0 else b"") + self._seen(self._through(piece.data))

    def line(self, words: str) -> bytes:
        """Return a line of our own: after what was held back, and never in the middle of another."""
        before = self.finish()
        line = f"{OWN_LINE}{words}]\n".encode()
        return before + self._seen(line if self._is_at_line_start else b"\n" + line)

    def finish(self) -> bytes:
        """Return what was held back, at the end."""
        rest = b""
        for step in self._filters:
            rest = step.feed(rest) + step.finish()
        return self._seen(rest)

    def _through(self, data: bytes) -> bytes:
        for step in self._filters:
            data = step.feed(data)
        return data

    def _seen(self, data: bytes) -> bytes:
        if data:
            self._is_at_line_start = data.endswith(b"\n")
        return data
