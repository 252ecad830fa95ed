"""One log's life at random: appended to, read, cut, killed, on a disk that refuses. Every byte that is read is the right one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from skyoperator.logs.types import State

from tests.unit.faulty_disk import KilledError
from tests.unit.volume import KEY, LIMITS, SEGMENT, Place, pieces_of

lines = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"-") + b"\n"), min_size=1, max_size=8)
codes = st.sampled_from([errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])


class Keeping(RuleBasedStateMachine):
    """One log that is appended to, read and killed at random; the model is all its bytes, and which of them must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.place = Place(self.root)
        self.log = self.place.log()
        self.truth = bytearray()
        self.kept = bytearray()  # 1 for each byte that was there after its append
        self.ended: State | None = None
        self.lost = False

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def _note(self, data: bytes) -> None:
        """Note what an append has left, whether it came back or was killed."""
        before = len(self.truth)
        self.truth += data[: self.log.size - before] if self.log.size >= before else b""
        del self.truth[self.log.size :]
        del self.kept[self.log.size :]
        self.kept += b"\1" * (len(self.truth) - len(self.kept))
        for start, end in self.log.holes:
            for at in range(max(start, before), end):
                self.kept[at] = 0

    def _killed(self, data: bytes = b"") -> None:
        before = bytes(self.kept)
        old_size = self.log.size
        self.place.reopened()
        self.log = self.place.log()
        # What the disk refused, and what it refused even to note, is forgotten: SkyPilot may still have it.
        assert before.rfind(1) < self.log.size <= old_size + len(data)
        self._note(data)

    @rule(chunk=lines)
    @precondition(lambda self: not self.ended)
    def append(self, chunk: list[bytes]) -> None:
        data = b"".join(chunk)
        holes = sum(end - start for start, end in self.log.holes if start >= len(self.truth))
        size = self.log.size
        self.log.append(data)
        assert self.log.size == size + len(data)
        assert sum(end - start for start, end in self.log.holes if start >= len(self.truth)) == holes
        self._note(data)

    @rule(chunk=lines, after=st.integers(0, 12), code=codes, lasting=st.booleans(), torn=st.integers(0, 100))
    @precondition(lambda self: not self.ended)
    def append_while_the_disk_refuses(self, chunk: list[bytes], after: int, code: int, lasting: bool, torn: int) -> None:
        data = b"".join(chunk)
        size = self.log.size
        self.place.disk.fail(after, code, lasting=lasting, torn=torn)
        self.log.append(data)
        self.place.disk.heal()
        assert self.log.size == size + len(data)
        self._note(data)
        if any(start >= size for start, _ in self.log.holes):
            self.lost = True
            assert self.log.failures
            assert errno.errorcode[code] in self.log.message

    @rule(chunk=lines, after=st.integers(0, 12), torn=st.integers(0, 100))
    @precondition(lambda self: not self.ended)
    def killed_while_appending(self, chunk: list[bytes], after: int, torn: int) -> None:
        data = b"".join(chunk)
        self.place.disk.kill(after, torn=torn)
        try:
            self.log.append(data)
        except KilledError:
            self._killed(data)
        else:
            self.place.disk.heal()
            self._note(data)

    @rule()
    def killed(self) -> None:
        self._killed()

    @rule(count=st.integers(1, 200))
    @precondition(lambda self: not self.ended)
    def lose(self, count: int) -> None:
        size = self.log.size
        self.log.lose(count, "SkyPilot had them no more")
        self.lost = True
        assert self.log.size == size + count
        self._note(bytes(count))

    @rule(after=st.integers(0, 12))
    @precondition(lambda self: not self.ended)
    def killed_while_finishing(self, after: int) -> None:
        self.place.disk.kill(after)
        try:
            self.log.finish(State.COMPLETE, "")
        except KilledError:
            self._killed()
        else:
            self.place.disk.heal()
        if not self.log.live:
            self.ended = self.log.state

    @rule()
    @precondition(lambda self: not self.ended)
    def finish(self) -> None:
        self.log.finish(State.COMPLETE, "")
        self.ended = self.log.state
        assert self.ended is (State.INCOMPLETE if self.log.about.losses else State.COMPLETE)
        assert not any(name.endswith(".part") for name in self.place.files())

    @rule()
    @precondition(lambda self: not self.place.disk.armed)
    def sweep(self) -> None:
        self.place.store.sweep({KEY.object_uid})

    @rule(data=st.data())
    def read_anywhere(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.log.size + 10))
        piece = self.log.read(offset, data.draw(st.integers(1, 2 * SEGMENT)))
        assert piece.data == self.truth[piece.offset : piece.end]
        assert piece.offset >= offset
        assert all(any(start <= at < end for start, end in self.log.holes) for at in range(offset, min(piece.offset, self.log.size)))

    @rule(count=st.integers(0, 30))
    def last_lines(self, count: int) -> None:
        at = self.log.offset_of_last_lines(count)
        had = b"".join(data for offset, data in pieces_of(self.log, at))
        assert had.count(b"\n") <= count
        if had.count(b"\n") < count:
            assert at <= min((offset for offset, _ in pieces_of(self.log)), default=self.log.size)

    @invariant()
    def every_byte_is_right_and_none_is_missing_without_reason(self) -> None:
        assert self.log.size == len(self.truth) == len(self.kept)
        had = bytearray(len(self.truth))
        for offset, data in pieces_of(self.log, limit_bytes=SEGMENT):
            assert data == self.truth[offset : offset + len(data)]
            had[offset : offset + len(data)] = b"\1" * len(data)
        assert [at for at in range(len(had)) if not had[at]] == [at for start, end in self.log.holes for at in range(start, end)]
        head, tail = LIMITS.log_bytes // 4, LIMITS.log_bytes - LIMITS.log_bytes // 4 - 2 * SEGMENT
        for at, kept in enumerate(self.kept):
            if kept and (at < head or at >= len(had) - tail):
                assert had[at], f"byte {at} of {len(had)} is missing"
        assert sum(had) <= LIMITS.log_bytes + SEGMENT

    @invariant()
    def what_is_missing_is_told(self) -> None:
        if self.log.holes:
            assert self.log.message
        if self.log.about.losses and not self.log.live:
            assert self.log.state is State.INCOMPLETE

    @invariant()
    def the_end_stays(self) -> None:
        if self.ended:
            assert self.log.state is self.ended


def test_a_log_is_right_through_everything_that_happens_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # Only a machine that dies tells the difference.
    calm = settings(max_examples=120, stateful_step_count=40, deadline=None, database=None, derandomize=True, print_blob=True)
    run_state_machine_as_test(Keeping, settings=calm)
