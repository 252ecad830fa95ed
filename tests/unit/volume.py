"""A volume with logs on it, for tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from skyoperator.logs.about import Origin
from skyoperator.logs.disk import BLOCK_BYTES
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import Limits, StoredLog
from skyoperator.logs.types import Kind, Log, LogKey

from tests.unit.faulty_disk import FaultyDisk

SEGMENT: Final = 64
LIMITS: Final = Limits(log_bytes=10 * SEGMENT, total_bytes=2**30, retention=timedelta(days=7), segment_bytes=SEGMENT)
ORIGIN: Final = Origin(namespace="ml", name="train", cluster="train-0a1b", job=1)
KEY: Final = LogKey("aa-11", "bb-22", 1, Kind.JOB)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 26, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **how: float) -> None:
        self.now += timedelta(**how)


class Place:
    """A volume, and the stores that one after the other have it."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        self.root = root
        self.limits = limits
        self.clock = Clock()
        self.disk = FaultyDisk()
        self.store = self.reopened()

    def reopened(self) -> Store:
        self.disk.heal()
        self.store = Store(self.root, self.limits, self.clock, self.disk)
        return self.store

    def log(self, key: LogKey = KEY) -> StoredLog:
        return self.store.open(key, ORIGIN)

    def files(self, key: LogKey = KEY) -> dict[str, Path]:
        folder = self.root / key.namespace_uid / key.object_uid / f"{key.attempt}-{key.kind}"
        return {path.name: path for path in sorted(folder.glob("*"))}

    def used_bytes(self) -> int:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        blocks = sum(-(-path.stat().st_size // BLOCK_BYTES) for path in files)
        return (blocks + len({path.parent for path in files})) * BLOCK_BYTES


def key_of(object_number: int, attempt: int = 1, kind: Kind = Kind.JOB) -> LogKey:
    return LogKey("aa-11", f"bb-{object_number:02}", attempt, kind)


def line(number: int) -> bytes:
    return b"line %06d\n" % number


def pieces_of(log: Log, offset: int = 0, limit_bytes: int = 1000) -> Iterator[tuple[int, bytes]]:
    """Read as a server does, to the end."""
    while (piece := log.read(offset, limit_bytes)).data:
        assert len(piece.data) <= limit_bytes
        yield piece.offset, piece.data
        offset = piece.end
    assert piece.offset >= log.size


def text_of(log: Log) -> bytes:
    return b"".join(data for _, data in pieces_of(log))
