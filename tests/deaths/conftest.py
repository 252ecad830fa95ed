"""Airflow as four processes, a real kube-apiserver, a controller, a stand-in for SkyPilot; and the table that comes of it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.deaths.act import Act
from tests.deaths.table import Row, write
from tests.e2e.airflow import BIN
from tests.e2e.airflow_processes import Processes, separate
from tests.e2e.support import eventually, kubeconfig_of, kubectl
from tests.integration.apiserver import ApiServer
from tests.integration.conftest import Controllers, api, behind, controllers, crd, grant, namespace, rights, standin
from tests.integration.stage import Stage
from tests.standin.control import Control

__all__ = ["api", "behind", "controllers", "crd", "namespace", "rights", "standin"]

ACCOUNT = "airflow"
FOREVER_SECONDS = 3600.0


@pytest.fixture(scope="session")
def home() -> Iterator[str]:
    """The namespace of Airflow's own account."""
    name = f"deaths-{uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def account(home: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of Airflow's own account, which has no rights yet."""
    kubectl("create", "serviceaccount", ACCOUNT, "-n", home)
    return kubeconfig_of(ACCOUNT, home, tmp_path_factory.mktemp("account") / "kubeconfig")


@pytest.fixture(scope="session")
def processes(account: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    home, dags = tmp_path_factory.mktemp("airflow"), Path(__file__).parent / "dags"
    kubernetes = {"conn_type": "skyoperator", "extra": {"kube_config_path": str(account)}}
    with separate(home, dags, {"kubernetes_default": kubernetes}) as processes:
        eventually("the DAGs are there", lambda: "brief_deferred" in processes.airflow.dags(), seconds=120)
        yield processes
    for part in processes.parts.values():
        print(f"--- {part.name}\n{part.log.read_text()[-3000:]}")


@pytest.fixture
def airflow_rights(namespace: str, home: str, account: Path) -> None:
    """What the chart grants Airflow's accounts, granted in the test's namespace."""
    grant("airflow-rbac", namespace, f"airflow.accounts[0].namespace={home},airflow.accounts[0].name={ACCOUNT}")


@pytest.fixture
async def act(
    processes: Processes, airflow_rights: None, behind: Controllers, api: ApiServer, standin: tuple[Control, str], table: list[Row]
) -> AsyncIterator[Act]:
    """Everything that takes part; jobs run until they are told to finish."""
    await asyncio.to_thread(processes.mend)
    control = standin[0]
    control.jobs(seconds=FOREVER_SECONDS)
    act = Act(Stage(api, behind, control, await behind.start()), processes, table)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(act.look())
        yield act
        looking.cancel()


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The rows as they came out, which are then written down."""
    rows: list[Row] = []
    command = [str(BIN / "python"), "-c", "from importlib.metadata import version; print(version('apache-airflow'))"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    yield rows
    write(version, rows, are_all=not (request.session.testsfailed or request.config.option.keyword))
