"""What is wrong with a task, in words that a user can act on."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Reason: TypeAlias = Literal["InvalidTask", "PolicyDenied"]

SHOWN_CHARACTERS = 60
SHOWN_PROBLEMS = 20

_PLAIN_KEY = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]{{0,{SHOWN_CHARACTERS}}}")


class Problem(NamedTuple):
    """One thing that is wrong, where it is, and whether it is a mistake or forbidden."""

    path: str
    message: str
    reason: Reason = "InvalidTask"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


Field: TypeAlias = Callable[[str, JSON], Iterator[Problem]]
"""Looks at the value at a path and yields what is wrong with it."""


class TaskRejected(ValueError):  # noqa: N818  # it names what happened to the task
    """A task that will not be launched as it is.

    Attributes:
        reason: `PolicyDenied` if every problem is something the installer forbids, else `InvalidTask`.
        problems: Every problem found, each as "path: what is wrong and what to do".
    """

    reason: Reason
    problems: tuple[str, ...]

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.reason = "PolicyDenied" if all(p.reason == "PolicyDenied" for p in problems) else "InvalidTask"
        self.problems = tuple(str(problem) for problem in problems)
        super().__init__(self._summary())

    def _summary(self) -> str:
        shown = "; ".join(self.problems[:SHOWN_PROBLEMS])
        hidden = len(self.problems) - SHOWN_PROBLEMS
        return f"{shown}; and {hidden} more" if hidden > 0 else shown


def refuse(problems: Iterable[Problem]) -> None:
    """Raise TaskRejected if there is any problem."""
    found = tuple(problems)
    if found:
        raise TaskRejected(found)


def under(path: str, key: str | int) -> str:
    """Return the path of what `key` names in the value at `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{show(key)}]"


def show(value: JSON) -> str:
    """Return the value as JSON, cut to what fits in a message. Never hand it a secret."""
    text = json.dumps(value, default=dict)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
