"""Airflow's secrets masker: what it would hide in a log has no place in an object that everybody may read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

_HOMES: Final = (
    "airflow.providers.common.compat.sdk",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)
"""Where `redact` is: in common-compat, else (one that is too old to have it) of Airflow 3.0, of Airflow 2."""


def mask(text: str) -> str:
    """Return the text as the task's log would show it: with *** for each secret that this process has seen.

    Those are passwords and extras of connections, values of variables with telling names, and what mask_secret was told, unless shorter
    than `[logging] min_length_masked_secret`.
    """
    return str(_redact(text))


def holds_secret(value: object) -> bool:
    """Tell whether the masker finds a secret in any text of a value.

    Each text is asked about by itself: the repr of a list or dict has the line ends in its texts escaped, and so a secret of several
    lines, as a private key is, would not be found in it.
    """
    return any(mask(text) != text for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    """Yield each text in a value, keys too. A value may hold itself: each part is looked at once."""
    left, seen = [value], set[int]()
    while left:
        part = left.pop()
        if isinstance(part, Mapping | list | tuple | set | frozenset):
            if id(part) not in seen:
                seen.add(id(part))
                left += [*part, *part.values()] if isinstance(part, Mapping) else part
        elif isinstance(part, bytes | bytearray):
            yield part.decode(errors="replace")
        else:
            yield str(part)


def _found() -> Callable[[str], Any]:
    for home in _HOMES:
        try:
            return getattr(import_module(home), "redact")  # type: ignore[no-any-return]  # noqa: B009 - it may not be there
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"This Airflow has its secrets masker in none of {', '.join(_HOMES)}")


_redact: Final = _found()
