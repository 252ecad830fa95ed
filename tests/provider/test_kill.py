"""SIGTERM as a worker meets it: in the middle of a request of its own, with the true hook, a true server and a true signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowTaskTimeout, BaseHook
from skyoperator_provider.errors import SkyClusterError
from skyoperator_provider.operators import base
from skyoperator_provider.operators.skycluster import SkyClusterCreateOperator, SkyClusterOperator

from tests.provider.airflows import run_in_time, unreachable
from tests.provider.contexts import context_of
from tests.provider.http_api import NOT_FOUND, HttpApi, Reply, serving
from tests.provider.memory import NAMESPACE, Call, MemoryApi
from tests.provider.test_hook import connect


class Kube:
    """One object; at the first request about it once it is there, the worker is killed, which is answered only after the deletion."""

    def __init__(self, server: HttpApi) -> None:
        self.body: dict[str, Any] | None = None
        self.deletions: list[Any] = []
        self._server = server
        self.is_signalled = False
        self._is_deleted = threading.Event()

    def reply(self) -> Reply:
        asked = self._server.asked[-1]
        if asked.method == "POST":
            self.body = {**asked.body, "metadata": {**asked.body["metadata"], "uid": "u1", "resourceVersion": "7", "generation": 1}}
            return Reply(201, self.body)
        if asked.method == "DELETE" and self.body is not None:
            self.deletions.append(asked.body)
            self.body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._is_deleted.set()
            return Reply(200, {"kind": "Status", "status": "Success"})
        if self.body is None:
            return Reply(200, {"items": []}) if "labelSelector" in asked.query else NOT_FOUND
        return self._asked_about()

    def _asked_about(self) -> Reply:
        if not self.is_signalled:
            self.is_signalled = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert self._is_deleted.wait(10), "on_kill has deleted nothing while the main thread waits"
        return Reply(200, self.body)


@pytest.fixture
def server() -> Iterator[HttpApi]:
    with serving() as api:
        yield api


@contextmanager
def terminated(operator: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, SIGTERM is answered as Airflow's worker does, but for what it may not use."""
    errors: list[BaseException] = []

    def on_term(*_: object) -> None:
        with unreachable(monkeypatch) as patch:
            patch.setattr(BaseHook, "get_connection", lambda *_: errors.append(AssertionError("on_kill asks for a connection")))
            operator.on_kill()

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        operator.hook.api.close()
    assert not errors


def a_task(server: HttpApi, kind: Any, monkeypatch: pytest.MonkeyPatch, *, deferrable: bool) -> tuple[Kube, Any, Any]:
    """A task before it is run, with its context, in front of this server."""
    connect(monkeypatch, server.url)
    kube = Kube(server)
    server.next_reply = kube.reply  # type: ignore[method-assign]
    operator = kind(task_id="fit", task={"run": "true"}, poll_seconds=0, deferrable=deferrable, dag=DAG("train", schedule=None))
    context, _ = context_of(operator)
    operator.render_template_fields(context)
    return kube, operator, context


@pytest.mark.parametrize("kind", [SkyClusterCreateOperator, SkyClusterOperator])
def test_a_worker_that_waits_for_an_answer_deletes_all_the_same(server: HttpApi, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kube, operator, context = a_task(server, kind, monkeypatch, deferrable=False)
    with terminated(operator, monkeypatch), pytest.raises(SkyClusterError):
        operator.execute(context)
    assert kube.deletions == [{"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1", "resourceVersion": "7"}}]


