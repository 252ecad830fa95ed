"""DAGs for the ends that no example shows: red, without a value, raised on the cluster, and killed."""

from __future__ import annotations

from airflow.sdk import DAG, task
from skyoperator_provider.operators.skycluster import (
    SkyClusterCreateOperator,
    SkyClusterDeleteOperator,
    SkyClusterLogsOperator,
    SkyClusterOperator,
)
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

RESOURCES = {"infra": "k8s", "cpus": "0.25+", "memory": "1+"}

with DAG("red", schedule=None):
    launch = SkyClusterCreateOperator(task_id="launch", task={"resources": RESOURCES, "run": "echo before the end\nsleep 5\nexit 3"})
    logs = SkyClusterLogsOperator(task_id="logs", cluster_task_id="launch")
    status = SkyClusterSensor(task_id="status", cluster_task_id="launch")
    down = SkyClusterDeleteOperator(task_id="down", cluster_task_id="launch", wait_until_gone=True)
    launch >> logs >> status >> down.as_teardown(setups=launch)

with DAG("no_value", schedule=None):
    SkyClusterOperator(task_id="train", task={"resources": RESOURCES, "run": "echo nothing to return"})

with DAG("raises", schedule=None):

    @task.sky(task={"resources": RESOURCES})
    def divide(by: int) -> float:
        """Raise, on the cluster."""
        return 1 / by

    divide(0)

for dag_id, is_deferrable, seconds in (("long_deferred", True, 3000), ("long_running", False, 3000), ("minute_deferred", True, 60)):
    with DAG(dag_id, schedule=None):
        work = {"resources": RESOURCES, "run": f"echo at work\nsleep {seconds}"}
        SkyClusterOperator(task_id="train", task=work, deferrable=is_deferrable, retries=0)
