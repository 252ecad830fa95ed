"""Which byte of a log a stream of it has come to.

The log service puts lines of its own between: `[skyoperator: 9 bytes were cut here]` stands for the bytes of a hole, and
`[skyoperator: this ends here: ...]` for none. They are no bytes of the log, so counting alone would go on at the wrong one.
"""

from __future__ import annotations

import re
from typing import Final

from skyoperator.logs.types import CUT_HERE, ENDS_HERE, OWN_LINE

OWN: Final = OWN_LINE.encode()
HELD_LIMIT_BYTES: Final = 65536
_PART: Final = re.compile(rb"[^\n]*\n|[^\n]+")
_CUT: Final = re.compile(re.escape(OWN) + rb"(\d+) " + re.escape(CUT_HERE.encode()) + rb"\]\n")
_ENDS: Final = re.compile(re.escape(OWN + ENDS_HERE.encode()) + rb"[^\n]*\]\n")


class Meter:
    """The offset of the next byte. Streams begin where a line does: the service keeps only whole ones."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._is_at_line_start = True
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown, and count it.

        A line that may turn out to be the service's own is held back until it is whole: should the stream break within it, it was
        neither shown nor counted.
        """
        data, self._held = self._held + data, b""
        seen = []
        for part in _PART.findall(data):
            if self._is_at_line_start and _may_be_own(part):
                self._held = part
                break
            self.offset += _weight(part) if self._is_at_line_start else len(part)
            self._is_at_line_start = part.endswith(b"\n")
            seen.append(part)
        return b"".join(seen)


def _may_be_own(part: bytes) -> bool:
    is_whole = part.endswith(b"\n") or len(part) > HELD_LIMIT_BYTES
    return not is_whole and (part.startswith(OWN) or OWN.startswith(part))


def _weight(line: bytes) -> int:
    """Return how many bytes of the log the line stands for."""
    if cut := _CUT.fullmatch(line):
        return int(cut[1])
    return 0 if _ENDS.fullmatch(line) else len(line)
