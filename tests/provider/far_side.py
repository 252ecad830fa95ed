"""Runs the text of spec.task.run as a node does, and reads the log as the log process does: with the controller's own decoder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from skyoperator_provider.remote.values import RemoteError, Returned, read

REPOSITORY = Path(__file__).parents[2]
STDIN = b"the job's own input"


def module_of(path: Path, name: str) -> ModuleType:
    """The file as a module, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


frames = module_of(REPOSITORY / "controller/skyoperator/logs/frames.py", "controller_frames")


@dataclass(frozen=True)
class Ran:
    """How a job ended, and what is left of it."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def body(self) -> bytes | None:
        """What `.../result` answers."""
        text: bytes | None = frames.assemble(filter(None, map(frames.parse, self.stdout.splitlines(keepends=True))))
        return text

    @property
    def log(self) -> str:
        """What the log shows."""
        return b"".join(line for line in self.stdout.splitlines(keepends=True) if not frames.is_frame(line)).decode()

    @property
    def value(self) -> Any:
        """What the function returned."""
        found = read(self.body or b"")
        assert isinstance(found, Returned), found
        return found.value

    @property
    def error(self) -> RemoteError:
        """What the function raised."""
        found = read(self.body or b"")
        assert isinstance(found, RemoteError), found
        return found


def run(text: str, home: Path, **env: str) -> Ran:
    """Run the text in bash, in a home directory where python3 is the one that runs the tests."""
    programs = home / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    if not (programs / "python3").exists():
        (programs / "python3").symlink_to(Path(sys.executable).resolve())
    workdir = home / "sky_workdir"
    workdir.mkdir(exist_ok=True)
    script = home / "run.sh"
    script.write_text(text)
    path = f"{programs}:{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": path, "TMPDIR": str(home), "LC_ALL": "C.UTF-8", **env}
    done = subprocess.run(["bash", str(script)], cwd=workdir, env=environment, input=STDIN, capture_output=True, timeout=60, check=False)
    return Ran(done.returncode, done.stdout, done.stderr.decode())
