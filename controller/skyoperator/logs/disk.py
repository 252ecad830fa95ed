"""The few things that the store does with files, what they take on the volume, and how often the volume refused."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

BLOCK_BYTES: Final = 4096
"""What a file takes is a multiple of this on the usual file systems."""

_DRAFT: Final = ".tmp"
_ITSELF: Final = "."


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder in a folder. A link is neither, and is not told of."""

    name: str
    is_folder: bool
    size: int


class Disk:
    """The real one. Every method raises OSError. What one has written is there still after the machine died, once it returned."""

    def entries(self, folder: Path) -> list[Entry]:
        """Return what is in the folder, sorted by name; nothing if there is no such folder."""
        try:
            with os.scandir(folder) as found:
                kept = [entry for entry in found if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)]
                entries = [
                    Entry(entry.name, entry.is_dir(follow_symlinks=False), entry.stat(follow_symlinks=False).st_size) for entry in kept
                ]
        except FileNotFoundError:
            return []
        return sorted(entries, key=lambda entry: entry.name)

    def pread(self, path: Path, offset: int, limit_bytes: int) -> bytes:
        """Return at most so many bytes of the file from there on; fewer only at its end."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            left = min(limit_bytes, os.fstat(descriptor).st_size - offset)
            read: list[bytes] = []
            while left > 0 and (more := os.pread(descriptor, left, offset)):
                read.append(more)
                offset, left = offset + len(more), left - len(more)
        finally:
            os.close(descriptor)
        return b"".join(read)

    def append(self, path: Path, at: int, data: bytes) -> None:
        """Make the file its first `at` bytes and these. If it fails, some of these may stand there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, at)
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, memoryview(data)[written:], at + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if at == 0:
            _sync(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        """Put a file in the place of another, in the same folder, at once."""
        old.replace(new)
        _sync(new.parent)

    def remove(self, path: Path) -> None:
        """Remove the file, if it is there."""
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        """Make the folder, and those that it is in."""
        if not folder.is_dir():
            self.make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync(folder.parent)

    def remove_folder(self, folder: Path) -> None:
        """Remove the folder, which is empty."""
        folder.rmdir()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Tally:
    """What all logs together have taken and suffered; many threads count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.used_bytes = 0
        self.failures = 0

    def used(self, more_bytes: int) -> None:
        """Count what was written, or, below 0, removed."""
        with self._lock:
            self.used_bytes += more_bytes

    def failed(self) -> None:
        """Count a file operation that failed."""
        with self._lock:
            self.failures += 1


class Folder:
    """The files of one log, and what they take. Only one thread at a time may write."""

    def __init__(self, path: Path, disk: Disk, tally: Tally) -> None:
        self.path = path
        self._disk = disk
        self._tally = tally
        self._taken: dict[str, int] = {}
        self.used_bytes = 0
        """What the files take on the volume, and the folder itself."""
        self.failures = 0

    def scan(self) -> dict[str, int]:
        """Return the names of the files and how long each is, without drafts, which nobody finishes any more. Raises OSError."""
        found = {entry.name: entry.size for entry in self._disk.entries(self.path) if not entry.is_folder}
        for name in list(self._taken):
            self._forget(name)
        for name, size in found.items():
            self._count(name, size)
        if found:
            self._count(_ITSELF, BLOCK_BYTES)
        for name in [name for name in found if name.endswith(_DRAFT)]:
            self.discard(name)
            del found[name]
        return found

    def has(self, name: str) -> bool:
        """Tell whether there is such a file, as far as is known."""
        return name in self._taken

    def pread(self, name: str, offset: int, limit_bytes: int) -> bytes:
        """See `Disk.pread`."""
        return self._disk.pread(self.path / name, offset, limit_bytes)

    def append(self, name: str, at: int, data: bytes) -> None:
        """See `Disk.append`."""
        self._made()
        self._count(name, at + len(data))
        self._disk.append(self.path / name, at, data)

    def replace(self, name: str, data: bytes) -> None:
        """Make the file these bytes, or leave it as it was. Raises OSError."""
        draft = name + _DRAFT
        try:
            self.append(draft, 0, data)
            self._disk.rename(self.path / draft, self.path / name)
        except OSError:
            self.discard(draft)
            raise
        self._count(name, len(data))
        self._forget(draft)

    def discard(self, name: str) -> None:
        """Remove the file, if that can be done: one that stays does no harm."""
        try:
            self._disk.remove(self.path / name)
        except OSError as error:
            self.failed(f"remove {name}", error)
        else:
            self._forget(name)

    def remove(self) -> None:
        """Remove the files, about.json last, the folder, and those that it is in once they are empty, as far as that can be done."""
        for name in sorted(self._taken.keys() - {_ITSELF}, key=lambda name: (name == "about.json", name)):
            self.discard(name)
        try:
            self._disk.remove_folder(self.path)
            self._forget(_ITSELF)
            self._disk.remove_folder(self.path.parent)
            self._disk.remove_folder(self.path.parent.parent)
        except OSError:  # Others are in there, or a file stayed.
            return

    def failed(self, deed: str, error: OSError) -> None:
        """Count and tell what the volume refused."""
        self.failures += 1
        self._tally.failed()
        logger.warning("%s: could not %s: %s", self.path, deed, error)

    def _made(self) -> None:
        if _ITSELF not in self._taken:
            self._disk.make_folder(self.path)
            self._count(_ITSELF, BLOCK_BYTES)

    def _count(self, name: str, size: int) -> None:
        self._add(_blocks(size) - self._taken.get(name, 0))
        self._taken[name] = _blocks(size)

    def _forget(self, name: str) -> None:
        self._add(-self._taken.pop(name, 0))

    def _add(self, more_bytes: int) -> None:
        self.used_bytes += more_bytes
        self._tally.used(more_bytes)


def _blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
