"""Each example is parsed as the dag processor parses it, and is what its text says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from airflow.providers.common.compat.sdk import DAG, TriggerRule
from skyoperator_provider.operators.skycluster import SkyClusterCreateOperator

from tests.e2e.object_store import ObjectStore, connection
from tests.provider import far_side
from tests.provider.airflows import DagBag, DagSerialization
from tests.provider.contexts import context_of
from tests.provider.memory import MemoryApi

FOLDER = Path(__file__).parents[2] / "examples/airflow"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))
FOUR_STEPS = ["four_steps.py", "four_steps_xcom.py"]


def dag_of(name: str) -> Any:
    bag = DagBag(str(FOLDER / name))
    assert not bag.import_errors
    (dag,) = bag.dags.values()
    return dag


def test_there_is_an_example_of_each_way() -> None:
    assert FILES == [
        "four_steps.py",
        "four_steps_xcom.py",
        "larger_result.py",
        "mapped.py",
        "one_step.py",
        "stock_operators.py",
        "task_sky.py",
    ]


@pytest.mark.parametrize("name", FILES)
def test_it_parses_and_can_be_stored(name: str) -> None:
    """The scheduler has the serialized DAG only."""
    dag = dag_of(name)
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(again.task_dict) == set(dag.task_dict)


def test_a_task_that_is_not_to_be_rendered_can_be_stored_too() -> None:
    with DAG("train", schedule=None) as dag:
        SkyClusterCreateOperator(task_id="fit", task={"run": "{{ x"}, render=False)
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict["fit"].task_type == "SkyClusterCreateOperator"


@pytest.mark.parametrize("name", FOUR_STEPS)
def test_the_four_steps_are_one_after_the_other_and_the_last_is_a_teardown(name: str) -> None:
    tasks = dag_of(name).task_dict
    assert tasks["launch"].is_setup
    assert tasks["down"].is_teardown
    assert tasks["down"].trigger_rule == TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert "logs" in tasks["launch"].downstream_task_ids
    assert tasks["logs"].downstream_task_ids == {"status"}
    assert tasks["status"].downstream_task_ids == {"down"}
    assert not tasks["down"].on_failure_fail_dagrun


def test_stock_operators_are_a_teardown_too() -> None:
    tasks = dag_of("stock_operators.py").task_dict
    assert tasks["down"].is_teardown
    assert tasks["launch"].downstream_task_ids >= {"status"}
    context, _ = context_of(tasks["launch"], macros=macros())
    for task_id in ("launch", "status", "down"):
        tasks[task_id].render_template_fields(context)
    name = yaml.safe_load(tasks["launch"].yaml_conf)["metadata"]["name"]
    assert tasks["status"].cluster == name == yaml.safe_load(tasks["down"].yaml_conf)["metadata"]["name"]
    assert len(name) <= 63


def macros() -> Any:
    from airflow.sdk.execution_time import macros as found  # noqa: PLC0415

    return found


def test_mapped_tasks_are_in_the_pool() -> None:
    task = dag_of("mapped.py").task_dict["train"]
    assert task.pool == "sky"
    assert task.is_mapped


def test_the_task_file_renders(api: MemoryApi) -> None:
    launch = dag_of("four_steps_xcom.py").task_dict["launch"]
    context, _ = context_of(launch)
    launch.render_template_fields(context)
    task = launch._build(context)["spec"]["task"]
    assert "run manual__1 with ${#seeds[@]} seeds" in task["run"]


def test_the_one_step_leaves_a_result(api: MemoryApi, tmp_path: Path) -> None:
    """Its script, run here, leaves what it says where it says."""
    train = dag_of("one_step.py").task_dict["train"]
    context, _ = context_of(train)
    train.render_template_fields(context)
    train.task["run"] = train.task["run"].replace("/tmp/result.json", f"{tmp_path}/result.json")
    train.result_path = f"{tmp_path}/result.json"
    ran = far_side.run(train._returning(train._build(context))["spec"]["task"]["run"], tmp_path)
    assert (ran.code, ran.value) == (0, {"loss": 0.25})


def test_the_function_brings_along_what_it_calls(tmp_path: Path) -> None:
    fit = dag_of("task_sky.py").task_dict["fit"]
    context, _ = context_of(fit, params={"rate": 0.5})
    ran = far_side.run(fit._run(context), tmp_path)
    assert ran.value["loss"] == 7
    assert "fitting for manual__1" in ran.log


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store of objects that Airflow's connection leads to."""
    server = ObjectStore(("127.0.0.1", 0))
    thread = Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection(address)))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_large_is_put_by_the_job_and_read_by_the_next_task(store: ObjectStore, tmp_path: Path) -> None:
    tasks = dag_of("larger_result.py").task_dict
    to = tasks["place"].python_callable(run_id="manual__1+00:00")
    tasks["fit"].op_args = [100_000, to]
    ran = far_side.run(tasks["fit"]._run(context_of(tasks["fit"])[0]), tmp_path, NO_PROXY="127.0.0.1")
    assert ran.value == "s3://aws_default@our-results/losses/manual__1+00:00.json"
    (kept,) = store.kept.items()
    assert kept[0] == "/our-results/losses/manual__1+00:00.json"
    assert tasks["report"].python_callable(ran.value) == len(kept[1]) > 2**20


def test_without_a_signature_the_store_takes_nothing(store: ObjectStore) -> None:
    request = Request(f"http://127.0.0.1:{store.server_port}/our-results/x", data=b"x", method="PUT")
    with pytest.raises(HTTPError, match="403"):
        urlopen(request, timeout=10)
    assert not store.kept
