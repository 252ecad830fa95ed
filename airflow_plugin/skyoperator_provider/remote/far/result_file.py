"""Returns the JSON that a shell task left in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from .payload import payload
from .report import ReturnValueError, report, text_of

FILE_BYTES = 8 * 1024 * 1024
"""With spaces and escapes JSON takes more room in a file than in a log."""


def main() -> None:
    """Return the file, and exit with 1 if it holds no JSON."""
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
