"""What differs between the Airflows that the provider is for, as far as tests touch it: where a thing is, and how a worker is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Final

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

HAS_SDK: Final = find_spec("airflow.sdk") is not None
"""Whether DAGs import from airflow.sdk, and tasks ask a supervisor rather than the database: 3.0 and later."""


def first(*places: str) -> Any:
    """Return what the first of these places, each module:name, has. Raises ImportError if none has it."""
    for place in places:
        module, _, name = place.partition(":")
        with suppress(ImportError, AttributeError):
            return getattr(import_module(module), name)
    raise ImportError(f"This Airflow has none of {', '.join(places)}")


DagBag: Final = first("airflow.dag_processing.dagbag:DagBag", "airflow.models.dagbag:DagBag")
DagSerialization: Final = first(
    "airflow.serialization.serialized_objects:DagSerialization", "airflow.serialization.serialized_objects:SerializedDAG"
)
DagRunOfWorker: Final = first("airflow.sdk.api.datamodels._generated:DagRun", "airflow.models.dagrun:DagRun")
"""What a task's context tells of its DAG run."""
DeferralTimeoutError: Final = first(
    "airflow.sdk.exceptions:TaskDeferralTimeout", "airflow.exceptions:TaskDeferralTimeout", "airflow.exceptions:TaskDeferralError"
)
HooksManager: Final = first(
    "airflow.sdk.providers_manager_runtime:ProvidersManagerTaskRuntime", "airflow.providers_manager:ProvidersManager"
)
"""What finds hooks for a task."""
RescheduleException: Final = first("airflow.sdk.exceptions:AirflowRescheduleException", "airflow.exceptions:AirflowRescheduleException")
TaskTerminated: Final = first("airflow.sdk.exceptions:AirflowTaskTerminated", "airflow.exceptions:AirflowTaskTerminated")
secrets_masker: Final = first("airflow.sdk._shared.secrets_masker:_secrets_masker", "airflow.utils.log.secrets_masker:_secrets_masker")

_RUNNER: Final = import_module("airflow.sdk.execution_time.task_runner" if HAS_SDK else "airflow.models.taskinstance")


def run_in_time(operator: BaseOperator, context: Any) -> Any:
    """Run execute() within its execution_timeout, by the code of Airflow's own worker, which calls on_kill when the time is over."""
    if hasattr(_RUNNER, "_run_execute_callable"):
        return _RUNNER._run_execute_callable(context, operator.execute, operator)
    # Below 3.3 nothing less than a whole task instance is bounded.
    ti = SimpleNamespace(task=operator, next_method=None, _ti_context_from_server=None)
    context = {"outlet_events": None, **context}
    return _RUNNER._execute_task(context, ti, logging.getLogger()) if HAS_SDK else _RUNNER._execute_task(ti, context, operator)


class _NoAirflow:
    """A worker's way to Airflow, whose lock the main thread may hold."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"on_kill calls Airflow: {name}")

    def __call__(self, *_: object) -> Any:
        raise AssertionError("on_kill calls Airflow")


NO_AIRFLOW: Final = _NoAirflow()


@contextmanager
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Within, who asks Airflow for anything gets an AssertionError."""
    with monkeypatch.context() as patch:
        if HAS_SDK:
            patch.setattr(_RUNNER, "SUPERVISOR_COMMS", NO_AIRFLOW, raising=False)
        else:
            patch.setattr("airflow.settings.Session", NO_AIRFLOW)
        yield patch
