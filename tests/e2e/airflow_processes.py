"""The four processes that Airflow is, each of which can die alone.

`airflow standalone` has them as children and never restarts one.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.airflow import BIN, START_SECONDS, Airflow, environment
from tests.e2e.support import eventually, free_port

NAMES = ("scheduler", "api-server", "triggerer", "dag-processor")
SOONER = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}
"""Airflow holds for dead what it has not heard of for so long; by default, half a minute to five minutes. All else is as it comes."""
SECRETS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-" * 6,
    "AIRFLOW__API__SECRET_KEY": "not-a-secret",
    "AIRFLOW__CORE__FERNET_KEY": "",
}
"""What the processes must agree on."""
PARENT, SESSION = 1, 3


@dataclass
class Part:
    """One of the processes, with its children."""

    name: str
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "airflow", self.name], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def die(self) -> None:
        """End it at once, with its children, as the end of a machine does."""
        for pid in members_of(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()

    def end(self) -> None:
        """End it as a container is ended: SIGTERM to the process, time, SIGKILL to what is left."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._wait()
        self.die()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing for a while, and does not know that."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _wait(self) -> None:
        assert self.process is not None
        self.process.wait(timeout=30)


@dataclass(frozen=True)
class Processes:
    """An Airflow whose processes are in the hands of a test."""

    airflow: Airflow
    parts: Mapping[str, Part]

    def restart(self, *names: str) -> None:
        """Start these, and wait until they are at work: for a while Airflow holds for healthy what has died."""
        begun = datetime.now(UTC)
        for name in names:
            self.parts[name].start()
        what = f"{' and '.join(names)} are up"
        eventually(what, lambda: self.airflow.is_healthy() and self.airflow.heard_from(names) >= begun, seconds=START_SECONDS)

    def mend(self) -> None:
        """Start what an act that failed has left dead."""
        if dead := [name for name, part in self.parts.items() if not part.is_alive()]:
            self.restart(*dead)

    def kill_worker(self, task_instance_id: str, *, with_supervisor: bool) -> None:
        """Kill the process of a task, as the kernel does when memory is short, with or without the one that looks after it."""
        pids = processes_of(task_instance_id)
        for pid in pids if with_supervisor else pids[-1:]:
            os.kill(pid, signal.SIGKILL)


def processes_of(task_instance_id: str) -> list[int]:
    """The supervisor of a task and its child: both have its id in their titles (airflow/executors/base_executor.py, task_runner.py)."""
    found = [pid for pid in everybody() if task_instance_id.encode() in _title(pid)]
    assert len(found) == 2, f"the processes of task instance {task_instance_id}: {found}"
    return sorted(found, key=lambda pid: _stat(pid, PARENT) in found)


def members_of(session: int) -> list[int]:
    """The processes of a session. Tasks have process groups of their own (sdk/execution_time/supervisor.py)."""
    return [pid for pid in everybody() if _stat(pid, SESSION) == session]


def everybody() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _title(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _stat(pid: int, field: int) -> int | None:
    """A number of proc_pid_stat(5), counted from the one after the name."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field])
    return None


@contextmanager
def separate(home: Path, dags: Path, connections: dict[str, dict[str, Any]]) -> Iterator[Processes]:
    """Yield an Airflow of four processes that has these DAGs and connections."""
    port = free_port()
    told = {**environment(home, dags, connections, port), **SECRETS, **SOONER}
    subprocess.run([BIN / "airflow", "db", "migrate"], env=told, check=True, capture_output=True)
    processes = Processes(Airflow(f"http://127.0.0.1:{port}"), {name: Part(name, told, home / f"{name}.log") for name in NAMES})
    with ExitStack() as ends:
        for part in processes.parts.values():
            ends.callback(part.end)
        processes.restart(*NAMES)
        yield processes
