"""A function of this file, run on a cluster. It is sent as source: it imports what it needs inside, and brings along what it calls.

A value of up to 512 KiB comes back. What is larger goes to a bucket, and its address comes back.
"""

from __future__ import annotations

from airflow.sdk import DAG, ObjectStoragePath, task


def squared(values: list[float]) -> list[float]:
    """Return the squares."""
    return [value * value for value in values]


MOUNTED = {"/models": {"source": "{{ params.bucket }}", "mode": "MOUNT"}}

with DAG("sky_task", schedule=None, params={"bucket": "s3://our-models", "folder": "/models"}):

    @task.sky(task={"resources": {"infra": "k8s", "cpus": "1+"}, "file_mounts": MOUNTED}, include=[squared], retries=1)
    def fit(values: list[float], params=None, run_id=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - of the context
        """Fit, and leave what is large in the bucket."""
        import json  # noqa: PLC0415 - the cluster has no more than this function
        import pathlib  # noqa: PLC0415

        model = pathlib.Path(params["folder"]) / f"{run_id}.json"
        model.write_text(json.dumps(squared(values)))
        return {"loss": sum(squared(values)), "model": f"{params['bucket']}/{model.name}"}

    @task
    def register(found: dict[str, str]) -> int:
        """Read the large part where it is."""
        return len(ObjectStoragePath(found["model"]).read_bytes())

    register(fit([1.0, 2.0, 3.0]))
