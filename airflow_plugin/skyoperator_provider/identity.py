"""Which SkyCluster belongs to which task instance.

The name is made of what stays the same over the retries of one task instance, and of nothing else, so that a worker that died between
creating the object and remembering it finds it again. What moves is the series: clearing a finished task asks for a new run of it, and
Airflow raises `max_tries` then and only then (airflow/models/taskinstance.py, clear_task_instances).

A DAG run that is deleted and made again has the same id, and its tries and series begin anew, so all names are the same. What differs is
when Airflow started it. Of all that Airflow 2.11 to 3.3 tells a worker of its DAG run, only that is another one in the run made anew, and
stays over retries, deferrals and the clear of tasks while the run goes on. `clear_number` begins anew, `run_after` is of the schedule; a
task instance has a new id at each try. The clear of a finished run moves it, but all that is cleared is another series then.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

PREFIX: Final = "airflow.skyoperator.dev"
TASK_LABEL: Final = f"{PREFIX}/task"
"""The same for every series of one task instance."""
OWNER_TRY: Final = f"{PREFIX}/owner-try"
"""The try that the object belongs to now; who kills another try's object has come too late."""
RESUMED: Final = f"{PREFIX}/resumed-by-try"
"""The try that goes on in a worker, after its trigger: from then on no trigger deletes the object, however late one is told of a kill."""
COLLECTED: Final = f"{PREFIX}/collected"
"""The result was taken, or is lost; the next try of this task instance wants a run of its own."""
RUN_STARTED: Final = f"{PREFIX}/run-started"
"""When Airflow started the DAG run."""

_SLUG_CHARACTERS: Final = 24
_LABEL_CHARACTERS: Final = 63


@dataclass(frozen=True, slots=True)
class Identity:
    """One task instance, and the how manyth time it was asked for."""

    deployment: str
    """Tells apart the Airflow deployments that share a namespace."""
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    series: int = 0
    run_started: datetime | None = field(default=None, compare=False)
    """When Airflow started the DAG run, if it tells; neither in the name nor in what has to be equal."""

    @property
    def name(self) -> str:
        """The object's name: at most 35 characters, a DNS label."""
        return f"{_slug(self.task_id)}-{self._digest(self.series)[:10]}"

    @property
    def task(self) -> str:
        """The value of TASK_LABEL."""
        return self._digest()[:40]

    @property
    def labels(self) -> dict[str, str]:
        """What `kubectl get skyc -l` selects by. Only TASK_LABEL is exact: values that no label can have are changed."""
        readable = {"dag-id": self.dag_id, "run-id": self.run_id, "task-id": self.task_id, "map-index": str(self.map_index)}
        return {TASK_LABEL: self.task, **{f"{PREFIX}/{key}": _label(value) for key, value in readable.items()}}

    @property
    def annotations(self) -> dict[str, str]:
        """The identity itself, as it was written."""
        return {
            f"{PREFIX}/deployment": self.deployment,
            f"{PREFIX}/dag-id": self.dag_id,
            f"{PREFIX}/run-id": self.run_id,
            f"{PREFIX}/task-id": self.task_id,
            f"{PREFIX}/map-index": str(self.map_index),
            f"{PREFIX}/series": str(self.series),
        }

    @property
    def origin(self) -> dict[str, str]:
        """The annotation that tells which of two DAG runs of one id it was."""
        return {} if self.run_started is None else {RUN_STARTED: self.run_started.astimezone(UTC).isoformat()}

    def owns(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the object was made for this task instance, in this series."""
        found = body["metadata"].get("annotations") or {}
        return all(found.get(key) == value for key, value in self.annotations.items())

    def is_later_than(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the object is of an earlier DAG run of the same id. Not known is no."""
        started = _run_started(body)
        return started is not None and self.run_started is not None and started < self.run_started

    def is_earlier_than(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the object is of a later DAG run of the same id. Not known is no."""
        started = _run_started(body)
        return started is not None and self.run_started is not None and started > self.run_started

    def _digest(self, *more: int) -> str:
        raw = [self.deployment, self.dag_id, self.run_id, self.task_id, self.map_index, *more]
        return hashlib.sha256(json.dumps(raw).encode()).hexdigest()


def said(body: Mapping[str, Any]) -> str:
    """Return whose an object is, by its annotations, for people."""
    found = body["metadata"].get("annotations") or {}
    named = {key.removeprefix(f"{PREFIX}/"): value for key, value in found.items() if key.startswith(f"{PREFIX}/")}
    return ", ".join(f"{key} {value!r}" for key, value in sorted(named.items())) or "nobody that Airflow knows"


def _run_started(body: Mapping[str, Any]) -> datetime | None:
    with suppress(ValueError):
        started = datetime.fromisoformat((body["metadata"].get("annotations") or {}).get(RUN_STARTED, ""))
        return started if started.tzinfo is not None else None
    return None


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_SLUG_CHARACTERS].rstrip("-")
    return slug or "task"


def _label(text: str) -> str:
    """Return the text as a label's value; one that had to be changed ends in a hash, so that two never become one."""
    if re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[: _LABEL_CHARACTERS - 9].rstrip("-_.")
    return f"{kept}-{digest}" if kept else digest
