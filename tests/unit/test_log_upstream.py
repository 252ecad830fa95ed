"""What SkyPilot tells of a job's log, in any pieces and by any number of looks, is kept once and in order."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.logs import frames
from skyoperator.logs.splice import Lines, Reading, new_parts
from skyoperator.logs.types import Piece
from skyoperator.logs.upstream import FEWEST_LINES, JobUpstream, LaunchUpstream, StrangeLogError
from skyoperator.sky.logs import lively
from skyoperator.sky.types import ClusterNotUp, SkyPilotUnreachable

HEAD = b"\xe2\x94\x9c\xe2\x94\x80\xe2\x94\x80 Waiting for task resources on 1 node.\n"
FAREWELL = b"\x1b[0m\x1b[32m\xe2\x9c\x93 Job finished (status: SUCCEEDED).\x1b[0m\x1b[0m\n"
HEARTBEAT = b'<sky-payload>"heartbeat"</sky-payload>\n'
FRAME = b"(train, pid=7) [skyoperator:result:1 abcdefgh 1/1 " + b"0" * 64 + b" eJw=]\n"


@dataclass
class SkyPilot:
    """A job's log the way SkyPilot 0.14.1 tells it (sky/skylet/log_lib.py:718)."""

    log: bytes = HEAD
    ended: bool = False
    piece_bytes: int = 1 << 16
    asked: list[tuple[int | None, bool]] = field(default_factory=list)
    to_come: list[bytes] = field(default_factory=list)
    breaks_after: int | None = None
    replays: bytes = b""
    after_farewell: bytes = b""
    told_bytes: int = 0

    async def job_log(self, _cluster: str, _job: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        self.asked.append((lines, follow))
        if lines is None:
            said = self.log if follow and not self.ended else self.log.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            said = b"INFO: Waiting 1s for the logs to be written...\n" + said
        else:
            said = b"".join(self.log.splitlines(keepends=True)[-lines:])
        for sent, at in enumerate(range(0, len(said), self.piece_bytes)):
            if sent == self.breaks_after:
                raise ClusterNotUp("gone in the middle of it")
            self.told_bytes += len(said[at : at + self.piece_bytes])
            yield said[at : at + self.piece_bytes]
        while follow and self.to_come:
            self.log += self.to_come[0]
            yield HEARTBEAT
            yield self.to_come.pop(0)
        if self.replays and (follow or lines is None):
            yield self.replays
        if self.ended or follow:
            yield FAREWELL + self.after_farewell

    async def launch_log(self, _cluster: str) -> AsyncGenerator[bytes, None]:
        yield self.log


@dataclass
class Kept:
    """Where it is kept."""

    data: bytes = b""
    frames: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, limit_bytes: int) -> Piece:
        return Piece(offset, self.data[offset : offset + limit_bytes])

    def append(self, data: bytes) -> None:
        assert data
        self.data += data

    def take_frame(self, line: bytes) -> None:
        self.frames.append(line)


def upstream(sky: SkyPilot, kept: Kept) -> JobUpstream:
    return JobUpstream(sky, kept, "train-abc", 1)


def canonical(log: bytes) -> bytes:
    lines = log.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(line for line in lines if FRAME.strip() not in line)


WORDS = st.lists(
    st.sampled_from([b"step\n", b"step 1\n", b"10%\r", b"windows\r\n", b"\xe2\x98\x83 no end", b"\n", b"x" * 700 + b"\n", FRAME])
)


@given(parts=st.lists(WORDS, min_size=1, max_size=6), piece_bytes=st.integers(1, 40), restart=st.booleans(), live=st.booleans())
async def test_any_number_of_looks_keeps_the_log_once(parts: list[list[bytes]], piece_bytes: int, restart: bool, live: bool) -> None:
    sky, kept = SkyPilot(piece_bytes=piece_bytes), Kept()
    looking = upstream(sky, kept)
    for words in parts:
        sky.log += b"".join(words)
        assert not await looking.look(is_over=sky.ended)
        assert canonical(sky.log).startswith(kept.data)
        looking = upstream(sky, kept) if restart else looking
    if live:
        sky.to_come = [b"at the end", b" a line\n"]
        assert await looking.follow()
    else:
        sky.ended = True
        assert await looking.look(is_over=sky.ended)
    assert kept.data == canonical(sky.log)
    assert all(FRAME in line for line in kept.frames)
    assert bool(kept.frames) == (FRAME in sky.log)


