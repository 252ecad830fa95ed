"""A real Airflow on this machine: scheduler, API server, triggerer and dag processor, asked through its API as its own pages do."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ROOT
from tests.e2e.support import eventually

BIN = Path(os.environ.get("SKYOPERATOR_AIRFLOW_BIN") or ROOT / "airflow_plugin/.venv/bin")
"""Which Airflow; the provider's own environment has the newest that it is for."""
START_SECONDS = 180
ENDED = ("success", "failed")


@dataclass(frozen=True)
class Run:
    """One run of a DAG."""

    airflow: Airflow
    dag_id: str
    run_id: str

    @property
    def _path(self) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def state(self) -> str:
        return str(self.airflow.ask("GET", self._path)["state"])

    def ended(self, *, seconds: float) -> str:
        """Wait for the run's end; return its state."""
        return str(eventually(f"{self.dag_id} ends", lambda: (state := self.state()) in ENDED and state, seconds=seconds))

    def task(self, task_id: str) -> dict[str, Any]:
        return self.airflow.ask("GET", f"{self._path}/taskInstances/{task_id}")

    def tasks(self) -> list[dict[str, Any]]:
        """Its task instances; a mapped task has one for each index."""
        found: list[dict[str, Any]] = self.airflow.ask("GET", f"{self._path}/taskInstances")["task_instances"]
        return found

    def states(self) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.tasks()}

    def mark(self, task_id: str, state: str) -> dict[str, Any]:
        return self.airflow.ask("PATCH", f"{self._path}/taskInstances/{task_id}", {"new_state": state})

    def clear(self, task_id: str) -> dict[str, Any]:
        what = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [task_id], "only_failed": False}
        return self.airflow.ask("POST", f"/dags/{self.dag_id}/clearTaskInstances", what)

    def log(self, task_id: str) -> str:
        """What the task's page shows."""
        return "\n".join(str(line.get("event")) + str(line.get("error_detail") or "") for line in self._lines(task_id))

    def errors(self, task_id: str) -> dict[str, str]:
        """What each exception said that the task's page shows, by its type."""
        found = [error for line in self._lines(task_id) for error in line.get("error_detail") or []]
        return {error["exc_type"]: error["exc_value"] for error in found}

    def _lines(self, task_id: str) -> list[dict[str, Any]]:
        path = f"{self._path}/taskInstances/{task_id}/logs/1?full_content=true"
        found: list[dict[str, Any]] = self.airflow.ask("GET", path)["content"]
        return found


@dataclass(frozen=True)
class Airflow:
    """The way to its API."""

    address: str

    def ask(self, method: str, path: str, body: Any = None, *, base: str = "/api/v2") -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if base:
            headers["Authorization"] = f"Bearer {self.ask('GET', '/auth/token', base='')['access_token']}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + base + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def is_healthy(self) -> bool:
        try:
            health = self.ask("GET", "/monitor/health")
        except OSError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"))

    def heard_from(self, names: Iterable[str]) -> datetime:
        """When these processes last said that they live, the one that was silent longest. The API server lives if it answers."""
        health = self.ask("GET", "/monitor/health")
        parts = [name.replace("-", "_") for name in names if name != "api-server"]
        return min([datetime.fromisoformat(health[part][f"latest_{part}_heartbeat"]) for part in parts], default=datetime.now(UTC))

    def dags(self) -> set[str]:
        return {dag["dag_id"] for dag in self.ask("GET", "/dags")["dags"]}

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        started = self.ask("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return Run(self, dag_id, started["dag_run_id"])


def environment(home: Path, dags: Path, connections: dict[str, dict[str, Any]], port: int) -> dict[str, str]:
    """What an Airflow process is told by its environment: its home, these DAGs, these connections, and where the API server is."""
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "airflow_plugin"),
        "AIRFLOW_HOME": str(home),
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()},
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    }
