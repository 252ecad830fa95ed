"""Returns a value, or what was raised instead of it, by the job's log."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from .failure import error_value, traceback_of
from .frames import TooLongError, check_length, write
from .tagged import UnsendableError, dumps


class ReturnValueError(Exception):
    """What was to be returned can't be sent."""

    __module__ = "skyoperator"


def report(descriptor: int, make: Callable[[], bytes | None]) -> int:
    """Write the JSON text that `make` returns, if it does, or what it raised. Return the exit code."""
    code = 0
    try:
        text = make()
    except BaseException as error:  # noqa: BLE001 - also an exit and an interrupt are how a function ends
        text, code = _failed(error)
    _flush()
    if text is not None:
        write(descriptor, text)
    return code


def text_of(value: Any, name: str) -> bytes:
    """Return the value as JSON text that a log may carry. Raises ReturnValueError."""
    try:
        text = dumps(value, name)
        check_length(text)
    except UnsendableError as error:
        raise ReturnValueError(str(error)) from None
    except TooLongError as error:
        raise ReturnValueError(f"{name} is too long: {error}") from None
    return text


def _failed(error: BaseException) -> tuple[bytes, int]:
    """Print what was raised where Python would, and return it as a value, with the exit code."""
    _flush()
    text = traceback_of(error)
    with contextlib.suppress(Exception):
        print(text, end="", file=sys.__stderr__)
    return json.dumps(error_value(error, text)).encode(), _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Return what the process would exit with; never 0, for it did not succeed, though of an exit code the system keeps only eight bits."""
    code = error.code if isinstance(error, SystemExit) else 1
    return code & 0xFF or 1 if isinstance(code, int) else 1


def _flush() -> None:
    """Let what was printed be in the log before what comes now. The function may have closed or replaced these."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