SAID = [b"a", b"\xe2\x98\x83", b"\r", b"\n", b"\r\n", HEARTBEAT, HEARTBEAT.rstrip(), b"<sky-", b"<sky-payload>", b"</sky-payload>", b">"]


@given(text=st.lists(st.sampled_from(SAID)), cuts=st.lists(st.integers(1, 9)))
def test_lines_are_the_same_in_any_pieces(text: list[bytes], cuts: list[int]) -> None:
    told, lines, read, at = b"".join(text), Lines(), b"", 0
    for length in [*cuts, len(told)]:
        read += lines.feed(told[at : at + length])
        at += length
    assert read + lines.rest() == canonical(re.sub(rb"<sky-payload[^<>\n]*>[^\n]*?</sky-payload>\n?", b"", told))


@given(text=st.lists(st.sampled_from(SAID)), cuts=st.lists(st.integers(1, 9)), limit_bytes=st.integers(4, 9))
def test_a_line_without_an_end_is_broken_at_the_same_places_in_any_pieces(text: list[bytes], cuts: list[int], limit_bytes: int) -> None:
    told, lines, read, at = b"".join(text), Lines(), b"", 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("skyoperator.logs.splice.LINE_LIMIT_BYTES", limit_bytes)
        at_once = Lines()
        whole = at_once.feed(told) + at_once.rest()
        for length in [*cuts, len(told)]:
            read += lines.feed(told[at : at + length])
            at += length
        read += lines.rest()
    assert read == whole
    assert all(len(line) <= limit_bytes for line in whole.split(b"\n"))


