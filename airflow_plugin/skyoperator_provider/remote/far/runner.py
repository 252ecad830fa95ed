"""Calls the function that was sent."""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .function import define
from .payload import payload
from .report import report, text_of
from .tagged import decode


class ArgumentsError(Exception):
    """The arguments can't be had on this side."""

    __module__ = "skyoperator"


def main() -> None:
    """Run the function, and exit as it ended."""
    stdout = os.dup(1)  # the function may close or redirect its own
    sys.exit(run(payload(), stdout))


def define_all(namespace: dict[str, Any]) -> None:
    """Make the functions that were sent. Called by the module that they are to be in."""
    define(payload()["definitions"], namespace)


def run(sent: Mapping[str, Any], stdout: int) -> int:
    """Return the exit code, after what the function returned or raised is in the log."""
    rank = int(os.environ.get("SKYPILOT_NODE_RANK") or 0)
    if rank > 0 and not sent["every_rank"]:
        return 0

    def make() -> bytes | None:
        value = _call(sent)
        return text_of(value, f"{sent['function']}()") if rank == 0 else None

    return report(stdout, make)


def _call(sent: Mapping[str, Any]) -> Any:
    """Return what the function returns; None if it exits as one that succeeded."""
    sys.path.insert(0, str(Path.cwd()))
    function = getattr(importlib.import_module("skyoperator_task"), sent["function"])
    args, kwargs = _arguments(sent)
    try:
        return function(*args, **kwargs)
    except SystemExit as exit_:
        if exit_.code is None or exit_.code == 0:
            return None
        raise


def _arguments(sent: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    if sent["serializer"] == "json":
        return decode(sent["args"]), {name: decode(value) for name, value in sent["kwargs"].items()}
    here, there = "{}.{}".format(*sys.version_info), sent["python"]
    if here != there:
        raise ArgumentsError(
            f"the arguments were pickled by Python {there}, and this is Python {here} ({sys.executable}); set python= to a Python {there}"
        )
    try:
        args, kwargs = pickle.loads(base64.b64decode(sent["pickled"]))  # noqa: S301 - from who also sent the function
    except Exception as error:
        raise ArgumentsError(
            f"the arguments can't be unpickled here: {error!r}; install cloudpickle, and what they are made of, in setup"
        ) from error
    return args, kwargs
