"""`kubectl sky` run in this process, against the fake Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator.cli.main import main

from tests.unit.fake_api import TOKEN, FakeApi, serving


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass
class Sky:
    """The command, with a kubeconfig that leads to the fake API."""

    api: FakeApi
    kubeconfig: Path
    capture: pytest.CaptureFixture[bytes]

    def run(self, *argv: str) -> Ran:
        code = main([*argv, "--kubeconfig", str(self.kubeconfig)])
        out, err = self.capture.readouterr()
        return Ran(code, out, err.decode())


def write_kubeconfig(path: Path, port: int, user: dict[str, Any] | None = None) -> Path:
    """Write a kubeconfig of two contexts, one of which has a namespace."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "fake", "user": "jane", "namespace": "team"}},
            {"name": "plain", "context": {"cluster": "fake", "user": "jane"}},
        ],
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "jane", "user": {"token": TOKEN} if user is None else user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that were made; none of them lasts."""
    made: list[float] = []
    monkeypatch.setattr("skyoperator.cli.pace.pause", made.append)
    return made


@pytest.fixture
def sky(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Sky]:
    """Yield the command, against an empty API."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    with serving(FakeApi()) as api:
        yield Sky(api, write_kubeconfig(tmp_path / "kubeconfig", api.port), capsysbinary)
