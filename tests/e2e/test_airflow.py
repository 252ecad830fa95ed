"""DAGs in a real Airflow, under an account that has the chart's rights and no others, to real SkyPilot clusters and back.

Runs start together and are looked at one by one: most of a run is its cluster's launch, and SkyPilot does two of these at a time here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from tests.e2e.airflow import Airflow, Run
from tests.e2e.airflow_processes import Processes
from tests.e2e.conftest import NAMESPACE
from tests.e2e.examples import HERE, POOL_SLOTS, airflow_with_examples
from tests.e2e.seen import Seen, most_at_once, of_run, run_of, watching
from tests.e2e.support import Sky, eventually, kubectl, nothing_left

# The node has room for seven such clusters. A launch that waits for room has a worker of Airflow, which the task may need that makes room.
FIRST = ("sky_mapped", "sky_four_steps", "sky_four_steps_xcom", "red")
SECOND = ("sky_larger_result", "sky_stock_operators", "sky_one_step", "sky_task", "raises", "no_value")
KILLED = ("long_deferred", "long_running")
RUN_SECONDS = 900
"""How long the slowest of the runs may take that start together."""
GONE_SECONDS = 180


@pytest.fixture(scope="module")
def processes(release: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with airflow_with_examples(tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("dags")) as found:
        yield found


@pytest.fixture(scope="module")
def airflow(processes: Processes) -> Airflow:
    return processes.airflow


@pytest.fixture(scope="module")
def seen(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with watching(NAMESPACE, tmp_path_factory.mktemp("seen") / "events") as found:
        yield found


@pytest.fixture(scope="module")
def first(airflow: Airflow, seen: Seen) -> dict[str, Run]:
    """The mapped tasks fill their pool before others take the workers."""
    mapped, *others = FIRST
    run = airflow.run(mapped)
    eventually("the pool is full", lambda: deferred_in(run) == POOL_SLOTS, seconds=120)
    return {mapped: run, **{dag_id: airflow.run(dag_id) for dag_id in others}}


@pytest.fixture(scope="module")
def second(airflow: Airflow, seen: Seen) -> dict[str, Run]:
    return {dag_id: airflow.run(dag_id) for dag_id in SECOND}


@pytest.fixture(scope="module")
def killed(airflow: Airflow) -> dict[str, Run]:
    """The runs that end only when they are killed."""
    return {dag_id: airflow.run(dag_id) for dag_id in KILLED}


def deferred_in(run: Run) -> int:
    return sum(task["state"] == "deferred" for task in run.tasks())


def objects_of(run: Run) -> list[dict[str, Any]]:
    """The SkyClusters that this run has made and that are there now."""
    items: list[dict[str, Any]] = json.loads(kubectl("get", "skyc", "-n", NAMESPACE, "-o", "json"))["items"]
    return [item for item in items if run_of(item) == run.run_id]


def succeeded(run: Run) -> None:
    assert run.ended(seconds=RUN_SECONDS) == "success", run.states()
    goes(run)


def goes(run: Run) -> None:
    """What the run made is gone, or goes without anybody's doing."""
    eventually("its objects are gone", lambda: not objects_of(run), seconds=GONE_SECONDS)


def at_work(run: Run, task_state: str) -> Sky:
    """Wait until the run's job is at work, and Airflow's task in this state; return the object."""

    def look() -> Sky | None:
        found = [item for item in objects_of(run) if item.get("status", {}).get("job", {}).get("status") == "RUNNING"]
        return Sky(NAMESPACE, found[0]["metadata"]["name"]) if found and run.task("train")["state"] == task_state else None

    this: Sky = eventually("the job is at work", look, seconds=240)
    return this


def test_mapped_tasks_hold_no_more_clusters_than_their_pool_has_slots(first: dict[str, Run], seen: Seen) -> None:
    run = first["sky_mapped"]
    succeeded(run)
    events = of_run(seen.events(), run.run_id)
    assert len({event["object"]["metadata"]["uid"] for event in events}) == POOL_SLOTS + 1
    assert most_at_once(events) == POOL_SLOTS
    assert {task["rendered_map_index"] for task in run.tasks() if task["task_id"] == "train"} == {"0.1", "0.2", "0.4"}
    assert "Returned value was: 2.5" in run.log("best")


