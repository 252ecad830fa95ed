"""In-memory Kubernetes for one kind, and a door that can be slammed: at any call, before or after it has had its effect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from skyoperator.api.v1alpha1 import FINALIZER, SkyCluster, SkyClusterStatus
from skyoperator.kube import Conflict, Gone, Key

from tests.unit.build import stored


class Crash(BaseException):
    """The process died here."""


@dataclass
class FakeKube:
    """Keeps objects as kube-apiserver does: resource versions, 409 on a stale write, gone with the last finalizer."""

    objects: dict[str, SkyCluster] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    writes: int = 0
    watched: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a user wrote an object: what a watch tells the controller."""
    versions: Any = field(default_factory=lambda: itertools.count(2))

    def create(self, this: SkyCluster) -> Key:
        self.objects[this.uid] = this
        return Key(this.namespace, this.name, this.uid)

    def delete(self, key: Key) -> None:
        this = self.objects[key.uid]
        self._put(this.model_copy(update={"deleting": True}))
        self.watched.set()

    def edit(self, key: Key, **spec: Any) -> None:
        this = self.objects[key.uid]
        self._put(this.model_copy(update={"spec": this.spec.model_copy(update=spec), "generation": this.generation + 1}))
        self.watched.set()

    def _put(self, this: SkyCluster) -> SkyCluster:
        this = this.model_copy(update={"resource_version": str(next(self.versions))})
        if this.deleting and not this.finalizers:
            self.objects.pop(this.uid)
            self.watched.set()
        else:
            self.objects[this.uid] = this
        return this

    def _fresh(self, this: SkyCluster) -> SkyCluster:
        now = self.objects.get(this.uid)
        if now is None:
            raise Gone(this.name)
        if now.resource_version != this.resource_version:
            raise Conflict(this.name)
        return now

    async def get(self, key: Key) -> SkyCluster:
        if key.uid not in self.objects:
            raise Gone(str(key))
        return self.objects[key.uid]

    async def put_status(self, this: SkyCluster, status: SkyClusterStatus) -> SkyCluster:
        self.writes += 1
        return self._put(self._fresh(this).model_copy(update={"status": stored(status)}))

    async def set_finalizer(self, this: SkyCluster, *, present: bool) -> None:
        self._put(self._fresh(this).model_copy(update={"finalizers": (FINALIZER,) if present else ()}))

    async def event(self, this: SkyCluster, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        self.events.append((reason, note))


@dataclass
class Door:
    """Stands before a server; counts the calls through it and slams at call number `slam_at`."""

    target: Any
    counter: Any
    slam_at: int | None = None
    before: bool = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.target, name)

        async def through(*args: Any, **kwargs: Any) -> Any:
            slams = next(self.counter) == self.slam_at
            if slams and self.before:
                raise Crash(f"before {name}")
            result = await method(*args, **kwargs)
            if slams:
                raise Crash(f"after {name}")
            return result

        return through
