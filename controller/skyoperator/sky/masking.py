"""Keeps the values of secrets out of what SkyPilot says of a failure, which everybody sees who may read the object.

A git clone that fails quotes the first 100 characters of its command, and the command begins with every env and secret of the task
(sky/utils/command_runner.py:986-1027, sky/exceptions.py:317-321).
"""

import re
from collections.abc import Iterable

# The value as one word of a shell command, the way SkyPilot quotes it (shlex.quote), even if the end of it was cut off.
_EXPORT = re.compile(r"""(\bexport [A-Za-z_][A-Za-z0-9_]*=)(?:(?:'[^']*(?:'|$)|"'"|[^\s'"])+)""")


SHORTEST = 4
"""A shorter value is no secret, and stands in too many words."""


def without(words: str, values: Iterable[str]) -> str:
    """Return the words without these values, nor any line of them; the longest first, for one may be a part of another."""
    lines = {line.strip() for value in values for line in (value, *value.splitlines())}
    for line in sorted(lines, key=len, reverse=True):
        words = words.replace(line, "***") if len(line) >= SHORTEST else words
    return words


def masked(words: str) -> str:
    """Return the words without the values that a shell command in them exports."""
    return _EXPORT.sub(r"\1***", words)
