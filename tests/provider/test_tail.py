"""The log in the task's log: whole lines, at most so much at a time, and a failure is no failure of the task."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.errors import ApiError
from skyoperator_provider.tail import FAILURES_TO_TELL, LIMIT_BYTES, LONGEST_LINE_BYTES, Lines, Log, Tail, log_of

from tests.provider.scripted_api import ScriptedApi

LOG = Log("ml", "train", "uid-of-train", 1)


@dataclass
class Reader:
    """A tail, what it reads from, and what it shows."""

    api: ScriptedApi = field(default_factory=ScriptedApi)
    shown: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api.put("train")
        self.tail = Tail(self.shown.append, self.warned.append)

    async def look(self, attempt: int | None = 1) -> list[str]:
        """Return what one look shows."""
        self.shown.clear()
        await self.tail.look(Log("ml", "train", "uid-of-train", attempt), self._client)
        return list(self.shown)

    async def _client(self) -> ScriptedApi:
        return self.api


@pytest.fixture
async def reader() -> Reader:
    return Reader()


def pieces_of(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    return (data[begin:end] for begin, end in pairwise(edges))


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x1b"), max_size=30)


@given(st.lists(TEXT), TEXT, st.lists(st.integers(0, 2000)))
def test_lines_are_the_same_however_they_come(whole: list[str], rest: str, cuts: list[int]) -> None:
    lines = Lines()
    data = "".join(line + "\n" for line in whole).encode() + rest.encode()
    assert [line for piece in pieces_of(data, cuts) for line in lines.feed(piece)] == whole
    assert lines.begun_bytes == len(rest.encode())
    assert lines.finish() == ([rest] if rest else [])
    assert lines.begun_bytes == 0


@given(st.lists(st.binary(max_size=200)))
def test_whatever_comes_is_text_without_escapes_and_line_ends(pieces: list[bytes]) -> None:
    lines = Lines()
    for piece in pieces:
        for line in lines.feed(piece):
            assert not re.search(r"[\x1b\n\r]", line)
        assert lines.begun_bytes <= LONGEST_LINE_BYTES


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"\x1b[1;31mred\x1b[0m\n"], ["red"]),
        ([b"\x1b]8;;https://x\x07link\x1b]8;;\x07\n"], ["link"]),
        ([b"\x1b[3", b"1mred\n"], ["red"]),
        ([b"one\r\ntwo\r", b"\nthree\n"], ["one", "two", "three"]),
        ([b"caf\xc3", b"\xa9\n"], ["café"]),
        ([b"\xff\n"], ["\ufffd"]),
        ([b"\r 10%\r 20%\r 30%"], [" 20%"]),
        ([b"\r 10%\r 20%", b"\r 30%\r 99%\r100%\n"], [" 10%", "100%"]),
        ([b"100 % of %s\n"], ["100 % of %s"]),
        ([b"x" * (LONGEST_LINE_BYTES + 1)], ["x" * (LONGEST_LINE_BYTES + 1)]),
    ],
)
def test_lines_are_shown_as_a_terminal_shows_them(pieces: list[bytes], shown: list[str]) -> None:
    lines = Lines()
    assert [line for piece in pieces for line in lines.feed(piece)] == shown


async def test_what_is_new_is_shown_and_a_line_waits_for_its_end(reader: Reader) -> None:
    reader.api.logs[1] = b"one\ntw"
    assert await reader.look() == ["one"]
    assert reader.tail.offset_bytes == len(b"one\n")
    reader.api.logs[1] += b"o\n"
    assert await reader.look() == ["two"]
    assert reader.tail.offset_bytes == len(b"one\ntwo\n")
    assert await reader.look() == []
    assert reader.warned == []


async def test_one_who_goes_on_elsewhere_begins_with_the_line_that_was_not_shown(reader: Reader) -> None:
    reader.api.logs[1] = b"\x1b[31mone\x1b[0m\n\x1b[32mtw"
    await reader.look()
    assert reader.api.logs[1][reader.tail.offset_bytes :] == b"\x1b[32mtw"


async def test_nothing_is_asked_before_there_is_a_job(reader: Reader) -> None:
    assert await reader.look(attempt=None) == []
    assert (reader.api.calls["log"], reader.tail.attempt) == (0, None)
    reader.api.logs[3] = b"began\n"
    assert await reader.look(attempt=3) == ["began"]
    assert reader.tail.attempt == 3


async def test_a_log_that_grows_too_fast_is_skipped_forward_and_says_how_far(reader: Reader) -> None:
    line = b"x" * 63 + b"\n"
    reader.api.logs[1] = line * (10 * LIMIT_BYTES // len(line))
    first = await reader.look()
    assert first[:-1] == [line.decode().rstrip("\n")] * (LIMIT_BYTES // len(line))
    assert first[-1].startswith(f"[skyoperator: {8 * LIMIT_BYTES} bytes skipped;")
    assert reader.tail.offset_bytes == 9 * LIMIT_BYTES
    second = await reader.look()
    assert len("\n".join(second)) < LIMIT_BYTES
    assert reader.tail.offset_bytes == 10 * LIMIT_BYTES
    assert not any("skipped" in text for text in second)


async def test_a_line_that_a_skip_cuts_is_not_joined_to_another(reader: Reader) -> None:
    reader.api.logs[1] = b"x\n" * (LIMIT_BYTES // 2 - 3) + b"begun!" + b"its end\n" + b"y\n" * LIMIT_BYTES
    first = await reader.look()
    assert first[-2] == "begun!"
    assert set(await reader.look()) == {"y"}


async def test_each_byte_is_shown_or_counted_as_skipped(reader: Reader) -> None:
    reader.api.logs[1] = b""
    shown_bytes = skipped_bytes = 0
    for number in range(20):
        reader.api.logs[1] += b"y" * (number * 20_011) + b"\n"
        for line in await reader.look():
            skipped = re.match(r"\[skyoperator: (\d+) bytes skipped", line)
            if skipped:
                skipped_bytes += int(skipped[1])
            else:
                shown_bytes += line.count("y")
    assert skipped_bytes > 0
    left = reader.api.logs[1][reader.tail.offset_bytes :]
    ends = reader.api.logs[1].count(b"\n")
    assert 0 <= len(reader.api.logs[1]) - shown_bytes - skipped_bytes - left.count(b"y") <= ends


async def test_the_next_attempts_log_follows_once_the_first_has_no_more(reader: Reader) -> None:
    reader.api.logs[1] = b"one\n"
    assert await reader.look() == ["one"]
    reader.api.logs[1] += b"its end"
    assert await reader.look(attempt=None) == []
    reader.api.logs[2] = b"two\n"
    reader.api.logs[1] += b" is not over\nits end"
    assert await reader.look(attempt=2) == ["its end is not over"]
    assert await reader.look(attempt=2) == ["its end", "[skyoperator: attempt 2 follows]"]
    assert (reader.tail.attempt, reader.tail.offset_bytes) == (2, 0)
    assert await reader.look(attempt=2) == ["two"]


async def test_an_offset_of_another_log_begins_anew(reader: Reader) -> None:
    reader.tail = Tail(reader.shown.append, reader.warned.append, offset_bytes=1000, attempt=1)
    reader.api.logs[1] = b"one\n"
    assert await reader.look() == []
    assert await reader.look() == ["one"]
    assert reader.warned == []


@pytest.mark.parametrize(
    ("error", "looks_until_told"),
    [(ApiError("forbidden", status=HTTPStatus.FORBIDDEN), 1), (ApiError("try again", status=503), FAILURES_TO_TELL)],
    ids=["forbidden", "away"],
)
async def test_what_keeps_it_from_being_read_is_told_once(reader: Reader, error: ApiError, looks_until_told: int) -> None:
    reader.api.logs[1] = b"one\n"
    reader.api.forever["log"] = error
    told = []
    for _ in range(10):
        await reader.look()
        told.append(len(reader.warned))
    assert told == [0] * (looks_until_told - 1) + [1] * (11 - looks_until_told)
    assert str(error) in reader.warned[0]
    reader.api.forever.clear()
    assert await reader.look() == ["one"]


async def test_a_log_process_that_stumbles_now_and_then_is_nothing_to_tell(reader: Reader) -> None:
    reader.api.logs[1] = b"one\n"
    for _ in range(2 * FAILURES_TO_TELL):
        reader.api.faults["log"].append(ApiError("try again", status=503))
        await reader.look()
        await reader.look()
    assert reader.warned == []


async def test_a_log_that_is_not_there_yet_is_nothing_to_tell(reader: Reader) -> None:
    for _ in range(10):
        assert await reader.look() == []
    assert reader.warned == []


async def test_an_api_that_does_not_answer_is_left(reader: Reader) -> None:
    reader.api.held["log"] = asyncio.Event()
    for _ in range(FAILURES_TO_TELL):
        await reader.tail.look(LOG, reader._client, at_most_seconds=0.0)
    assert len(reader.warned) == 1


async def test_a_quiet_log_is_looked_at_less_often(reader: Reader) -> None:
    reader.api.logs[1] = b"one\n"
    assert 0 <= reader.tail.seconds_left <= 10
    pauses = []
    for _ in range(5):
        await reader.look()
        pauses.append(reader.tail.seconds_left)
    for pause, expected in zip(pauses, [10, 20, 40, 60, 60], strict=True):
        assert expected * 0.6 <= pause <= expected * 1.1
    reader.api.logs[1] += b"two\n"
    await reader.look()
    assert reader.tail.seconds_left <= 11


@pytest.mark.parametrize(
    ("status", "attempt"),
    [
        ({}, None),
        ({"launch": {"attempt": 2}}, None),
        ({"launch": {"attempt": 2}, "job": {"name": "j"}}, 2),
    ],
)
def test_there_is_a_log_as_soon_as_there_is_a_job(status: dict[str, object], attempt: int | None) -> None:
    metadata = {"name": "train", "namespace": "ml", "uid": "u"}
    assert log_of({"metadata": metadata, "status": status}) == Log("ml", "train", "u", attempt)
    assert log_of({"metadata": metadata}).attempt is None
