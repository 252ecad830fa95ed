"""Wakes many one after the other: at the start and the end of an outage everybody has something to do.

All at once it would hit SkyPilot, which is just coming back, and Kubernetes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

WAKES_PER_SECOND: Final = 50.0


class Turns:
    """The names that wait for their turn; `call` is called with each when it has come."""

    def __init__(self, call: Callable[[str], None]) -> None:
        self._call = call
        self._names: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, names: Iterable[str]) -> None:
        """Let each of the names have its turn, in this order, after those that wait already."""
        self._names.update(dict.fromkeys(names))
        if self._names and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="turns")

    def stop(self) -> None:
        """Call nobody any more."""
        self._names.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._names:
            name = next(iter(self._names))
            del self._names[name]
            self._call(name)
            await asyncio.sleep(1 / WAKES_PER_SECOND)
