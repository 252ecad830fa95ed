"""Terminal codes are taken out, wherever the pieces were cut, and nothing else is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.cli.ansi import PENDING_LIMIT_BYTES, Stripper

CODES = (
    b"\x1b[0m",
    b"\x1b[1;31m",
    b"\x1b[2K",
    b"\x1b[?25l",
    b"\x1b]0;title\x07",
    b"\x1b]8;;http://x\x1b\\",
    b"\x1b(B",
    b"\x1bM",
    b"\x1b7",
    b"\x1bPq\x1b\\",
)
TEXTS = st.binary(max_size=30).filter(lambda text: b"\x1b" not in text)


def stripped(pieces: list[bytes]) -> bytes:
    stripper = Stripper()
    return b"".join(stripper.feed(piece) for piece in pieces) + stripper.end()


@given(st.lists(st.tuples(TEXTS, st.sampled_from(CODES))), TEXTS, st.lists(st.integers(0, 400)))
def test_codes_are_taken_out_wherever_the_pieces_are_cut(parts: list[tuple[bytes, bytes]], last: bytes, cuts: list[int]) -> None:
    whole = b"".join(text + code for text, code in parts) + last
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]

    assert stripped(pieces) == b"".join(text for text, _ in parts) + last


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_any_bytes_come_out_the_same_however_they_are_cut(whole: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]

    assert stripped(pieces) == stripped([whole])


@pytest.mark.parametrize("rest", [b"\x1b", b"\x1b[", b"\x1b[31", b"\x1b]0;half"])
def test_a_code_that_never_ends_is_no_code(rest: bytes) -> None:
    assert stripped([b"text" + rest]) == b"text" + rest


def test_what_only_begins_like_a_code_does_not_pile_up() -> None:
    stripper = Stripper()

    assert stripper.feed(b"\x1b]" + b"x" * PENDING_LIMIT_BYTES)
