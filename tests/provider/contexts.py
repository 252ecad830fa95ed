"""What a task is run with, as far as operators look at it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class TaskInstance(SimpleNamespace):
    """A task instance that remembers what was pushed."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context_of(
    task: Any = None,
    *,
    retries: int = 0,
    try_number: int = 1,
    max_tries: int | None = None,
    map_index: int = -1,
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
    )
    return {"ti": ti, "task_instance": ti, "task": task, "run_id": "manual__1", "params": {}, **more}, task
