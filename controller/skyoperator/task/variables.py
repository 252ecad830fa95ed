"""`$NAME` and `${NAME}` in paths and addresses, replaced here so that SkyPilot has nothing left to replace.

SkyPilot replaces them in the JSON text of the whole field, after it has checked the field (sky/task.py:78-127): a value
with quotes in it adds keys of its own, and with them mounts of the API server's files. Here each string is replaced by
itself, and the result is judged by the same rules as if the user had written it.
"""

import re
from collections.abc import Iterator, Mapping

from skyoperator.task.problems import JSON, Problem, under

SUBSTITUTED_FIELDS = ("file_mounts", "workdir", "volumes")  # sky/task.py:730-752; `service` is refused

MAX_CHARACTERS = 4096  # of a path or an address, as in PATH_MAX

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def env_values(task: Mapping[str, JSON]) -> dict[str, str]:
    """Return the task's envs as the text that SkyPilot exports, which is Python's: true becomes True."""
    envs = task.get("envs")
    if not isinstance(envs, Mapping):
        return {}
    return {key: str(value) for key, value in envs.items() if isinstance(value, str | int | float)}


def filled(task: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the task with the variables replaced wherever SkyPilot would; unknown ones stay as they are."""
    envs = env_values(task)
    return {key: _filled(value, envs) if key in SUBSTITUTED_FIELDS else value for key, value in task.items()}


def left_over(root: str, task: Mapping[str, JSON]) -> Iterator[Problem]:
    """Yield each `$` that is left where SkyPilot would replace variables, and each key that two variables share."""
    whole = filled(task)
    for field in SUBSTITUTED_FIELDS:
        if field in whole:
            yield from _dollars(under(root, field), whole[field])
            yield from _clashes(under(root, field), task[field], whole[field])


def _filled(value: JSON, envs: Mapping[str, str]) -> JSON:
    if isinstance(value, str):
        return _replaced(value, envs)
    if isinstance(value, Mapping):
        return {str(_filled(key, envs)): _filled(inner, envs) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, envs) for inner in value]
    return value


def _replaced(text: str, envs: Mapping[str, str]) -> str:
    """Return the text with its variables replaced, or as it is if that made it too long.

    A few kilobytes of `$A$A$A` and as many in A would otherwise make gigabytes here.
    """
    if "$" not in text or len(text) > MAX_CHARACTERS:
        return text
    found = [envs.get(match[1] or match[2], match[0]) for match in _VARIABLE.finditer(text)]
    if len(text) + sum(map(len, found)) > MAX_CHARACTERS:
        return text
    return _VARIABLE.sub(lambda match: envs.get(match[1] or match[2], match[0]), text)


def _dollars(path: str, value: JSON) -> Iterator[Problem]:
    if isinstance(value, str) and "$" in value:
        yield Problem(
            path, f"holds a $ that names no env of the task, or too long a one ({MAX_CHARACTERS} characters); correct or remove it"
        )
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _dollars(under(path, key), key)
            yield from _dollars(under(path, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _dollars(under(path, index), inner)


def _clashes(path: str, before: JSON, after: JSON) -> Iterator[Problem]:
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return
    if len(after) < len(before):
        yield Problem(path, "two keys are the same once their variables are replaced; keep one of them")
    for old, new in zip(before.values(), after.values(), strict=False):
        yield from _clashes(path, old, new)
