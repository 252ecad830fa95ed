"""Steps: named, done once per content, run side by side where they don't wait for each other.

A step carries a key, a hash of everything that goes into its result. When it is done, its key is written next to the
result; a step whose key is found there is not done again. Deleting the result deletes the key with it.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from deploy.local.commands import Children, Shell

NAME_WIDTH = 28


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, and how to know that it was done.

    Attributes:
        name: What the progress line says; also the log's name.
        make: Does it.
        after: Names of steps that come before it, if they are part of the run at all.
        key: Hash of all inputs. Empty: nothing is remembered, `done` alone decides.
        marker: File that holds the key of the result at hand.
        done: Further check that the result is there. Without a key: the only one.
    """

    name: str
    make: Callable[[Shell], None]
    after: frozenset[str] = frozenset()
    key: str = ""
    marker: Path | None = None
    done: Callable[[], bool] = lambda: True

    def is_done(self) -> bool:
        """Tell whether the result of this very key is at hand."""
        if self.marker is None:
            return self.done()
        return self.marker.exists() and self.marker.read_text() == self.key and self.done()

    def perform(self, shell: Shell) -> None:
        """Do it, and remember that it is done: last, so that an interrupted step is done again."""
        if self.marker is None:
            self.make(shell)
            return
        self.marker.unlink(missing_ok=True)
        self.make(shell)
        self.marker.parent.mkdir(parents=True, exist_ok=True)
        self.marker.write_text(self.key)


def content_key(*parts: str | Path, root: Path | None = None) -> str:
    """Return a hash of texts and of files' or folders' paths (relative to `root`), modes and contents."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(digest, "text", part.encode())
            continue
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = str(file.relative_to(root)) if root else file.name
                _add(digest, f"{name} {file.stat().st_mode & 0o111:o}", file.read_bytes())
    return digest.hexdigest()[:16]


def _add(digest: "hashlib._Hash", label: str, content: bytes) -> None:
    digest.update(f"{label} {len(content)}\n".encode())
    digest.update(content)


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return the steps so that each comes after those it waits for. Raises ValueError on a circle."""
    waiting = {step.name: step for step in steps}
    ordered: list[Step] = []
    while waiting:
        free = [step for step in waiting.values() if not step.after & waiting.keys()]
        if not free:
            raise ValueError(f"These steps wait for each other: {sorted(waiting)}.")
        ordered += free
        for step in free:
            del waiting[step.name]
    return ordered


@dataclass(slots=True)
class Progress:
    """Prints a line when a step starts and one when it ends, numbered in the order of ending."""

    total: int
    _ended: int = 0
    _lock: Lock = field(default_factory=Lock)

    def started(self, name: str, log: Path) -> None:
        """Tell that a step takes its time, and where its output goes."""
        self._print("", name, f"... ({log})")

    def ended(self, name: str, how: str) -> None:
        """Tell how a step ended: "cached", "87 s", "FAILED"."""
        with self._lock:
            self._ended += 1
            self._print(f"{self._ended}/{self.total}", name, how)

    @staticmethod
    def _print(count: str, name: str, what: str) -> None:
        head = f"[{count:>5}]" if count else " " * 7
        sys.stdout.write(f"{head} {name + ' ':.<{NAME_WIDTH}} {what}\n")
        sys.stdout.flush()


@dataclass(slots=True)
class Run:
    """One run over some steps."""

    logs: Path
    children: Children = field(default_factory=Children)
    workers: int = 3

    def execute(self, steps: Sequence[Step]) -> None:
        """Do what is not done yet. On the first failure end all other work and raise it."""
        pending = {step.name: step for step in in_order(steps)}
        progress = Progress(len(pending))
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while pending or running:
                    for step in startable(pending, set(running.values())):
                        running[pool.submit(self._one, pending.pop(step.name), progress)] = step.name
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        future.result()
            except BaseException:
                self.children.stop()
                raise

    def _one(self, step: Step, progress: Progress) -> None:
        start = time.monotonic()
        if step.is_done():
            progress.ended(step.name, "cached" if step.marker else "ready")
            return
        shell = Shell(self.logs / f"{re.sub('[^A-Za-z0-9.-]+', '-', step.name)}.log", self.children)
        shell.log.unlink(missing_ok=True)
        progress.started(step.name, shell.log)
        try:
            step.perform(shell)
        except BaseException:
            progress.ended(step.name, "FAILED")
            raise
        progress.ended(step.name, f"{time.monotonic() - start:.0f} s")


def startable(pending: Mapping[str, Step], running: set[str]) -> list[Step]:
    """Return the steps that wait for nothing that is pending or running."""
    unfinished = pending.keys() | running
    return [step for step in pending.values() if not step.after & unfinished]
