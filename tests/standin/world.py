"""Clusters, requests and jobs of the stand-in: plain state and no behaviour, so that a test can read all of it."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.standin.script import Error

ACTIVE = ("PENDING", "WAITING", "RUNNING")
_FENCE = re.compile(r'\A(\w+)\(\) \{\n\s*local [^\n]*\bmark="([^"]+)"[^\n]*\n.*?^\}\n\1\nunset -f \1\n', re.MULTILINE | re.DOTALL)


@dataclass
class Job:
    """A row of a cluster's queue. `executed` tells whether its user part ran, or the attempt fence stopped it."""

    id: int
    name: str
    status: str = "INIT"
    submitted_at: float = field(default_factory=time.time)
    start_at: float | None = -1.0
    end_at: float | None = None
    executed: bool = False
    log: str = ""
    work: asyncio.Task[None] | None = None
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, it has nothing more to do."""

    @property
    def active(self) -> bool:
        """Whether it can still be cancelled."""
        return self.status in {"INIT", "PENDING", "SETTING_UP", "RUNNING"}


@dataclass
class Cluster:
    """A row of the cluster table, with what lives on the cluster itself: its queue, and markers of attempt fences."""

    name: str
    status: str = "INIT"
    hash: str = field(default_factory=lambda: str(uuid.uuid4()))
    launched_at: int = field(default_factory=lambda: int(time.time()))
    nodes: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    unhealthy: bool = False
    set_up: bool = False
    """Whether a launch has come as far as to install SkyPilot's runtime on the node."""
    jobs: list[Job] = field(default_factory=list)
    markers: dict[str, int] = field(default_factory=dict)
    """Which job left the marker of which attempt."""
    autostop: int = -1
    ports: tuple[int, ...] = ()
    up_at: float = 0.0
    """When it came up, by the loop's clock."""

    def cancel(self) -> None:
        """Stop whatever runs on it."""
        for job in self.jobs:
            if job.work is not None:
                job.work.cancel()


@dataclass
class Request:
    """An API request and the worker that runs it."""

    name: str
    cluster_name: str | None
    body: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "PENDING"
    created_at: float = field(default_factory=time.time)
    finished_at: float | None = None
    status_msg: str | None = None
    value: Any = None
    error: Error | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether it has not finished, going by its status alone."""
        return self.status in ACTIVE

    def finish(self, status: str, *, value: object = None, error: Error | None = None) -> None:
        """Write how it ended. As in SkyPilot, a worker's own end overwrites a CANCELLED."""
        self.status, self.value, self.error = status, value, error
        self.finished_at = time.time()
        self.done.set()


@dataclass(frozen=True)
class Posted:
    """One POST /launch, as it came in."""

    at: float
    cluster_name: str
    job_name: str
    request_id: str
    task: str


@dataclass
class World:
    """All there is, and the record of what was done to it."""

    clusters: dict[str, Cluster] = field(default_factory=dict)
    forgotten: list[Cluster] = field(default_factory=list)
    """Clusters of a database that was lost; they run on."""
    requests: dict[str, Request] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    launches: list[Posted] = field(default_factory=list)
    executions: Counter[str] = field(default_factory=Counter)
    """How often the user's part of a job of this name ran, on whichever cluster."""
    calls: Counter[str] = field(default_factory=Counter)

    def lock(self, cluster_name: str) -> asyncio.Lock:
        """Return the lock that one operation on a cluster holds at a time."""
        return self.locks.setdefault(cluster_name, asyncio.Lock())

    def forced_lock(self, cluster_name: str) -> asyncio.Lock:
        """Return a new lock in place of the old one, whoever holds that."""
        self.locks[cluster_name] = asyncio.Lock()
        return self.locks[cluster_name]

    def remove(self, cluster_name: str) -> None:
        """Forget a cluster, its queue and what runs on it."""
        gone = self.clusters.pop(cluster_name, None)
        if gone is not None:
            gone.cancel()


def ports_of(resources: dict[str, Any]) -> tuple[int, ...]:
    """Return each port that a task's resources open; ranges are spelt out (sky/utils/resources_utils.py, port_ranges_to_set)."""
    wanted = resources.get("ports") or []
    parts = [part for each in (wanted if isinstance(wanted, list) else [wanted]) for part in str(each).split(",")]
    bounds = [part.strip().partition("-") for part in parts]
    return tuple(sorted({port for first, _, last in bounds for port in range(int(first), int(last or first) + 1)}))


def fence(run: str) -> str | None:
    """Return what the attempt fence at the head of a script marks, or None for a script without one.

    A fence is a shell function that is defined, called and unset before anything else; `mark` names its marker.
    """
    found = _FENCE.match(run)
    return found.group(2) if found else None


def task_of(text: str) -> dict[str, Any]:
    """Return the task in a launch's body. Raises yaml.YAMLError or TypeError, as the server does inside its worker."""
    task = yaml.safe_load(text)
    if not isinstance(task, dict):
        raise TypeError("pop expected at most 1 argument, got 2")
    return task
