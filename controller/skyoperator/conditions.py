"""metav1.Condition, set the way apimachinery's SetStatusCondition does it: lastTransitionTime moves only when status flips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from skyoperator.api.v1alpha1 import (
    CONDITION_MESSAGE_LIMIT,
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a condition should say, before it is compared with what it said."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""


def true(type_: ConditionType, reason: Reason, message: str = "") -> Verdict:
    """Return the verdict that the condition holds."""
    return Verdict(type_, ConditionStatus.TRUE, reason, message)


def false(type_: ConditionType, reason: Reason, message: str = "") -> Verdict:
    """Return the verdict that the condition does not hold."""
    return Verdict(type_, ConditionStatus.FALSE, reason, message)


def unknown(type_: ConditionType, reason: Reason, message: str = "") -> Verdict:
    """Return the verdict that nobody can tell."""
    return Verdict(type_, ConditionStatus.UNKNOWN, reason, message)


def find(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Return whether there is a condition of that type and it holds."""
    condition = find(conditions, type_)
    return condition is not None and condition.status is ConditionStatus.TRUE


def updated(conditions: Sequence[Condition], verdicts: Iterable[Verdict], *, generation: int, now: datetime) -> list[Condition]:
    """Return the conditions with the verdicts in them, in the order of ConditionType. What no verdict names stays as it was."""
    by_type = {condition.type: condition for condition in conditions}
    for verdict in verdicts:
        by_type[verdict.type] = _merged(by_type.get(verdict.type), verdict, generation, now)
    return [by_type[type_] for type_ in ConditionType if type_ in by_type]


def _merged(before: Condition | None, verdict: Verdict, generation: int, now: datetime) -> Condition:
    flipped = before is None or before.status is not verdict.status
    return Condition(
        type=verdict.type,
        status=verdict.status,
        observed_generation=generation,
        last_transition_time=now if flipped or before is None else before.last_transition_time,
        reason=verdict.reason,
        message=_bounded(verdict.message),
    )


def _bounded(message: str) -> str:
    limit = CONDITION_MESSAGE_LIMIT
    return message if len(message) <= limit else message[: limit - 1] + "…"
