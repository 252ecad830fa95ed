"""With the operators of the cncf-kubernetes provider: only the sensor is ours, and it waits for any SkyCluster.

What one goes without: a retry that takes over what runs, deletion when the task is killed, the log, the result. The name is the same at
each retry of a run, so no second object is made.
"""

from __future__ import annotations

from airflow.providers.cncf.kubernetes.operators.resource import KubernetesCreateResourceOperator, KubernetesDeleteResourceOperator
from airflow.sdk import DAG
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

NAME = "stock-{{ macros.uuid.uuid5(macros.uuid.NAMESPACE_URL, run_id) }}"
MANIFEST = f"""
apiVersion: skyoperator.dev/v1alpha1
kind: SkyCluster
metadata: {{name: {NAME}, namespace: default}}
spec:
  task:
    resources: {{infra: k8s, cpus: 1+}}
    run: echo hello
  activeDeadlineSeconds: 3600
  ttlSecondsAfterFinished: 3600
"""

with DAG("sky_stock_operators", schedule=None):
    launch = KubernetesCreateResourceOperator(task_id="launch", yaml_conf=MANIFEST, custom_resource_definition=True)
    status = SkyClusterSensor(task_id="status", cluster=NAME, namespace="default")
    down = KubernetesDeleteResourceOperator(task_id="down", yaml_conf=MANIFEST, custom_resource_definition=True)

    launch >> status >> down.as_teardown(setups=launch)
