"""The SkyClusters there are, as the log process knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from pydantic import ValidationError

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.kube import KubeError

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 5.0
CATCH_UP_SECONDS: Final = 60.0
"""So long the objects that there were at the start are waited for: one that can't be listed or watched must not shut out the others."""
LIST_AGAIN_SECONDS: Final = 10.0


class Namespaces(Protocol):
    """The part of KubeApi that is needed here."""

    async def namespace_uid(self, name: str) -> str | None:
        """Return the uid of a namespace as it is now, or None if there is none. Raises KubeError."""


class Listener(Protocol):
    """Who wants to know."""

    def saw(self, this: SkyCluster, namespace_uid: str) -> None:
        """Take note of the object as it is now."""

    def gone(self, uid: str) -> None:
        """Take note that it is no more."""


class Objects:
    """The objects there are, out of watch events. Each object's namespace is looked up once, when the object is first seen."""

    def __init__(self, namespaces: Namespaces, listener: Listener) -> None:
        self._namespaces = namespaces
        self._listener = listener
        self._events: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._known: dict[str, SkyCluster] = {}
        self._namespace_uids: dict[str, str] = {}
        self._met: set[str] = set()
        self._taken = asyncio.Event()
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    def namespace_uid_of(self, uid: str) -> str | None:
        """Return the uid of an object's namespace, which never changes; None if the object is not known."""
        return self._namespace_uids.get(uid)

    @contextmanager
    def changes(self, namespace: str, name: str) -> Iterator[asyncio.Event]:
        """While this is open, the event is set each time that more is known of the object of that name."""
        changed, waiting = asyncio.Event(), self._waiting.setdefault((namespace, name), set())
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop((namespace, name), None)

    async def met(self, uids: frozenset[str]) -> None:
        """Return once of each of these an event was worked through."""
        while not uids <= self._met:
            self._taken.clear()
            await self._taken.wait()

    def happened(self, event: Mapping[str, Any]) -> None:
        """Take a watch event; the order in which they come is kept."""
        self._events.put_nowait(event)

    async def run(self) -> None:
        """Work through the events, for ever."""
        while True:
            event = await self._events.get()
            await self._take(event)
            self._tell(event["object"]["metadata"], is_there=event["type"] != "DELETED")

    def _tell(self, metadata: Mapping[str, str], *, is_there: bool) -> None:
        if is_there:
            self._met.add(metadata["uid"])
        for waiting in (self._taken, *self._waiting.get((metadata["namespace"], metadata["name"]), ())):
            waiting.set()

    async def _take(self, event: Mapping[str, Any]) -> None:
        try:
            this = SkyCluster.from_body(dict(event["object"]))
        except ValidationError as error:
            words = error.errors(include_input=False, include_url=False)
            logger.warning("A SkyCluster is not what its CRD lets in, and its logs are not kept: %s", words)
            return
        if event["type"] == "DELETED":
            self._forget(this)
            return
        namespace_uid = self._namespace_uids.get(this.uid) or await self._uid_of(this.namespace)
        if namespace_uid is None:
            return
        self._namespace_uids[this.uid] = namespace_uid
        self._known[this.uid] = this
        self._listener.saw(this, namespace_uid)

    def _forget(self, this: SkyCluster) -> None:
        self._known.pop(this.uid, None)
        self._namespace_uids.pop(this.uid, None)
        self._met.discard(this.uid)
        self._listener.gone(this.uid)

    def uids(self) -> frozenset[str]:
        """Return the uids of the objects that are known."""
        return frozenset(self._known)

    def forget(self, uids: frozenset[str]) -> None:
        """Forget those that went while nobody watched: kopf tells of none of them."""
        for this in [this for this in self._known.values() if this.uid in uids]:
            self._forget(this)

    async def _uid_of(self, namespace: str) -> str | None:
        """Wait for kube-apiserver: without it no event comes either."""
        while True:
            try:
                return await self._namespaces.namespace_uid(namespace)
            except KubeError as error:
                logger.warning("%s", error)
                await asyncio.sleep(AGAIN_SECONDS)


async def catch_up(objects: Objects, uids: Callable[[], Awaitable[frozenset[str]]]) -> None:
    """Return once the watch has told of each object that there was at the start, or it is gone; or after CATCH_UP_SECONDS."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CATCH_UP_SECONDS):
            awaited = await _listed(uids)
            while not await _are_met(objects, awaited):
                awaited &= await _listed(uids)


async def _listed(uids: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
    while True:
        try:
            return await uids()
        except KubeError as error:
            logger.warning("%s", error)
            await asyncio.sleep(LIST_AGAIN_SECONDS)


async def _are_met(objects: Objects, uids: frozenset[str]) -> bool:
    """Return False if it takes so long that it is to be asked whether they are there still."""
    try:
        async with asyncio.timeout(LIST_AGAIN_SECONDS):
            await objects.met(uids)
    except TimeoutError:
        return False
    return True
