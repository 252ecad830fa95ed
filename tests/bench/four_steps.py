"""`python -m tests.bench.four_steps`: each step of the example's DAG beside the command of SkyPilot's own CLI, of the same task.

Both ask the same SkyPilot on the local cluster, one after the other; the CLI runs on this machine, as at a user's.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from tests.bench.figures import report
from tests.e2e.airflow import Airflow
from tests.e2e.conftest import NAMESPACE, install
from tests.e2e.examples import airflow_with_examples
from tests.e2e.seen import of_run, watching
from tests.e2e.support import nothing_left, port_forward

PYTHON = Path(os.environ["SKYOPERATOR_SKYPILOT_PYTHON"])
SKY = (PYTHON, PYTHON.with_name("sky"))
"""The script's own first line names the place where its environment was built."""
DAG_ID = "sky_four_steps"
STEPS = ("launch", "logs", "status", "down")
PRINTED = "epochs: 3"
TIMES = 3
RUN_SECONDS = 300

Seconds = dict[str, float]


def steps_of_airflow(airflow: Airflow, seen: Path) -> tuple[Seconds, dict[str, Any]]:
    """Run the DAG; return how long its steps took and all of it, and the task that it launched."""
    with watching(NAMESPACE, seen) as changes:
        run = airflow.run(DAG_ID)
        assert run.ended(seconds=RUN_SECONDS) == "success", run.states()
        body = of_run(changes.events(), run.run_id)[0]["object"]
    assert PRINTED in run.log("logs")
    took = {task["task_id"]: _seconds_between(task["start_date"], task["end_date"]) for task in run.tasks()}
    about = airflow.ask("GET", f"/dags/{DAG_ID}/dagRuns/{run.run_id}")
    return {**took, "all": _seconds_between(about["queued_at"], about["end_date"])}, body["spec"]["task"]


def steps_of_sky(task: dict[str, Any], server_port: int, home: Path) -> Seconds:
    """Do the same by SkyPilot's CLI; return how long each command took, and all of them."""
    cluster = f"by-hand-{uuid4().hex[:6]}"
    manifest = home / "task.yaml"
    manifest.write_text(json.dumps(task))
    environment = {**os.environ, "HOME": str(home), "SKYPILOT_API_SERVER_ENDPOINT": f"http://127.0.0.1:{server_port}"}

    def sky(*words: str) -> tuple[float, str]:
        begun = time.monotonic()
        done = subprocess.run([*SKY, *words], env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        assert done.returncode == 0, f"sky {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return time.monotonic() - begun, done.stdout

    begun = time.monotonic()
    try:
        launch, _ = sky("launch", "--yes", "--detach-run", "--cluster", cluster, str(manifest))
        logs, printed = sky("logs", cluster)
        assert PRINTED in printed
        status, _ = sky("status", cluster)
    finally:
        down, _ = sky("down", "--yes", cluster)
    took = {"launch": launch, "logs": logs, "status": status, "down": down, "all": time.monotonic() - begun}
    nothing_left(cluster, seconds=60)
    return took


def compare(airflow: Airflow, folder: Path) -> None:
    """Print the middle one of some runs, step by step."""
    of_airflow, of_sky = list[Seconds](), list[Seconds]()
    with port_forward() as port:
        for number in range(TIMES):
            took, task = steps_of_airflow(airflow, folder / f"seen-{number}")
            of_airflow.append(took)
            of_sky.append(steps_of_sky(task, port, folder))
    report(f"the middle one of {TIMES}", "DAG", "sky alone")
    for step in (*STEPS, "all"):
        report(step, *(f"{median(took[step] for took in all_took):.1f} s" for all_took in (of_airflow, of_sky)))


def _seconds_between(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def main() -> None:
    install()
    with tempfile.TemporaryDirectory() as folder:
        home, dags, by_hand = (Path(folder) / name for name in ("airflow", "dags", "by-hand"))
        for made in (home, dags, by_hand):
            made.mkdir()
        with airflow_with_examples(home, dags) as processes:
            compare(processes.airflow, by_hand)


if __name__ == "__main__":
    main()
