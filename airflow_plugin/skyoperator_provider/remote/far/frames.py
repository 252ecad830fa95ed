"""Writes a value into the job's log, in the lines that the log process takes out of it again (docs/design/logs.md, Frames)."""

from __future__ import annotations

import base64
import hashlib
import os
import select
import threading
import zlib

VALUE_BYTES = 512 * 1024
PART_CHARACTERS = 3072


class TooLongError(ValueError):
    """The JSON text of a value is longer than a log may carry."""


def write(descriptor: int, text: bytes) -> None:
    """Write this JSON text, a frame at a time. Raises TooLongError before anything is written.

    Each frame is one write below 4,096 bytes, so no other process's output gets into it (PIPE_BUF, pipe(7)). The line before it may be half
    a line of somebody's, which would be taken out of the log together with the frame: hence the line ends before.
    """
    before = b"\n"
    for line in lines(text, os.urandom(8).hex()):
        _write_at_once(descriptor, before + line)
        before = b"\n" if _others_write() else b""


def lines(text: bytes, identifier: str) -> list[bytes]:
    """Return the frames of this JSON text, with their line ends. Raises TooLongError."""
    check_length(text)
    whole = base64.b64encode(zlib.compress(text, 9)).decode()
    parts = [whole[at : at + PART_CHARACTERS] for at in range(0, len(whole), PART_CHARACTERS)]
    digest = hashlib.sha256(text).hexdigest()
    return [f"[skyoperator:result:1 {identifier} {i}/{len(parts)} {digest} {part}]\n".encode() for i, part in enumerate(parts, 1)]


def check_length(text: bytes) -> None:
    """Raise TooLongError if this JSON text is longer than a log may carry."""
    if len(text) > VALUE_BYTES:
        raise TooLongError(
            f"{len(text)} bytes of JSON, more than {VALUE_BYTES}; store it where both sides reach it, and return its address"
        )


def _write_at_once(descriptor: int, line: bytes) -> None:
    while line:
        line = line[_written(descriptor, line) :]


def _written(descriptor: int, line: bytes) -> int:
    """Return how much was written: of a pipe all or, if somebody made it non-blocking and it is full, nothing (pipe(7))."""
    try:
        return os.write(descriptor, line)
    except BlockingIOError:
        select.select([], [descriptor], [])
        return 0


def _others_write() -> bool:
    """Tell whether another thread or a child of this process may be writing now."""
    if threading.active_count() > 1:
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
