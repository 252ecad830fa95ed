"""Four steps that share a cluster: bring it up, show the log, look how it ended, take it down.

`down` is a teardown: once `launch` has succeeded it runs however `logs` and `status` end, and does not hide that one of them failed, as a
last task with trigger_rule="all_done" would. If `launch` fails or is killed, `down` does not run: `launch` deletes its own cluster then.
The steps find the cluster by the task that made it.
"""

from __future__ import annotations

from airflow.sdk import DAG
from skyoperator_provider.operators.skycluster import SkyClusterCreateOperator, SkyClusterDeleteOperator, SkyClusterLogsOperator
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

with DAG("sky_four_steps", schedule=None, params={"epochs": 3}):
    launch = SkyClusterCreateOperator(
        task_id="launch",
        task={
            "resources": {"infra": "k8s", "cpus": "1+", "memory": "2+"},
            "setup": "pip install numpy",
            "run": "python3 -c 'print(\"epochs:\", {{ params.epochs }})'",
        },
        wait_for="ready",
    )
    logs = SkyClusterLogsOperator(task_id="logs", cluster_task_id="launch")
    status = SkyClusterSensor(task_id="status", cluster_task_id="launch", wait_for="complete")
    down = SkyClusterDeleteOperator(task_id="down", cluster_task_id="launch", wait_until_gone=True)

    launch >> logs >> status >> down.as_teardown(setups=launch)
