"""A run with as many tasks as triggers are asked for. None of them is ever executed: they are there to be deferred."""

from __future__ import annotations

import os

from airflow.sdk import DAG
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

with DAG("waiting", schedule=None):
    names = [f"n{number}" for number in range(int(os.environ["TRIGGERS"]))]
    SkyClusterSensor.partial(task_id="wait", deferrable=True, kubernetes_conn_id="kubernetes_default").expand(cluster=names)
