"""In-memory Kubernetes for one kind, a scripted SkyPilot, and a process that can die at any of its calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from skyoperator.api.v1alpha1 import FINALIZER, SkyCluster, SkyClusterStatus
from skyoperator.kube import Conflict, Gone, Key
from skyoperator.sky.types import Cluster, ClusterNotUp, Job, Launched, Request, RequestError, UnknownRequest

from tests.unit.build import NOW, stored

T = TypeVar("T")


class Crash(BaseException):
    """The process died here."""


class AnInstallation:
    """Whose clusters these are. Nothing is left behind on purpose."""

    def label(self) -> str:
        return "test"

    async def release(self, cluster_name: str) -> None:
        raise AssertionError("nothing here is left behind on purpose")


@dataclass
class FakeKube:
    """Keeps objects as kube-apiserver does: resource versions, 409 on a stale write, gone with the last finalizer."""

    objects: dict[str, SkyCluster] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    writes: int = 0
    watchers: list[asyncio.Event] = field(default_factory=list)
    """Set whenever somebody but the controller's status writes changed an object: what a watch tells each controller."""
    versions: Any = field(default_factory=lambda: itertools.count(2))

    def create(self, this: SkyCluster) -> Key:
        self.objects[this.uid] = this
        return Key(this.namespace, this.name, this.uid)

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    def delete_by_user(self, key: Key) -> None:
        this = self.objects[key.uid]
        self._put(this.model_copy(update={"deleted_at": NOW}))
        self._tell()

    def annotate(self, key: Key, **facts: Any) -> None:
        self._put(self.objects[key.uid].model_copy(update=facts))
        self._tell()

    def edit(self, key: Key, **spec: Any) -> None:
        this = self.objects[key.uid]
        self._put(this.model_copy(update={"spec": this.spec.model_copy(update=spec), "generation": this.generation + 1}))
        self._tell()

    def _put(self, this: SkyCluster) -> SkyCluster:
        this = this.model_copy(update={"resource_version": str(next(self.versions))})
        if this.deleting and not this.finalizers:
            self.objects.pop(this.uid)
            self._tell()
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

    async def delete(self, this: SkyCluster) -> None:
        self._put(self._fresh(this).model_copy(update={"deleted_at": NOW}))
        self._tell()

    async def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        return self.config_maps.get(name)

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        return self.secrets.get(name)

    async def event(self, this: SkyCluster, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        self.events.append((reason, note))


@dataclass(frozen=True)
class Call:
    """One call that a process began."""

    at: float
    name: str
    of: str = ""
    """The cluster, if it is about one."""


@dataclass
class FakeSky:
    """A SkyPilot that says what it is told to. A question takes its `seconds`; its answer is as things were when it was asked.

    `failures` strike questions by their name, until they are taken out.
    """

    server: str = "sky"
    active: tuple[Request, ...] = ()
    ended: tuple[Request, ...] = ()
    rows: tuple[Cluster, ...] = ()
    queues: dict[str, tuple[Job, ...]] = field(default_factory=dict)
    logs: dict[int, str] = field(default_factory=dict)
    addresses: dict[str, dict[str, str]] = field(default_factory=dict)
    """By cluster: where its ports are reached."""
    names: dict[str, str | None] = field(default_factory=dict)
    results: dict[str, Launched | RequestError] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """By question, or by cluster for its queue."""
    failures: dict[str, Exception] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def asked(self, name: str) -> list[float]:
        """Return when this was asked."""
        return [call.at for call in self.calls if call.name == name]

    async def _answer(self, name: str, answer: T, *, cluster_name: str = "") -> T:
        self.calls.append(Call(asyncio.get_running_loop().time(), name, cluster_name))
        failure = self.failures.get(name)
        await asyncio.sleep(self.seconds.get(name, 0.0) + self.seconds.get(cluster_name, 0.0))
        if failure is not None:
            raise failure
        return answer

    async def active_requests(self) -> tuple[Request, ...]:
        return await self._answer("active_requests", self.active)

    async def clusters(self) -> tuple[Cluster, ...]:
        return await self._answer("clusters", self.rows)

    async def requests_of(self, cluster_name: str) -> tuple[Request, ...]:
        found = (request for request in (*self.active, *self.ended) if request.cluster_name == cluster_name)
        return await self._answer("requests_of", tuple(found))

    async def task_name_of(self, request_id: str) -> str | None:
        if request_id not in self.names:
            raise UnknownRequest(request_id)
        return await self._answer("task_name_of", self.names[request_id])

    async def result_of(self, request_id: str) -> Launched | RequestError:
        if request_id not in self.results:
            raise UnknownRequest(request_id)
        return await self._answer("result_of", self.results[request_id])

    async def jobs(self, cluster_name: str) -> tuple[Job, ...]:
        if cluster_name not in self.queues:
            raise ClusterNotUp(cluster_name)
        return await self._answer("jobs", self.queues[cluster_name], cluster_name=cluster_name)

    async def log_tail(self, cluster_name: str, job_id: int, lines: int) -> str:
        return await self._answer("log_tail", self.logs.get(job_id, ""), cluster_name=cluster_name)

    async def launch(self, cluster_name: str, task_yaml: str, *, may_send: Callable[[], None]) -> str:
        raise AssertionError("who observes changes nothing")

    async def down(self, cluster_name: str) -> str:
        raise AssertionError("who observes changes nothing")

    async def cancel(self, request_ids: Sequence[str]) -> str:
        raise AssertionError("who observes changes nothing")

    async def cancel_jobs(self, cluster_name: str, job_ids: Sequence[int]) -> str:
        raise AssertionError("who observes changes nothing")

    async def set_autostop(self, cluster_name: str, idle_minutes: int | None) -> str:
        raise AssertionError("who observes changes nothing")

    async def endpoints(self, cluster_name: str) -> dict[str, str]:
        return await self._answer("endpoints", self.addresses.get(cluster_name, {}), cluster_name=cluster_name)

    async def identity(self) -> str:
        return await self._answer("identity", self.server)

    async def check(self) -> None:
        raise AssertionError("a look is check enough")


@dataclass
class Process:
    """One process: what it called, and when it dies: at call number `slam_at`, before or after that has had its effect.

    `meanwhile` is told the number of each call, before it: somebody else may act in between.
    """

    slam_at: int | None = None
    before: bool = False
    meanwhile: Callable[[int], None] = lambda _: None
    seconds: float = 0.0
    """How long each call takes to set out."""
    calls: list[Call] = field(default_factory=list)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def crash(self, where: str) -> Crash:
        self.crashed.set()
        return Crash(where)


@dataclass
class Door:
    """Stands between a process and a server. Whichever task is inside when the process dies, no other comes through any more."""

    target: Any
    process: Process

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.target, name)

        async def through(*args: Any, **kwargs: Any) -> Any:
            process = self.process
            if process.crashed.is_set():
                raise Crash(f"dead before {name}")
            number = len(process.calls)
            slams = number == process.slam_at
            process.meanwhile(number)
            if process.seconds:
                await asyncio.sleep(process.seconds)
            process.calls.append(Call(asyncio.get_running_loop().time(), name))
            if slams and process.before:
                raise process.crash(f"before {name}")
            try:
                return await method(*args, **kwargs)
            finally:
                if slams:
                    raise process.crash(f"after {name}")

        return through
