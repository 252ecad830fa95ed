"""What is read off a SkyCluster as the API returns it. Plain JSON: a newer controller's words must not stop an older plugin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli.http import Json


@dataclass(frozen=True, slots=True)
class Word:
    """A condition that speaks of the spec as it stands."""

    status: str
    reason: str
    message: str

    def __str__(self) -> str:
        """Return why, as one line."""
        return f"{self.reason}: {self.message}" if self.message else self.reason


def at(this: Json, path: str) -> Any:  # noqa: ANN401 - whatever JSON has there
    """Return what is at the path of names with dots between them; None if nothing is."""
    found: Any = this
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def text(this: Json, path: str) -> str:
    """Return it as a table shows it; empty if there is nothing."""
    found = at(this, path)
    return "" if found is None else str(found)


def word(this: Json, type_: ConditionType) -> Word | None:
    """Return the condition, if it speaks of the spec as it stands."""
    for condition in at(this, "status.conditions") or ():
        if condition.get("type") == type_.value:
            is_current = condition.get("observedGeneration") == at(this, "metadata.generation")
            return Word(condition.get("status", ""), condition.get("reason", ""), condition.get("message", "")) if is_current else None
    return None


def holds(this: Json, type_: ConditionType) -> Word | None:
    """Return the condition if it is True."""
    found = word(this, type_)
    return found if found is not None and found.status == "True" else None


def denied(this: Json, type_: ConditionType) -> Word | None:
    """Return the condition if it is False."""
    found = word(this, type_)
    return found if found is not None and found.status == "False" else None


def name_of(this: Json) -> str:
    """Return namespace and name, as messages name the object."""
    return f"SkyCluster {text(this, 'metadata.namespace')}/{text(this, 'metadata.name')}"


def has_no_run(this: Json) -> bool:
    """Return whether it is sure that there is no job: the object will never be Complete."""
    task = at(this, "spec.task")
    return at(this, "status.launch.hasRun") is False or (isinstance(task, dict) and not task.get("run"))


def since(moment: str | None, now: datetime) -> str:
    """Return how long ago the RFC 3339 time was, as kubectl abbreviates it; empty if there is none."""
    if not moment:
        return ""
    try:
        seconds = int((now - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return "?"
    return duration(max(0, seconds))


def duration(seconds: int) -> str:
    """Return so many seconds with two units at most: 45s, 7m, 3h12m, 5d4h, 400d."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:
        return f"{seconds}s"
    if hours < 1:
        return f"{minutes}m"
    if days < 1:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{days}d{hours % 24}h" if days < 10 and hours % 24 else f"{days}d"


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
