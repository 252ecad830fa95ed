"""DAGs in a real Airflow, under an account that has the chart's rights and no others, to real SkyPilot clusters and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.airflow import Airflow, Run, running
from tests.e2e.conftest import AIRFLOW, NAMESPACE, ROOT
from tests.e2e.support import Sky, eventually, kubectl, nothing_left

EXAMPLES = ["four_steps.py", "one_step.py"]
DAGS = {"sky_four_steps", "sky_one_step", "no_value", "red", "long_deferred", "long_running"}


def small(text: str) -> str:
    """An example, on a machine of two cores whose clusters reach no package index."""
    text = text.replace('"setup": "pip install numpy"', '"setup": "echo numpy"')
    for asked in ('"cpus": "1+", "memory": "2+"', '"cpus": "1+"'):
        text = text.replace(asked, '"cpus": "0.25+", "memory": "1+"')
    return text


@pytest.fixture(scope="module")
def airflow(release: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home, dags = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("dags")
    for name in EXAMPLES:
        (dags / name).write_text(small((ROOT / "examples/airflow" / name).read_text()))
    (dags / "ends.py").write_text((Path(__file__).parent / "dags/ends.py").read_text())
    path = kubeconfig_of_airflow(home / "kubeconfig")
    with running(home, dags, {"conn_type": "skyoperator", "extra": {"kube_config_path": str(path), "namespace": NAMESPACE}}) as airflow:
        eventually("the DAGs are there", lambda: airflow.dags() >= DAGS, seconds=120)
        yield airflow


def kubeconfig_of_airflow(path: Path) -> Path:
    """A way in for the service account that the release gives Airflow's rights."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": AIRFLOW}}
    kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(account))
    token = kubectl("create", "token", AIRFLOW, "-n", NAMESPACE, "--duration=2h").strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return path


def objects_of(run: Run) -> list[dict[str, Any]]:
    """The SkyClusters that this run has made."""
    items: list[dict[str, Any]] = json.loads(kubectl("get", "skyc", "-n", NAMESPACE, "-o", "json"))["items"]
    return [item for item in items if item["metadata"]["annotations"].get("airflow.skyoperator.dev/run-id") == run.run_id]


def at_work(run: Run, task_state: str) -> Sky:
    """Wait until the run's job is at work, and Airflow's task in this state; return the object."""

    def look() -> Sky | None:
        found = [item for item in objects_of(run) if item.get("status", {}).get("job", {}).get("status") == "RUNNING"]
        return Sky(NAMESPACE, found[0]["metadata"]["name"]) if found and run.task("train")["state"] == task_state else None

    this: Sky = eventually("the job is at work", look, seconds=240)
    return this


def test_four_steps(airflow: Airflow) -> None:
    run = airflow.run("sky_four_steps")
    assert run.ended(seconds=300) == "success"
    assert "epochs: 3" in run.log("logs")
    assert objects_of(run) == []


def test_one_step_returns_what_its_job_left(airflow: Airflow) -> None:
    run = airflow.run("sky_one_step")
    assert run.ended(seconds=300) == "success"
    assert "training" in run.log("train")
    assert "loss: 0.25" in run.log("report")
    eventually("its object is gone", lambda: not objects_of(run), seconds=90)


def test_a_job_that_returns_nothing_has_lost_nothing(airflow: Airflow) -> None:
    run = airflow.run("no_value")
    assert run.ended(seconds=300) == "success"


def test_a_red_job_is_red_in_every_step_and_taken_down(airflow: Airflow) -> None:
    run = airflow.run("red")
    assert run.ended(seconds=300) == "failed"
    assert run.states() == {"launch": "success", "logs": "failed", "status": "upstream_failed", "down": "success"}
    assert "before the end" in run.log("logs")
    assert "JobFailed" in run.log("logs")
    assert objects_of(run) == []


@pytest.mark.parametrize(("dag_id", "task_state"), [("long_deferred", "deferred"), ("long_running", "running")])
def test_a_task_that_is_marked_failed_leaves_nothing(airflow: Airflow, dag_id: str, task_state: str) -> None:
    """Killed where it waits: in the triggerer, and in a worker."""
    run = airflow.run(dag_id)
    cluster = at_work(run, task_state).cluster
    run.mark("train", "failed")
    eventually("its object is gone", lambda: not objects_of(run), seconds=120)
    nothing_left(cluster, seconds=30)
    assert run.ended(seconds=60) == "failed"
