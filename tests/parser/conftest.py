"""One SkyPilot process for all tests here: importing SkyPilot takes seconds."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

INTERPRETER = "SKYOPERATOR_SKYPILOT_PYTHON"


class SkyPilot:
    """Asks parse.py, in an environment that has SkyPilot."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, with_: str = "") -> dict[str, Any]:
        """Return the answer: `{"ok": ...}` or `{"error": SkyPilot's words}`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, "with": with_}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"died": true}')
        return answer

    def must(self, do: str, with_: str = "") -> dict[str, Any]:
        """Return what came out, or fail with SkyPilot's error."""
        answer = self.ask(do, with_)
        assert "ok" in answer, f"SkyPilot says: {answer}\n{with_}"
        done: dict[str, Any] = answer["ok"]
        return done


@pytest.fixture(scope="session")
def skypilot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyPilot]:
    interpreter = os.environ.get(INTERPRETER)
    if not interpreter:
        pytest.fail(f"set {INTERPRETER} to the Python of an environment with skypilot installed")
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        "IS_SKYPILOT_SERVER": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    script = Path(__file__).with_name("parse.py")
    with (
        (home / "stderr").open("w") as errors,
        subprocess.Popen(
            [interpreter, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
        ) as process,
    ):
        yield SkyPilot(process)
