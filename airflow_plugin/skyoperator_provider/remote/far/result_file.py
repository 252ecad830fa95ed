"""Returns the JSON that a shell task left in a file, or tells what it exited with instead."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from .failure import error_value
from .frames import write
from .payload import payload
from .report import ReturnValueError, report, text_of

FILE_BYTES = 8 * 1024 * 1024
"""With spaces and escapes JSON takes more room in a file than in a log."""


class ExitCodeError(Exception):
    """What the script exited with, where that was not 0."""

    __module__ = "skyoperator"


def main() -> None:
    """Return the file, and exit with 1 if it holds no JSON; if the script failed, tell its exit code, and exit with 0."""
    code = os.environ.get("SKYOPERATOR_EXIT_CODE", "0")
    if code != "0":
        write(1, json.dumps(error_value(ExitCodeError(code), "")).encode())
        sys.exit(0)
    path = Path(payload()["result_path"]).expanduser()
    sys.exit(report(1, lambda: text_of(_read(path), str(path))))


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        text = file.read(FILE_BYTES + 1)
    if len(text) > FILE_BYTES:
        raise ReturnValueError(f"{path} is longer than {FILE_BYTES} bytes")
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ReturnValueError(f"{path} is not JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")