def test_four_steps(first: dict[str, Run]) -> None:
    run = first["sky_four_steps"]
    assert run.ended(seconds=RUN_SECONDS) == "success", run.states()
    assert "epochs: 3" in run.log("logs")
    assert objects_of(run) == []


def test_four_steps_that_hand_the_object_on_through_xcom(first: dict[str, Run]) -> None:
    run = first["sky_four_steps_xcom"]
    succeeded(run)
    assert f"run {run.run_id} with 3 seeds" in run.log("logs")


def test_a_red_job_is_red_in_every_step_and_taken_down(first: dict[str, Run]) -> None:
    run = first["red"]
    assert run.ended(seconds=RUN_SECONDS) == "failed"
    assert run.states() == {"launch": "success", "logs": "failed", "status": "upstream_failed", "down": "success"}
    assert "before the end" in run.log("logs")
    assert "JobFailed" in run.log("logs")
    assert objects_of(run) == []


def test_a_result_too_large_to_be_returned_is_read_where_it_is(second: dict[str, Run]) -> None:
    run = second["sky_larger_result"]
    succeeded(run)
    written = json.dumps([1 / step for step in range(1, 100_001)])
    assert f"Returned value was: {len(written)}" in run.log("report")


def test_stock_operators_make_and_delete_what_our_sensor_waits_for(second: dict[str, Run], seen: Seen) -> None:
    run = second["sky_stock_operators"]
    succeeded(run)
    this = Sky(NAMESPACE, f"stock-{uuid5(NAMESPACE_URL, run.run_id)}")
    assert this.name in seen.names()
    eventually("its object is gone", lambda: not this.exists(), seconds=GONE_SECONDS)


def test_one_step_returns_what_its_job_left(second: dict[str, Run]) -> None:
    run = second["sky_one_step"]
    succeeded(run)
    assert "training" in run.log("train")
    assert "loss: 0.25" in run.log("report")


def test_a_function_runs_on_the_cluster_and_its_value_arrives(second: dict[str, Run]) -> None:
    run = second["sky_task"]
    succeeded(run)
    assert f"fitting for {run.run_id}" in run.log("fit")
    assert re.search(r"loss 7\.0 on \S+-head\b", run.log("report"))


def test_what_a_function_raises_has_the_lines_of_its_dag_file(second: dict[str, Run]) -> None:
    run = second["raises"]
    assert run.ended(seconds=RUN_SECONDS) == "failed"
    raising = "        return 1 / by"
    line = (HERE / "dags/ends.py").read_text().splitlines().index(raising) + 1
    error = run.errors("divide")["SkyRemoteError"]
    assert f'ends.py", line {line}, in divide\n    {raising.strip()}' in error
    assert "ZeroDivisionError: division by zero" in error
    goes(run)


def test_a_job_that_returns_nothing_has_lost_nothing(second: dict[str, Run]) -> None:
    succeeded(second["no_value"])


@pytest.mark.parametrize(("dag_id", "task_state"), [("long_deferred", "deferred"), ("long_running", "running")])
def test_a_task_that_is_marked_failed_leaves_nothing(killed: dict[str, Run], dag_id: str, task_state: str) -> None:
    """Killed where it waits: in the triggerer, and in a worker."""
    run = killed[dag_id]
    cluster = at_work(run, task_state).cluster
    run.mark("train", "failed")
    goes(run)
    nothing_left(cluster, seconds=30)
    assert run.ended(seconds=60) == "failed"


def test_a_job_outlives_its_triggerer(processes: Processes) -> None:
    run = processes.airflow.run("minute_deferred")
    this = at_work(run, "deferred")
    uid = this.body()["metadata"]["uid"]
    processes.parts["triggerer"].die()
    processes.restart("triggerer")
    assert this.body()["metadata"]["uid"] == uid
    assert this.status()["launch"]["attempt"] == 1
    assert run.ended(seconds=300) == "success"
    assert "at work" in run.log("train")
    goes(run)