@pytest.mark.parametrize("kind", [SkyClusterCreateOperator, SkyClusterOperator])
@pytest.mark.parametrize("status", ["reached", "error"])
def test_a_worker_that_goes_on_after_a_trigger_deletes_all_the_same(
    server: HttpApi, kind: Any, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: it was armed only after its first requests, and each is repeated for half a minute."""
    kube, operator, context = a_task(server, kind, monkeypatch, deferrable=True)
    kube.body = {**operator._build(context)}
    kube.body["metadata"] |= {"uid": "u1", "resourceVersion": "7", "generation": 1}
    target = {key: kube.body["metadata"][key] for key in ("name", "namespace", "uid")}
    event = {"status": status, "reason": "R", "message": "m", **target, "log_offset_bytes": 0, "times_lost": 0}
    del operator.hook
    with terminated(operator, monkeypatch), pytest.raises(SkyClusterError):
        operator.resume_execution("execute_complete", {"event": event}, context)
    assert [deletion["preconditions"] for deletion in kube.deletions] == [{"uid": "u1", "resourceVersion": "7"}]


@pytest.mark.parametrize("kind", [SkyClusterCreateOperator, SkyClusterOperator])
def test_a_kill_while_the_connection_is_read_asks_airflow_for_nothing(server: HttpApi, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread holds the lock of Airflow's answers. What is to be deleted is deleted as soon as it has the connection."""
    connect(monkeypatch, server.url)
    server.next_reply = (kube := Kube(server)).reply  # type: ignore[method-assign]
    kube.is_signalled = True
    operator = kind(task_id="fit", task={"run": "true"}, deferrable=True, dag=DAG("train", schedule=None))
    context, _ = context_of(operator)
    kube.body = operator._build(context)
    kube.body["metadata"] |= {"uid": "u1", "resourceVersion": "7", "generation": 1}
    event = {"status": "reached", "name": kube.body["metadata"]["name"], "namespace": "default", "uid": "u1"}
    del operator.hook
    read = BaseHook.get_connection

    def terminates(*asked: Any) -> Any:
        monkeypatch.setattr(BaseHook, "get_connection", read)
        os.kill(os.getpid(), signal.SIGTERM)
        return read(*asked)

    with terminated(operator, monkeypatch):
        monkeypatch.setattr(BaseHook, "get_connection", terminates)
        with pytest.raises(SkyClusterError, match="killed"):
            operator.resume_execution("execute_complete", {"event": event}, context)
    assert len(kube.deletions) == 1


@pytest.mark.parametrize("kind", [SkyClusterCreateOperator, SkyClusterOperator])
def test_airflows_own_execution_timeout_deletes_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the task runner's own code: SIGALRM raises in the middle of the waiting, and on_kill is called on top."""
    api = MemoryApi()
    monkeypatch.setattr(base, "SkyClusterHook", lambda **_: api)
    limit = timedelta(seconds=0.3)
    operator = kind(
        task_id="fit",
        task={"run": "true"},
        poll_seconds=0.01,
        deferrable=False,
        execution_timeout=limit,
        dag=DAG("train", schedule=None),
    )
    context, _ = context_of(operator)
    operator.render_template_fields(context)
    with pytest.raises(AirflowTaskTimeout):
        run_in_time(operator, context)
    assert len(api.deletions) == 1
    assert [call.verb for call in api.calls].count("delete") == 1


def times_out(monkeypatch: pytest.MonkeyPatch, api: MemoryApi, **given: Any) -> SkyClusterOperator:
    """Run a one-step task until Airflow's execution_timeout ends it; return the operator."""
    monkeypatch.setattr(base, "SkyClusterHook", lambda **_: api)
    limit = timedelta(seconds=0.3)
    dag = DAG("train", schedule=None)
    operator = SkyClusterOperator(
        task_id="fit", task={"run": "true"}, poll_seconds=0.01, deferrable=False, execution_timeout=limit, dag=dag, **given
    )
    context, _ = context_of(operator)
    operator.render_template_fields(context)
    with pytest.raises(AirflowTaskTimeout):
        run_in_time(operator, context)
    return operator


def test_a_complete_job_whose_value_has_not_come_in_time_is_kept_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    api = MemoryApi()

    def completes(call: Call) -> None:
        if call.verb == "annotate" or (call.verb == "read" and (NAMESPACE, call.name) in api.objects):
            api.set_job(call.name, had=False)
            api.set_conditions(call.name, Complete="True")

    api.on_call = completes
    times_out(monkeypatch, api)
    assert len(api.creations) == 1
    assert not api.deletions


@pytest.mark.parametrize("action", ["keep", "delete_on_success"])
def test_a_timeout_is_no_kill_that_overrides_on_finish_action(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    api = MemoryApi()
    times_out(monkeypatch, api, on_finish_action=action)
    assert len(api.creations) == 1
    assert not api.deletions


def test_a_kill_deletes_whatever_on_finish_action_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a timeout disarms, a true kill before it has used already."""
    api = MemoryApi()
    monkeypatch.setattr(base, "SkyClusterHook", lambda **_: api)
    dag = DAG("train", schedule=None)
    operator = SkyClusterOperator(task_id="fit", task={"run": "true"}, poll_seconds=0, deferrable=False, on_finish_action="keep", dag=dag)

    def kills(call: Call) -> None:
        if call.verb == "read" and (NAMESPACE, call.name) in api.objects:
            api.on_call = lambda _: None
            operator.on_kill()

    api.on_call = kills
    context, _ = context_of(operator)
    operator.render_template_fields(context)
    with pytest.raises(SkyClusterError):
        operator.execute(context)
    assert len(api.deletions) == 1
