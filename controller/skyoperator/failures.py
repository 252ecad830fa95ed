"""What SkyPilot's errors mean to us: one table, read from the top.

Nearly all launches that fail do so as ResourcesUnavailableError, and only words tell a missing GPU from an image that can't be
pulled. Where the words are depends on who refused (sky/backends/cloud_vm_ray_backend.py:1368 and 1391):

    the kubelet, the scheduler   in the error itself: "Reason: ErrImagePull: ..."
    an API: Kubernetes' own (quota, rights, admission), AWS, GCP, Azure   only in the provision log

An unknown GPU is NoCapacity like a known one that no node has: on Kubernetes SkyPilot has the same words for both, and a node
that an autoscaler adds may bring either.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from skyoperator.api.v1alpha1 import Reason
from skyoperator.sky.masking import masked
from skyoperator.sky.types import JobStatus, RequestError

MESSAGE_LIMIT: Final = 2048
"""Characters kept of SkyPilot's words; an event's message holds 1024, a condition's 32768."""

HEAD_LIMIT: Final = 256
"""Of these, at most so many for the first line of a message that is too long."""

LOST: Final = frozenset({"RequestInterruptedError", "ServerTemporarilyUnavailableError", "BrokenProcessPool"})
"""Exceptions of a launch that the server dropped: it says nothing of the task, and is handed over again as the same attempt."""

_CANCELLED: Final = frozenset({"RequestCancelled", "CancelledError", "KeyboardInterrupt"})
_UNAVAILABLE: Final = frozenset({"ResourcesUnavailableError"})
_NO_ANSWER: Final = frozenset({"KubeAPIUnreachableError"})
_DENIED: Final = frozenset(
    {
        "NoCloudAccessError",
        "InvalidCloudCredentials",
        "InvalidCloudConfigs",
        "CloudUserIdentityError",
        "ClusterOwnerIdentityMismatchError",
        "PermissionDeniedError",
        "NoWorkspaceAccessError",
    }
)
_POLICY: Final = frozenset({"UserRequestRejectedByPolicy"})
_USER: Final = frozenset(
    {
        "ValueError",
        "InvalidSkyPilotConfigError",
        "InvalidClusterNameError",
        "InvalidWorkspaceNameError",
        "WorkspaceAmbiguousError",
        "KubernetesValidationError",
        "NotSupportedError",
        "ProvisionUnsupportedError",
        "ResourcesMismatchError",
        "StorageSpecError",
        "StorageSourceError",
        "StorageNameError",
        "StorageModeError",
        "StorageBucketGetError",
        "StorageExternalDeletionError",
        "NonExistentStorageAccountError",
        "VolumeNotFoundError",
        "VolumeTopologyConflictError",
        "GitError",
    }
)

_IMAGE_WORDS: Final = re.compile(
    r"\b(ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError|RegistryUnavailable"
    r"|SignatureValidationFailed|InvalidAMIID\.\w+)\b"
)
_POLICY_WORDS: Final = re.compile(
    r"is forbidden: violates PodSecurity|is forbidden: ValidatingAdmissionPolicy|admission webhook .* denied the request"
)
_QUOTA_WORDS: Final = re.compile(
    r"exceeded quota|quota ?exceeded|quota_exceeded|insufficient quota|found no quota|quota '[^']*' (exceeded|exhausted)|QuotaFailure"
    r"|due to quota|exceeding approved .{0,60}quota"
    r"|\b(VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded)\b"
    r"|is forbidden: (maximum|minimum) \w+ usage per",
    re.IGNORECASE,
)
_DENIED_WORDS: Final = re.compile(
    r"\bUnauthorized\b|is forbidden: User |\bForbidden\b|which (is|are) not enabled\. To enable access"
    r"|\b(UnauthorizedOperation|AuthFailure|ExpiredToken|RequestExpired|InvalidClientTokenId|OptInRequired)\b"
    r"|\b(AuthorizationFailed|ClientAuthenticationError|ReadOnlyDisabledSubscription)\b"
    r"|IAM_PERMISSION_DENIED|PERMISSION_DENIED|access denied|access is unauthorized",
    re.IGNORECASE,
)
_INVALID_WORDS: Final = re.compile(r'\bPod "[^"]+" is invalid:')
_LOST_WORDS: Final = re.compile(
    r"Pod \S+ failed: (Evicted|Preempted|Disrupted|Shutdown|NodeShutdown|NodeLost|Terminated unexpectedly)|Failed to get all pods after"
)
_BROKEN_WORDS: Final = re.compile(
    r"Pod \S+ (failed: |has been stuck on|has not started running|has failed to attach or mount)|Container in pod \S+ terminated"
    r"|init container|Lost connectivity to the Kubernetes API|PersistentVolumeClaim"
)
_ANY: Final = re.compile("")

_TABLE: Final[tuple[tuple[frozenset[str], re.Pattern[str], Reason], ...]] = (
    (_CANCELLED, _ANY, Reason.JOB_CANCELLED),
    (_UNAVAILABLE, _IMAGE_WORDS, Reason.IMAGE_PULL_FAILED),
    (_UNAVAILABLE, _POLICY_WORDS, Reason.POLICY_DENIED),
    (_UNAVAILABLE, _QUOTA_WORDS, Reason.QUOTA_EXCEEDED),
    (_UNAVAILABLE | _NO_ANSWER, _DENIED_WORDS, Reason.AUTH_FAILED),
    (_UNAVAILABLE, _INVALID_WORDS, Reason.INVALID_TASK),
    (_UNAVAILABLE, _LOST_WORDS, Reason.CLUSTER_LOST),
    (_UNAVAILABLE, _BROKEN_WORDS, Reason.SKYPILOT_ERROR),
    (_UNAVAILABLE, _ANY, Reason.NO_CAPACITY),
    (_DENIED, _ANY, Reason.AUTH_FAILED),
    (_POLICY, _ANY, Reason.POLICY_DENIED),
    (_USER, _ANY, Reason.INVALID_TASK),
)

