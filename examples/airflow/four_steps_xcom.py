"""The same four steps, with the object handed on through XCom: it may come from another DAG, or be chosen at run time."""

from __future__ import annotations

from airflow.sdk import DAG
from skyoperator_provider.operators.skycluster import SkyClusterCreateOperator, SkyClusterDeleteOperator, SkyClusterLogsOperator
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

with DAG("sky_four_steps_xcom", schedule=None):
    launch = SkyClusterCreateOperator(task_id="launch", task_file="train.yaml", secrets={"HF_TOKEN": "hugging-face/token"})
    logs = SkyClusterLogsOperator(task_id="logs", cluster=launch.output)
    status = SkyClusterSensor(task_id="status", cluster=launch.output)
    down = SkyClusterDeleteOperator(task_id="down", cluster=launch.output, cluster_task_id="launch")

    launch >> logs >> status >> down.as_teardown(setups=launch)
