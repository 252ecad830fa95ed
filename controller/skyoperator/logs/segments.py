"""What a log's bytes are kept in: segments, whole and compressed but for the growing end. Pure but for the cache of what was unpacked."""

from __future__ import annotations

import gzip
import re
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

LONGEST_LINE_BYTES: Final = 16 * 2**20
"""A line that is longer is not kept: a segment has whole lines, and is unpacked as a whole."""

_NAME: Final = re.compile(r"([0-9]{20})\.(gz|part)")


class DamagedError(Exception):
    """A segment is not what was written; says how."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Some whole lines of a log, in a file of their own."""

    offset: int
    length: int
    packed: bool

    @property
    def end(self) -> int:
        """The offset of the byte after it."""
        return self.offset + self.length

    @property
    def name(self) -> str:
        """The file's."""
        return f"{self.offset:020d}.{'gz' if self.packed else 'part'}"


def named(files: Mapping[str, int]) -> list[Segment]:
    """Return the segments among these files, in order, as long as the files are. Of one that is there packed and not, the packed."""
    found: dict[int, Segment] = {}
    for name, size in sorted(files.items(), reverse=True):
        if match := _NAME.fullmatch(name):
            offset = int(match[1])
            found[offset] = Segment(offset, size, packed=match[2] == "gz")
    return [found[offset] for offset in sorted(found)]


def without_overlap(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return them cut off where the next one begins, without empty ones.

    An append that failed may have left some of its bytes behind; what came after it begins a segment.
    """
    ends = [after.offset for _, after in pairwise(segments)]
    cut = [replace(one, length=min(one.length, end - one.offset)) for one, end in zip(segments, ends, strict=False)]
    return tuple(one for one in (*cut, *segments[-1:]) if one.length > 0)


def holes(segments: Sequence[Segment], size: int) -> tuple[tuple[int, int], ...]:
    """Return where bytes are missing: from, and up to but without."""
    bounds = [0, *(bound for one in segments for bound in (one.offset, one.end)), size]
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    return tuple((start, end) for start, end in pairs if start < end)


def to_cut(segments: Sequence[Segment], limit_bytes: int) -> list[Segment]:
    """Return which ones go so that no more than the limit are kept: the oldest ones behind the first quarter, never the last one."""
    excess = sum(one.length for one in segments) - limit_bytes
    cut: list[Segment] = []
    for one in segments[:-1]:
        if excess <= 0:
            break
        if one.offset >= limit_bytes // 4:
            cut.append(one)
            excess -= one.length
    return cut


def pieces(data: bytes, limit_bytes: int) -> Iterator[bytes]:
    """Give the data in pieces of whole lines, none longer than the limit unless it is one line."""
    start = 0
    while start < len(data):
        end = len(data)
        if end - start > limit_bytes:
            end = data.rfind(b"\n", start, start + limit_bytes) + 1 or data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def pack(data: bytes) -> bytes:
    """Return the bytes of a packed segment's file."""
    return gzip.compress(data, mtime=0)


def unpack(packed: bytes) -> bytes:
    """Return the bytes of a segment. Raises DamagedError, also for more than a segment can be: memory is not the file's to ask for."""
    inflating = zlib.decompressobj(wbits=31)
    try:
        data = inflating.decompress(packed, LONGEST_LINE_BYTES + 1)
    except zlib.error as error:
        raise DamagedError(str(error)) from error
    if not inflating.eof:
        raise DamagedError("it is longer than a segment can be" if len(data) > LONGEST_LINE_BYTES else "its end is missing")
    return data


def unpacked_length(last_bytes: bytes) -> int:
    """Return how long a packed segment says that it is, by the last four bytes of its file (RFC 1952, ISIZE); 0 if it has not so many."""
    return int.from_bytes(last_bytes, "little") if len(last_bytes) == 4 else 0


def whole_lines(data: bytes) -> int:
    """Return how many of the bytes are whole lines."""
    return data.rfind(b"\n") + 1


def beginning_of_last_lines(data: bytes, lines: int) -> tuple[int, int]:
    """Return where the last so many lines of these bytes begin, and how many of them there are."""
    at = len(data)
    for found in range(lines):
        if at == 0:
            return 0, found
        at = data.rfind(b"\n", 0, at - 1) + 1
    return at, lines


class Cache:
    """The segments that were unpacked last, of all logs. One is unpacked at a time, so that many readers take no more memory than one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, path: str, load: Callable[[], bytes]) -> bytes:
        """Return the segment's bytes. Raises what `load` does."""
        with self._loading:
            with self._lock:
                data = self._kept.pop(path, None)
            if data is None:
                data = load()
            self._keep(path, data)
        return data

    def _keep(self, path: str, data: bytes) -> None:
        with self._lock:
            self._kept[path] = data
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > self._limit_bytes:
                self._kept.popitem(last=False)

    def forget(self, path: str) -> None:
        """Keep it no longer: its file is gone. Waits for nobody who unpacks one, because a writer asks."""
        with self._lock:
            self._kept.pop(path, None)
