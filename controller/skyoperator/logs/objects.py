"""The SkyClusters there are, as the log process knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

from pydantic import ValidationError

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.kube import KubeError

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 5.0


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
    """The objects by name, out of watch events. Each object's namespace is looked up once, when the object is first seen."""

    def __init__(self, namespaces: Namespaces, listener: Listener) -> None:
        self._namespaces = namespaces
        self._listener = listener
        self._events: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._by_name: dict[tuple[str, str], SkyCluster] = {}
        self._namespace_uids: dict[str, str] = {}

    def named(self, namespace: str, name: str) -> tuple[SkyCluster, str] | None:
        """Return the object of that name and the uid of its namespace, or None if there is none now."""
        this = self._by_name.get((namespace, name))
        return None if this is None else (this, self._namespace_uids[this.uid])

    def happened(self, event: Mapping[str, Any]) -> None:
        """Take a watch event; the order in which they come is kept."""
        self._events.put_nowait(event)

    async def run(self) -> None:
        """Work through the events, for ever."""
        while True:
            await self._take(await self._events.get())

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
        self._by_name[this.namespace, this.name] = this
        try:
            self._listener.saw(this, namespace_uid)
        except OSError as error:
            logger.warning("The logs of SkyCluster %s/%s can't be kept now: %s", this.namespace, this.name, error)

    def _forget(self, this: SkyCluster) -> None:
        before = self._by_name.get((this.namespace, this.name))
        if before is not None and before.uid == this.uid:
            del self._by_name[this.namespace, this.name]
        self._namespace_uids.pop(this.uid, None)
        self._listener.gone(this.uid)

    def uids(self) -> frozenset[str]:
        """Return the uids of the objects that are known."""
        return frozenset(this.uid for this in self._by_name.values())

    def forget(self, uids: frozenset[str]) -> None:
        """Forget those that went while nobody watched: kopf tells of none of them."""
        for this in [this for this in self._by_name.values() if this.uid in uids]:
            self._forget(this)

    async def _uid_of(self, namespace: str) -> str | None:
        """Wait for kube-apiserver: without it no event comes either."""
        while True:
            try:
                return await self._namespaces.namespace_uid(namespace)
            except KubeError as error:
                logger.warning("%s", error)
                await asyncio.sleep(AGAIN_SECONDS)
