"""What a task is run with, as far as operators look at it."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

XComs = dict[tuple[str, int, str], Any]
"""By task, map index and key."""


class TaskInstance(SimpleNamespace):
    """A task instance that remembers what was pushed, and pulls what those pushed that share its `xcoms`."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value
        self.xcoms[self.task_id, self.map_index, key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: Iterable[int] | None = None) -> Any:
        """As Airflow's: without map_indexes all there are, and that itself if it is one; else one for each, None where there is none."""
        if map_indexes is not None:
            return [self.xcoms.get((task_ids, index, key)) for index in map_indexes]
        found = [value for (task_id, _, known), value in self.xcoms.items() if (task_id, known) == (task_ids, key)]
        return found if len(found) > 1 else next(iter(found), None)


def context_of(
    task: Any = None,
    *,
    retries: int = 0,
    try_number: int = 1,
    max_tries: int | None = None,
    map_index: int = -1,
    xcoms: XComs | None = None,
    **more: Any,
) -> tuple[Any, Any]:
    """Return a context and its task, of DAG train, task fit if none is given."""
    task = task or SimpleNamespace(task_id="fit", retries=retries)
    ti = TaskInstance(
        dag_id="train",
        run_id="manual__1",
        task_id=task.task_id,
        map_index=map_index,
        try_number=try_number,
        max_tries=task.retries if max_tries is None else max_tries,
        pushed={},
        xcoms={} if xcoms is None else xcoms,
    )
    return {"ti": ti, "task_instance": ti, "task": task, "run_id": "manual__1", "params": {}, **more}, task
