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
    if identity.is_later_than(found) or _is_spent(found):
        return Step.REPLACE
    return Step.COLLECT if is_true(found, "Complete") else Step.ADOPT


def _is_spent(found: Mapping[str, Any]) -> bool:
    """Tell whether nothing is to be had of it any more: its result was taken, or it failed, or was refused."""
    if is_true(found, "Complete"):
        return COLLECTED in (found["metadata"].get("annotations") or {})
    end = verdict(found, WaitFor.COMPLETE)
    return end is not None and end.outcome in {Outcome.FAILED, Outcome.REJECTED}
