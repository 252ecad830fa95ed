"""Coroutines that wait for what a thread does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class Waiters:
    """Those who wait for one thing to change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[asyncio.Future[None]] = set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Return as soon as it is true; asked again after every `wake`."""
        while not true():
            future = asyncio.get_running_loop().create_future()
            with self._lock:
                self._futures.add(future)
            try:
                # It may have become true since it was asked, and whoever made it so has not seen this one.
                if true():
                    return
                await future
            finally:
                with self._lock:
                    self._futures.discard(future)

    def wake(self) -> None:
        """Have all of them look again; may be called in any thread."""
        with self._lock:
            futures, self._futures = self._futures, set()
        for future in futures:
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_done, future)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
