"""What the triggers of one event loop share: one feed for all who wait in a namespace with the same rights, one look at a connection.

A triggerer runs a thousand triggers in one loop; a watch of each would be a thousand connections that kube-apiserver feeds. Who comes first
starts the feed, who leaves last ends it, and who is cancelled ends nothing for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from skyoperator_provider.feed import Connect, Feed, Pace, SkyClusterApi, Subscription

DELETIONS_AT_ONCE: Final = 16
SOURCE_SECONDS: Final = 60.0
"""How long a change of an Airflow connection may go unnoticed by those who begin to wait."""


@dataclass(frozen=True, slots=True)
class Key:
    """Who can share a watch."""

    host: str
    credentials: str
    """A hash: whoever may not watch must not see through the watch of one who may."""
    namespace: str


@dataclass(frozen=True, slots=True)
class Source:
    """How an API is reached, and with whom."""

    key: Key
    connect: Connect


@dataclass(slots=True)
class _Known:
    """A source, and until when it is believed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    source: Source | None = None
    until: float = 0.0


@dataclass(slots=True)
class _Client:
    """A client that is open, and for how many."""

    api: SkyClusterApi
    stack: AsyncExitStack
    users: int = 0


class Watches:
    """The feeds of one event loop, and what else is better shared by many than done by each."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.deletions = asyncio.Semaphore(DELETIONS_AT_ONCE)
        """For who deletes: a thousand tasks may be cleared at one time."""
        self._feeds: dict[Key, Feed] = {}
        self._sources: dict[Hashable, _Known] = {}
        self._clients: dict[Key, _Client] = {}
        self._opening = asyncio.Lock()

    async def source(self, who: Hashable, find: Callable[[], Awaitable[Source]]) -> Source:
        """Return how the API is reached, found once a minute for all who are the same.

        It takes a question to Airflow and, where the kubeconfig names no authority, 80 ms that block the loop (ssl.create_default_context).
        Raises what `find` raises.
        """
        now = asyncio.get_running_loop().time()
        self._sources = {other: known for other, known in self._sources.items() if known.until > now or known.lock.locked()}
        known = self._sources.setdefault(who, _Known())
        async with known.lock:
            if known.source is None:
                known.source = await find()
                known.until = asyncio.get_running_loop().time() + SOURCE_SECONDS
            return known.source

    @asynccontextmanager
    async def client(self, source: Source) -> AsyncIterator[SkyClusterApi]:
        """Yield a client that all who ask for it at the same time share; the last one closes it. Raises what connecting raises."""
        async with self._opening:
            client = self._clients.get(source.key)
            if client is None:
                stack = AsyncExitStack()
                client = self._clients[source.key] = _Client(await stack.enter_async_context(source.connect()), stack)
            client.users += 1
        try:
            yield client.api
        finally:
            client.users -= 1
            if not client.users:
                del self._clients[source.key]
                await client.stack.aclose()

    @asynccontextmanager
    async def subscribe(self, source: Source, name: str) -> AsyncIterator[Subscription]:
        """Yield a subscription to one object, with its first state known. Raises ApiError."""
        key = source.key
        feed = self._feeds.get(key)
        if feed is None or feed.has_failed:
            feed = self._feeds[key] = Feed(key.namespace, source.connect, self.pace)
        subscription = feed.add(name)
        try:
            await feed.read(subscription)
            yield subscription
        finally:
            feed.remove(subscription)
            if feed.is_empty:
                if self._feeds.get(key) is feed:
                    del self._feeds[key]
                await feed.close()


_OF_LOOPS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Watches]] = WeakKeyDictionary()


def watches() -> Watches:
    """Return the watches of the running event loop."""
    return _OF_LOOPS.setdefault(asyncio.get_running_loop(), Watches())
