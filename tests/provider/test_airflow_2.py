"""Airflow 2.11: whole DAGs by its own runner, with its own database. What is not deferred is what is promised there."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.utils.db import initdb
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.identity import RUN_STARTED
from skyoperator_provider.operators.skycluster import SkyClusterOperator
from skyoperator_provider.sensors.skycluster import SkyClusterSensor
from skyoperator_provider.triggers import skycluster as module
from skyoperator_provider.triggers.skycluster import SkyClusterTrigger

from tests.provider import far_side
from tests.provider.airflows import DagBag, DagSerialization, TaskTerminated
from tests.provider.memory import CALLS, NAMESPACE, Call, MemoryApi

DAG_FILE = """
from datetime import datetime

from airflow import DAG
from airflow.decorators import task
from skyoperator_provider.operators.skycluster import (
    SkyClusterCreateOperator,
    SkyClusterDeleteOperator,
    SkyClusterLogsOperator,
    SkyClusterOperator,
)
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

RUN = "echo from {{ run_id }} ${#seeds[@]}"

with DAG(
    "train", schedule=None, start_date=datetime(2026, 1, 1), default_args={"deferrable": False, "poll_seconds": 0, "poke_interval": 0}
):
    launch = SkyClusterCreateOperator(task_id="launch", task={"run": RUN})
    logs = SkyClusterLogsOperator(task_id="logs", cluster=launch.output)
    status = SkyClusterSensor(task_id="status", cluster=launch.output)
    down = SkyClusterDeleteOperator(task_id="down", cluster_task_id="launch")
    launch >> logs >> status >> down.as_teardown(setups=launch)

    one_step = SkyClusterOperator(task_id="one_step", task={"run": "echo 7 >RESULT"}, result_path="RESULT")

    @task.sky(task={"resources": {"cpus": 1}})
    def fit(rate, *, run_id=None):
        return {"rate": rate, "run": run_id}

    @task
    def register(found):
        return found["rate"]

    register(fit(one_step.output))
"""


@pytest.fixture
def dag(tmp_path: Path) -> Any:
    """The DAG, as the dag processor parses it."""
    path = tmp_path / "dags" / "train.py"
    path.parent.mkdir()
    path.write_text(DAG_FILE.replace("RESULT", f"{tmp_path}/result.json"))
    bag = DagBag(str(path))
    assert not bag.import_errors
    return bag.dags["train"]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")  # the only one that takes SQLite
    initdb()


def cluster(api: MemoryApi, home: Path) -> None:
    """Run here what is created, and write of it what the controller would."""
    done: set[str] = set()

    def on_call(call: Call) -> None:
        body = api.objects.get((NAMESPACE, call.name))
        if call.verb != "read" or body is None or body["metadata"]["uid"] in done:
            return
        uid = body["metadata"]["uid"]
        done.add(uid)
        ran = far_side.run(body["spec"]["task"]["run"], home, SKYPILOT_NODE_RANK="0")
        assert ran.code == 0, ran.log
        api.set_job(call.name)
        api.set_conditions(call.name, Ready="True", Complete="True")
        api.logs[uid], api.log_states[uid] = ran.log.encode(), "complete"
        if ran.body is not None:
            api.results[uid] = RemoteResult("present", ran.body, "")

    api.on_call = on_call


def test_it_parses_and_can_be_stored(dag: Any) -> None:
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(again.task_dict) == {"launch", "logs", "status", "down", "one_step", "fit", "register"}


def test_it_runs(dag: Any, api: MemoryApi, database: None, tmp_path: Path) -> None:
    cluster(api, tmp_path)
    run = dag.test()
    tasks = {task.task_id: task for task in run.get_task_instances()}
    assert {task_id: task.state for task_id, task in tasks.items()} == dict.fromkeys(dag.task_ids, "success")
    assert tasks["one_step"].xcom_pull("one_step") == 7
    assert tasks["fit"].xcom_pull("fit") == {"rate": 7, "run": run.run_id}
    assert tasks["register"].xcom_pull("register") == 7
    assert len(api.creations) == len(api.deletions) == 3
    assert all(RUN_STARTED in body["metadata"]["annotations"] for body in api.creations)


def test_a_worker_that_is_killed_deletes(api: MemoryApi, database: None) -> None:
    """By the worker's own handler, which raises when on_kill is through: in the middle of whatever the task does."""
    with DAG("train", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        SkyClusterOperator(task_id="fit", task={"run": "true"}, deferrable=False, poll_seconds=0)

    def kill(call: Call) -> None:
        if call.verb == "read" and (NAMESPACE, call.name) in api.objects:
            api.on_call = lambda _: None
            os.kill(os.getpid(), signal.SIGTERM)

    api.on_call = kill
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(TaskTerminated):
            dag.test()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(api.creations) == len(api.deletions) == 1


def test_the_pokes_of_a_sensor_that_reschedules_itself_share_one_grace(api: MemoryApi, database: None) -> None:
    with DAG("train", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        SkyClusterSensor(
            task_id="wait", cluster="no-such", mode="reschedule", poke_interval=0, missing_grace_seconds=0.2, timeout=3600, deferrable=False
        )
    run = dag.test()
    assert [task.state for task in run.get_task_instances()] == ["failed"]
    assert 1 < len(api.calls) < CALLS / 2


async def test_a_kill_of_what_is_deferred_all_the_same_deletes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There a trigger can't ask for its task's state, so it can't tell a kill from a triggerer that restarts."""
    monkeypatch.setattr(module, "KILL_PAUSE_SECONDS", 0.0)
    this = SkyClusterTrigger(
        name="train", namespace=NAMESPACE, uid="u1", wait_for="complete", kubernetes_conn_id="kubernetes_default", owner_try="1"
    )
    this.task_instance = cast("Any", SimpleNamespace(dag_id="train", task_id="fit", run_id="run", map_index=-1))
    await this.cleanup()
    assert "Can't tell whether the task was killed (ModuleNotFoundError" in caplog.text
    assert "could not delete" not in caplog.text.lower()
