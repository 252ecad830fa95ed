"""A disk that refuses, or dies with its process, at the file operation that a test names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from skyoperator.logs.disk import Disk, Entry


class KilledError(BaseException):
    """The process died here. Nothing of ours may catch it."""


class FaultyDisk(Disk):
    """The real one until `fault` operations have been done. What was being appended then is left torn."""

    def __init__(self) -> None:
        self.operations = 0
        self.before: Callable[[str, Path], None] = lambda _operation, _path: None
        """Called before each operation, to have something else done at that very moment."""
        self._left = -1
        self._code: int | None = None
        self._lasting = False
        self._torn = 0

    def fail(self, after: int, code: int, *, lasting: bool = False, torn: int = 0) -> None:
        """Refuse the operation after so many, and if `lasting` all later ones that would change something."""
        self._left, self._code, self._lasting, self._torn = after, code, lasting, torn

    def kill(self, after: int, *, torn: int = 0) -> None:
        self._left, self._code, self._lasting, self._torn = after, None, False, torn

    def heal(self) -> None:
        self._left = -1

    @property
    def armed(self) -> bool:
        return self._left >= 0

    def append(self, path: Path, at: int, data: bytes) -> None:
        try:
            self._step("append", path)
        except (KilledError, OSError):
            if self._torn and path.parent.is_dir():
                super().append(path, at, data[: self._torn])
            raise
        super().append(path, at, data)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", old)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder", folder)
        super().make_folder(folder)

    def remove_folder(self, folder: Path) -> None:
        self._step("remove_folder", folder)
        super().remove_folder(folder)

    def pread(self, path: Path, offset: int, limit_bytes: int) -> bytes:
        self.before("pread", path)
        return super().pread(path, offset, limit_bytes)

    def entries(self, folder: Path) -> list[Entry]:
        self.before("entries", folder)
        return super().entries(folder)

    def _step(self, operation: str, path: Path) -> None:
        self.before(operation, path)
        self.operations += 1
        if self._left > 0:
            self._left -= 1
        elif self._left == 0:
            if not self._lasting:
                self._left = -1
            if self._code is None:
                raise KilledError(f"{operation} {path}")
            raise OSError(self._code, os.strerror(self._code), str(path))
