"""What the store keeps of logs, in which files, for how long, and what goes first. Their bytes at random: test_log_store_machine.py."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.logs import frames
from skyoperator.logs.about import Origin
from skyoperator.logs.disk import BLOCK_BYTES, Disk
from skyoperator.logs.segments import Cache
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import Limits
from skyoperator.logs.types import Kind, LogKey, NoLogError, NothingReturnedError, ResultLostError, State
from skyoperator.logs.waiters import Waiters

from tests.unit.faulty_disk import KilledError
from tests.unit.volume import KEY, LIMITS, ORIGIN, SEGMENT, Place, key_of, line, pieces_of, text_of


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """Only a machine that dies tells the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "logs")


def frame_lines(value: object, identifier: str = "value-one") -> list[bytes]:
    return [text.encode() for text in frames.encode(json.dumps(value).encode(), identifier)]


# What is on the volume


def test_nothing_is_on_the_volume_before_there_is_something_to_keep(place: Place) -> None:
    log = place.log()
    assert (log.size, log.state, log.message, place.files()) == (0, State.LIVE, "", {})
    log.append(b"a\n")
    assert sorted(place.files()) == ["00000000000000000000.part", "about.json"]


def test_a_log_without_a_byte_has_an_end(place: Place) -> None:
    place.log().finish(State.COMPLETE, "")
    place.reopened()
    log = place.store.get(KEY)
    assert log
    assert (log.state, log.size, log.message) == (State.COMPLETE, 0, "")


def test_whole_segments_are_gzip_files_named_by_their_first_byte(place: Place) -> None:
    log = place.log()
    for number in range(22):
        log.append(line(number))
    *whole, growing = [path for name, path in place.files().items() if name != "about.json"]
    assert [path.name for path in whole] == [
        "00000000000000000000.gz",
        "00000000000000000060.gz",
        "00000000000000000120.gz",
        "00000000000000000180.gz",
    ]
    assert b"".join(gzip.decompress(path.read_bytes()) for path in whole) + growing.read_bytes() == b"".join(map(line, range(22)))


def test_about_tells_people_what_it_is(place: Place) -> None:
    log = place.log()
    log.append(b"a\n")
    place.clock.forward(hours=1)
    log.finish(State.INCOMPLETE, "the cluster was gone")
    told = json.loads(place.files()["about.json"].read_text())
    assert told["schema_version"] == 1
    assert told["origin"] == {"namespace": "ml", "name": "train", "cluster": "train-0a1b", "job": 1}
    assert (told["state"], told["message"]) == ("incomplete", "the cluster was gone")
    assert (told["created_at"], told["ended_at"]) == ("2026-11-26T00:00:00Z", "2026-11-26T01:00:00Z")


def test_each_append_is_synced_and_so_is_the_folder_of_a_new_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", sync)
    log = place.log()
    log.append(b"a\n")
    assert synced.index("about.json.tmp") < synced.index("00000000000000000000.part")
    assert synced[-1] == "1-job"
    del synced[:]
    log.append(b"b\n")
    assert synced == ["00000000000000000000.part"]


def test_appends_of_many_lines_are_split_at_their_ends(place: Place) -> None:
    log = place.log()
    data = b"".join(map(line, range(30)))
    log.append(data)
    assert text_of(log) == data
    assert all(data.endswith(b"\n") and len(data) <= SEGMENT for _, data in pieces_of(log))


def test_a_line_longer_than_a_segment_is_a_segment(place: Place) -> None:
    log = place.log()
    data = b"a\n" + b"x" * 5 * SEGMENT + b"\nb\n"
    log.append(data)
    log.append(b"c\n")
    assert text_of(log) == data + b"c\n"


def test_a_line_longer_than_can_be_unpacked_is_a_hole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.stored_log.LONGEST_LINE_BYTES", 200)
    log = place.log()
    log.append(b"a\n" + b"x" * 300 + b"\nb\n")
    assert text_of(log) == b"a\nb\n"
    assert log.holes == ((2, 303),)
    assert log.message == "301 bytes are missing: a line is longer than 200 bytes"


def test_an_end_is_an_end(place: Place) -> None:
    log = place.log()
    log.append(b"a\n")
    log.finish(State.COMPLETE, "")
    log.append(b"b\n")
    log.lose(5, "late")
    log.finish(State.INCOMPLETE, "late")
    log.take_frame(frame_lines(1)[0])
    assert (log.size, log.state, log.message) == (2, State.COMPLETE, "")
    with pytest.raises(NothingReturnedError, match="without returning a value"):
        log.result()


