"""A function of this file, run on a cluster. It is sent as source: it imports what it needs inside, and brings along what it calls.

What it returns is the task's value, up to 512 KiB. larger_result.py is for what is larger.
"""

from __future__ import annotations

from airflow.sdk import DAG, task


def squared(values: list[float]) -> list[float]:
    """Return the squares."""
    return [value * value for value in values]


with DAG("sky_task", schedule=None, params={"rate": 0.5}):

    @task.sky(task={"resources": {"infra": "k8s", "cpus": "1+"}}, include=[squared], retries=1)
    def fit(values: list[float], params=None, run_id=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - of the context
        """Return a loss, and where it was had."""
        import platform  # noqa: PLC0415 - the cluster has no more than this function

        print(f"fitting for {run_id}")
        return {"loss": params["rate"] * sum(squared(values)), "machine": platform.node()}

    @task
    def report(found: dict[str, str]) -> None:
        """Say what came back."""
        print(f"loss {found['loss']} on {found['machine']}")

    report(fit([1.0, 2.0, 3.0]))
