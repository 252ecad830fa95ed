"""One task, one cluster: it is brought up, its log is shown, what the job leaves in the result file is returned, and it is taken down."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task
from skyoperator_provider.operators.skycluster import SkyClusterOperator

with DAG("sky_one_step", schedule=None):
    train = SkyClusterOperator(
        task_id="train",
        task={
            "resources": {"infra": "k8s", "cpus": "1+"},
            "run": "echo training\necho '{\"loss\": 0.25}' > /tmp/result.json",
        },
        result_path="/tmp/result.json",  # noqa: S108 - of the cluster's machine
        retries=2,
        execution_timeout=timedelta(hours=2),
        on_finish_action="delete",
    )

    @task
    def report(found: dict[str, float]) -> None:
        """Say what came back."""
        print(f"loss: {found['loss']}")

    report(train.output)
