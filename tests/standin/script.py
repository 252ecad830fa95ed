"""How long things take in the stand-in, and how they end. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal


@dataclass(frozen=True)
class Error:
    """An exception inside SkyPilot: its class name and its message, colours and all."""

    type: str
    message: str


@dataclass(frozen=True)
class Launch:
    """A launch: `row_after` it has started the cluster's row appears, after `seconds` it is done, or fails with `error`."""

    seconds: float = 0.2
    row_after: float = 0.05
    error: Error | None = None
    error_leaves_row: bool = False


@dataclass(frozen=True)
class Job:
    """A job: PENDING, SETTING_UP if `setup` takes time, RUNNING, then `outcome`."""

    pending: float = 0.05
    setup: float = 0.0
    seconds: float = 0.2
    outcome: str = "SUCCEEDED"
    log: str = ""


@dataclass(frozen=True)
class Fault:
    """What happens to the next `times` POSTs of `op` for a matching cluster.

    late            acts, then answers after `seconds`         before   answers 500, has not acted
    lost            acts, then drops the connection            after    acts, then answers 500
    refused         answers 422, has not acted                 delayed  acts and answers after `seconds`, whoever still listens
    """

    op: str
    kind: Literal["late", "lost", "delayed", "before", "after", "refused"]
    seconds: float = 0.0
    times: int = 1
    match: str = "*"


@dataclass
class Script:
    """The defaults, and what was scripted for clusters by name pattern; what was said last counts."""

    launches: list[tuple[str, Launch]] = field(default_factory=list)
    jobs: list[tuple[str, Job]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    down_seconds: float = 0.05
    queue_seconds: float = 0.0
    address_seconds: float = 0.0
    """How long after its launch the ports of a cluster have an address, as of a load balancer that is slow."""
    cancel_lag_seconds: float = 0.0
    """For how long a worker goes on after its request reads CANCELLED."""
    fence: bool = True
    """Whether attempt fences work; without them `executions` counts every job that came to run."""

    def launch(self, cluster_name: str) -> Launch:
        """Return how a launch of this cluster goes."""
        return next((what for pattern, what in reversed(self.launches) if fnmatchcase(cluster_name, pattern)), Launch())

    def job(self, cluster_name: str) -> Job:
        """Return how a job on this cluster goes."""
        return next((what for pattern, what in reversed(self.jobs) if fnmatchcase(cluster_name, pattern)), Job())

    def take_fault(self, op: str, cluster_name: str) -> Fault | None:
        """Return the fault that strikes this POST, used up by one."""
        for index, fault in enumerate(self.faults):
            if fault.op == op and fnmatchcase(cluster_name, fault.match):
                left = fault.times - 1
                self.faults[index : index + 1] = [Fault(op, fault.kind, fault.seconds, left, fault.match)] if left else []
                return fault
        return None
