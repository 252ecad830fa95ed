"""What SkyPilot's errors mean to us: one table, read from the top.

Nearly all launches that fail do so as ResourcesUnavailableError, and only its message tells a missing GPU from an image that can't
be pulled ("Reason: ErrImagePull: ...", sky/provision/kubernetes/instance.py). So a row names the exceptions and, if need be, words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from skyoperator.api.v1alpha1 import Reason
from skyoperator.sky.types import JobStatus, RequestError

MESSAGE_LIMIT: Final = 2048
"""Characters kept of SkyPilot's words; an event's message holds 1024, a condition's 32768."""

LOST: Final = frozenset({"RequestInterruptedError", "ServerTemporarilyUnavailableError", "BrokenProcessPool"})
"""Exceptions of a launch that the server dropped: it says nothing of the task, and is handed over again as the same attempt."""

_CANCELLED: Final = frozenset({"RequestCancelled", "CancelledError", "KeyboardInterrupt"})
_UNAVAILABLE: Final = frozenset({"ResourcesUnavailableError", "KubeAPIUnreachableError"})
_DENIED: Final = frozenset(
    {"NoCloudAccessError", "InvalidCloudCredentials", "InvalidCloudConfigs", "CloudUserIdentityError", "PermissionDeniedError"}
)
_USER: Final = frozenset(
    {
        "ValueError",
        "InvalidSkyPilotConfigError",
        "InvalidClusterNameError",
        "NotSupportedError",
        "ProvisionUnsupportedError",
        "ResourcesMismatchError",
        "UserRequestRejectedByPolicy",
        "StorageSpecError",
        "VolumeNotFoundError",
        "GitError",
    }
)
_IMAGE_WORDS: Final = re.compile(r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|RegistryUnavailable")
_QUOTA_WORDS: Final = re.compile(r"exceeded quota|quota ?exceeded|insufficient quota", re.IGNORECASE)
_DENIED_WORDS: Final = re.compile(r"\bUnauthorized\b|\bForbidden\b|is forbidden:", re.IGNORECASE)
_ANY: Final = re.compile("")

_TABLE: Final[tuple[tuple[frozenset[str], re.Pattern[str], Reason], ...]] = (
    (_CANCELLED, _ANY, Reason.JOB_CANCELLED),
    (_UNAVAILABLE, _IMAGE_WORDS, Reason.IMAGE_PULL_FAILED),
    (_UNAVAILABLE, _QUOTA_WORDS, Reason.QUOTA_EXCEEDED),
    (_UNAVAILABLE, _DENIED_WORDS, Reason.AUTH_FAILED),
    (_UNAVAILABLE, _ANY, Reason.NO_CAPACITY),
    (_DENIED, _ANY, Reason.AUTH_FAILED),
    (_USER, _ANY, Reason.INVALID_TASK),
)

_JOB_REASONS: Final = {
    JobStatus.FAILED: Reason.JOB_FAILED,
    JobStatus.FAILED_SETUP: Reason.SETUP_FAILED,
    JobStatus.FAILED_DRIVER: Reason.SKYPILOT_ERROR,
    JobStatus.CANCELLED: Reason.JOB_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure, as `status.failures` and the Failed condition show it."""

    reason: Reason
    message: str


def of_launch(error: RequestError) -> Failure:
    """Return why a launch failed, in SkyPilot's words."""
    for types, words, reason in _TABLE:
        if error.type in types and words.search(error.message):
            return Failure(reason, bounded(error.message))
    return Failure(Reason.SKYPILOT_ERROR, bounded(f"{error.type}: {error.message}"))


def of_job(job_id: int, status: JobStatus, words: str) -> Failure:
    """Return why a job failed: what its log says of its end, else SkyPilot's status."""
    return Failure(_JOB_REASONS[status], bounded(words or f"Job {job_id} ended as {status}."))


def bounded(message: str) -> str:
    """Return the message without needless white space; a long one keeps its end, where SkyPilot puts the cause."""
    lines = [line.rstrip() for line in message.strip().splitlines()]
    text = "\n".join(line for line in lines if line)
    return text if len(text) <= MESSAGE_LIMIT else "…" + text[-MESSAGE_LIMIT + 1 :]


def launch_refused(words: str) -> Failure:
    """Return the failure of a launch that SkyPilot would not take: it was not executed, and would be refused again."""
    return Failure(Reason.SKYPILOT_ERROR, bounded(words))
