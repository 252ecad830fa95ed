"""The two sides of the waiting: tasks that are deferred, and objects that nobody but the test writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.support import eventually, kubectl
from tests.triggers import COUNT
from tests.triggers.objects import Objects
from tests.triggers.tasks import Triggerer, connect

AIRFLOW = Path(sys.executable).with_name("airflow")
CRDS = Path(__file__).resolve().parents[2] / "crds"


def airflow(*words: str) -> None:
    done = subprocess.run([AIRFLOW, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def database() -> None:
    airflow("db", "migrate")
    airflow("dags", "reserialize")
    connect(os.environ["KUBECONFIG"])


@pytest.fixture
def run(database: None) -> str:
    """A run of the DAG, by its id."""
    run_id = f"run-{uuid4().hex[:6]}"
    airflow("dags", "trigger", "waiting", "--run-id", run_id)
    return run_id


@pytest.fixture
def triggerer(database: None, tmp_path: Path) -> Iterator[Triggerer]:
    """`airflow triggerer`, with nothing to do yet."""
    log = tmp_path / "triggerer.log"
    with log.open("wb") as output:
        process = subprocess.Popen([AIRFLOW, "triggerer", "--skip-serve-logs"], stdout=output, stderr=output)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        # Until it says so, a child may be any program that it asks something.
        eventually("the triggerer starts", lambda: "Starting the triggerer" in log.read_text(), seconds=120)
        yield Triggerer(int(eventually("it has its runner", children.read_text, seconds=120)), log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture
def objects() -> Iterator[Objects]:
    """As many SkyClusters as triggers, in a namespace of their own that no controller watches."""
    name = f"triggers-{uuid4().hex[:6]}"
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", str(CRDS))
    kubectl("create", "namespace", name)
    try:
        yield Objects.created(name, COUNT)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
