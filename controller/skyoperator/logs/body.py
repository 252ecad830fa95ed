"""The bytes of one log, in files.

    write ──► <offset>.part, synced ──full──► <offset>.gz ──beyond the bound──► removed from the middle

One thread at a time writes; any number read, without a lock: what there is to read is a tuple that is replaced, never changed, and a file
goes only after the tuple without it is in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from skyoperator.logs import segments
from skyoperator.logs.disk import Folder
from skyoperator.logs.segments import LONGEST_LINE_BYTES, Cache, DamagedError, Segment
from skyoperator.logs.types import Piece

PACKED_BYTES: Final = 2 * LONGEST_LINE_BYTES
"""More than any packed segment takes."""


class SegmentError(Exception):
    """A segment of the log can't be had."""

    def __init__(self, segment: Segment, why: str) -> None:
        super().__init__(why)
        self.segment = segment


class Body:
    """Bytes 0 to size, some of which may be missing."""

    def __init__(self, folder: Folder, cache: Cache, *, segment_bytes: int, log_bytes: int) -> None:
        self.size = 0
        self._folder = folder
        self._cache = cache
        self._segment_bytes = segment_bytes
        self._log_bytes = log_bytes
        self._segments: tuple[Segment, ...] = ()

    @property
    def holes(self) -> tuple[tuple[int, int], ...]:
        """Where bytes are missing: from, and up to but without."""
        return segments.holes(self._segments, self.size)

    def load(self, files: Mapping[str, int], size: int) -> None:
        """Take up what is there, of a log that was at least this long. Raises OSError; SegmentError, and then the segment is gone."""
        found = segments.named(files)
        for one in found:
            if one.packed and (left_over := replace(one, packed=False).name) in files:
                self._folder.discard(left_over)
        self._segments = segments.without_overlap([replace(one, length=self._length_of(one, files[one.name])) for one in found])
        self.size = max(size, *(one.end for one in self._segments[-1:]), 0)
        self._check_last(size)

    def _length_of(self, one: Segment, file_bytes: int) -> int:
        if not one.packed:
            # What a dying process or machine left of its last append: a line is kept once it has its end.
            return segments.whole_lines(self._folder.pread(one.name, 0, LONGEST_LINE_BYTES))
        return segments.unpacked_length(self._folder.pread(one.name, max(0, file_bytes - 4), 4))

    def _check_last(self, size: int) -> None:
        """Only the last one's length is nowhere else to be seen than in itself."""
        last = self._segments[-1] if self._segments else None
        if last and last.packed:
            with suppress(DamagedError):
                if len(segments.unpack(self._folder.pread(last.name, 0, PACKED_BYTES))) == last.length:
                    return
            self.remove([last])
            self.size = max(size, last.offset)
            raise SegmentError(last, "it is not what was written")

    def write(self, data: bytes) -> None:
        """Add whole lines. Raises OSError, and then they are not there, and the next ones stand where `skip` puts them."""
        growing = self._growing(len(data))
        self._folder.append(growing.name, growing.length, data)
        others = tuple(one for one in self._segments if one.offset != growing.offset)
        self._segments = (*others, replace(growing, length=growing.length + len(data)))
        self.size += len(data)

    def _growing(self, more_bytes: int) -> Segment:
        last = self._segments[-1] if self._segments else None
        if last and not last.packed and last.end == self.size and last.length + more_bytes <= self._segment_bytes:
            return last
        self.pack()
        return Segment(self.size, 0, packed=False)

    def skip(self, count_bytes: int) -> None:
        """Leave a hole at the end."""
        self.size += count_bytes

    def pack(self) -> None:
        """Compress what does not grow any more; what can't be compressed now is as good as it is."""
        for one in self._segments:
            if not one.packed:
                try:
                    self._pack(one)
                except OSError as error:
                    self._folder.failed("compress a segment", error)

    def _pack(self, one: Segment) -> None:
        data = self._folder.pread(one.name, 0, one.length)
        if len(data) == one.length:
            packed = replace(one, packed=True)
            self._folder.replace(packed.name, segments.pack(data))
            self._segments = tuple(packed if other is one else other for other in self._segments)
            self._folder.discard(one.name)

    def too_much(self) -> list[Segment]:
        """Return what is to be removed of a log that is longer than one may be."""
        return segments.to_cut(self._segments, self._log_bytes)

    def remove(self, gone: Sequence[Segment]) -> None:
        """Leave holes in their places."""
        self._segments = tuple(one for one in self._segments if one not in gone)
        for one in gone:
            self._folder.discard(one.name)
            self._cache.forget(str(self._folder.path / one.name))

    def remove_all(self) -> None:
        """Leave nothing but a hole."""
        self.remove(self._segments)

    def has(self, segment: Segment) -> bool:
        """Tell whether this is how things stand still."""
        return segment in self._segments

    def read(self, offset: int, limit_bytes: int) -> Piece:
        """Return at most so many bytes, at most to the end of a segment. Raises OSError; SegmentError, also if a writer was faster."""
        size, at_hand = self.size, self._segments
        one = next((one for one in at_hand if one.end > offset), None)
        if one is None:
            return Piece(max(offset, size), b"")
        start = max(offset, one.offset)
        return Piece(start, self._bytes_of(one, start - one.offset, min(limit_bytes, one.end - start)))

    def offset_of_last_lines(self, lines: int) -> int:
        """Return where they begin. Raises as `read` does."""
        at, left = self.size, lines
        for one, data in self._backwards():
            if left <= 0:
                break
            begin, found = segments.beginning_of_last_lines(data, left)
            at, left = one.offset + begin, left - found
        return at

    def _backwards(self) -> Iterator[tuple[Segment, bytes]]:
        for one in reversed(self._segments):
            yield one, self._bytes_of(one, 0, one.length)

    def _bytes_of(self, one: Segment, start: int, count: int) -> bytes:
        try:
            if one.packed:
                return self._cache.get(str(self._folder.path / one.name), lambda: self._unpacked(one))[start : start + count]
            data = self._folder.pread(one.name, start, count)
        except FileNotFoundError as error:
            raise SegmentError(one, "its file is missing") from error
        except DamagedError as error:
            raise SegmentError(one, str(error)) from error
        if len(data) < count:
            raise SegmentError(one, "its end is missing")
        return data

    def _unpacked(self, one: Segment) -> bytes:
        data = segments.unpack(self._folder.pread(one.name, 0, PACKED_BYTES))
        if len(data) < one.length:
            raise DamagedError("it is shorter than it says")
        return data
