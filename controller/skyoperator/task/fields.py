"""The vocabulary in which tables of allowed keys are written: each word makes a Field that judges one value."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from skyoperator.task.problems import JSON, Field, Problem, Reason, show, under

Kind: TypeAlias = Literal["null", "boolean", "integer", "number", "string", "list", "object"]


def kind(value: JSON) -> Kind:
    """Return the JSON type of the value; true is a boolean, never an integer."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "list"


def of(wanted: str, by_kind: Mapping[Kind, Field]) -> Field:
    """Judge a value by the field for its kind; other kinds are a mistake. `wanted` completes "must be ..."."""

    def field(path: str, value: JSON) -> Iterator[Problem]:
        judge = by_kind.get(kind(value))
        if judge is None:
            yield Problem(path, f"must be {wanted}, not {kind(value)}")
        else:
            yield from judge(path, value)

    return field


def anything(_path: str, _value: JSON) -> Iterator[Problem]:
    """Accept every value; for kinds whose every value is right."""
    yield from ()


def refused(reason: Reason, message: str) -> Field:
    """Refuse whatever the value is, without showing it."""

    def field(path: str, _value: JSON) -> Iterator[Problem]:
        yield Problem(path, message, reason)

    return field


def text(pattern: str, wanted: str) -> Field:
    """Accept a string that the pattern matches as a whole.

    `$` would let a final newline through, as SkyPilot's own checks do, so patterns here are matched with fullmatch.
    """
    compiled = re.compile(pattern)

    def matches(path: str, value: JSON) -> Iterator[Problem]:
        if not (isinstance(value, str) and compiled.fullmatch(value)):
            yield Problem(path, f"{show(value)} must be {wanted}")

    return of(wanted, {"string": matches})


def one_of(*words: str, any_case: bool = True) -> Field:
    """Accept one of the words, by default in any case, as SkyPilot does."""
    wanted = f"one of {', '.join(words)}"

    def matches(path: str, value: JSON) -> Iterator[Problem]:
        if isinstance(value, str) and (value.lower() if any_case else value) not in words:
            yield Problem(path, f"{show(value)} must be {wanted}{_hint(value.lower(), words)}")

    return of(wanted, {"string": matches})


def whole(low: int, high: int | None = None) -> Field:
    """Accept an integer between the bounds, both included."""
    wanted = f"a whole number from {low}" if high is None else f"a whole number from {low} to {high}"

    def in_range(path: str, value: JSON) -> Iterator[Problem]:
        if isinstance(value, int) and (value < low or (high is not None and value > high)):
            yield Problem(path, f"{value} must be {wanted}")

    return of(wanted, {"integer": in_range})


def positive(path: str, value: JSON) -> Iterator[Problem]:
    """Accept a number above 0."""
    if not (isinstance(value, int | float) and value > 0):
        yield Problem(path, f"{show(value)} must be above 0")


def quantity(pattern: str, wanted: str) -> Field:
    """Accept a number above 0, or a string that the pattern matches and that is not zero."""

    def not_zero(path: str, value: JSON) -> Iterator[Problem]:
        if not re.search("[1-9]", str(value)):
            yield Problem(path, f"{show(value)} must be above 0")

    shape = text(pattern, wanted)
    return of(
        wanted,
        {
            "integer": positive,
            "number": positive,
            "string": lambda path, value: (p for judge in (shape, not_zero) for p in judge(path, value)),
        },
    )


boolean = of("true or false", {"boolean": anything})


def items(item: Field, *, may_be_empty: bool = False) -> Field:
    """Accept a list of values that `item` accepts, of at least one unless it may be empty."""

    def each(path: str, value: JSON) -> Iterator[Problem]:
        assert isinstance(value, list)
        if not value and not may_be_empty:
            yield Problem(path, "is empty; leave it out")
        for index, inner in enumerate(value):
            yield from item(under(path, index), inner)

    return of("a list", {"list": each})


def entries(key: Field, value: Field, *, may_be_empty: bool = True) -> Field:
    """Accept an object with keys of the user's own, such as labels."""

    def each(path: str, whole_object: JSON) -> Iterator[Problem]:
        assert isinstance(whole_object, Mapping)
        if not whole_object and not may_be_empty:
            yield Problem(path, "is empty; leave it out")
        for name, inner in whole_object.items():
            yield from key(under(path, name), name)
            yield from value(under(path, name), inner)

    return of("an object", {"object": each})


def table(allowed: Mapping[str, Field], refusals: Mapping[str, Field] | None = None) -> Field:
    """Accept an object with the allowed keys only. Keys with an underscore are judged by `shape.internal_keys`."""
    fields = {**allowed, **(refusals or {})}

    def each(path: str, value: JSON) -> Iterator[Problem]:
        assert isinstance(value, Mapping)
        for key, inner in value.items():
            if key in fields:
                yield from fields[key](under(path, key), inner)
            elif not key.startswith("_"):
                yield Problem(under(path, key), f"there is no such key{_hint(key, tuple(allowed))}")

    return of("an object", {"object": each})


def _hint(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
