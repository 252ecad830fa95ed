"""Airflow's side of the waiting: tasks and triggers in its database, as its execution API, its pages and a worker write and read them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow._shared.timezones import timezone
from airflow.models import Connection, Trigger
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.serde import deserialize
from airflow.triggers.base import BaseTrigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from tests.triggers import HOME

CONNECTION = "kubernetes_default"


@dataclass(frozen=True)
class Triggerer:
    """The process in whose loop the triggers are, a child of the one that has the database; and what both say."""

    runner: int
    log: Path


def logs(run_id: str) -> list[str]:
    """Return what the tasks' pages show of their triggers."""
    return [path.read_text() for path in HOME.glob(f"logs/*/run_id={run_id}/*/*/*.trigger.*.log")]


def connect(kubeconfig: str) -> None:
    """Have a connection that leads to the cluster. It is not in the environment, so a trigger has to ask Airflow for it."""
    with create_session() as session:
        session.add(Connection(conn_id=CONNECTION, conn_type="kubernetes", extra={"kube_config_path": kubeconfig}))


def defer(run_id: str, triggers: Sequence[BaseTrigger]) -> None:
    """Have each task wait for its trigger."""
    rows = [Trigger.from_object(trigger) for trigger in triggers]
    with create_session() as session:
        session.add_all(rows)
        session.flush()
        for task in session.scalars(select(TaskInstance).where(TaskInstance.run_id == run_id)):
            task.state, task.try_number, task.trigger_id = TaskInstanceState.DEFERRED, 1, rows[task.map_index].id
            task.next_method, task.trigger_timeout = "execute_complete", timezone.utcnow() + timedelta(hours=2)


def mark_failed(run_id: str, numbers: Collection[int]) -> None:
    """Kill tasks as their pages do, which set the state: the triggerer finds that nobody waits any more."""
    with create_session() as session:
        for task in session.scalars(select(TaskInstance).where(TaskInstance.run_id == run_id, TaskInstance.map_index.in_(numbers))):
            task.state = TaskInstanceState.FAILED


def waiting(run_id: str) -> set[int]:
    """Return who is deferred."""
    with create_session() as session:
        wanted = TaskInstance.run_id == run_id, TaskInstance.state == TaskInstanceState.DEFERRED
        return set(session.scalars(select(TaskInstance.map_index).where(*wanted)))


def events(run_id: str) -> dict[int, dict[str, Any]]:
    """Return what each who was woken goes on with."""
    with create_session() as session:
        wanted = TaskInstance.run_id == run_id, TaskInstance.state == TaskInstanceState.SCHEDULED
        found = session.execute(select(TaskInstance.map_index, TaskInstance.next_kwargs).where(*wanted)).all()
    woken: dict[int, Any] = {number: deserialize(arguments) for number, arguments in found}
    return {number: arguments["event"] for number, arguments in woken.items()}
