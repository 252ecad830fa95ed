"""What a try does about the object that it finds under its own name. Pure; the table of the docs, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from skyoperator_provider.identity import COLLECTED, Identity
from skyoperator_provider.skycluster import Outcome, WaitFor, is_true, verdict


class Step(StrEnum):
    """What to do next."""

    CREATE = "create"
    ADOPT = "adopt"
    COLLECT = "collect"
    """It came to a good end whose result nobody has taken or missed: take it, and run nothing again."""
    REPLACE = "replace"
    """Delete it, wait until it is gone, create it anew."""
    AWAIT_GONE = "await gone"
    CONFLICT = "conflict"


def next_step(found: Mapping[str, Any] | None, identity: Identity) -> Step:
    """Return what this task instance does about what it found under its name."""
    if found is None:
        return Step.CREATE
    if not identity.owns(found):
        return Step.CONFLICT
    if found["metadata"].get("deletionTimestamp"):
        return Step.AWAIT_GONE
    if is_true(found, "Complete"):
        return Step.REPLACE if COLLECTED in (found["metadata"].get("annotations") or {}) else Step.COLLECT
    end = verdict(found, WaitFor.COMPLETE)
    if end is not None and end.outcome in {Outcome.FAILED, Outcome.REJECTED}:
        return Step.REPLACE
    return Step.ADOPT
