"""The examples of examples/airflow in a real Airflow, with what they count on: its accounts, a secret, an object store and a pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.airflow_processes import Processes, separate
from tests.e2e.conftest import AIRFLOW, NAMESPACE, ROOT
from tests.e2e.object_store import connection
from tests.e2e.support import eventually, kubeconfig_of, kubectl, port_forward

HERE = Path(__file__).parent
DAGS = {
    "sky_four_steps",
    "sky_four_steps_xcom",
    "sky_larger_result",
    "sky_mapped",
    "sky_one_step",
    "sky_stock_operators",
    "sky_task",
    "no_value",
    "raises",
    "red",
    "long_deferred",
    "minute_deferred",
    "long_running",
}
POOL_SLOTS = 2
SMALLER = {
    '"setup": "pip install numpy"': '"setup": "echo numpy"',
    '"cpus": "1+", "memory": "2+"': '"cpus": "0.25+", "memory": "1+"',
    '"cpus": "1+"': '"cpus": "0.25+", "memory": "1+"',
    "cpus: 1+, memory: 2+": "cpus: 0.25+, memory: 1+",
    "cpus: 1+": "cpus: 0.25+, memory: 1+",
    "[0.1, 0.2, 0.4, 0.8, 1.6]": "[0.1, 0.2, 0.4]",
    "namespace: default": f"namespace: {NAMESPACE}",
    'namespace="default"': f'namespace="{NAMESPACE}"',
}


def small(text: str) -> str:
    """An example, on a machine of two cores whose clusters reach no package index, in the tests' namespace."""
    for large, little in SMALLER.items():
        text = text.replace(large, little)
    return text


@contextmanager
def airflow_with_examples(home: Path, dags: Path) -> Iterator[Processes]:
    """Yield an Airflow that knows all examples, small ones, and the DAGs of tests/e2e/dags. No object that they made is left."""
    for path in [*(ROOT / "examples/airflow").glob("*.*"), *(HERE / "dags").glob("*.py")]:
        (dags / path.name).write_text(small(path.read_text()))
    of_kubernetes = {"kube_config_path": str(kubeconfig_of_airflow(home / "kubeconfig")), "namespace": NAMESPACE}
    secret("hugging-face", token="not-a-real-one")
    with object_store() as store:
        connections = {"kubernetes_default": {"conn_type": "skyoperator", "extra": of_kubernetes}, "aws_default": store}
        with separate(home, dags, connections) as processes:
            eventually("the DAGs are there", lambda: processes.airflow.dags() >= DAGS, seconds=120)
            processes.airflow.ask("POST", "/pools", {"name": "sky", "slots": POOL_SLOTS, "include_deferred": True})
            yield processes
    kubectl("delete", "skyc", "--all", "-n", NAMESPACE, "--timeout=150s", timeout_seconds=160)


def kubeconfig_of_airflow(path: Path) -> Path:
    """A way in for the service account that the release gives Airflow's rights."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": AIRFLOW}}
    kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(account))
    return kubeconfig_of(AIRFLOW, NAMESPACE, path)


def secret(name: str, **values: str) -> None:
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
    kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(manifest))


@contextmanager
def object_store() -> Iterator[dict[str, Any]]:
    """Yield the Airflow connection that leads to an object store in the cluster, under the name that it has for pods."""
    program = {"object_store.py": (HERE / "object_store.py").read_text()}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "store"}, "data": program}
    kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(config))
    manifest = str(HERE / "object_store.yaml")
    kubectl("apply", "-n", NAMESPACE, "-f", manifest)
    try:
        kubectl("wait", "--for=condition=Ready", "pod/store", "-n", NAMESPACE, "--timeout=60s")
        with port_forward(NAMESPACE, "svc/store", 80) as port:
            yield connection(f"http://store.{NAMESPACE}.svc", proxies={"http": f"http://127.0.0.1:{port}"})
    finally:
        kubectl("delete", "-n", NAMESPACE, "-f", manifest)