def test_an_object_made_anew_has_logs_of_its_own(place: Place) -> None:
    place.log(key_of(1)).append(b"old\n")
    place.log(key_of(2)).append(b"new\n")
    place.log(key_of(2, kind=Kind.LAUNCH)).append(b"launch\n")
    assert text_of(place.log(key_of(2))) == b"new\n"
    assert [key for key, _ in place.store.logs_of("aa-11", "bb-01")] == [key_of(1)]
    assert [key for key, _ in place.store.logs_of("aa-11", "bb-02")] == [key_of(2), key_of(2, kind=Kind.LAUNCH)]
    assert place.store.logs_of("aa-12", "bb-02") == []


def test_one_log_is_one_object_to_all_who_open_it(place: Place) -> None:
    assert place.log() is place.log() is place.store.get(KEY)
    assert place.store.get(key_of(9)) is None


def test_the_latest_object_of_a_name_is_found_after_it_is_gone(place: Place) -> None:
    for number in (3, 1, 2):
        place.log(key_of(number)).append(b"a\n")
        place.clock.forward(hours=1)
    place.store.open(key_of(4), Origin(namespace="ml", name="other")).append(b"a\n")
    assert place.reopened().find_by_name("aa-11", "train") == "bb-02"
    assert place.store.find_by_name("aa-11", "nobody") is None
    assert place.store.find_by_name("aa-12", "train") is None


def test_the_job_of_a_log_may_become_known_later(place: Place) -> None:
    place.store.open(KEY, Origin(namespace="ml", name="train")).append(b"a\n")
    place.log()
    assert place.reopened().logs_of("aa-11", "bb-22")[0][1].origin == ORIGIN


@pytest.mark.parametrize(
    "key",
    [
        LogKey("..", "b", 1, Kind.JOB),
        LogKey("a", "b/c", 1, Kind.JOB),
        LogKey("", "b", 1, Kind.JOB),
        LogKey("a", "B", 1, Kind.JOB),
        LogKey("a", "b\n", 1, Kind.JOB),
        LogKey("a", "a" * 65, 1, Kind.JOB),
        LogKey("a", "b", -1, Kind.JOB),
        LogKey("a", "b", 10**10, Kind.JOB),
        LogKey("a", "b", 1, "../x"),  # type: ignore[arg-type]
        LogKey("a", "\u0661", 1, Kind.JOB),
    ],
)
def test_only_uids_become_paths(place: Place, key: LogKey) -> None:
    with pytest.raises(ValueError, match=r"no log has such a key|not a valid Kind"):
        place.store.open(key, ORIGIN)


def test_what_is_not_ours_on_the_volume_is_left_alone(place: Place) -> None:
    place.log().append(b"a\n")
    for name in ("lost+found", "aa-11/bb-22/01-job", "aa-11/bb-22/1-other", "aa-11/UPPER"):
        (place.root / name).mkdir()
    (place.root / "aa-11" / "link").symlink_to(place.root)
    (place.root / "aa-11" / "file").write_text("")
    place.files()["about.json"].parent.joinpath("notes.txt").write_text("mine")
    place.reopened().sweep({"bb-22"})
    assert [key for key, _ in place.store.logs_of("aa-11", "bb-22")] == [KEY]
    assert "notes.txt" in place.files()
    assert text_of(place.log()) == b"a\n"


# Bounds of one log


def test_the_middle_goes_and_offsets_mean_what_they_meant(place: Place) -> None:
    log = place.log()
    data = b"".join(map(line, range(200)))
    for number in range(200):
        log.append(line(number))
    ((start, end),) = log.holes
    assert start >= LIMITS.log_bytes // 4
    assert len(data) - end >= LIMITS.log_bytes // 2
    assert [data[at : at + len(had)] == had for at, had in pieces_of(log)] == [True] * len(list(pieces_of(log)))
    assert log.read(start + 5, 10).offset == end
    assert log.read(start - 5, 100).data == data[start - 5 : start]
    assert log.message == f"{end - start} bytes were cut from its middle: the log is longer than one may be"
    log.finish(State.COMPLETE, "")
    place.reopened()
    again = place.log()
    assert (again.state, again.message, again.holes) == (State.COMPLETE, log.message, log.holes)


