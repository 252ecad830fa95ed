"""What is sent comes back as it was, or says which part of it can't be sent."""

from __future__ import annotations

import enum
import json
import math
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.remote.far import failure
from skyoperator_provider.remote.far import frames as writer
from skyoperator_provider.remote.far.tagged import LEVELS, TAG, UnsendableError, decode, dumps
from skyoperator_provider.remote.values import RemoteError, Returned, UnreadableValueError, read

from tests.provider.far_side import frames

OFFSETS = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.binary(max_size=50)
    | st.datetimes()
    | st.datetimes(timezones=OFFSETS)
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
KEYS = st.text(st.characters(), max_size=9) | st.sampled_from([TAG, "__skyoperator_error__", "value", "__skyoperator"])
HASHABLE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    ),
    max_leaves=15,
)


def same(one: object, other: object) -> bool:
    """Equal, and of one type all the way down: 1, 1.0 and True are not the same, and [] is not ()."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(same(*pair) for pair in zip(_sorted(one.items()), _sorted(other.items()), strict=True))
    if isinstance(one, set | frozenset) and isinstance(other, set | frozenset):
        return len(one) == len(other) and all(same(*pair) for pair in zip(_sorted(one), _sorted(other), strict=True))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return repr(one) == repr(other) if isinstance(one, float) else one == other


def _sorted(values: Any) -> list[Any]:
    return sorted(values, key=lambda value: dumps(value, "x"))


@given(VALUES)
def test_every_value_comes_back_as_it_was(value: object) -> None:
    found = read(dumps(value, "x"))
    assert isinstance(found, Returned)
    assert same(found.value, value)


@given(VALUES)
def test_the_controller_takes_what_is_sent(value: object) -> None:
    frames.check_json(dumps(value, "x"))


@given(st.dictionaries(KEYS, SCALARS, max_size=4))
def test_a_returned_dict_is_never_taken_for_an_error(value: dict[str, object]) -> None:
    assert isinstance(read(dumps({"__skyoperator_error__": value}, "x")), Returned)


@given(st.sets(SCALARS, max_size=9))
def test_a_set_is_the_same_bytes_whatever_order_it_was_made_in(value: set[Any]) -> None:
    assert dumps(value, "x") == dumps({*reversed(list(value))}, "x")


class Color(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Pair(tuple[int, int]):
    __slots__ = ()


class Ratio(float):
    pass


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (pendulum.datetime(2026, 3, 29, 1, 30, tz="Europe/Berlin"), datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=1)))),
        (pendulum.datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
        (pendulum.duration(years=1, months=2, days=3, microseconds=4), timedelta(days=428, microseconds=4)),
        (pendulum.date(2026, 1, 2), date(2026, 1, 2)),
        (Color.RED, "red"),
        (Ratio(0.5), 0.5),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": (1,)}), {"a": (1,)}),
        (range(3), [0, 1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_a_derived_type_arrives_what_it_is_derived_from(value: object, arrives: object) -> None:
    found = decode(json.loads(dumps(value, "x")))
    assert same(found, arrives)


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([Pair((1, 2))], r"x\[0\] is of the type .*Pair, which can't be sent; send a tuple made of it"),
        ({"lr": [0.1, math.nan]}, r"x\['lr'\]\[1\] is nan, which JSON has not"),
        (math.inf, "x is inf"),
        ({"model": {"net": object()}}, r"x\['model'\]\['net'\] is of the type object, which can't be sent"),
        ([{1: {2}}, {3: Ratio}], r"x\[1\]\[3\] is of the type type"),
        ({(1, object()): 2}, r"a key of x\[1\] is of the type object"),
        ({object(): 2}, "a key of x is of the type object"),
        (Point(1, 2), "x is of the type .*Point, which can't be sent; send its _asdict()"),
        ([bytearray(b"x")], r"x\[0\] is of the type bytearray"),
        ([10**5000], r"x\[0\] is an integer of more than 14000 bits"),
        (itself(), f"x.* has more than {LEVELS} levels, or contains itself"),
    ],
)
def test_what_can_not_be_sent_is_named(value: object, says: str) -> None:
    with pytest.raises(UnsendableError, match=says.replace("()", r"\(\)")):
        dumps(value, "x")


def test_arrays_are_told_what_to_do() -> None:
    class Array:
        def tolist(self) -> list[int]:
            return [1]

    with pytest.raises(UnsendableError, match=r"Array, which can't be sent; send its tolist\(\)"):
        dumps({"a": Array()}, "x")


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.just(TAG) | st.just("value") | st.just("__skyoperator_error__"), inner, max_size=4)
    ),
)
TAGGED = st.fixed_dictionaries(
    {TAG: st.sampled_from(["datetime", "date", "timedelta", "Decimal", "UUID", "bytes", "dict", "set"]) | JSONS, "value": JSONS}
)


@given(JSONS | TAGGED)
def test_whatever_a_job_wrote_is_a_value_or_a_clear_error(encoded: object) -> None:
    try:
        assert isinstance(read(json.dumps(encoded)), Returned | RemoteError)
    except UnreadableValueError as error:
        assert "can't be read" in str(error)  # noqa: PT017 - that it does not raise is as good


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        b"\xff",
        "[" * 100_000,
        json.dumps({TAG: "module", "value": "os"}),
        json.dumps({TAG: "Decimal", "value": "x"}),
        json.dumps({TAG: "Decimal", "value": "1", "more": 2}),
        json.dumps({"__skyoperator_error__": {"type": "ValueError", "mro": "ValueError", "message": "", "traceback": ""}}),
        json.dumps({"__skyoperator_error__": None}),
    ],
)
def test_a_broken_body_is_no_value(body: str | bytes) -> None:
    with pytest.raises(UnreadableValueError, match="what the job returned can't be read"):
        read(body)


def raised(make: Callable[[], object]) -> RemoteError:
    try:
        make()
    except Exception as error:  # noqa: BLE001
        found = read(json.dumps(failure.error_value(error, failure.traceback_of(error))))
        assert isinstance(found, RemoteError)
        return found
    pytest.fail("nothing was raised")


def test_an_error_says_what_it_is_derived_from() -> None:
    class AirflowSkipException(Exception):  # noqa: N818
        pass

    class Mine(AirflowSkipException):
        pass

    def fail() -> None:
        raise Mine("no data today")

    found = raised(fail)
    assert found.is_a("AirflowSkipException")
    assert found.is_a("Exception")
    assert not found.is_a("SkipException")
    assert found.type.endswith("Mine")
    assert found.classes[-1] == "object"
    assert found.message == "no data today"
    assert 'raise Mine("no data today")' in found.traceback


def test_an_error_that_can_not_be_told_is_one_still() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise KeyError("x")

    def fail() -> None:
        raise MuteError

    assert raised(fail).message == "<its str() raised KeyError>"


@given(st.text(st.characters() | st.sampled_from("ä€🚀\udc80"), min_size=1, max_size=9), st.integers(1, 20_000))
def test_errors_are_bounded_and_keep_their_end(text: str, times: int) -> None:
    def fail() -> None:
        raise ValueError(text * times + "the end")

    found = raised(fail)
    assert len(found.message.encode()) <= 8 * 1024
    assert len(found.traceback.encode()) <= 32 * 1024
    assert found.message.endswith("the end")
    assert found.traceback.endswith("the end\n")


@given(st.binary(max_size=writer.VALUE_BYTES).map(lambda data: json.dumps(data.hex()[: writer.VALUE_BYTES - 2]).encode()))
def test_frames_are_those_of_the_controller(text: bytes) -> None:
    lines = writer.lines(text, "0123456789abcdef")
    assert [line.decode().removesuffix("\n") for line in lines] == frames.encode(text, "0123456789abcdef")
    assert all(len(line) < 4095 for line in lines)
    assert frames.assemble(map(frames.parse, lines)) == text


def test_the_bounds_are_those_of_the_controller() -> None:
    assert (writer.VALUE_BYTES, writer.PART_CHARACTERS) == (frames.VALUE_BYTES, frames.PART_CHARACTERS)
    longest = json.dumps("x" * (writer.VALUE_BYTES - 2)).encode()
    assert frames.assemble(map(frames.parse, writer.lines(longest, "0123456789abcdef"))) == longest
    with pytest.raises(writer.TooLongError, match="524289 bytes of JSON, more than 524288"):
        writer.lines(longest + b" ", "0123456789abcdef")


def written(text: bytes) -> bytes:
    reading, writing = os.pipe()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reading, 4096), b"")))
    reader.start()
    try:
        writer.write(writing, text)
    finally:
        os.close(writing)
        reader.join()
        os.close(reading)
    return b"".join(got)


def test_half_a_line_of_another_thread_is_not_taken_for_a_part_of_a_frame() -> None:
    lines = written(json.dumps(random.Random(1).randbytes(9000).hex()).encode()).splitlines()
    assert len(lines) == 2 * 5
    assert not any(lines[::2])
    assert all(map(frames.is_frame, lines[1::2]))


def test_decimals_that_are_no_numbers_come_back() -> None:
    assert str(decode(json.loads(dumps([Decimal("NaN"), Decimal("-Infinity")], "x")))) == "[Decimal('NaN'), Decimal('-Infinity')]"


def test_a_uuid_is_a_uuid() -> None:
    value = UUID(int=5)
    assert decode(json.loads(dumps(value, "x"))) == value
