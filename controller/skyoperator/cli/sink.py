"""Where a log's bytes go."""

from __future__ import annotations

from typing import BinaryIO

from skyoperator.cli.ansi import Stripper


class Sink:
    """Standard output, as bytes; without terminal codes unless they are wanted."""

    def __init__(self, out: BinaryIO, *, keeps_codes: bool) -> None:
        self._out = out
        self._stripper = None if keeps_codes else Stripper()

    def write(self, data: bytes) -> None:
        """Write them, and have them seen at once. Raises BrokenPipeError."""
        self._out.write(self._stripper.feed(data) if self._stripper else data)
        self._out.flush()

    def end(self) -> None:
        """Write what was kept back. Raises BrokenPipeError."""
        if self._stripper:
            self._out.write(self._stripper.end())
            self._out.flush()
