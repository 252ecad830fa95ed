"""Time as commands spend it; tests put their own in its place."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final, Self

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """When to give up, by a clock that nobody sets."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the one that is so far ahead."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_seconds(self) -> float:
        """How long there is still; never below zero."""
        return max(0.0, self.at - time.monotonic())


def seconds_of(words: str) -> float:
    """Return the duration that is written as kubectl takes it: 90s, 30m, 1h30m. Raises ValueError if it is none."""
    if not (parts := _PART.findall(words)) or "".join(number + unit for number, unit in parts) != words:
        raise ValueError(f"{words!r} is no duration: write 90s, 30m or 1h30m.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
