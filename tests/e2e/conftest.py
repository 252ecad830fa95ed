"""The chart on the local cluster, installed once; each test has names of its own and cleans up after itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.layout import layout
from tests.e2e.support import RELEASE, KubectlError, Sky, kubectl

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "e2e"
AIRFLOW = "airflow"
"""The service account of Airflow's workers and triggerers."""


@pytest.fixture(scope="session", autouse=True)
def release() -> None:
    install()


def install() -> None:
    """The product, as a reader installs it."""
    with suppress(KubectlError):
        kubectl("create", "namespace", NAMESPACE)
    values = ["deploy/local/values.yaml", str(layout().state / "values.json")]
    files = [word for file in values for word in ("--values", file)]
    watch = f"watchNamespaces={{default,{NAMESPACE}}}"
    command = ["helm", "upgrade", "--install", RELEASE, "deploy/helm/skyoperator", "-n", RELEASE, "--create-namespace", *files]
    airflow = f"airflow.accounts[0].namespace={NAMESPACE},airflow.accounts[0].name={AIRFLOW}"
    subprocess.run([*command, "--set", watch, "--set", airflow, "--wait", "--timeout", "10m", "--hide-notes"], cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def namespace() -> str:
    return NAMESPACE


@pytest.fixture
def apply() -> Iterator[Callable[..., Sky]]:
    """Apply SkyClusters with names that nobody had before, and delete them at the end."""
    made: list[Sky] = []

    def make(name: str, **spec: object) -> Sky:
        made.append(Sky.apply(NAMESPACE, f"{name}-{uuid4().hex[:4]}", **spec))
        return made[-1]

    yield make
    names = [this.name for this in made]
    if names:
        kubectl("delete", "skyc", *names, "-n", NAMESPACE, "--ignore-not-found", "--timeout=150s", timeout_seconds=160)
