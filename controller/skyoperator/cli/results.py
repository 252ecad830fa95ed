"""What became of a job, or of a launch, whose log has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli.errors import EndedError, TimedOutError
from skyoperator.cli.fields import at, holds, name_of
from skyoperator.cli.http import Json
from skyoperator.cli.kube import Kube
from skyoperator.cli.pace import Deadline
from skyoperator.cli.watching import states

RESULT_SECONDS: Final = 60.0
"""How long the object may take to say how the job ended, once its log has ended. The pause before a retry does not count."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Which log was followed."""

    name: str
    uid: str
    attempt: int | None
    is_launch: bool
    is_chosen: bool
    """Whether just this attempt was asked for: the next one's log is then no continuation."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It came to a good end."""


@dataclass(frozen=True, slots=True)
class Again:
    """It was launched anew."""

    attempt: int


def outcome(this: Json | None, followed: Followed) -> Succeeded | Again | None:
    """Return how it ended, None while that is open. Raises EndedError if it failed, or nobody will say any more."""
    if this is None or at(this, "metadata.uid") != followed.uid:
        raise EndedError(f"SkyCluster {followed.name} was deleted before it said how this ended.")
    attempt = at(this, "status.launch.attempt")
    is_past = followed.attempt is not None and attempt is not None and attempt > followed.attempt
    if is_past and not followed.is_chosen:
        return Again(attempt)
    if is_past:
        raise EndedError(f"{name_of(this)}: attempt {followed.attempt} did not succeed; attempt {attempt} came after it.")
    if _is_good(this, followed):
        return Succeeded()
    if failed := holds(this, ConditionType.FAILED):
        raise EndedError(f"{name_of(this)} failed: {failed}")
    return None


def _is_good(this: Json, followed: Followed) -> bool:
    """A launch is good once the cluster was up, whatever its job does then."""
    if followed.is_launch:
        return followed.attempt is not None and at(this, "status.launch.finishedAt") is not None
    return holds(this, ConditionType.COMPLETE) is not None


def await_outcome(kube: Kube, followed: Followed) -> Succeeded | Again:
    """Return how it ended, as soon as the object says it. Raises EndedError, TimedOutError, CliError."""
    while True:
        this: Json | None = None
        for this in states(kube, followed.name, Deadline.after(RESULT_SECONDS)):
            if (end := outcome(this, followed)) is not None:
                return end
        if this is None or not _is_retry_due(this):
            raise TimedOutError(
                f"The log has ended, but SkyCluster {kube.namespace}/{followed.name} did not say within {RESULT_SECONDS:.0f} s how the job "
                f"ended. See: kubectl sky status {followed.name} -n {kube.namespace}"
            )


def _is_retry_due(this: Json) -> bool:
    return at(this, "status.failures.nextRetryTime") is not None or at(this, "status.launch.endedAt") is not None
