"""What came back: the body of `.../result`, which a job wrote, and which is believed in nothing but its words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from skyoperator_provider.remote.far.tagged import ERROR, decode

EXIT_CODE: Final = "skyoperator.ExitCodeError"
"""The type by which a script's exit code comes back (far/result_file.py)."""


class UnreadableValueError(ValueError):
    """The body is no value that this version knows."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class RemoteError:
    """The function raised."""

    type: str
    classes: tuple[str, ...]
    """The names of its class and of what that is derived from, nearest first."""
    message: str
    traceback: str
    """As Python prints it, with the lines of the DAG file."""

    def is_a(self, name: str) -> bool:
        """Tell whether it is of a class of this name, wherever that is defined: Airflow's own is seldom installed on the cluster."""
        return any(each.rpartition(".")[2] == name for each in self.classes)


def read(body: bytes | str) -> Returned | RemoteError:
    """Return what the function returned or raised. Raises UnreadableValueError."""
    try:
        encoded = json.loads(body)
        if isinstance(encoded, dict) and set(encoded) == {ERROR}:
            return _error(encoded[ERROR])
        return Returned(decode(encoded))
    except (ValueError, RecursionError) as error:
        raise UnreadableValueError(f"what the job returned can't be read: {error}") from error


def code_of(error: RemoteError) -> int | None:
    """Return what a script exited with; None if this is what a function raised."""
    return int(error.message) if error.type == EXIT_CODE and error.message.isdecimal() else None


def _error(found: Any) -> RemoteError:
    if not _is_error(found):
        raise ValueError("it is an error that this version does not know")
    return RemoteError(type=found["type"], classes=tuple(found["mro"]), message=found["message"], traceback=found["traceback"])


def _is_error(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("mro"), list):
        return False
    return all(isinstance(word, str) for word in (found.get("type"), found.get("message"), found.get("traceback"), *found["mro"]))