def test_a_log_must_have_room_for_a_beginning_and_an_end() -> None:
    with pytest.raises(ValueError, match="room for 4 segments"):
        Limits(log_bytes=255, total_bytes=10**6, retention=timedelta(days=1), segment_bytes=64)


@given(
    texts=st.lists(st.sampled_from([b"", b"x", b"\n", b"\r", b"\0"]).map(lambda text: text.replace(b"\n", b"") + b"\n"), max_size=40),
    count=st.integers(-1, 45),
)
def test_the_last_lines_are_where_splitting_says(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], count: int) -> None:
    place = Place(tmp_path_factory.mktemp("logs"), replace(LIMITS, segment_bytes=8, log_bytes=800))
    log = place.log()
    log.append(b"".join(texts))
    assert log.size - log.offset_of_last_lines(count) == len(b"".join(texts[len(texts) - max(0, min(count, len(texts))) :]))


def test_a_line_that_has_no_end_is_the_last_one(place: Place) -> None:
    log = place.log()
    log.append(b"a\nb")
    assert log.offset_of_last_lines(1) == 2
    assert log.offset_of_last_lines(2) == 0


# What the volume refuses


def test_a_full_disk_makes_a_hole_and_the_log_goes_on(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.disk.fail(0, errno.ENOSPC, lasting=True, torn=5)
    log.append(line(1))
    log.append(line(2))
    place.disk.heal()
    log.append(line(3))
    assert text_of(log) == line(0) + line(3)
    assert log.holes == ((12, 36),)
    assert log.read(12, 100).offset == 36
    assert log.failures == place.store.failures > 0
    log.finish(State.COMPLETE, "")
    place.reopened()
    again = place.log()
    assert (again.state, again.holes) == (State.INCOMPLETE, ((12, 36),))
    assert again.message == "24 bytes are missing: the volume did not take them: No space left on device (ENOSPC)"


def test_what_a_dead_process_could_not_even_note_is_told_as_missing(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.disk.fail(0, errno.ENOSPC, lasting=True)
    log.append(line(1))
    place.disk.heal()
    log.append(line(2))
    place.reopened()
    assert place.log().message == "12 bytes are missing: they are not on the volume any more"


def test_an_end_that_could_not_be_noted_is_noted_later(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.disk.fail(0, errno.EROFS, lasting=True)
    log.finish(State.COMPLETE, "")
    assert log.state is State.COMPLETE
    place.store.sweep({KEY.object_uid})
    place.disk.heal()
    place.store.sweep({KEY.object_uid})
    assert sorted(place.files()) == ["00000000000000000000.gz", "about.json"]
    assert place.reopened().logs_of("aa-11", "bb-22")[0][1].state is State.COMPLETE


def test_reasons_are_told_once_each_and_are_few(place: Place) -> None:
    log = place.log()
    for number in range(40):
        log.lose(10, f"reason {number}")
        log.lose(None, "reason 0")
    assert len(log.about.losses) == 9
    assert sum(loss.lost_bytes for loss in log.about.losses) == log.size == 400
    assert "10 bytes and more are missing: reason 0" in log.message
    log.finish(State.COMPLETE, "")
    assert log.state is State.INCOMPLETE


def test_an_unknown_number_of_bytes_is_lost_without_moving_anything(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    log.lose(None, "SkyPilot's log was gone")
    log.append(line(1))
    assert (text_of(log), log.holes) == (line(0) + line(1), ())
    assert log.message == "some bytes are missing: SkyPilot's log was gone"


def test_half_a_line_that_a_dead_process_left_is_not_part_of_the_log(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.disk.kill(0, torn=17)
    with pytest.raises(KilledError):
        log.append(line(1) + line(2))
    place.reopened()
    log = place.log()
    assert (log.size, text_of(log), log.message) == (24, line(0) + line(1), "")
    log.append(b"short\n")
    place.reopened()
    assert text_of(place.log()) == line(0) + line(1) + b"short\n"


# What is damaged


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b"{}", b"null", b"[" * 50_000, b"x" * 100_000])
def test_a_damaged_about_spoils_only_its_own_log(place: Place, damage: bytes) -> None:
    place.log().append(line(0))
    place.log(key_of(1)).append(line(1))
    place.files()["about.json"].write_bytes(damage)
    place.reopened()
    log = place.store.get(KEY)
    assert log
    assert (log.state, text_of(log)) == (State.INCOMPLETE, line(0))
    assert "what was noted of this log can't be read" in log.message
    other = place.store.get(key_of(1))
    assert other
    assert (other.state, other.message) == (State.LIVE, "")


@pytest.mark.parametrize(
    "change", [{"size": -1}, {"size": 2**63}, {"state": "odd"}, {"created_at": "x"}, {"schema_version": 2}, {"losses": [{"why": 1}]}]
)
def test_an_about_that_is_not_ours_is_damaged(place: Place, change: dict[str, Any]) -> None:
    place.log().append(line(0))
    about = place.files()["about.json"]
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    log = place.reopened().get(KEY)
    assert log
    assert log.state is State.INCOMPLETE


def test_a_log_whose_about_is_lost_can_be_collected_on_but_is_never_complete(place: Place) -> None:
    place.log().append(line(0))
    place.files()["about.json"].unlink()
    place.reopened()
    log = place.log()
    assert log.state is State.LIVE
    log.append(line(1))
    log.finish(State.COMPLETE, "")
    assert (log.state, text_of(log), log.about.origin) == (State.INCOMPLETE, line(0) + line(1), ORIGIN)
    assert place.reopened().logs_of("aa-11", "bb-22")[0][1].outcome is State.INCOMPLETE


def damaged(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[:14] + bytes([data[14] ^ 0xFF]) + data[15:])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "length":
        path.write_bytes(data[:-4] + b"\xff\xff\xff\x7f")
    elif how == "bomb":
        path.write_bytes(gzip.compress(bytes(17 * 2**20)))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "length", "bomb", "gone"])
@pytest.mark.parametrize("which", [0, 2, -1])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_damaged_segment_is_a_hole(place: Place, how: str, which: int, restarted: bool) -> None:
    log = place.log()
    for number in range(20):
        log.append(line(number))
    log.finish(State.COMPLETE, "")
    damaged([path for name, path in place.files().items() if name != "about.json"][which], how)
    if restarted:
        place.reopened()
        log = place.log()
    had = {number for number in range(20) if line(number) in text_of(log)}
    gone = {0: range(5), 2: range(10, 15), -1: range(15, 20)}[which]
    assert had == set(range(20)) - set(gone)
    assert log.offset_of_last_lines(100) == (60 if which == 0 else 0)
    assert log.holes == ((gone[0] * 12, gone[-1] * 12 + 12),)
    assert log.state is State.INCOMPLETE
    assert "missing" in log.message
    assert log.size == 240


def test_a_disk_that_does_not_answer_once_damages_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    log = place.log()
    log.append(line(0))

    def refuses(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "pread", refuses)
        with pytest.raises(OSError, match="Too many"):
            log.read(0, 10)
    assert (text_of(log), log.message) == (line(0), "")


def test_drafts_of_a_dead_process_go(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.disk.kill(1)
    with pytest.raises(KilledError):
        log.finish(State.COMPLETE, "")
    assert "00000000000000000000.gz.tmp" in place.files()
    place.reopened()
    assert not any(name.endswith(".tmp") for name in place.files())
    assert place.store.used_bytes == place.used_bytes()


def test_a_draft_that_could_not_be_removed_does_not_show_through_the_next(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.files()["about.json"].with_name("about.json.tmp").write_bytes(b"x" * 5000)
    log.finish(State.COMPLETE, "")
    assert place.reopened().logs_of("aa-11", "bb-22")[0][1].state is State.COMPLETE


# Readers and a writer at once


def test_what_is_being_read_may_be_packed_or_cut_meanwhile(place: Place) -> None:
    log = place.log()
    data = b"".join(map(line, range(300)))
    written = 0

    def writes(operation: str, _path: Path) -> None:
        nonlocal written
        if operation == "pread" and threading.current_thread() is reader:
            writer = threading.Thread(target=log.append, args=[data[written : written + 48]])
            writer.start()
            writer.join(timeout=30)
            written += 48

    reader = threading.current_thread()
    log.append(data[:48])
    written = 48
    place.disk.before = writes
    at = 0
    while written < 2400:
        piece = log.read(at, 30)
        assert piece.data == data[piece.offset : piece.end]
        at = piece.end if piece.data and at < 1000 else max(0, log.size - 60)
    assert log.holes
    assert not log.about.losses


def test_many_readers_of_one_segment_unpack_it_once() -> None:
    loaded: list[str] = []
    cache = Cache(limit_bytes=10)

    def load() -> bytes:
        loaded.append("a")
        return b"aaaa"

    threads = [threading.Thread(target=cache.get, args=["a", load]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["a"]


def test_the_segments_used_last_stay_and_no_more_than_fit() -> None:
    cache = Cache(limit_bytes=10)
    loaded: list[str] = []

    def get(path: str, size: int = 4) -> None:
        cache.get(path, lambda: (loaded.append(path), b"x" * size)[1])  # type: ignore[func-returns-value]

    for path in ("a", "b", "a", "c", "a", "b"):
        get(path)
    assert loaded == ["a", "b", "c", "b"]
    get("large", 100)
    get("large", 100)
    cache.forget("large")
    get("large", 100)
    assert loaded == ["a", "b", "c", "b", "large", "large"]


async def test_whoever_waits_is_told_of_growth_and_of_the_end(place: Place) -> None:
    log = place.log()
    first, second = (asyncio.ensure_future(log.grown(beyond)) for beyond in (0, 12))
    await asyncio.sleep(0)
    await asyncio.to_thread(log.append, line(0))
    await asyncio.wait_for(first, 10)
    assert not second.done()
    await asyncio.to_thread(log.lose, 1, "gone")
    await asyncio.wait_for(second, 10)
    third = asyncio.ensure_future(log.grown(log.size))
    await asyncio.sleep(0)
    await asyncio.to_thread(log.finish, State.COMPLETE, "")
    await asyncio.wait_for(third, 10)
    await asyncio.wait_for(log.grown(10**6), 10)


async def test_growth_between_asking_and_waiting_is_not_missed() -> None:
    waiters = Waiters()
    answers = iter([False, True, True])
    await asyncio.wait_for(waiters.until(lambda: next(answers)), 10)


def test_whoever_waited_in_a_loop_that_is_gone_holds_up_nobody(place: Place) -> None:
    log = place.log()
    loop = asyncio.new_event_loop()
    task = loop.create_task(log.grown(0))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    log.append(line(0))
    assert log.size == 12
    task._log_destroy_pending = False  # type: ignore[attr-defined]


# What the job returned


def test_the_value_is_had_once_the_log_has_ended(place: Place) -> None:
    log = place.log()
    for frame in frame_lines({"accuracy": 0.9}):
        log.take_frame(b"(train, pid=1) " + frame)
    with pytest.raises(NoLogError, match="attempt 1 of ml/train has not ended"):
        log.result()
    log.finish(State.COMPLETE, "")
    assert log.result() == b'{"accuracy": 0.9}'
    assert sorted(place.files()) == ["about.json", "result.json"]
    place.reopened()
    assert place.log().result() == b'{"accuracy": 0.9}'


@pytest.mark.parametrize("killed_after", range(12))
def test_a_value_outlives_a_kill_at_any_moment_of_the_end(place: Place, killed_after: int) -> None:
    log = place.log()
    log.append(line(0))
    log.take_frame(frame_lines("v")[0])
    place.disk.kill(killed_after)
    try:
        log.finish(State.COMPLETE, "")
    except KilledError:
        place.reopened()
        log = place.log()
        log.finish(State.COMPLETE, "")
    assert (log.result(), log.state) == (b'"v"', State.COMPLETE)


def test_a_torn_frame_spoils_no_later_one(place: Place) -> None:
    log = place.log()
    log.take_frame(frame_lines("v")[0])
    place.disk.kill(0, torn=20)
    with pytest.raises(KilledError):
        log.take_frame(frame_lines("w", "value-two")[0])
    place.reopened()
    log = place.log()
    log.take_frame(frame_lines("w", "value-two")[0])
    log.finish(State.COMPLETE, "")
    assert log.result() == b'"w"'


def test_why_there_is_no_value_is_told(place: Place) -> None:
    long = frame_lines([f"{number:06}" for number in range(2000)])
    assert len(long) > 1

    def ended(number: int, lines: list[bytes], state: State = State.COMPLETE, message: str = "") -> str:
        log = place.log(key_of(number))
        for text in lines:
            log.take_frame(text)
        log.finish(state, message)
        with pytest.raises(ResultLostError) as raised:
            log.result()
        return str(raised.value)

    assert "that was in what is missing: the cluster was gone" in ended(2, [], State.INCOMPLETE, "the cluster was gone")
    assert f"only {len(long) - 1} of the {len(long)} parts" in ended(3, long[1:])
    assert "its SHA-256 differs" in ended(4, [frame_lines(1)[0][:36] + b"0" * 64 + frame_lines(1)[0][100:]])


def test_a_part_of_the_value_that_the_volume_refused_loses_it(place: Place) -> None:
    log = place.log()
    log.take_frame(frame_lines("old")[0])
    place.disk.fail(0, errno.ENOSPC)
    log.take_frame(frame_lines("new", "value-two")[0])
    log.finish(State.COMPLETE, "")
    with pytest.raises(ResultLostError, match="ENOSPC"):
        log.result()
    assert log.state is State.COMPLETE


def test_a_damaged_result_is_lost(place: Place) -> None:
    log = place.log()
    log.take_frame(frame_lines("v")[0])
    log.finish(State.COMPLETE, "")
    place.files()["result.json"].write_bytes(b'"v')
    with pytest.raises(ResultLostError, match="damaged on the volume"):
        log.result()


def test_a_job_that_returns_again_and_again_keeps_its_last_value(place: Place) -> None:
    log = place.log()
    value = [os.urandom(1000).hex() for _ in range(100)]
    for number in range(30):
        for text in frame_lines([number, *value], f"value-{number:04}"):
            log.take_frame(text)
        assert place.files()["frames"].stat().st_size <= 2 * 2**20
    log.finish(State.COMPLETE, "")
    assert json.loads(log.result())[0] == 29


def test_parts_that_never_become_a_value_have_a_bound(place: Place) -> None:
    log = place.log()
    for number in range(800):
        log.take_frame(b"[skyoperator:result:1 value-%04d 1/2 %b %b]" % (number, b"a" * 64, b"A" * 3072))
    assert place.files()["frames"].stat().st_size <= 2 * 2**20
    log.finish(State.COMPLETE, "")
    with pytest.raises(ResultLostError, match="none of them complete"):
        log.result()
    assert "frames" not in place.files()


def test_what_is_no_frame_is_not_taken(place: Place) -> None:
    with pytest.raises(ValueError, match="no frame"):
        place.log().take_frame(b"hello\n")


# What goes, and when


def test_logs_stay_for_so_long_after_their_object_is_gone(place: Place) -> None:
    for number in (1, 2):
        place.log(key_of(number)).append(line(number))
        place.log(key_of(number)).finish(State.COMPLETE, "")
    place.store.sweep({"bb-01"})
    place.clock.forward(days=6)
    place.reopened().sweep({"bb-01"})
    assert place.store.logs_of("aa-11", "bb-02")
    place.clock.forward(days=1)
    place.store.sweep({"bb-01"})
    assert place.store.logs_of("aa-11", "bb-02") == []
    assert place.store.logs_of("aa-11", "bb-01")
    assert [path.name for path in (place.root / "aa-11").iterdir()] == ["bb-01"]
    place.clock.forward(days=100)
    place.store.sweep({"bb-01"})
    assert place.store.logs_of("aa-11", "bb-01")
    place.store.sweep(())
    place.clock.forward(days=7)
    place.store.sweep(())
    assert list(place.root.iterdir()) == []
    assert place.store.used_bytes == 0


def test_an_object_that_nobody_could_look_for_is_not_gone(place: Place) -> None:
    place.log().append(line(0))
    place.store.sweep(None)
    place.clock.forward(days=100)
    place.store.sweep(None)
    assert place.store.logs_of("aa-11", "bb-22")[0][1].gone_since is None
    place.store.sweep(())
    place.clock.forward(days=100)
    place.store.sweep(None)
    assert place.store.logs_of("aa-11", "bb-22")
    place.store.sweep({"bb-22"})
    place.clock.forward(days=100)
    place.store.sweep(())
    assert place.store.logs_of("aa-11", "bb-22")


def test_a_log_that_nobody_collects_ends_when_its_object_is_gone(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.store.sweep(())
    assert log.live
    place.reopened().sweep(())
    assert place.store.logs_of("aa-11", "bb-22")[0][1].state is State.INCOMPLETE


def test_whoever_reads_a_log_that_is_removed_finds_its_end(place: Place) -> None:
    log = place.log()
    log.append(line(0))
    place.store.sweep(())
    place.clock.forward(days=7)
    place.store.sweep(())
    assert (log.read(0, 100).data, log.read(0, 100).offset, log.state) == (b"", 12, State.INCOMPLETE)
    log.append(line(1))
    assert place.files() == {}


def bounded(tmp_path: Path, blocks: int) -> Place:
    return Place(tmp_path / "logs", replace(LIMITS, total_bytes=blocks * BLOCK_BYTES))


def test_gone_logs_go_first_then_those_that_ended_first_and_live_ones_never(tmp_path: Path) -> None:
    place = bounded(tmp_path, 18)  # Each log takes three blocks: its folder, about.json and a segment.
    for number in (1, 2, 3, 4, 5):
        place.log(key_of(number)).append(line(number))
    for number in (2, 1, 4, 3):
        place.log(key_of(number)).finish(State.COMPLETE, "")
        place.clock.forward(hours=1)
    place.store.sweep({"bb-01", "bb-02", "bb-05"})

    def there() -> list[int]:
        return [number for number in range(1, 6) if (log := place.store.get(key_of(number))) and text_of(log)]

    newcomer = place.log(key_of(9))
    newcomer.append(b"x\n")
    seen = [there()]
    for number in range(60):
        newcomer.append(line(number))
        if there() != seen[-1]:
            seen.append(there())
    assert seen == [[1, 2, 3, 4, 5], [1, 2, 3, 5], [1, 2, 5], [1, 5], [5]]
    assert place.store.get(key_of(4)) is None
    ended = place.store.get(key_of(1))
    assert ended
    assert (ended.state, ended.size) == (State.INCOMPLETE, 12)
    assert ended.message == "its bytes were removed to make room for the logs of others"
    place.reopened()
    again = place.store.get(key_of(1))
    assert again
    assert (again.state, again.message, again.size) == (State.INCOMPLETE, ended.message, 12)


def test_what_jobs_returned_goes_after_all_bytes_of_logs(tmp_path: Path) -> None:
    place = bounded(tmp_path, 8)
    for number in (1, 2):
        log = place.log(key_of(number))
        log.take_frame(frame_lines(number)[0])
        log.append(line(0))
        log.finish(State.COMPLETE, "")
        place.clock.forward(hours=1)
    assert [place.log(key_of(number)).result() for number in (1, 2)] == [b"1", b"2"]
    newcomer = place.log(key_of(9))
    for _ in range(5):
        newcomer.append(line(0))
    newcomer.append(line(1))
    first, second = place.store.get(key_of(1)), place.store.get(key_of(2))
    assert first
    assert second
    assert (text_of(first), text_of(second)) == (b"", b"")
    with pytest.raises(ResultLostError, match="removed to make room"):
        first.result()
    assert place.reopened().used_bytes == place.used_bytes()


def test_live_logs_that_fill_everything_get_holes_not_more_room(tmp_path: Path) -> None:
    place = bounded(tmp_path, 12)
    logs = [place.log(key_of(number)) for number in (1, 2)]
    for number in range(100):
        for log in logs:
            log.append(line(number))
        assert place.used_bytes() <= (12 + 1) * BLOCK_BYTES
    assert all("none is left that could be removed" in log.message for log in logs)
    assert all(data == b"".join(map(line, range(100)))[at : at + len(data)] for log in logs for at, data in pieces_of(log))
    logs[0].finish(State.INCOMPLETE, "")
    size = logs[1].size
    logs[1].append(line(7))
    assert logs[1].read(size, 100).data == line(7)


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["append", "append", "append", "finish", "sweep", "gone", "restart"]), st.integers(1, 5)), max_size=40
    )
)
def test_the_volume_takes_no_more_than_it_may(tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]) -> None:
    place = bounded(tmp_path_factory.mktemp("logs"), 25)
    alive = set(range(1, 6))
    for move, number in moves:
        if move == "append":
            place.log(key_of(number)).append(b"".join(map(line, range(20))))
        elif move == "finish":
            place.log(key_of(number)).finish(State.COMPLETE, "")
        elif move == "restart":
            place.reopened()
        else:
            alive -= {number} if move == "gone" else set()
            place.clock.forward(days=1)
            place.store.sweep({f"bb-{one:02}" for one in alive})
        assert place.store.used_bytes == place.used_bytes()
        assert place.used_bytes() <= (25 + 5 * 2 + 1) * BLOCK_BYTES  # Beyond it at most five folders with an about.json, and a segment.


def test_a_root_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Store(tmp_path / "file" / "logs", LIMITS)
