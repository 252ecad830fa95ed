"""What a SkyCluster says of itself. Pure: it is read here, and nowhere else.

A condition speaks of the generation that it names. One of an older generation is news from before the last edit, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

GROUP: Final = "skyoperator.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "skyclusters"
KIND: Final = "SkyCluster"
LOGS_GROUP: Final = "logs.skyoperator.dev"
LOGS_VERSION: Final = "v1alpha1"

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Where kubectl apply keeps the whole spec once more."""

PERMANENT: Final = frozenset({"InvalidTask", "PolicyDenied", "NameConflict"})
"""Reasons that the same task meets again at every try."""


class WaitFor(StrEnum):
    """How far a SkyCluster is to get."""

    ACCEPTED = "accepted"
    READY = "ready"
    COMPLETE = "complete"


class Outcome(StrEnum):
    """How waiting for a SkyCluster ends."""

    REACHED = "reached"
    FAILED = "failed"
    REJECTED = "rejected"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of waiting, with the object's own words for it."""

    outcome: Outcome
    reason: str
    message: str

    @property
    def is_permanent(self) -> bool:
        """Whether another try can only meet the same: refused before a launch, or by SkyPilot or Kubernetes at one."""
        return self.outcome in {Outcome.REJECTED, Outcome.FAILED} and self.reason in PERMANENT


@dataclass(frozen=True, slots=True)
class Condition:
    """A metav1.Condition of the present generation."""

    status: str
    reason: str
    message: str


def condition(body: Mapping[str, Any], type_: str) -> Condition | None:
    """Return what the object says of its present generation; None while it says nothing of it."""
    generation = body["metadata"].get("generation", 0)
    for found in (body.get("status") or {}).get("conditions") or []:
        if found["type"] == type_ and found.get("observedGeneration", 0) >= generation:
            return Condition(found["status"], found.get("reason", ""), found.get("message", ""))
    return None


def is_true(body: Mapping[str, Any], type_: str) -> bool:
    """Tell whether the condition holds of the present generation."""
    found = condition(body, type_)
    return found is not None and found.status == "True"


def verdict(body: Mapping[str, Any] | None, wait_for: WaitFor, *, uid: str | None = None) -> Verdict | None:
    """Return how waiting has ended; None while it goes on.

    `body` None: the object is not there. With a uid, another object of the same name is not it either.
    """
    if body is None or (uid is not None and body["metadata"]["uid"] != uid):
        return Verdict(Outcome.GONE, "Deleted", "the SkyCluster is not there any more")
    return _end_of(body) or _reached(body, wait_for)


def _end_of(body: Mapping[str, Any]) -> Verdict | None:
    """Return the end that there is whatever is waited for."""
    if is_true(body, "Failed"):
        return _because(body, "Failed", Outcome.FAILED)
    if is_true(body, "Complete"):
        return _because(body, "Complete", Outcome.REACHED)
    if body["metadata"].get("deletionTimestamp"):
        return Verdict(Outcome.GONE, "Deleted", "the SkyCluster is being deleted")
    accepted = condition(body, "Accepted")
    return _because(body, "Accepted", Outcome.REJECTED) if accepted is not None and accepted.status == "False" else None


def _reached(body: Mapping[str, Any], wait_for: WaitFor) -> Verdict | None:
    """A suspended object is Ready as far as GitOps goes, but nothing that a task could use."""
    if wait_for is WaitFor.ACCEPTED and is_true(body, "Accepted"):
        return _because(body, "Accepted", Outcome.REACHED)
    if wait_for is WaitFor.READY and is_true(body, "Ready") and not is_true(body, "Suspended"):
        return _because(body, "Ready", Outcome.REACHED)
    return None


def _because(body: Mapping[str, Any], type_: str, outcome: Outcome) -> Verdict:
    found = condition(body, type_)
    assert found is not None
    return Verdict(outcome, found.reason, found.message)


def log_is_coming(body: Mapping[str, Any]) -> bool:
    """Tell whether it is yet to be said what was kept of the latest job's log. Never where the log process is switched off."""
    status = body.get("status") or {}
    return bool((status.get("job") or {}).get("log")) and (status.get("log") or {}).get("attempt") != attempt_of(body)


def result_record(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what is written of the value that the latest job returned: state, bytes, sha256; nothing if none is known of.

    The log process writes it with what it kept of the log, and the controller copies it to the job. Where the log is not whole, a value may
    have been in what is missing: then its state is Unknown.
    """
    status = (body or {}).get("status") or {}
    log = status.get("log") or {}
    kept = log if log.get("attempt") == attempt_of(body) else {}
    unknown = {"state": "Unknown"} if kept.get("state") == "Incomplete" else {}
    return kept.get("result") or (status.get("job") or {}).get("result") or unknown


def attempt_of(body: Mapping[str, Any] | None) -> int | None:
    """Return the number of the latest launch that became a job, whose log there is; None before the first."""
    status = (body or {}).get("status") or {}
    found: int | None = (status.get("launch") or {}).get("attempt") if status.get("job") else None
    return found


def cluster_of(body: Mapping[str, Any] | None) -> str | None:
    """Return SkyPilot's name for the cluster; None while the controller has given none."""
    found: str | None = (((body or {}).get("status") or {}).get("cluster") or {}).get("name")
    return found


def words(body: Mapping[str, Any] | None) -> str:
    """Return where an object is, in a line for people: its phase, and the controller's sentence about it."""
    status = (body or {}).get("status") or {}
    ready: Mapping[str, Any] = next((known for known in status.get("conditions") or [] if known["type"] == "Ready"), {})
    return ": ".join(filter(None, (status.get("phase", ""), ready.get("message", ""))))


def brief(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an object that waiting needs, without its spec: a thousand of these are kept in one triggerer."""
    metadata = body["metadata"]
    kept = ("name", "namespace", "uid", "generation", "resourceVersion", "deletionTimestamp")
    status = body.get("status") or {}
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    return {
        "metadata": {**{key: metadata[key] for key in kept if key in metadata}, "annotations": annotations},
        "status": {key: status[key] for key in ("phase", "conditions", "job", "log", "cluster", "launch") if key in status},
    }
