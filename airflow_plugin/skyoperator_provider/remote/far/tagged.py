"""JSON that also carries datetime, date, timedelta, Decimal, UUID, bytes, tuple, set, and dicts with other keys than text.

Such a value is an object with the key TAG. A dict of the user's that has a key like it is sent as a list of pairs, so it comes back as
it was. Nothing that is decoded runs code: the tags are a closed list.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

TAG = "__skyoperator__"
ERROR = "__skyoperator_error__"
"""The key of a returned value that is what the function raised."""
RESERVED = "__skyoperator"
"""How the keys begin that are ours."""
LEVELS = 100
"""Far below where a JSON parser gives up; also what ends a value that contains itself."""
INTEGER_BITS = 14_000
"""Python reads no integer of more than 4,300 digits (sys.get_int_max_str_digits)."""


class UnsendableError(TypeError):
    """A value holds something that can't be sent; says where, and what it is."""


def type_name(kind: type) -> str:
    """Return the type as people know it: `ValueError`, `numpy.ndarray`."""
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", kind.__name__)
    return str(name) if module in (None, "builtins", "__main__", "skyoperator_task") else f"{module}.{name}"


def dumps(value: Any, where: str) -> bytes:
    """Return the value as JSON text in UTF-8. Raises UnsendableError, which names the place, from `where` on."""
    encoded = encode(value, where)
    compact = {"allow_nan": False, "separators": (",", ":")}
    try:
        return json.dumps(encoded, ensure_ascii=False, **compact).encode()  # type: ignore[arg-type]
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return json.dumps(encoded, **compact).encode()  # type: ignore[arg-type]


def encode(value: Any, where: str, level: int = 0) -> Any:
    """Return the value as what the json module writes. Raises UnsendableError, which names the place, from `where` on."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return _plain(value, where)
    if level == LEVELS:
        raise UnsendableError(f"{where[:200]}... has more than {LEVELS} levels, or contains itself")
    for tag, kind, to_json, _ in _SCALARS:
        if isinstance(value, kind):
            return {TAG: tag, "value": to_json(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value, where, level + 1)
    return _encode_items(value, where, level + 1)


def decode(encoded: Any) -> Any:
    """Return what was encoded. Raises ValueError if it is not what `encode` makes."""
    if isinstance(encoded, list):
        return [decode(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if TAG not in encoded:
        return {key: decode(item) for key, item in encoded.items()}
    tag = encoded[TAG]
    if not isinstance(tag, str) or tag not in _DECODERS or set(encoded) != {TAG, "value"}:
        raise ValueError(f"it has a part with the tag {tag!r:.80}, which this version does not know")
    try:
        return _DECODERS[tag](encoded["value"])
    except (TypeError, ValueError, AttributeError, OverflowError, InvalidOperation, binascii.Error) as error:
        raise ValueError(f"it has a part that is no {tag}: {error}") from error


def _plain(value: Any, where: str) -> Any:
    """Return what JSON has itself; of a type derived from one, as numpy.float64 is from float, what it is derived from."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnsendableError(f"{where} is {float(value)}, which JSON has not; send None or a text instead")
        return float(value)
    if int.bit_length(value) > INTEGER_BITS:
        raise UnsendableError(f"{where} is an integer of more than {INTEGER_BITS} bits; send it as bytes or as a text")
    return int(value)


def _encode_mapping(value: Mapping[Any, Any], where: str, level: int) -> Any:
    if all(isinstance(key, str) and not key.startswith(RESERVED) for key in value):
        return {str.__str__(key): encode(item, f"{where}[{key!r:.80}]", level) for key, item in value.items()}
    pairs = [[encode(key, f"a key of {where}", level), encode(item, f"{where}[{key!r:.80}]", level)] for key, item in value.items()]
    return {TAG: "dict", "value": pairs}


def _encode_items(value: Any, where: str, level: int) -> Any:
    if type(value) is tuple:
        return {TAG: "tuple", "value": _each(value, where, level)}
    if type(value) in (set, frozenset):
        members = [encode(item, f"a member of {where}", level) for item in value]
        return {TAG: type(value).__name__, "value": sorted(members, key=lambda member: json.dumps(member, sort_keys=True))}
    if isinstance(value, Sequence) and not isinstance(value, (tuple, bytearray, memoryview)):
        return _each(value, where, level)
    raise UnsendableError(f"{where} is of the type {type_name(type(value))}, which can't be sent{_hint(value)}")


def _each(value: Sequence[Any], where: str, level: int) -> list[Any]:
    return [encode(item, f"{where}[{index}]", level) for index, item in enumerate(value)]


def _hint(value: Any) -> str:
    if isinstance(value, tuple):
        return "; send its _asdict()" if hasattr(value, "_asdict") else "; send a tuple made of it"
    return "; send its tolist()" if hasattr(value, "tolist") else ""


def _timedelta_parts(value: timedelta) -> list[int]:
    """Return days, seconds and microseconds. The sum is a plain one: pendulum's Duration takes months out of its days."""
    plain = timedelta.__add__(timedelta(), value)
    return [plain.days, plain.seconds, plain.microseconds]


def _timedelta(parts: list[int]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_SCALARS: tuple[tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    ("datetime", datetime, datetime.isoformat, datetime.fromisoformat),  # before date: each datetime is one
    ("date", date, date.isoformat, date.fromisoformat),
    ("timedelta", timedelta, _timedelta_parts, _timedelta),
    ("Decimal", Decimal, str, Decimal),
    ("UUID", UUID, str, UUID),
    ("bytes", bytes, lambda value: base64.b64encode(value).decode(), _bytes),
)
_DECODERS: dict[str, Callable[[Any], Any]] = {
    **{tag: from_json for tag, _, _, from_json in _SCALARS},
    "dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
    "tuple": lambda items: tuple(map(decode, items)),
    "set": lambda items: set(map(decode, items)),
    "frozenset": lambda items: frozenset(map(decode, items)),
}
