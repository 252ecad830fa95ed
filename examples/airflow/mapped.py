"""One cluster for each learning rate, at most four at a time.

A deferred task gives its slot back, and its cluster runs on: only a pool that counts deferred tasks bounds clusters.

    airflow pools set sky 4 "SkyPilot clusters" --include-deferred
"""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("sky_mapped", schedule=None):

    @task.sky(
        task={"resources": {"infra": "k8s", "cpus": "1+"}}, pool="sky", deferrable=True, map_index_template="{{ task.op_kwargs['rate'] }}"
    )
    def train(rate: float) -> float:
        """Return a loss."""
        return 1 / rate

    @task
    def best(losses: list[float]) -> float:
        """Return the smallest."""
        return min(losses)

    best(train.expand(rate=[0.1, 0.2, 0.4, 0.8, 1.6]))
