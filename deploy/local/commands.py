"""Running programs: output to a log, the log's end in the error, and nothing left running when one step fails."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO


class Failure(Exception):  # noqa: N818 - the user reads the message alone
    """Something that the user can do something about. The message is one or a few whole sentences."""


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented, or a note that there is none."""
    if not log.exists() or not (text := log.read_text(errors="replace").splitlines()[-lines:]):
        return f"    ({log} is empty)"
    return "\n".join(f"    {line}" for line in text)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file for the length of the block; wait, and say so, while another run holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run, which holds {file}", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(slots=True)
class Children:
    """The programs now running, each in a process group of its own, so that the first failure can end the others."""

    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _stopped: bool = False

    @contextmanager
    def start(self, argv: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program for the length of the block. Raises Failure if it isn't there or if we were told to stop."""
        with self._lock:
            if self._stopped:
                raise Failure(f"{argv[0]} was not started: another step failed.")
            try:
                process: subprocess.Popen[bytes] = subprocess.Popen(argv, start_new_session=True, **options)  # type: ignore[call-overload]
            except FileNotFoundError as error:
                raise Failure(f"{argv[0]} is not installed, or not on PATH.") from error
            self._running.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._running.discard(process)
            end(process)

    def stop(self) -> None:
        """End every running program and let none start any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that a program is gone, with its group."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs the programs of one step, with their output in the step's log."""

    log: Path
    children: Children

    def run(self, *argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
        """Run a program to its end and return what it printed. Raises Failure with the log's end if it fails."""
        with (
            self._log() as log,
            self.children.start(
                _text(argv), cwd=cwd, env=_environment(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            ) as process,
        ):
            output = process.communicate(stdin.encode())[0]
            log.write(output)
        self._check(argv, process.returncode)
        return output.decode(errors="replace")

    def pipe(self, source: Sequence[str | Path], sink: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Run `source | sink`. Raises Failure if either fails."""
        environment = _environment(env)
        with self._log() as log, self.children.start(_text(source), env=environment, stdout=subprocess.PIPE, stderr=log) as first:
            with self.children.start(_text(sink), env=environment, stdin=first.stdout, stdout=log, stderr=log) as second:
                if first.stdout:
                    first.stdout.close()
                second.wait()
            first.wait()
        self._check(sink, second.returncode)
        self._check(source, first.returncode)

    def _log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("ab", buffering=0)

    def _check(self, argv: Sequence[str | Path], code: int) -> None:
        if code != 0:
            command = " ".join(_text(argv))[:200]
            raise Failure(f"`{command}` ended with code {code}. The end of {self.log}:\n{tail(self.log)}")


def _text(argv: Sequence[str | Path]) -> list[str]:
    return [str(word) for word in argv]


def _environment(more: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if more is None else {**os.environ, **more}