@given(text=st.text(alphabet="aé☃😀"), limit_bytes=st.integers(4, 9))
def test_a_line_is_broken_between_characters(text: str, limit_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("skyoperator.logs.splice.LINE_LIMIT_BYTES", limit_bytes)
        lines = Lines()
        kept = lines.feed(text.encode()) + lines.rest()
    assert kept.decode().replace("\n", "") == text


def test_a_line_that_never_ends_is_not_held() -> None:
    lines, kept_bytes = Lines(), 0
    for _ in range(64):
        kept_bytes += len(lines.feed(b"x" * (1 << 18)))
    assert kept_bytes >= 14 << 20


@pytest.mark.parametrize(
    "said", [b"<sky-payload>", b"\x1b[m", b"<", b"\xe2\x9c\x93 Job finished (status: "], ids=["openings", "colours", "<", "farewells"]
)
def test_what_a_job_prints_takes_no_time_but_for_its_length(said: bytes) -> None:
    """What looks for SkyPilot's words in it does not begin at each of them anew: that would take hours."""
    hostile = said * ((1 << 20) // len(said)) + b"</sky-payload>\nend\n"
    reading = Reading(frames.is_frame, from_the_beginning=False, is_over=True)
    assert len(reading.feed(hostile) + reading.end()[0]) > len(hostile) - 2048


def test_what_a_job_opens_and_never_closes_is_its_own() -> None:
    lines = Lines()
    opened = b"<sky-payload>a line\n" * 3
    assert lines.feed(opened) == opened
    assert lines.feed(b"</sky-payload>\nand on\n") == b"</sky-payload>\nand on\n"


async def test_a_line_like_a_frame_hides_no_frame_that_comes_with_it() -> None:
    sky, kept = SkyPilot(log=HEAD + FRAME.replace(b"1/1", b"2/1") + FRAME), Kept()
    await upstream(sky, kept).look()
    assert kept.data == HEAD + FRAME.replace(b"1/1", b"2/1")
    assert kept.frames == [FRAME]


async def test_a_look_asks_for_little_and_for_more_only_if_that_was_too_little() -> None:
    sky, kept = SkyPilot(), Kept()
    looking = upstream(sky, kept)
    await looking.look(is_over=sky.ended)
    sky.log += b"".join(b"line %d of many that are of some length\n" % number for number in range(10_000))
    sky.asked.clear()
    await looking.look(is_over=sky.ended)
    assert sky.asked == [(FEWEST_LINES, False), (FEWEST_LINES * 16, False), (FEWEST_LINES * 16**2, False)]
    sky.asked.clear()
    await looking.look(is_over=sky.ended)
    assert [lines for lines, _ in sky.asked] == [20_002]
    await looking.look(is_over=sky.ended)
    sky.asked.clear()
    await looking.look(is_over=sky.ended)
    (asked,) = sky.asked
    assert asked[0] is not None
    assert asked[0] < 3 * FEWEST_LINES
    assert kept.data == sky.log


def test_what_could_be_in_two_places_is_in_none() -> None:
    assert len(new_parts(b"step\n", b"step\nstep\n")) == 2
    assert new_parts(b"step\n", b"other\n") == []
    assert new_parts(b"", b"other\n") == []
    assert new_parts(b"step\n", b"old\nstep\nnew\n") == [b"new\n"]


async def test_a_log_of_another_job_is_never_put_behind_ours() -> None:
    sky, kept = SkyPilot(log=HEAD + b"epoch 1\nepoch 2\n"), Kept()
    looking = upstream(sky, kept)
    await looking.look(is_over=sky.ended)
    for other in (HEAD + b"epoch 9\nepoch 9\nepoch 9\n", HEAD):
        sky.log, before = other, kept.data
        with pytest.raises(StrangeLogError):
            await looking.look(is_over=sky.ended)
        assert kept.data == before


async def test_a_stream_that_breaks_is_taken_up_where_it_was() -> None:
    sky, kept = SkyPilot(log=HEAD + b"one\ntwo\nthree\nfour\n", piece_bytes=8, breaks_after=6), Kept()
    looking = upstream(sky, kept)
    with pytest.raises(ClusterNotUp):
        await looking.follow()
    assert sky.log.startswith(kept.data)
    sky.breaks_after, sky.ended = None, True
    assert await looking.look(is_over=sky.ended)
    assert kept.data == sky.log


async def test_what_a_job_says_like_skypilot_is_the_jobs() -> None:
    sky, kept = SkyPilot(log=HEAD + FAREWELL + b"and on\n"), Kept()
    looking = upstream(sky, kept)
    assert not await looking.look(is_over=sky.ended)
    sky.ended = True
    assert await looking.look(is_over=sky.ended)
    assert kept.data == HEAD + FAREWELL + b"and on\n"


async def test_a_flood_is_streamed_and_never_held() -> None:
    sky, kept = SkyPilot(), Kept()
    looking = upstream(sky, kept)
    await looking.look(is_over=sky.ended)
    sky.log += b"y" * 1000 + b"\n"
    sky.log += b"".join(b"%07d " % number + b"z" * 200_000 + b"\n" for number in range(60))
    sky.ended = True
    assert await looking.look(is_over=sky.ended)
    assert sky.asked[-1] == (None, False)
    assert re.findall(rb"^\d{7}", kept.data, re.MULTILINE) == [b"%07d" % number for number in range(60)]


@pytest.mark.looptime(start=1000)
async def test_a_flood_is_not_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.upstream.ANSWER_LIMIT_BYTES", 4000)
    monkeypatch.setattr("skyoperator.logs.upstream.WHOLE_BYTES_A_SECOND", 500)
    sky, kept, looks = SkyPilot(), Kept(), 200
    looking = upstream(sky, kept)
    for look in range(looks):
        sky.log += b"".join(b"look %d, line %d of very many\n" % (look, line) for line in range(300))
        await looking.look()
        await asyncio.sleep(30)
    told_in_vain = 2 * looks * 4000
    assert kept.size > len(sky.log) // 2
    assert sky.told_bytes < 500 * 30 * looks + len(sky.log) + told_in_vain
    sky.ended = True
    assert await looking.look(is_over=True)
    assert kept.data == sky.log


@pytest.mark.looptime(start=1000)
@pytest.mark.parametrize("known", [b"waiting for data\n" * 200, b""], ids=["repeats itself", "does not"])
async def test_a_log_that_repeats_itself_is_had_as_soon_as_any_other(known: bytes) -> None:
    sky, kept = SkyPilot(log=HEAD + known), Kept()
    looking = upstream(sky, kept)
    for new in (b"", b"", b"waiting for data\n" * 20, b"one\n", b"two\n"):
        sky.log += new
        await looking.look()
        assert kept.data == sky.log
        await asyncio.sleep(30)


@pytest.mark.looptime(start=1000)
async def test_a_log_that_floods_once_is_soon_had_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.upstream.ANSWER_LIMIT_BYTES", 4000)
    sky, kept = SkyPilot(), Kept()
    looking = upstream(sky, kept)
    for lines in (1, 1, 1, 300, 300, 1, 1):
        sky.log += b"".join(b"line %d of very many, at byte %d\n" % (line, len(sky.log)) for line in range(lines))
        await looking.look()
        await asyncio.sleep(30)
    await looking.look()
    assert kept.data == sky.log


async def test_a_launch_that_is_sent_again_has_both_its_logs() -> None:
    sky, kept = SkyPilot(log=b"looking for a node\n"), Kept()
    looking = LaunchUpstream(sky, kept, "train-abc")
    await looking.look(is_over=sky.ended)
    sky.log += b"found one\n"
    await looking.look(is_over=sky.ended)
    await looking.look(is_over=sky.ended)
    sky.log = b"looking for a node again\n"
    await looking.look(is_over=sky.ended)
    after_a_restart = LaunchUpstream(sky, kept, "train-abc")
    sky.log += b"none\n"
    await after_a_restart.look()
    await after_a_restart.look()
    assert kept.data == b"looking for a node\nfound one\nlooking for a node again\nnone\n"


async def test_who_is_cancelled_while_he_writes_doubles_nothing() -> None:
    class Slow(Kept):
        def append(self, data: bytes) -> None:
            begun.set()
            go_on.wait(10)
            super().append(data)

    begun, go_on = threading.Event(), threading.Event()
    sky, kept = SkyPilot(log=HEAD + b"one\n", to_come=[b"two\n"]), Slow(data=HEAD)
    looking = upstream(sky, kept)
    following = asyncio.create_task(looking.follow())
    await asyncio.to_thread(begun.wait, 10)
    following.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert kept.data == HEAD + b"one\n"
    sky.ended = True
    assert await looking.look(is_over=sky.ended)
    assert kept.data == sky.log


async def test_a_log_of_whole_segments_and_a_short_end_is_taken_up_after_a_restart() -> None:
    class Segmented(Kept):
        def read(self, offset: int, limit_bytes: int) -> Piece:
            end = offset - offset % 4096 + 4096
            return super().read(offset, min(limit_bytes, end - offset))

    sky, kept = SkyPilot(log=HEAD + b"line of some length\n" * 230), Segmented()
    await upstream(sky, kept).look(is_over=sky.ended)
    assert kept.size % 4096 < 2048
    sky.log += b"after the restart\n"
    await upstream(sky, kept).look(is_over=sky.ended)
    assert kept.data == sky.log


async def test_a_hole_is_not_taken_for_the_end_of_what_is_known() -> None:
    class Holed(Kept):
        def read(self, offset: int, limit_bytes: int) -> Piece:
            return Piece(self.size, b"")

    sky, kept = SkyPilot(log=HEAD + b"one\ntwo\n"), Holed(data=HEAD + b"one\n")
    await upstream(sky, kept).look(is_over=sky.ended)
    assert kept.data == sky.log


@pytest.mark.parametrize("was_looked_at", [True, False])
async def test_a_log_that_repeats_itself_is_proved_at_its_end(was_looked_at: bool) -> None:
    block = b"".join(b"epoch step %02d of fifty, all is well with it and with everything else\n" % number for number in range(50))
    sky, kept = SkyPilot(log=HEAD + block), Kept()
    looking = upstream(sky, kept)
    await looking.look()
    sky.log += block * 3 + b"".join(b"then %d\n" % number for number in range(20))
    if was_looked_at:
        await looking.look()
    sky.ended = True
    if was_looked_at:
        with pytest.raises(StrangeLogError):
            await looking.look(is_over=True)
    else:
        assert await looking.look(is_over=True)
        assert kept.data == sky.log


async def test_the_last_lines_of_a_cluster_that_goes_are_had_first() -> None:
    """There is not much time for it: an object that is deleted waits for 20 s."""
    sky, kept = SkyPilot(log=HEAD + b"one\n"), Kept()
    looking = upstream(sky, kept)
    await looking.look()
    sky.log += b"two\n"
    sky.asked.clear()
    assert not await looking.look(is_last=True)
    assert sky.asked == [(FEWEST_LINES, False)]
    assert kept.data == sky.log


async def test_a_log_has_ended_when_skypilot_says_so_whatever_its_object_says() -> None:
    sky, kept = SkyPilot(log=HEAD + b"one\n", ended=True), Kept()
    assert await upstream(sky, kept).look()
    assert kept.data == sky.log
    assert len(sky.asked) == 1, "it is not read once more"


@pytest.mark.parametrize("said", [b"(train, pid=7) ", b"x" * (1 << 20)], ids=["a word", "a line that is broken there"])
async def test_a_running_job_that_speaks_like_skypilot_has_not_ended(said: bytes) -> None:
    sky, kept = SkyPilot(log=HEAD + b"one\n" + said + FAREWELL), Kept()
    looking = upstream(sky, kept)
    assert not await looking.look()
    assert kept.data.endswith(b"\n")
    assert FAREWELL not in kept.data
    sky.log += b"two\n"
    assert not await looking.look()
    sky.ended = True
    assert await looking.look(is_over=True)
    assert kept.data.endswith(FAREWELL + b"two\n")


async def test_a_frame_without_an_end_hides_no_farewell() -> None:
    sky, kept = SkyPilot(log=HEAD + FRAME.rstrip(b"\n"), ended=True), Kept()
    assert await upstream(sky, kept).look(is_over=True)
    assert len(kept.frames) == 1
    assert kept.data == HEAD


@pytest.mark.parametrize("follow", [True, False])
async def test_a_stream_that_begins_again_is_left_and_nothing_doubled(follow: bool) -> None:
    sky, kept = SkyPilot(log=HEAD + b"one\n", to_come=[b"two\n"] * follow), Kept()
    looking = upstream(sky, kept)
    sky.replays = HEAD + b"one\ntwo\n"
    with pytest.raises(SkyPilotUnreachable):
        await (looking.follow() if follow else looking.look(is_over=True))
    assert kept.data == HEAD + b"one\n" + b"two\n" * follow
    sky.log = HEAD + b"one\ntwo\n"
    sky.ended, sky.replays = True, b""
    assert await looking.look(is_over=sky.ended)
    assert kept.data == sky.log


@pytest.mark.parametrize("last", [b"", b"command terminated with exit code 100\n"], ids=["gRPC", "kubectl exec"])
async def test_the_end_is_known_however_skypilot_reads(last: bytes) -> None:
    sky, kept = SkyPilot(log=HEAD + b"one\n", ended=True, after_farewell=last), Kept()
    assert await upstream(sky, kept).look(is_over=sky.ended)
    assert kept.data == sky.log


async def test_a_job_that_never_began_has_an_end_all_the_same() -> None:
    sky, kept = SkyPilot(log=b"the driver failed\n", ended=True), Kept()
    assert await upstream(sky, kept).look(is_over=sky.ended)
    assert kept.data == b""


async def test_a_node_that_died_is_not_waited_for() -> None:
    async def heartbeats() -> AsyncGenerator[bytes, None]:
        while True:
            yield HEARTBEAT
            await asyncio.sleep(0.001)

    with pytest.raises(SkyPilotUnreachable, match="told nothing"):
        async for _ in lively(heartbeats(), 0.05):
            pass
