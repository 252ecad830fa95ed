"""docs/airflow-deaths.md, made of what came out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"
PATH: Final = Path(__file__).resolve().parents[2] / "docs/airflow-deaths.md"

ON_SKYPILOT: Final = {"marked failed", "triggerer killed, and started again"}
"""What tests/e2e/test_airflow.py does on real SkyPilot."""

HEAD: Final = """# What dies, and what becomes of a job

Made by `make deaths` of what came out: Airflow's scheduler, API server, triggerer and dag processor as four processes, with the rights
that the chart gives Airflow's accounts, in front of a real kube-apiserver and a controller. SkyPilot is a stand-in that counts launches
and executions; the rows in bold are run on real SkyPilot as well (`tests/e2e/test_airflow.py`). The task is a `SkyClusterOperator`, which
waits in a worker (`running`) or in the triggerer (`deferred`); its job goes on until it is told to finish. In each row the cluster is gone
in the end, and no job ran twice; "launches" has a number for each object that the task made.

"""


@dataclass(frozen=True)
class Ending:
    """What became of a task, its DAG run and its objects; `launches` has a number for each object."""

    task: str
    run: str
    tries: int = 1
    launches: str = "1"
    object: str = "deleted"


@dataclass(frozen=True)
class Row:
    """What came of one death, for a task that was `running` or `deferred`."""

    death: str
    where: str
    ending: Ending


def write(version: str, rows: Iterable[Row], *, are_all: bool) -> None:
    """Write down what came out on this version of Airflow, and the page anew. Unless these are all rows, others stay as they were."""
    known = {} if are_all else {(row.death, row.where): row for row in results().get(version, [])}
    known |= {(row.death, row.where): row for row in rows}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps([asdict(row) for row in known.values()], indent=1)
    (RESULTS / f"airflow-{version}.json").write_text(text + "\n", encoding="utf-8")
    PATH.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page, of all versions that were tried."""
    return HEAD + "\n".join(_section(version, rows) for version, rows in results().items())


def results() -> dict[str, list[Row]]:
    """Return what came out, by the version of Airflow, the newest first."""
    return {path.stem.removeprefix("airflow-"): _read(path) for path in sorted(RESULTS.glob("*.json"), reverse=True)}


def _read(path: Path) -> list[Row]:
    return [Row(row["death"], row["where"], Ending(**row["ending"])) for row in json.loads(path.read_text(encoding="utf-8"))]


def _section(version: str, rows: list[Row]) -> str:
    titles = "| what happens | the task was | task | DAG run | tries | object | launches |\n|---|---|---|---|---|---|---|\n"
    deaths = list(dict.fromkeys(row.death for row in rows))
    together = sorted(rows, key=lambda row: deaths.index(row.death))
    lines = [_line(row, index) for _, group in groupby(together, key=lambda row: row.death) for index, row in enumerate(group)]
    return f"## Airflow {version}\n{titles}{''.join(lines)}"


def _line(row: Row, index: int) -> str:
    end = row.ending
    death = f"**{row.death}**" if row.death in ON_SKYPILOT else row.death
    cells = [death if index == 0 else "", row.where, end.task, end.run, str(end.tries), end.object, end.launches]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
