"""kubectl sky wait: until the object is as asked, can't become so any more, or time is up."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli.errors import EndedError, ExitCode, TimedOutError
from skyoperator.cli.fields import at, denied, has_no_run, holds, name_of, text, word
from skyoperator.cli.http import Json
from skyoperator.cli.kube import connected
from skyoperator.cli.pace import Deadline
from skyoperator.cli.target import Target
from skyoperator.cli.watching import states

Goal: TypeAlias = Literal["complete", "ready", "accepted", "deleted"]
_CONDITIONS = {"complete": ConditionType.COMPLETE, "ready": ConditionType.READY, "accepted": ConditionType.ACCEPTED}
assert {*_CONDITIONS, "deleted"} == set(get_args(Goal))


def run(target: Target, name: str, goal: Goal, timeout_seconds: float) -> int:
    """Return 0 once it is as asked. Raises EndedError if it can't become so any more, TimedOutError, CliError."""
    with connected(target) as kube:
        first: Json | None = None
        last: Json = {}
        for this in states(kube, name, Deadline.after(timeout_seconds)):
            if first is None and goal != "deleted":
                first = this or kube.get(name)
            first = first or this
            if is_reached(this, first, goal):
                return ExitCode.OK
            last = this or last
        raise TimedOutError(f"{name_of(last)} is not {goal} after {timeout_seconds:g} s. {_as_it_is(last)}")


def is_reached(this: Json | None, first: Json | None, goal: Goal) -> bool:
    """Return whether the object that was seen first is as asked; False while it may become so. Raises EndedError once it can't."""
    is_gone = this is None or at(this, "metadata.uid") != at(first or {}, "metadata.uid")
    if goal == "deleted":
        return is_gone
    if this is None or is_gone:
        raise EndedError(f"{name_of(first or {})} was deleted before it was {goal}.")
    if holds(this, _CONDITIONS[goal]):
        return True
    if why := _why_never(this, goal):
        raise EndedError(f"{name_of(this)} will not be {goal}. {why}")
    return False


def _why_never(this: Json, goal: Goal) -> str:
    """Return why it can't be reached any more; empty if it can."""
    if refused := denied(this, ConditionType.ACCEPTED):
        return f"It was not accepted: {refused}"
    if failed := holds(this, ConditionType.FAILED):
        return f"It failed: {failed}"
    if at(this, "metadata.deletionTimestamp"):
        return "It is being deleted."
    return "It has no task.run, so no job that could be complete." if goal == "complete" and has_no_run(this) else ""


def _as_it_is(this: Json) -> str:
    """Return how it stands, for people."""
    ready = word(this, ConditionType.READY)
    return f"{text(this, 'status.phase') or 'Pending'}: {ready}" if ready else "The controller has not spoken of this spec yet."
