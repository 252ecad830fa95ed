"""What an object asks to be launched, once its references have been read, and the installer's word on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from skyoperator import task
from skyoperator.api.v1alpha1 import Reason, SkyCluster, SkyClusterSpec
from skyoperator.task import JSON

BACKSTOP: Final = timedelta(hours=24)
"""How far SkyPilot's own autostop stays behind ours. It takes the job's outcome with it, so it must only ever act for a controller that is
gone for good."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reference could not be followed."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """The task as it would be launched now. `task` is None while a reference to it was not, or could not be, read."""

    policy: task.Policy = field(default_factory=task.Policy)
    task: Mapping[str, JSON] | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    fault: Fault | None = None

    @property
    def has_run(self) -> bool:
        """Whether there is something to run."""
        return self.task is not None and task.has_run(self.task)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Whether the spec may be acted on, and if not, why."""

    reason: Reason
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it may."""
        return self.reason is Reason.TASK_ACCEPTED


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be launched, and whether it may be."""

    inputs: Inputs
    accepted: Accepted


def inline(this: SkyCluster, policy: task.Policy) -> Inputs:
    """Return the inputs that need no reading."""
    return Inputs(policy, this.spec.task)


def spec_digest(spec: SkyClusterSpec) -> str:
    """Return a digest of what the spec says is to be launched.

    References count as they stand: what they point at is read once, at launch, and a Secret that changes afterwards is no edit.
    """
    own = "" if spec.task is None else task.digest(spec.task)
    if not spec.task_ref and not spec.secrets:
        return own
    references = {
        "taskRef": spec.task_ref and spec.task_ref.model_dump(),
        "secrets": sorted((secret.model_dump() for secret in spec.secrets), key=lambda secret: str(secret["name"])),
    }
    return hashlib.sha256(f"{own}{json.dumps(references, sort_keys=True)}".encode()).hexdigest()[: len(own) or 16]


def is_edited(this: SkyCluster) -> bool:
    """Return whether the spec asks for something else than what was launched last."""
    launch = this.status.launch
    return launch is not None and launch.task_digest != spec_digest(this.spec)


def idle_limit(this: SkyCluster, policy: task.Policy, *, has_run: bool) -> timedelta | None:
    """Return how long the cluster may be idle: as the object says; else, of one without a job, as the installer does."""
    if this.spec.autostop is not None:
        return timedelta(minutes=this.spec.autostop.idle_minutes)
    return None if has_run else timedelta(minutes=policy.default_autostop_minutes)


def backstop_minutes(this: SkyCluster, policy: task.Policy, *, has_run: bool) -> int | None:
    """Return after how many idle minutes SkyPilot is to end the cluster by itself; None where nothing ends it by our own rules either."""
    limit = idle_limit(this, policy, has_run=has_run)
    if limit is None and this.spec.when_finished == "Keep":
        return None
    return int(((limit or timedelta()) + BACKSTOP).total_seconds() // 60)
