"""One job, waited for in a worker or in the triggerer, with what its row of the table needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG
from skyoperator_provider.operators.skycluster import SkyClusterOperator

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retried": {"retries": 2, "retry_delay": timedelta(seconds=1)},
    "timed": {"execution_timeout": timedelta(seconds=25), "active_deadline_seconds": 600},
    "brief": {"active_deadline_seconds": 45, "ttl_seconds_after_finished": 10},
}

for kind, options in KINDS.items():
    for where in ("running", "deferred"):
        with DAG(f"{kind}_{where}", schedule=None, params={"namespace": "default"}):
            SkyClusterOperator(
                task_id="train",
                namespace="{{ params.namespace }}",
                task={"resources": {"infra": "k8s"}, "run": "true"},
                result_path=None,
                logs=False,
                deferrable=where == "deferred",
                **{"retries": 0, "active_deadline_seconds": 600, "ttl_seconds_after_finished": 600, **options},
            )
