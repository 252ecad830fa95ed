"""A result that is too large to be returned: it goes to a bucket, its address is returned, and the next task reads it there.

The cluster gets no credentials and needs no packages: a URL, signed by Airflow's connection, takes this one file until tomorrow. Until then
all who may read the SkyCluster can use it. Where the installer allows the bucket, the function may as well write to a mounted one:

    "file_mounts": {"/results": {"source": "s3://our-results", "mode": "MOUNT"}}

In Airflow this takes apache-airflow-providers-amazon[s3fs]. Other buckets differ in the provider alone.
"""

from __future__ import annotations

from airflow.sdk import DAG, ObjectStoragePath, task

CONNECTION, BUCKET, TYPE = "aws_default", "our-results", "application/json"

with DAG("sky_larger_result", schedule=None):

    @task
    def place(run_id=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - of the context
        """Return where the result will be, its type, and the URL that takes it."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415 - is slow, and not needed to parse the DAG

        what = {"Bucket": BUCKET, "Key": f"losses/{run_id}.json", "ContentType": TYPE}
        url = S3Hook(CONNECTION).generate_presigned_url("put_object", what, expires_in=24 * 3600)
        return {"path": f"s3://{CONNECTION}@{BUCKET}/{what['Key']}", "type": TYPE, "url": url}

    @task.sky(task={"resources": {"infra": "k8s", "cpus": "1+"}})
    def fit(steps: int, to: dict[str, str]) -> str:
        """Put the losses where they belong, and return their address."""
        import json  # noqa: PLC0415 - the cluster has no more than this function
        import urllib.request  # noqa: PLC0415

        losses = json.dumps([1 / step for step in range(1, steps + 1)])
        # The type is signed too.
        asked = urllib.request.Request(to["url"], losses.encode(), {"Content-Type": to["type"]}, method="PUT")  # noqa: S310 - Airflow's own
        urllib.request.urlopen(asked, timeout=600).close()  # noqa: S310
        return to["path"]

    @task
    def report(path: str) -> int:
        """Read the losses where they are, and return their size."""
        return len(ObjectStoragePath(path).read_bytes())

    report(fit(100_000, place()))
