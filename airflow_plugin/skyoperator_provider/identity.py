"""Which SkyCluster belongs to which task instance.

The name is made of what stays the same over the retries of one task instance, and of nothing else, so that a worker that died between
creating the object and remembering it finds it again. What moves is the series: clearing a finished task asks for a new run of it, and
Airflow raises `max_tries` then and only then (airflow/models/taskinstance.py, clear_task_instances).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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

    def owns(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the object was made for this task instance, in this series."""
        found = body["metadata"].get("annotations") or {}
        return all(found.get(key) == value for key, value in self.annotations.items())

    def _digest(self, *more: int) -> str:
        raw = [self.deployment, self.dag_id, self.run_id, self.task_id, self.map_index, *more]
        return hashlib.sha256(json.dumps(raw).encode()).hexdigest()


def said(body: Mapping[str, Any]) -> str:
    """Return whose an object is, by its annotations, for people."""
    found = body["metadata"].get("annotations") or {}
    named = {key.removeprefix(f"{PREFIX}/"): value for key, value in found.items() if key.startswith(f"{PREFIX}/")}
    return ", ".join(f"{key} {value!r}" for key, value in sorted(named.items())) or "nobody that Airflow knows"


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
