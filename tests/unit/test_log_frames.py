"""Which lines of a log carry what the job returned, and what they say together."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import tracemalloc
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.logs import frames
from skyoperator.logs.frames import VALUE_BYTES, BrokenValueError, Frame, assemble, encode, is_frame, missing, parse, that_count

ONE = "value-one"
OTHER = "value-two"
ARABIC_ONE = "\u0661"
PREFIXES = [
    b"",
    b"(train, pid=123) ",
    b"(head, rank=0, pid=1) ",
    b"\x1b[36m(worker1, rank=1, pid=7, ip=10.0.0.2)\x1b[0m ",
    b"60%|\xe2\x96\x88",
    b"\xff\xfe",
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
words = st.binary(max_size=40) | st.sampled_from(
    [b"[skyoperator:result:1 ", b"value-one ", b"1/1 ", b"a" * 64, b" QUJD", b"]", b"\x1b[0m", ARABIC_ONE.encode()]
)


def frames_of(value: object, identifier: str = ONE) -> list[Frame]:
    return parsed(encode(json.dumps(value).encode(), identifier))


def parsed(lines: list[str]) -> list[Frame]:
    found = [parse(line.encode()) for line in lines]
    return [frame for frame in found if frame]


def incompressible(count: int, seed: bytes = b"") -> str:
    return "".join(hashlib.sha256(seed + bytes([i % 256, i // 256])).hexdigest() for i in range(count // 64))


def line(*, i: str = "1", n: str = "1", sha256: str | None = None, text: bytes = b"1", identifier: str = ONE) -> bytes:
    whole = base64.b64encode(zlib.compress(text)).decode()
    return f"[skyoperator:result:1 {identifier} {i}/{n} {sha256 or hashlib.sha256(text).hexdigest()} {whole}]".encode()


@given(value=values, prefix=st.sampled_from(PREFIXES), again=st.booleans(), random=st.randoms(use_true_random=False))
def test_a_value_comes_back_from_lines_in_any_order_and_more_than_once(value: object, prefix: bytes, again: bool, random: Random) -> None:
    text = json.dumps(value).encode()
    lines = [prefix + line.encode() + end for line, end in zip(encode(text, ONE), itertools.cycle([b"", b"\n", b"\x1b[0m"]), strict=False)]
    assert all(map(is_frame, lines))
    random.shuffle(lines)
    had = [frame for frame in map(parse, lines * (2 if again else 1)) if frame]
    assert assemble(had) == text


def test_a_value_of_many_parts_needs_all_of_them_and_no_line_is_longer_than_a_pipe_takes_at_once() -> None:
    text = json.dumps(incompressible(200_000)).encode()
    lines = encode(text, ONE)
    assert len(lines) > 30
    assert max(map(len, lines)) < 4096 - 200
    had = parsed(lines)
    assert assemble(had[1:] + had[:1]) == text
    for left_out in (0, 7, len(had) - 1):
        some = [*had[:left_out], *had[left_out + 1 :]]
        assert assemble(some) is None
        assert missing(some) == f"only {len(had) - 1} of the {len(had)} parts of the value came"


def test_the_value_that_is_complete_last_counts() -> None:
    first, second = frames_of(incompressible(10_000)), frames_of(2, OTHER)
    assert assemble([*first, *second]) == b"2"
    assert assemble([*first[:-1], *second, first[-1]]) == json.dumps(incompressible(10_000)).encode()
    assert assemble([*second, *first[:-1]]) == b"2"


def test_a_frame_that_comes_again_does_not_bring_back_its_value() -> None:
    first, second = frames_of(1), frames_of(2, OTHER)
    assert assemble([*first, *second, *first]) == b"2"


def test_nothing_is_missing_of_nothing() -> None:
    assert assemble([]) is None
    assert missing([]) == "no part of a value came"


@given(parts=st.lists(words))
def test_no_line_breaks_the_reader(parts: list[bytes]) -> None:
    parse(b"".join(parts))


@pytest.mark.parametrize(
    "hostile",
    [
        line(i="0"),
        line(i="2"),
        line(i="-1"),
        line(i="1", n="-1"),
        line(i="1", n="0"),
        line(i="1", n="99999"),
        line(i="1", n="9" * 5000),
        line(i="01"),
        line(i=ARABIC_ONE, n=ARABIC_ONE),
        line(i="1 "),
        line(identifier="short"),
        line(identifier="x" * 65),
        line(identifier="../../etc"),
        line(sha256="A" * 64),
        line(sha256="a" * 63),
        line()[:-1],
        line().replace(b"result:1", b"result:2"),
        b"[skyoperator:result:1 value-one 1/1 " + b"a" * 64 + b" " + b"A" * 3073 + b"]",
        b"echo '[skyoperator:result:1 <id> <i>/<n> <sha256> <base64>]'",
    ],
)
def test_what_is_no_frame_stays_in_the_log(hostile: bytes) -> None:
    assert not is_frame(hostile)
    assert is_frame(line())


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (line(sha256="0" * 64), "its SHA-256 differs"),
        (line(text=b"NaN"), "NaN is not JSON"),
        (line(text=b"[-Infinity]"), "-Infinity is not JSON"),
        (line(text=b"{'a': 1}"), "Expecting property name"),
        (line(text=b""), "Expecting value"),
        (line(text='"a"'.encode("utf-16")), "can't decode byte"),
        (line(text=b'"\xff"'), "can't decode byte"),
        (line(text=b"[" * 100_000), "nested too deeply"),
        (line(text=b" " * (VALUE_BYTES + 1)), f"longer than {VALUE_BYTES} bytes"),
        (line()[:-2] + b"]", "can't be decoded"),
        (line()[:-8] + b"]", "can't be decoded"),
        (b"[skyoperator:result:1 value-one 1/1 " + b"a" * 64 + b" AAAA]", "can't be decoded"),
    ],
)
def test_what_is_no_value_counts_as_none_and_says_why(hostile: bytes, why: str) -> None:
    had = parse(hostile)
    assert had
    with pytest.raises(BrokenValueError, match=why):
        assemble([had])
    with pytest.raises(BrokenValueError):
        assemble([*frames_of(1, OTHER), had])
    assert assemble([had, *frames_of(1, OTHER)]) == b"1"


def test_parts_of_two_values_are_not_mixed() -> None:
    first, second = frames_of(incompressible(10_000)), frames_of(incompressible(10_000, b"other"))
    assert len(first) == len(second) > 2
    assert assemble([*first[:2], *second[2:]]) is None


def test_a_part_that_comes_again_otherwise_is_found_out() -> None:
    had = frames_of(incompressible(10_000))
    with pytest.raises(BrokenValueError):
        assemble([*had, Frame(had[0].id, 1, had[0].n, had[0].sha256, had[1].part)])


def test_a_value_of_the_greatest_length_is_taken() -> None:
    text = b'"' + b"x" * (VALUE_BYTES - 2) + b'"'
    assert assemble(parsed(encode(text, ONE))) == text
    with pytest.raises(ValueError, match="longer than"):
        encode(text + b" ", ONE)


def test_a_bomb_takes_no_memory() -> None:
    bomb = base64.b64encode(zlib.compress(b" " * 50_000_000, 9)).decode()
    parts = [bomb[at : at + 3072] for at in range(0, len(bomb), 3072)]
    had = parsed([f"[skyoperator:result:1 {ONE} {i}/{len(parts)} {'0' * 64} {part}]" for i, part in enumerate(parts, 1)])
    assert len(had) == len(parts)
    tracemalloc.start()
    with pytest.raises(BrokenValueError, match="longer than"):
        assemble(had)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * VALUE_BYTES


@pytest.mark.parametrize("text", [b"NaN", b"", b"{", b"\xff"])
def test_only_json_is_sent(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|decode"):
        encode(text, ONE)


@pytest.mark.parametrize("identifier", ["short", "x" * 65, "with space", "with]bracket", "ünïcödé-"])
def test_only_an_id_that_can_be_read_is_sent(identifier: str) -> None:
    with pytest.raises(ValueError, match="8 to 64"):
        encode(b"1", identifier)


def test_frames_of_a_value_that_was_replaced_can_go() -> None:
    first, second, third = frames_of(1), frames_of(2, OTHER), frames_of(incompressible(10_000))[:-1]
    kept = that_count([*first, *third, *second])
    assert not any(frame in kept for frame in first)
    assert assemble(kept) == b"2"
    assert assemble([*kept, *frames_of(incompressible(10_000))[-1:]]) == json.dumps(incompressible(10_000)).encode()
    assert [parse(frames.line_of(frame)) for frame in kept] == kept


def test_a_number_of_more_digits_than_python_reads_is_json_still() -> None:
    digits = b"1" * 5000
    assert assemble(parsed(encode(digits, ONE))) == digits
