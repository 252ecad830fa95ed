"""How many queues are read at once, and by whom: a cluster that does not answer must not hold up those that do.

Two lanes. A read that lasts leaves the quick lane, so that the next may begin, and ends on its own. A cluster whose last read went so,
or failed, goes into the slow lane until it answers again. Each lane is first come first served. While the server is away nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

QUICK_READERS: Final = 8
"""SkyPilot's API server answers 5-8 queues a second on 2 cores, and each takes one of its short workers meanwhile."""
SLOW_READERS: Final = 4
PATIENCE_SECONDS: Final = 15.0
"""How long a read may keep its place in the quick lane: 8 at once take some 12 s on the slowest way there is (kubectl exec, 2 cores)."""
READS_PER_SECOND: Final = 4.0
"""What all readers together ask for in the long run: about half of what the server can do."""

T = TypeVar("T")


class Lanes:
    """The one way to what a cluster, and not the server, has to answer."""

    def __init__(self, *, quick: int = QUICK_READERS, slow: int = SLOW_READERS) -> None:
        self.readers = 0
        """How many clusters want to be read again and again."""
        self._quick = asyncio.Semaphore(quick)
        self._slow = asyncio.Semaphore(slow)
        self._open = asyncio.Event()
        self._open.set()

    def server_is(self, *, away: bool) -> None:
        """Stop reading, or go on."""
        if away:
            self._open.clear()
        else:
            self._open.set()

    def longest_pause_seconds(self, least: float) -> float:
        """Return how long a queue in which nothing happens may be left alone: the more there are, the longer."""
        return max(least, self.readers / READS_PER_SECOND)

    async def read(self, question: Callable[[], Awaitable[T]], *, is_slow: bool) -> T:
        """Return the answer, once it is this question's turn and there is one. Raises what it raises."""
        await self._open.wait()
        async with self._slow if is_slow else self._quick:
            asking = asyncio.ensure_future(question())
            try:
                await asyncio.wait({asking}, timeout=None if is_slow else PATIENCE_SECONDS)
            except asyncio.CancelledError:
                asking.cancel()
                raise
        return await asking
