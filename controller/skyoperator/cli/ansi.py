"""Terminal codes taken out of bytes that arrive in pieces."""

from __future__ import annotations

import re
from typing import Final

ESCAPE: Final = b"\x1b"
PENDING_LIMIT_BYTES: Final = 4096
"""What begins like a code and goes on for longer is none."""

_CODE: Final = re.compile(
    rb"\x1b(?:"
    rb"\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC to BEL or ST
    rb"|[ -/]+[0-~]"  # nF
    rb"|[0-OQ-WYZ\\`-~]"  # Fp, Fe, Fs
    rb")"
)
"""ECMA-48 (5th edition), 5.3 to 5.6."""
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")


class Stripper:
    """Bytes without terminal codes, wherever the pieces were cut."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """Return what of the bytes so far is no code; the beginning of one is kept back until the rest comes."""
        text = _CODE.sub(b"", self._pending + data)
        begun = _BEGUN.search(text)
        start = begun.start() if begun is not None and len(text) - begun.start() <= PENDING_LIMIT_BYTES else len(text)
        self._pending = text[start:]
        return text[:start]

    def end(self) -> bytes:
        """Return what was kept back: it was no code."""
        rest, self._pending = self._pending, b""
        return rest