_JOB_REASONS: Final = {
    JobStatus.FAILED: Reason.JOB_FAILED,
    JobStatus.FAILED_SETUP: Reason.SETUP_FAILED,
    JobStatus.FAILED_DRIVER: Reason.SKYPILOT_ERROR,
    JobStatus.CANCELLED: Reason.JOB_CANCELLED,
}

_LOG_PREFIX: Final = re.compile(r"^[A-Z] [\d-]+ [\d:.]+ (PID=\d+ )?\S+:\d+\] ?")
_API_ANSWER: Final = re.compile(r"HTTP response body: (\{.*\})")
_CLOUD_WORDS: Final = re.compile(r"^(?:botocore|azure|googleapiclient|google)\.[\w.]+(?:Error|Exception): (.+)|^(Got return codes? .+)")
"""The end of a traceback (sky/provision/provisioner.py:361), and what GCP's operations come to (provision/gcp/instance_utils.py:152)."""
_PROVISIONED: Final = "Failed to acquire resources"
"""In the error of a launch that asked an API for something; without it the provision log is of an earlier one."""
_FOR_THE_COMMAND_LINE: Final = re.compile(r"To keep retrying until the cluster is up, use|Hint: Check Per Resource Hint")
_ALL_KILLED: Final = re.compile(r"non_137 = next\(.*\n(.*\n)?StopIteration")
ALL_KILLED: Final = "The job was killed (return code 137): most likely it ran out of memory. Ask for more: resources.memory."
_END_OF_JOB: Final = re.compile(
    r"^.*\bfailed with return code.*$|^.*\bJob \d+'s setup failed\b.*$|^.*\bskyoperator: not running.*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure, as `status.failures` and the Failed condition show it."""

    reason: Reason
    message: str


def of_launch(error: RequestError) -> Failure:
    """Return why a launch failed, in SkyPilot's words."""
    message = _with_cause(error)
    for types, words, reason in _TABLE:
        if error.type in types and words.search(message):
            return Failure(reason, bounded(message))
    return Failure(Reason.SKYPILOT_ERROR, bounded(f"{error.type}: {message}"))


def of_job(job_id: int, status: JobStatus, words: str) -> Failure:
    """Return why a job failed: what its log says of its end, else SkyPilot's status."""
    return Failure(_JOB_REASONS[status], bounded(words or f"Job {job_id} ended as {status}."))


def launch_refused(words: str) -> Failure:
    """Return the failure of a launch that SkyPilot would not take: it was not executed, and would be refused again."""
    return Failure(Reason.INVALID_TASK, bounded(words))


TOLD_LINES: Final = 10
"""How many of a log's last lines are told with a job's failure."""
_OF_SKYPILOT: Final = re.compile(r"^(├──|└──) |^\s*$")


def last_words(log: str) -> str:
    """Return what a job's log says of its end, and behind that the lines before it; nothing while it does not say it yet.

    If every process ended with 137, SkyPilot's own report of it fails (sky/backends/task_codegen.py:276), and we say it.
    """
    if _ALL_KILLED.search(log):
        return ALL_KILLED
    ends = list(_END_OF_JOB.finditer(log))
    if not ends:
        return ""
    before = [line.rstrip() for line in log[: ends[0].start()].splitlines() if not _OF_SKYPILOT.match(line)]
    return "\n".join([*(end.group(0).strip() for end in ends), *before[-TOLD_LINES:]])


def verdict(words: str) -> str:
    """Return of a job's last words only what SkyPilot says, none of what the job printed."""
    return "\n".join(end.group(0).strip() for end in _END_OF_JOB.finditer(words)) or words.partition("\n")[0]


def _with_cause(error: RequestError) -> str:
    """Return the error's words, and of the log the refusal that the error keeps to itself."""
    lines = [line for line in error.message.splitlines() if not _FOR_THE_COMMAND_LINE.search(line)]
    is_untold = _PROVISIONED in error.message and "Reason: " not in error.message
    cause = _refusal(error.log) if is_untold else ""
    return "\n".join([*lines, *([f"Reason: {cause}"] if cause else [])])


def _refusal(log: str) -> str:
    """Return what the last API that refused something said: the message only, never a header or the body that it was sent."""
    lines = [_LOG_PREFIX.sub("", line) for line in log.splitlines()]
    return next(filter(None, map(_said, reversed(lines))), "")


def _said(line: str) -> str:
    if answer := _API_ANSWER.search(line):
        return _message_of(answer.group(1))
    found = _CLOUD_WORDS.match(line)
    return (found.group(1) or found.group(2)) if found else ""


def _message_of(body: str) -> str:
    """Return the message of a Kubernetes Status object."""
    try:
        said = json.loads(body)["message"]
    except (ValueError, KeyError, RecursionError):
        return ""
    return said if isinstance(said, str) else ""


def bounded(message: str) -> str:
    """Return the message without needless white space, and without the values that a command in it exports.

    A long one keeps its first line, which says what failed, and its end, where SkyPilot puts the cause.
    """
    lines = [line.rstrip() for line in masked(message).strip().splitlines()]
    text = "\n".join(line for line in lines if line)
    if len(text) <= MESSAGE_LIMIT:
        return text
    head = text.partition("\n")[0][:HEAD_LIMIT]
    return f"{head}\n…{text[-(MESSAGE_LIMIT - len(head) - 2) :]}"
