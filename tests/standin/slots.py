"""The server's long workers: so many launches at a time, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """A FIFO semaphore whose size may change while it is in use."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, size: int) -> None:
        """Change how many may hold a slot; who holds one keeps it."""
        self._size = size
        self._admit()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one slot."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._used -= 1
            else:
                self._waiting.remove(turn)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._used < self._size:
            turn = self._waiting.popleft()
            self._used += 1
            turn.set_result(None)
