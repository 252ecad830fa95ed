"""The whole of it: two servers, Kubernetes, the user, the clock, and one controller process at a time around the real Reconciler."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from skyoperator.api.v1alpha1 import SkyCluster, SkyClusterStatus
from skyoperator.kube import Conflict, Gone, Key, KubeError
from skyoperator.reconcile import LeaseTooShortError, Reconciler
from skyoperator.records import is_terminated
from skyoperator.sky.client import POST_TIMEOUT_SECONDS
from skyoperator.sky.types import SkyPilotError
from skyoperator.world import World

from tests.machine.calls import Stepped
from tests.machine.door import Door, at
from tests.machine.eyes import Eyes
from tests.machine.invariants import Ledger, check_decision, check_stored, may_be_left
from tests.machine.server import Server
from tests.unit.fakes import FakeKube

ENOUGH_LEASE_SECONDS = 60.0
POLL_SECONDS = 2.0
CALM_POLL_SECONDS = 10.0
RETRY_SECONDS = 2.0


@dataclass
class Kube(FakeKube):
    """Remembers which object the pass that is under way has read."""

    read: SkyCluster | None = None

    async def get(self, key: Key) -> SkyCluster:
        """Return the object."""
        self.read = await super().get(key)
        return self.read


@dataclass
class Installation:
    """Remembers which clusters were left behind on purpose."""

    released: list[str] = field(default_factory=list)

    def label(self) -> str:
        """Return the label of all our clusters."""
        return "test"

    async def release(self, cluster_name: str) -> None:
        """Remember a cluster."""
        self.released.append(cluster_name)


@dataclass
class Stage:
    """Everything that moves."""

    this: SkyCluster
    """As last stored; it stays when the object is gone."""
    ledger: Ledger = field(default_factory=Ledger)
    kube: Kube = field(default_factory=Kube)
    installation: Installation = field(default_factory=Installation)
    now: float = 0.0
    has_slot: bool = True
    lease_seconds: float = ENOUGH_LEASE_SECONDS
    is_gone: bool = False
    was_wiped: bool = False
    """Whether a status was lost, and with it whether the cluster was to go."""
    due_at: float | None = 0.0
    """When the next pass is due if nothing happens before; None: once the object is edited."""
    _flight: Coroutine[Any, Any, Any] | None = None

    def __post_init__(self) -> None:
        self.key = self.kube.create(self.this)
        self.servers = [Server(name, self.ledger.executions, self.ledger.ends) for name in ("first", "second")]
        self.door = Door(self.servers[0], on_launch=self._launches)
        self.start()

    def start(self) -> None:
        """Begin a process: it remembers nothing."""
        self.eyes = Eyes(self.door, lambda: self.now, has_slot=lambda: self.has_slot)
        self.due_at = self.now
        observer: Any = self.eyes
        kube: Any = Stepped(self.kube)
        sky: Any = Stepped(self.door)
        self._reconciler = Reconciler(
            kube=kube,
            sky=sky,
            observer=observer,
            holder=self,
            installation=self,
            post_timeout_seconds=POST_TIMEOUT_SECONDS,
            now=lambda: at(self.now),
        )

    def label(self) -> str:
        """The installation's, on every cluster."""
        return "test"

    async def release(self, cluster_name: str) -> None:
        """What is left behind on purpose is the model's own to know."""

    @property
    def server(self) -> Server:
        """The server that the controller talks to."""
        return self.door.server

    @property
    def is_in_flight(self) -> bool:
        """Whether a pass is under way."""
        return self._flight is not None

    def seconds_left(self) -> float:
        """Return what is left of the lease: the stage is the process's Holder."""
        return self.lease_seconds

    def crash(self) -> None:
        """Kill the process wherever it is, and start another."""
        if self._flight is not None:
            self._flight.close()
            self._flight = None
        self.start()

    def switch_server(self) -> None:
        """Give the controller the other endpoint, which takes a new process."""
        first, second = self.servers
        self.door.server = second if self.server is first else first
        self.crash()

    @property
    def is_elsewhere(self) -> bool:
        """Whether the object's cluster is on the other server."""
        record = self.this.status.cluster
        return record is not None and not is_terminated(self.this.status) and record.server not in {None, self.server.identity}

    def step(self) -> bool:
        """Let the pass make its next call, or begin one; return whether it goes on."""
        if self._flight is None:
            self._flight = self._reconciler.reconcile(self.key, self._wake)
            self.eyes.seen = self.kube.read = None
            self.eyes.woken = False
        try:
            self._flight.send(None)
        except StopIteration as done:
            self._land(done.value[1])
        except Gone:
            self._land(None)
        except (Conflict, KubeError, SkyPilotError, LeaseTooShortError):
            self._land(RETRY_SECONDS)
        except BaseException:
            self._flight = None
            raise
        self._check()
        return self._flight is not None

    def run_pass(self) -> None:
        """Let a pass run to its end."""
        while self.step():
            pass

    def _land(self, pause: float | None) -> None:
        self._flight = None
        self.due_at = None if pause is None else self.now + pause

    def _wake(self) -> None:
        self.eyes.woken = True

    def _forget(self) -> None:
        """Of what no longer shows before a wiped status speaks of a launch again, nobody can know: the record of it begins anew."""
        if self.was_wiped and self.this.status.launch is None:
            self.ledger.forget_all_but({job.name for server in self.servers if server.row is not None for job in server.row.jobs})

    def _check(self) -> None:
        """Check what the last step decided, stored and let go."""
        self._forget()
        read, seen = self.kube.read, self.eyes.seen
        if read is not None and seen is not None:
            self.eyes.seen = None
            check_decision(read, seen[1])
            self.ledger.looked = seen
        before, self.this = self.this, self.kube.objects.get(self.this.uid, self.this)
        if self.this.status != before.status:
            check_stored(before, self.this, self.ledger)
        self.ledger.check_executions()
        if not self.is_gone and self.this.uid not in self.kube.objects:
            self.is_gone = True
            assert may_be_left(self.this) or self.is_clean, f"I2: the object is gone, and left {self.left_overs()}"
            is_whole = not any(server.of("down") for server in self.servers)
            assert self.this.abandoned or is_whole or self.was_wiped, "I2: a cluster that is being taken down is not let go of"

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left of any launch, and nothing is on its way."""
        return all(server.is_empty() for server in self.servers) and not self.door.in_transit

    def left_overs(self) -> list[Any]:
        """Return what is left, for people."""
        return [*((server.row, server.of("launch")) for server in self.servers), self.door.in_transit]

    def _launches(self, job_name: str) -> None:
        self.ledger.check_launch(self.kube.objects[self.this.uid], job_name, self)

    def advance(self, seconds: float) -> None:
        """Let time go by, with the poller's looks in it."""
        end, began = self.now + seconds, self.now
        while self.now < end:
            self.now = min(end, self.now + (POLL_SECONDS if self.now - began < 20 else CALM_POLL_SECONDS))
            for server in self.servers:
                server.pass_time(self.now)
            for posted in [posted for posted in self.door.in_transit if posted.arrives_at <= self.now]:
                self.door.arrive(posted)
            self.eyes.tick()
        self.ledger.check_executions()

    def edit(self, **spec: Any) -> None:
        """Edit the object's spec as a user does."""
        if not self.is_gone:
            self.kube.edit(self.key, **spec)
            self._touched()

    def annotate(self, **facts: Any) -> None:
        """Set what annotations say."""
        if not self.is_gone:
            self.kube.annotate(self.key, **facts)
            self._touched()

    def delete(self) -> None:
        """Delete the object as a user does."""
        if not self.is_gone:
            self.kube.delete_by_user(self.key)
            self._touched()

    def wipe(self) -> None:
        """Empty the status by hand. With it goes what the controller was to wait for: that a look shows a POST of the same moment."""
        self.kube.annotate(self.key, status=SkyClusterStatus())
        self.was_wiped = True
        self.ledger.posts.clear()
        self.advance(POLL_SECONDS)
        self._touched()

    def _touched(self) -> None:
        self.due_at = self.now
        self._check()

    def world(self) -> World | None:
        """Return what the last pass saw."""
        return self.ledger.looked[1] if self.ledger.looked else None

    def calm(self, ticks: int) -> None:
        """Let everything go well for a while: workers and jobs go on, passes run when they are due."""
        for _ in range(ticks):
            if self.is_gone:
                return
            if self.is_in_flight or self.eyes.woken or (self.due_at is not None and self.due_at <= self.now):
                self.run_pass()
            for server in self.servers:
                for _, move in server.calm_moves()[:1]:
                    move()
            self.advance(self._pause())

    def _pause(self) -> float:
        """Return how long nothing is to be expected: short while work is under way."""
        if any(server.calm_moves() for server in self.servers) or self.due_at is None:
            return POLL_SECONDS
        return min(max(self.due_at - self.now, POLL_SECONDS), 60.0)
