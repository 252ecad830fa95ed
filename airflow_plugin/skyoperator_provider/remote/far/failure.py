"""What was raised, as a value that is returned in the place of one. Bounded: whoever reads it keeps it in a database."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from .tagged import ERROR, type_name

MESSAGE_BYTES = 8 * 1024
TRACEBACK_BYTES = 32 * 1024
_NAME_CHARACTERS = 200
_ANCESTORS = 32
_SENT = f"{Path(__file__).parent.parent}{os.sep}"


def traceback_of(error: BaseException) -> str:
    """Return what Python prints of it, without the frames that are ours."""
    shown = following = error.__traceback__
    while following is not None:
        ours = following.tb_frame.f_code.co_filename.startswith(_SENT)
        following = following.tb_next
        shown = following if ours else shown
    return "".join(traceback.format_exception(type(error), error, shown))


def error_value(error: BaseException, text: str) -> dict[str, Any]:
    """Return the value that says what was raised. `text` is its traceback."""
    ancestors = [type_name(kind)[:_NAME_CHARACTERS] for kind in type(error).__mro__[:_ANCESTORS]]
    message = _bounded(_message(error), MESSAGE_BYTES)
    return {ERROR: {"type": ancestors[0], "mro": ancestors, "message": message, "traceback": _bounded(text, TRACEBACK_BYTES)}}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001 - it is the user's, and may raise anything
        return f"<its str() raised {type_name(type(another))}>"


def _bounded(text: str, limit: int) -> str:
    """Return the text, its middle cut out if it is too long. What was raised stands at a traceback's end, so most of that is kept."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    note = f"\n[skyoperator: {len(data) - limit} bytes and these words were cut here]\n"
    kept = limit - len(note.encode())
    head = data[: kept // 4].decode("utf-8", "ignore")
    return head + note + data[-(kept - kept // 4) :].decode("utf-8", "ignore")
