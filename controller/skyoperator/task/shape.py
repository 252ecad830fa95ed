"""Is this plain data of a sane size? Asked before anything looks at what the data means.

A task out of a ConfigMap was YAML, which also knows dates, numbers as keys, aliases that multiply and structures that contain themselves.
"""

import math
import re
from collections.abc import Iterator, Mapping

from skyoperator.task.problems import JSON, Problem, under

MAX_DEPTH = 16
MAX_VALUES = 10_000
MAX_INTEGER = 2**63 - 1  # what the API server of Kubernetes keeps exact

# Tab, line feed and carriage return are text; the other control characters end a C string, a line of YAML or a shell
# word early. Half a surrogate pair cannot be written as UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def unreadable(root: str, value: object) -> Iterator[Problem]:
    """Yield why the value is not plain JSON that can be handed on; nothing else may be asked of it then."""
    waiting: list[tuple[str, object, int]] = [(root, value, 0)]
    seen = 0
    while waiting:
        path, current, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            yield Problem(path, f"the task has more than {MAX_VALUES} values or {MAX_DEPTH} levels; make it smaller")
            return
        yield from _own_fault(path, current)
        waiting.extend((*child, depth + 1) for child in _children(path, current))


def internal_keys(path: str, value: JSON) -> Iterator[Problem]:
    """Yield every key that begins with an underscore, at any depth.

    SkyPilot accepts such keys from its own client: `_cluster_config_overrides` is the refused `config` in disguise and
    `_docker_login_config` hands out credentials (sky/utils/schemas.py:569-593).
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key.startswith("_"):
                yield Problem(under(path, key), "keys that begin with _ are SkyPilot's own; remove it", "PolicyDenied")
            yield from internal_keys(under(path, key), inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from internal_keys(under(path, index), inner)


def plain(value: JSON) -> JSON:
    """Return a copy made of dict and list only, which no later change of the original reaches."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _own_fault(path: str, value: object) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _key_fault(path, key)
    elif isinstance(value, str):
        yield from _text_fault(path, value)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, f"{value} is no number that JSON can carry")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        yield Problem(path, "is a number of more than 64 bits; put it in quotes")
    elif not isinstance(value, None | bool | int | float | list | tuple):
        yield Problem(path, f"{type(value).__name__} is not a JSON type; put it in quotes")


def _key_fault(path: str, key: object) -> Iterator[Problem]:
    if isinstance(key, str):
        yield from _text_fault(path, key)
    else:
        yield Problem(path, f"the key {key} is {type(key).__name__}, not text; put it in quotes")


def _text_fault(path: str, text: str) -> Iterator[Problem]:
    if found := _UNPRINTABLE.search(text):
        yield Problem(path, f"holds the control character U+{ord(found.group()):04X}; remove it")


def _children(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield under(path, key if isinstance(key, str) else str(type(key).__name__)), inner
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield under(path, index), inner
