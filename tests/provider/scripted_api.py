"""SkyClusters in memory, behind the same interface as Kubernetes', with everything that can go wrong on the way: on demand."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from skyoperator_provider.errors import ApiError, ChangedError
from skyoperator_provider.hooks.logs import LogPiece, Place
from skyoperator_provider.watches import Page

Json = dict[str, Any]

NAMESPACE = "ml"


class ScriptedApi:
    """One namespace. Each change has a version; a watch tells them in order unless the script says otherwise."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        """Watches from an older version meet a 410."""
        self.objects: dict[str, Json] = {}
        self.changes: list[tuple[int, Json]] = []
        self.calls: Counter[str] = Counter()
        self.faults: defaultdict[str, deque[Exception | None]] = defaultdict(deque)
        """By method: raised by the next calls of it, one each; None is no fault."""
        self.forever: dict[str, ApiError] = {}
        self.held: dict[str, asyncio.Event] = {}
        """By method: what a call waits for after it has looked, and before it answers."""
        self.open_watches = 0
        self.most_open_watches = 0
        self.open_clients = 0
        self.watched_from: list[str] = []
        self.contexts: list[contextvars.Context] = []
        self.logs: dict[int, bytes] = {}
        self.log_calls: list[Place] = []
        self._moved = asyncio.Event()
        self._interruptions = 0
        self._interruption: ApiError | None = None

    def put(
        self,
        name: str,
        conditions: Mapping[str, str] | None = None,
        *,
        uid: str | None = None,
        annotations: Json | None = None,
        status: Json | None = None,
    ) -> Json:
        """Create or change an object, with these conditions of its present generation."""
        self.version += 1
        there = self.objects.get(name)
        found: Json = {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": uid or (there["metadata"]["uid"] if there else f"uid-of-{name}"),
                "generation": 1,
                "resourceVersion": str(self.version),
                "annotations": annotations if annotations is not None else (there or {"metadata": {}})["metadata"].get("annotations", {}),
            },
            "spec": {"task": {"run": "x" * 1000}},
            "status": {
                **(status or {}),
                "conditions": [
                    {"type": type_, "status": value, "reason": f"{type_}Reason", "message": f"{type_} it is", "observedGeneration": 1}
                    for type_, value in (conditions or {}).items()
                ],
            },
        }
        self.objects[name] = found
        self._tell("MODIFIED" if there else "ADDED", found)
        return found

    def mark_deleting(self, name: str) -> None:
        """As Kubernetes does with an object that has a finalizer."""
        self.version += 1
        self.objects[name]["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": str(self.version)}
        self._tell("MODIFIED", self.objects[name])

    def remove(self, name: str) -> None:
        """Take an object away."""
        self.version += 1
        gone = self.objects.pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", gone)

    def tell(self, type_: str, found: Json) -> None:
        """Send an event that is no change: a bookmark, one that was told before, one that comes too late."""
        self._tell(type_, found)

    def bookmark(self) -> None:
        """Send the version that everything is at, and nothing else."""
        self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def interrupt(self, error: ApiError | None = None) -> None:
        """End the watches that are open: with an error, or as a server ends them whose time-out is over."""
        self._interruptions += 1
        self._interruption = error
        self._moved.set()

    def expire(self) -> None:
        """Forget all changes: who watches from before meets a 410."""
        self.oldest = self.version
        self.changes.clear()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[ScriptedApi]:
        """Yield itself, as a client."""
        self.contexts.append(contextvars.copy_context())
        await self._answered("connect")
        self.open_clients += 1
        try:
            yield self
        finally:
            self.open_clients -= 1

    async def list(self, namespace: str, *, limit: int, continue_: str = "") -> Page:
        assert namespace == NAMESPACE
        first, version = map(int, continue_.split("@")) if continue_ else (0, self.version)
        found = sorted(self.objects)
        items = [deepcopy(self.objects[name]) for name in found[first : first + limit]]
        await self._answered("list")
        return Page(items, str(version), f"{first + limit}@{version}" if first + limit < len(found) else "")

    async def get(self, namespace: str, name: str) -> Json | None:
        assert namespace == NAMESPACE
        found = deepcopy(self.objects.get(name))
        await self._answered("get")
        return found

    async def delete(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        await self._answered("delete")
        found = self.objects.get(name)
        if found is None:
            return
        if (found["metadata"]["uid"], found["metadata"]["resourceVersion"]) != (uid, resource_version):
            raise ChangedError("the object has been modified", status=HTTPStatus.CONFLICT)
        self.remove(name)

    async def watch(self, namespace: str, *, resource_version: str, timeout_seconds: int) -> AsyncGenerator[Json, None]:
        assert namespace == NAMESPACE
        assert timeout_seconds <= 55
        self.watched_from.append(resource_version)
        await self._answered("watch")
        if int(resource_version) < self.oldest:
            raise ApiError("too old resource version", status=HTTPStatus.GONE, reason="Expired")
        interruptions, sent = self._interruptions, 0
        self.open_watches += 1
        self.most_open_watches = max(self.most_open_watches, self.open_watches)
        changes = self.changes
        try:
            while True:
                while sent < len(changes):
                    version, event = changes[sent]
                    sent += 1
                    if version > int(resource_version):
                        yield deepcopy(event)
                if interruptions != self._interruptions:
                    if self._interruption is not None:
                        raise self._interruption
                    return
                self._moved.clear()
                await self._moved.wait()
        finally:
            self.open_watches -= 1

    async def log(self, namespace: str, name: str, place: Place) -> LogPiece:
        self.log_calls.append(place)
        await self._answered("log")
        assert place.attempt is not None
        assert place.uid == self.objects[name]["metadata"]["uid"]
        log = self.logs.get(place.attempt)
        if log is None:
            return LogPiece(b"", None, "absent", "there is no log")
        if place.offset_bytes > len(log):
            raise ApiError("offsetBytes is beyond the end", status=HTTPStatus.BAD_REQUEST)
        begin = len(log) if place.tail_lines == 0 else place.offset_bytes
        end = len(log) if place.limit_bytes is None else min(begin + place.limit_bytes, len(log))
        return LogPiece(log[begin:end], end, "live", "")

    def _tell(self, type_: str, found: Json) -> None:
        self.changes.append((self.version, {"type": type_, "object": deepcopy(found)}))
        self._moved.set()

    async def _answered(self, method: str) -> None:
        self.calls[method] += 1
        if method in self.held:
            await self.held[method].wait()
        await asyncio.sleep(0)
        self._raise(method)

    def _raise(self, method: str) -> None:
        fault = self.faults[method].popleft() if self.faults[method] else None
        if fault is not None:
            raise fault
        if method in self.forever:
            raise self.forever[method]


async def until(condition: Any) -> None:
    """Return once it holds: the loop is let run, and the clock is not asked. Fails if it never does."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")
