"""The operators, from what a DAG author writes to what Airflow is told. Only kube-apiserver is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    mask_secret,
)
from skyoperator_provider import following, links
from skyoperator_provider.errors import ApiError, ResultLostError, SkyClusterError, SkyClusterRejectedError
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.identity import COLLECTED, OWNER_TRY, RESUMED
from skyoperator_provider.operators import base
from skyoperator_provider.operators.skycluster import (
    SkyClusterCreateOperator,
    SkyClusterDeleteOperator,
    SkyClusterLogsOperator,
    SkyClusterOperator,
)
from skyoperator_provider.remote.far.failure import error_value
from skyoperator_provider.remote.far.result_file import ExitCodeError

from tests.provider.airflows import NO_AIRFLOW, DeferralTimeoutError, unreachable
from tests.provider.contexts import XComs, context_of
from tests.provider.memory import NAMESPACE, Call, Died, Fault, MemoryApi, died, forbidden, refused

TASK = {"resources": {"cpus": 1}, "run": "python fit.py"}
Body = dict[str, Any]


def new(kind: type[Any], given: dict[str, Any]) -> Any:
    """Return the operator as a worker has it: parsed anew, in a DAG of its own, for each try."""
    folder, native = given.pop("folder", None), given.pop("native", False)
    dag = DAG("train", schedule=None, template_searchpath=[str(folder)] if folder else None, render_template_as_native_obj=native)
    return kind(**{"dag": dag, "poll_seconds": 0, **given})


def run(operator: Any, *, event: Body | None = None, after: TaskDeferred | None = None, **context: Any) -> tuple[Any, dict[str, Any]]:
    """Do as the task runner does, with a trigger's event `after` it was deferred; return the value, and what was pushed."""
    given, _ = context_of(operator, **context)
    operator.render_template_fields(given)
    if event is not None:
        kept = {} if after is None else after.kwargs or {}
        return operator.resume_execution("execute_complete", {**kept, "event": event}, given), given["ti"].pushed
    return operator.execute(given), given["ti"].pushed


def create(**given: Any) -> Any:
    given = {"task_id": "fit", "task": TASK, "deferrable": False, **given}
    if {"task_file", "manifest"} & given.keys():
        del given["task"]
    return new(SkyClusterCreateOperator, given)


def one_step(**given: Any) -> Any:
    return new(SkyClusterOperator, {"task_id": "fit", "task": TASK, "deferrable": False, "result_path": None, **given})


def only(api: MemoryApi) -> Body:
    (body,) = api.objects.values()
    return body


def uid(api: MemoryApi) -> str:
    return str(only(api)["metadata"]["uid"])


def at_read(api: MemoryApi, number: int, happens: Callable[[str], None]) -> None:
    """At the nth look at the object that is there, something happens to it first."""
    seen = 0

    def on_call(call: Call) -> None:
        nonlocal seen
        if call.verb == "read" and (NAMESPACE, call.name) in api.objects:
            seen += 1
            if seen == number:
                happens(call.name)

    api.on_call = on_call


def becomes(api: MemoryApi, number: int = 3, **conditions: Any) -> None:
    at_read(api, number, lambda name: api.set_conditions(name, **conditions))


def ends(api: MemoryApi, log: bytes = b"", number: int = 3, result: bytes | None = None, **conditions: Any) -> None:
    """The job runs, writes this, and comes to this end."""

    def happens(name: str) -> None:
        found = str(api.objects[NAMESPACE, name]["metadata"]["uid"])
        api.set_job(name)
        api.set_conditions(name, **conditions)
        api.logs[found], api.log_states[found] = log, "complete"
        if result is not None:
            api.results[found] = RemoteResult("present", result, "")

    at_read(api, number, happens)


def said(status: str, reason: str = "R", message: str = "m", *, of: Body, **more: Any) -> Body:
    metadata = of["metadata"]
    named = {key: metadata[key] for key in ("name", "namespace", "uid")}
    return {"status": status, "reason": reason, "message": message, **named, "log_offset_bytes": 0, "log_attempt": None, **more}


# What is made.


def test_the_object_is_the_tasks_and_ends_by_itself(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    value, pushed = run(create())
    body = only(api)
    assert value == {"name": body["metadata"]["name"], "namespace": NAMESPACE, "uid": uid(api)}
    assert pushed["skycluster"] == {**value, "deployment": "prod"}
    assert body["spec"]["task"] == TASK
    assert body["metadata"]["annotations"][OWNER_TRY] == "1"
    assert {"activeDeadlineSeconds", "autostop", "ttlSecondsAfterFinished"} <= body["spec"].keys()
    assert not api.deletions


@pytest.mark.parametrize(("wait_for", "seconds"), [("ready", 86400), ("complete", 600)])
def test_execution_timeout_bounds_the_object_only_if_it_bounds_the_job(api: MemoryApi, wait_for: str, seconds: int) -> None:
    """A launch that may take ten minutes is no cluster that lives for ten minutes."""
    becomes(api, Ready="True", Complete="True")
    run(create(wait_for=wait_for, execution_timeout=timedelta(minutes=10)))
    assert only(api)["spec"]["activeDeadlineSeconds"] == seconds


def test_the_button_to_the_dashboard_is_there_while_the_job_runs(api: MemoryApi) -> None:
    _, pushed = deferred_and_pushed(create(deferrable=True))
    assert pushed[links.XCOM_KEY] == "https://sky.example.com/clusters"
    name = only(api)["metadata"]["name"]
    api.objects[NAMESPACE, name]["status"] = {"cluster": {"name": "fit-1"}}
    _, pushed = run(create(deferrable=True), event=said("reached", of=only(api)))
    assert pushed[links.XCOM_KEY] == "https://sky.example.com/clusters/fit-1"


def test_a_run_that_ends_in_a_file_name_is_no_file(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    run(create(task={"run": "python t.py --config conf.yaml"}))
    assert only(api)["spec"]["task"]["run"] == "python t.py --config conf.yaml"


def test_the_length_of_a_shell_array_is_no_comment(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    run(create(task={"run": "A=(1 2); echo ${#A[@]} {{ run_id }} {## a comment ##}."}))
    assert only(api)["spec"]["task"]["run"] == "A=(1 2); echo ${#A[@]} manual__1 ."


def test_a_mapped_task_leaves_shell_alone_too(api: MemoryApi) -> None:
    """It is rendered by another way, which asks only render_template of the operator."""
    partial = SkyClusterCreateOperator.partial(task_id="fit", poll_seconds=0, deferrable=False, dag=DAG("train", schedule=None))
    mapped = partial.expand(task=[{"run": "echo ${#A[@]} > out.yaml"}])
    unmapped: Any = mapped.unmap({"task": {"run": "echo ${#A[@]} > out.yaml"}})
    context, _ = context_of(unmapped)
    unmapped._do_render_template_fields(unmapped, mapped.template_fields, context, mapped.get_template_env(), set())
    assert unmapped.task == {"run": "echo ${#A[@]} > out.yaml"}


def test_render_false_leaves_everything(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    run(create(task={"run": "docker ps --format '{{.Names}}' {% x"}, render=False))
    assert only(api)["spec"]["task"]["run"] == "docker ps --format '{{.Names}}' {% x"


FILE = "run: |\n  echo {{ run_id }} ${#A[@]}\n  python t.py --config conf.yaml\nnum_nodes: 2\n"


@pytest.mark.parametrize("render", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_task_file_is_text_first_and_yaml_then(api: MemoryApi, tmp_path: Path, render: bool, absolute: bool) -> None:
    becomes(api, Ready="True")
    (tmp_path / "task.yaml").write_text(FILE)
    run(create(task_file=str(tmp_path / "task.yaml") if absolute else "task.yaml", folder=tmp_path, render=render))
    first = "manual__1" if render else "{{ run_id }}"
    task = only(api)["spec"]["task"]
    assert task == {"run": f"echo {first} ${{#A[@]}}\npython t.py --config conf.yaml\n", "num_nodes": 2}


def test_a_task_file_of_a_dag_with_native_objects_is_text_all_the_same(api: MemoryApi, tmp_path: Path) -> None:
    becomes(api, Ready="True")
    (tmp_path / "task.yaml").write_text("{'run': '{{ run_id }}', 'num_nodes': 2}")
    run(create(task_file="task.yaml", folder=tmp_path, native=True))
    assert only(api)["spec"]["task"] == {"run": "manual__1", "num_nodes": 2}


def test_a_file_that_is_not_there_is_named_with_where_it_was_looked_for(api: MemoryApi, tmp_path: Path) -> None:
    with pytest.raises(SkyClusterRejectedError, match=rf"no file 'none.yaml'.*{tmp_path}"):
        run(create(task_file="none.yaml", folder=tmp_path))


@pytest.mark.parametrize("as_text", [True, False])
def test_a_manifest_names_its_namespace(api: MemoryApi, as_text: bool) -> None:
    becomes_ready = "{apiVersion: skyoperator.dev/v1alpha1, kind: SkyCluster, metadata: {namespace: other}, spec: {task: {run: 'true'}}}"
    parsed = {
        "apiVersion": "skyoperator.dev/v1alpha1",
        "kind": "SkyCluster",
        "metadata": {"namespace": "other"},
        "spec": {"task": {"run": "true"}},
    }
    at_call = api.read

    def ready(namespace: str, name: str, **_: Any) -> Body | None:
        if (namespace, name) in api.objects:
            api.set_conditions(name, namespace, Ready="True")
        return at_call(namespace, name)

    api.read = ready  # type: ignore[method-assign]
    value, _ = run(create(manifest=becomes_ready if as_text else parsed))
    assert value["namespace"] == "other"


def test_what_the_author_got_wrong_is_not_tried_again(api: MemoryApi) -> None:
    with pytest.raises(AirflowFailException, match=r"Task fit: .*exactly one of"):
        run(create(task=None))
    assert not api.creations


def test_a_masked_value_points_to_secrets(api: MemoryApi) -> None:
    mask_secret("hf_abcdefgh")
    with pytest.raises(AirflowFailException, match=r"spec\.task\.envs\.HF.*secrets=") as caught:
        run(create(task={**TASK, "envs": {"HF": "hf_abcdefgh"}}))
    assert "hf_abcdefgh" not in str(caught.value)
    assert not api.creations


def test_secrets_are_named(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    run(create(secrets={"HF_TOKEN": "hf/token"}))
    assert only(api)["spec"]["secrets"] == [{"name": "HF_TOKEN", "secretKeyRef": {"name": "hf", "key": "token"}}]


def test_a_one_step_task_bounds_its_job_by_its_own_time(api: MemoryApi) -> None:
    ends(api, Complete="True")
    run(one_step(execution_timeout=timedelta(minutes=10)))
    assert only(api)["spec"]["activeDeadlineSeconds"] == 600


# How create waits.


@pytest.mark.parametrize(("wait_for", "condition"), [("accepted", "Accepted"), ("ready", "Ready"), ("complete", "Complete")])
def test_create_waits_for_what_it_was_told(api: MemoryApi, wait_for: str, condition: str) -> None:
    reads: list[int] = []

    def happens(name: str) -> None:
        reads.append(len(api.calls))
        api.set_conditions(name, **{condition: "True"})

    at_read(api, 5, happens)
    run(create(wait_for=wait_for))
    assert reads


@pytest.mark.parametrize(
    ("conditions", "error", "reason"),
    [
        ({"Failed": ("True", "NoCapacity", "no GPU")}, SkyClusterError, "NoCapacity"),
        ({"Failed": ("True", "InvalidTask", "Pod is invalid")}, AirflowFailException, "InvalidTask"),
        ({"Failed": ("True", "PolicyDenied", "violates PodSecurity")}, AirflowFailException, "PolicyDenied"),
        ({"Accepted": ("False", "SecretNotFound", "no hf")}, SkyClusterError, "SecretNotFound"),
        ({"Accepted": ("False", "InvalidTask", "num_node?")}, AirflowFailException, "InvalidTask"),
        ({"Accepted": ("False", "PolicyDenied", "no")}, AirflowFailException, "PolicyDenied"),
    ],
)
def test_a_bad_end_fails_the_task_and_deletes(api: MemoryApi, conditions: dict[str, Any], error: type[Exception], reason: str) -> None:
    becomes(api, **conditions)
    with pytest.raises(error, match=reason) as caught:
        run(create())
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert api.deletions == [uid(api)]


def test_a_failed_job_is_told_with_its_last_lines(api: MemoryApi) -> None:
    ends(api, b"one\ntwo\n", Failed=("True", "JobFailed", "exit 3"))
    with pytest.raises(SkyClusterError, match=r"exit 3\nThe last lines of its log:\n  one\n  two"):
        run(create(wait_for="complete"))


def test_somebody_elses_deletion_ends_the_waiting(api: MemoryApi) -> None:
    at_read(api, 4, lambda name: api.objects.clear())
    with pytest.raises(SkyClusterError, match="not there any more"):
        run(create())


def test_execution_timeout_deletes(api: MemoryApi) -> None:
    """AirflowTaskTimeout is no Exception, and is raised in the middle of anything."""

    def times_out(name: str) -> None:
        raise AirflowTaskTimeout

    at_read(api, 4, times_out)
    with pytest.raises(AirflowTaskTimeout):
        run(create())
    assert api.deletions == [uid(api)]


@pytest.mark.parametrize("make", [create, one_step])
def test_what_a_worker_that_died_left_is_deleted_if_the_next_try_cannot_begin(api: MemoryApi, make: Callable[..., Any]) -> None:
    """The DAG was edited meanwhile, so that it never comes to take it over."""
    deferred(make(deferrable=True))
    with pytest.raises(AirflowFailException):
        run(make(task={"apiVersion": "v1"}), try_number=2)
    assert api.deletions == [uid(api)]


@pytest.mark.parametrize("make", [create, one_step])
def test_what_a_worker_that_died_left_is_deleted_if_the_next_try_is_killed_before_it_has_it(
    api: MemoryApi, make: Callable[..., Any]
) -> None:
    deferred(make(deferrable=True))
    operator = make()

    def kills(call: Call) -> None:
        if call.verb == "list":
            operator.on_kill()

    api.on_call = kills
    with pytest.raises(SkyClusterError, match="killed"):
        run(operator, try_number=2)
    assert api.deletions == [uid(api)]


def test_the_result_that_a_worker_that_died_left_outlives_a_try_that_cannot_look(api: MemoryApi) -> None:
    deferred(one_step(deferrable=True))
    name = only(api)["metadata"]["name"]
    api.set_job(name)
    api.set_conditions(name, Complete="True")
    api.results[uid(api)] = RemoteResult("present", b"41", "")
    api.faults[len(api.calls) + 1] = refused()
    with pytest.raises(ApiError):
        run(one_step(result_path="/tmp/result.json"), try_number=2)
    assert not api.deletions
    value, _ = run(one_step(result_path="/tmp/result.json"), try_number=3)
    assert value == 41
    assert len(api.creations) == 1


def test_a_timeout_before_the_answer_to_create_deletes_too(api: MemoryApi) -> None:
    make = api.create

    def times_out(manifest: Any) -> Body:
        make(manifest)
        raise AirflowTaskTimeout

    api.create = times_out  # type: ignore[method-assign]
    with pytest.raises(AirflowTaskTimeout):
        run(create())
    assert api.deletions == [uid(api)]


def test_a_failure_that_cannot_delete_is_still_that_failure(api: MemoryApi, caplog: pytest.LogCaptureFixture) -> None:
    becomes(api, Failed=("True", "NoCapacity", "no GPU"))

    def fails(*_: Any, **__: Any) -> bool:
        raise ApiError("kube-apiserver is away")

    api.delete = fails  # type: ignore[method-assign]
    with pytest.raises(SkyClusterError, match="no GPU"):
        run(create())


def test_a_retry_goes_on_with_what_is_there(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    first, _ = run(create())
    second, _ = run(create(), try_number=2)
    assert first == second
    assert len(api.creations) == 1


@pytest.mark.parametrize("make", [lambda: create(wait_for="complete"), one_step])
def test_a_dag_run_that_was_deleted_and_made_again_launches_again(api: MemoryApi, make: Callable[[], Any]) -> None:
    """Bug: a backfill of a deleted run was green with what the deleted one had left, and nothing launched."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    becomes(api, Complete="True")
    run(create(wait_for="complete"), dag_run=SimpleNamespace(start_date=began))

    def goes_on(call: Call) -> None:
        if call.verb == "wait_gone":
            api.finish_deletions()
            ends(api, Complete="True")

    api.on_call = goes_on
    run(make(), dag_run=SimpleNamespace(start_date=began + timedelta(days=1)))
    assert len(api.creations) == 2


def test_a_task_of_a_deleted_dag_run_deletes_nothing_of_the_one_made_after_it(api: MemoryApi) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    becomes(api, Ready="True")
    run(create(), dag_run=SimpleNamespace(start_date=began + timedelta(days=1)))
    run(delete(cluster_task_id="fit"), dag_run=SimpleNamespace(start_date=began))
    assert api.deletions == []
    run(delete(cluster_task_id="fit"), dag_run=SimpleNamespace(start_date=began + timedelta(days=1)))
    assert len(api.deletions) == 1


def test_what_an_earlier_dag_run_left_and_goes_is_no_end_of_this_ones(api: MemoryApi) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    becomes(api, Complete="True")
    run(create(wait_for="complete"), dag_run=SimpleNamespace(start_date=began))
    run(delete(cluster_task_id="fit"), dag_run=SimpleNamespace(start_date=began))
    with pytest.raises(Exception, match="no SkyCluster"):
        run(logs(cluster_task_id="fit"), dag_run=SimpleNamespace(start_date=began + timedelta(days=1)))


# Deferred.


def deferred(operator: Any, **context: Any) -> TaskDeferred:
    return deferred_and_pushed(operator, **context)[0]


def deferred_and_pushed(operator: Any, **context: Any) -> tuple[TaskDeferred, dict[str, Any]]:
    given, _ = context_of(operator, **context)
    operator.render_template_fields(given)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(given)
    return caught.value, given["ti"].pushed


def test_create_defers_with_all_that_the_trigger_needs(api: MemoryApi) -> None:
    before = datetime.now(UTC).timestamp()
    found = deferred(create(deferrable=True, execution_timeout=timedelta(minutes=10), on_kill_action="keep"), try_number=2)
    _, trigger = found.trigger.serialize()
    deadline = trigger.pop("deadline_epoch_seconds")
    assert before + 600 <= deadline <= before + 610
    metadata = only(api)["metadata"]
    expected = {"name": metadata["name"], "namespace": NAMESPACE, "uid": metadata["uid"], "wait_for": "ready", "owner_try": "2"}
    assert expected.items() <= trigger.items()
    assert trigger["on_kill_action"] == "keep"
    assert trigger["logs"] is False
    assert found.method_name == "execute_complete"
    assert type(found.timeout) is timedelta
    assert found.timeout > timedelta(minutes=10)
    assert not api.deletions


@pytest.mark.parametrize("kind", ["one step", "logs"])
@pytest.mark.parametrize("given", [{}, {"logging_interval_seconds": 60}])
def test_how_often_a_trigger_prints_is_the_authors_to_say(api: MemoryApi, kind: str, given: dict[str, Any]) -> None:
    made_before = {"cluster": made(api)} if kind == "logs" else {}
    operator = logs(deferrable=True, **made_before, **given) if kind == "logs" else one_step(deferrable=True, **given)
    waits = deferred(operator)
    assert waits.trigger.serialize()[1]["logging_interval_seconds"] == given.get("logging_interval_seconds", 10)
    with pytest.raises(TaskDeferred) as caught:
        run(operator, event=lost(of=only(api)), after=waits)
    assert caught.value.trigger.serialize()[1]["logging_interval_seconds"] == given.get("logging_interval_seconds", 10)


@pytest.mark.parametrize("make", [one_step, lambda **given: logs(cluster="fit", **given)])
def test_an_interval_that_would_flood_the_log_api_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"logging_interval_seconds=0\.5: it is at least 1"):
        make(logging_interval_seconds=0.5)


@pytest.mark.parametrize(("make", "is_kept"), [(create, True), (one_step, False)])
def test_only_create_keeps_its_object_if_it_is_marked_success(api: MemoryApi, make: Callable[..., Any], is_kept: bool) -> None:
    assert deferred(make(deferrable=True)).trigger.serialize()[1]["keep_on_success"] is is_kept


def test_without_execution_timeout_there_is_no_deadline(api: MemoryApi) -> None:
    found = deferred(create(deferrable=True))
    assert found.timeout is None
    assert found.trigger.serialize()[1]["deadline_epoch_seconds"] is None


def test_what_is_there_already_is_not_deferred_for(api: MemoryApi) -> None:
    becomes(api, Ready="True")
    run(create())
    run(create(deferrable=True), try_number=2)


def test_deferrable_follows_the_configuration(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert create(deferrable=None).deferrable
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False")
    assert not create(deferrable=None).deferrable


def test_create_goes_on_when_it_was_reached(api: MemoryApi) -> None:
    deferred(create(deferrable=True))
    value, pushed = run(create(deferrable=True), event=said("reached", of=only(api)))
    assert value.items() <= pushed["skycluster"].items()
    assert not api.deletions


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        ("failed", "NoCapacity", SkyClusterError),
        ("rejected", "InvalidTask", AirflowFailException),
        ("failed", "PolicyDenied", AirflowFailException),
        ("rejected", "SecretNotFound", SkyClusterError),
        ("gone", "Deleted", SkyClusterError),
        ("missing", "NotFound", SkyClusterError),
        ("timeout", "DeadlineExceeded", SkyClusterError),
    ],
)
@pytest.mark.parametrize("make", [create, one_step])
def test_each_bad_event_fails_and_deletes(
    api: MemoryApi, make: Callable[..., Any], status: str, reason: str, error: type[Exception]
) -> None:
    deferred(make(deferrable=True))
    body = only(api)
    with pytest.raises(error, match="why it is so") as caught:
        run(make(deferrable=True), event=said(status, reason, "why it is so", of=body))
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert api.deletions == [body["metadata"]["uid"]]


def lost(*, of: Body, **more: Any) -> Body:
    return said("error", "ApiError", "kube-apiserver was away", of=of, **more)


@pytest.mark.parametrize("make", [create, one_step])
def test_what_goes_on_out_of_a_triggers_sight_is_waited_for_again(api: MemoryApi, make: Callable[..., Any]) -> None:
    """Bug: kube-apiserver is away for eight minutes, and each deferred job is deleted."""
    deferred(make(deferrable=True, execution_timeout=timedelta(hours=1)))
    until = datetime.now(UTC).timestamp() + 100
    event = lost(of=only(api), log_offset_bytes=77, log_attempt=2, deadline_epoch_seconds=until, times_lost=1)
    with pytest.raises(TaskDeferred) as caught:
        run(make(deferrable=True, execution_timeout=timedelta(hours=1)), event=event)
    again = caught.value.trigger.serialize()[1]
    assert again["deadline_epoch_seconds"] == pytest.approx(until, abs=1)
    assert (again["uid"], again["log_offset_bytes"], again["log_attempt"], again["times_lost"]) == (uid(api), 77, 2, 2)
    assert caught.value.timeout is not None
    assert caught.value.timeout.total_seconds() == pytest.approx(160, abs=60)
    assert not api.deletions
    assert RESUMED not in only(api)["metadata"]["annotations"], "its next trigger could not delete it"


@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize("status", ["gone", "reached"])
def test_what_a_trigger_says_of_another_object_is_not_taken_for_this_ones(api: MemoryApi, make: Callable[..., Any], status: str) -> None:
    """Bug: cleared while it is deferred, with Airflow on SQLite, the new run failed, since the object of the old one was gone."""
    deferred(make(deferrable=True, execution_timeout=timedelta(hours=1)))
    before = only(api)
    waits = deferred(make(deferrable=True, execution_timeout=timedelta(hours=1)), try_number=2, max_tries=1)
    (body,) = api.live()
    event = said(status, "Deleted", of=before, log_offset_bytes=9, deadline_epoch_seconds=1.0)
    with pytest.raises(TaskDeferred) as caught:
        run(make(deferrable=True, execution_timeout=timedelta(hours=1)), event=event, after=waits, try_number=2, max_tries=1)
    first, again = waits.trigger.serialize()[1], caught.value.trigger.serialize()[1]
    assert (again["uid"], again["log_offset_bytes"], again["times_lost"]) == (body["metadata"]["uid"], 0, 1)
    assert again["deadline_epoch_seconds"] == pytest.approx(first["deadline_epoch_seconds"], abs=1)
    assert [made["metadata"]["uid"] for made in api.live()] == [body["metadata"]["uid"]]


def test_a_dag_that_changes_its_retries_while_a_task_is_deferred_loses_nothing(api: MemoryApi) -> None:
    """The name that a new run would have is another one by then, for Airflow keeps max_tries."""
    waits = deferred(create(deferrable=True))
    value, _ = run(create(deferrable=True, retries=2), event=said("reached", of=only(api)), after=waits, max_tries=0)
    assert value["uid"] == uid(api)
    assert not api.deletions


@pytest.mark.parametrize("make", [create, one_step])
def test_what_ended_out_of_a_triggers_sight_ends_its_task(api: MemoryApi, make: Callable[..., Any]) -> None:
    deferred(make(deferrable=True))
    body = only(api)
    api.set_conditions(body["metadata"]["name"], Failed=("True", "NoCapacity", "no GPU"))
    with pytest.raises(SkyClusterError, match="no GPU"):
        run(make(deferrable=True), event=lost(of=body))
    assert api.deletions == [body["metadata"]["uid"]]


@pytest.mark.parametrize("kind", ["reached", "gone"])
def test_a_worker_sees_what_its_trigger_did_not(api: MemoryApi, kind: str) -> None:
    deferred(create(deferrable=True))
    body = only(api)
    if kind == "gone":
        api.objects.clear()
        with pytest.raises(SkyClusterError, match="not there any more"):
            run(create(deferrable=True), event=lost(of=body))
        return
    api.set_conditions(body["metadata"]["name"], Ready="True")
    assert run(create(deferrable=True), event=lost(of=body))[0]["uid"] == body["metadata"]["uid"]


@pytest.mark.parametrize("cause", ["the worker is blind too", "it was lost too often"])
@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize("retries", [1, 0])
def test_what_nobody_can_see_is_left_to_the_next_try_if_there_is_one(
    api: MemoryApi, make: Callable[..., Any], cause: str, retries: int
) -> None:
    deferred(make(deferrable=True, retries=retries))
    body = only(api)
    if cause == "the worker is blind too":
        api.faults[len(api.calls) + 1] = refused()
    with pytest.raises(SkyClusterError, match="nobody can tell how it fares"):
        run(make(deferrable=True, retries=retries), event=lost(of=body, times_lost=0 if api.faults else 3))
    assert bool(api.deletions) == (retries == 0)
    if retries:
        deferred(make(deferrable=True, retries=retries), try_number=2)
        assert [made["metadata"]["uid"] for made in api.live()] == [body["metadata"]["uid"]]


@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize("retries", [1, 0])
def test_what_a_worker_cannot_see_is_left_to_the_next_try_if_there_is_one(
    api: MemoryApi, make: Callable[..., Any], retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: kube-apiserver is away for ten minutes, comes back in the half minute of the deletion, and a job that runs well is deleted."""
    monkeypatch.setattr(following, "PATIENCE_SECONDS", -1)
    at_read(api, 2, lambda _: api.faults.update({len(api.calls): refused()}))
    with pytest.raises(ApiError):
        run(make(retries=retries))
    assert bool(api.deletions) == (retries == 0)
    if retries:
        becomes(api, Complete="True")
        run(make(retries=retries), try_number=2)
        assert len(api.creations) == 1


@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize("verb", ["list", "read", "annotate"])
def test_a_try_that_cannot_begin_for_an_api_that_is_away_leaves_what_runs_to_the_next(
    api: MemoryApi, make: Callable[..., Any], verb: str
) -> None:
    deferred(make(deferrable=True, retries=2))

    def away(call: Call) -> None:
        if call.verb == verb:
            api.on_call = lambda _: None
            api.faults[len(api.calls)] = refused()

    api.on_call = away
    with pytest.raises(ApiError):
        run(make(retries=2), try_number=2)
    assert not api.deletions


def test_a_kill_while_nobody_can_see_deletes_all_the_same(api: MemoryApi) -> None:
    deferred(create(deferrable=True, retries=1))
    operator = create(deferrable=True, retries=1)
    api.faults[len(api.calls) + 1] = refused()
    api.on_call = lambda call: operator.on_kill()
    with pytest.raises(SkyClusterError):
        run(operator, event=lost(of=only(api)))
    assert api.deletions


@pytest.mark.parametrize("make", [create, one_step])
def test_airflows_own_deferral_timeout_deletes(api: MemoryApi, make: Callable[..., Any]) -> None:
    """The trigger was cancelled without a word, and this process never saw the object."""
    deferred(make(deferrable=True))
    operator = make(deferrable=True)
    context, _ = context_of(operator)
    operator.render_template_fields(context)
    with pytest.raises(DeferralTimeoutError):
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert api.deletions == [uid(api)]


def test_a_try_that_was_overtaken_deletes_nothing(api: MemoryApi) -> None:
    deferred(create(deferrable=True))
    body = only(api)
    deferred(create(deferrable=True), try_number=2)
    with pytest.raises(SkyClusterError):
        run(create(deferrable=True), event=said("timeout", of=body), try_number=1)
    assert not api.deletions


# Killed.


def kill_at_read(api: MemoryApi, number: int, operator: Any, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """SIGTERM arrives at the nth look; return the calls that on_kill makes."""
    calls: list[Call] = []

    def kill(name: str) -> None:
        with unreachable(monkeypatch) as patch:
            patch.setattr(base, "SkyClusterHook", NO_AIRFLOW)
            begin = len(api.calls)
            operator.on_kill()
            calls.extend(api.calls[begin:])

    at_read(api, number, kill)
    return calls


@pytest.mark.parametrize("make", [create, one_step])
def test_on_kill_is_one_delete_of_this_very_object(api: MemoryApi, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make()
    calls = kill_at_read(api, 3, operator, monkeypatch)
    with pytest.raises(SkyClusterError):
        run(operator)
    deletes = [call for call in calls if call.verb == "delete"]
    assert len(deletes) == 1
    assert deletes[0].details["uid"] == uid(api)
    assert deletes[0].details["resource_version"]
    assert deletes[0].details["timeout"] == 3
    assert api.deletions == [uid(api)]


@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize("number", [2, 5])
def test_on_kill_that_cannot_look_deletes_what_the_worker_saw_last(
    api: MemoryApi, make: Callable[..., Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller has written to the object since it was made."""
    operator = make()
    seen: list[Call] = []

    def on_call(call: Call) -> None:
        if call.verb != "read" or (NAMESPACE, call.name) not in api.objects:
            return
        seen.append(call)
        if len(seen) == number:
            api.on_call = lambda _: None
            api.faults[len(api.calls) + 1] = refused()
            with unreachable(monkeypatch):
                operator.on_kill()
        elif len(seen) == 1:
            api.set_conditions(call.name, Ready=("False", "Queued", "waits"))

    api.on_call = on_call
    with pytest.raises(SkyClusterError):
        run(operator)
    assert api.deletions == [uid(api)]
    assert [call.verb for call in api.calls].count("delete") == 1


@pytest.mark.parametrize("make", [create, one_step])
def test_on_kill_keeps_if_told(api: MemoryApi, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make(on_kill_action="keep")
    calls = kill_at_read(api, 3, operator, monkeypatch)
    with pytest.raises(SkyClusterError, match="killed"):
        run(operator)
    assert not calls
    assert not api.deletions


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_kill_while_the_object_is_being_made_deletes_it_as_soon_as_it_is_known(api: MemoryApi, deferrable: bool) -> None:
    """Nothing is deferred for it either: the trigger of a task that is killed already would not be told again."""
    operator = create(deferrable=deferrable)
    make = api.create

    def killed_meanwhile(manifest: Any) -> Body:
        operator.on_kill()
        return make(manifest)

    api.create = killed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(SkyClusterError, match="killed"):
        run(operator)
    assert api.deletions == [uid(api)]


def test_on_kill_before_execute_does_nothing(api: MemoryApi) -> None:
    create().on_kill()
    assert not api.calls


@pytest.mark.parametrize("make", [create, one_step])
def test_a_task_that_goes_on_after_its_trigger_can_be_killed_too(
    api: MemoryApi, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hook is a new one, which would read the connection from Airflow if on_kill were the first to ask something."""
    deferred(make(deferrable=True))
    operator, calls = make(deferrable=True), list[Call]()
    monkeypatch.setattr(operator, "_expect_reached", lambda *_: operator.on_kill())
    api.on_call = calls.append
    run(operator, event=said("reached", of=only(api)))
    assert calls[0].verb == "annotate"
    assert next(call.details["timeout"] for call in calls if call.verb == "delete") == 3


@pytest.mark.parametrize("make", [create, one_step])
@pytest.mark.parametrize(("status", "verb"), [("reached", "annotate"), ("error", "read")])
def test_a_kill_deletes_at_once_whatever_the_worker_asks_after_its_trigger(
    api: MemoryApi, make: Callable[..., Any], status: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: each question is asked again for half a minute, and SIGKILL comes before anything is deleted."""
    deferred(make(deferrable=True))
    operator, first = make(deferrable=True), list[str]()

    def killed(call: Call) -> None:
        api.on_call = lambda _: None
        first.append(call.verb)
        with unreachable(monkeypatch):
            operator.on_kill()
        assert api.deletions, "on_kill has deleted nothing"

    api.on_call = killed
    with pytest.raises(SkyClusterError):
        run(operator, event=said(status, of=only(api), times_lost=0))
    assert first == [verb]


@pytest.mark.parametrize("make", [create, one_step])
def test_who_goes_on_after_the_trigger_says_so_on_the_object(api: MemoryApi, make: Callable[..., Any]) -> None:
    """Bug: a triggerer that wakes up late can't tell a task that was marked success from one that succeeded, and deletes its cluster."""
    deferred(make(deferrable=True))
    assert RESUMED not in only(api)["metadata"]["annotations"]
    found: list[Any] = []
    operator = make(deferrable=True)
    api.on_call = lambda call: found.append(call.details["annotations"]) if call.verb == "annotate" else None
    run(operator, event=said("reached", of=only(api)))
    assert found[0] == {RESUMED: "1"}


def test_an_object_that_can_not_be_written_does_not_hold_up_its_task(api: MemoryApi) -> None:
    deferred(create(deferrable=True))
    api.faults[len(api.calls) + 1] = forbidden()
    value, _ = run(create(deferrable=True), event=said("reached", of=only(api)))
    assert value["uid"] == uid(api)


# One step.


def test_one_step_runs_prints_and_cleans_up(api: MemoryApi, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    ends(api, b"epoch 1\nepoch 2", Complete="True")
    value, pushed = run(one_step())
    assert value is None
    assert pushed["skycluster"]["uid"] == uid(api)
    assert api.deletions == [uid(api)]
    assert only(api)["metadata"]["annotations"][COLLECTED] == "true"
    # A task's log goes to stdout since Airflow 3, and to logging before.
    printed = capsys.readouterr().out + caplog.text
    assert "epoch 1" in printed
    assert "epoch 2" in printed


def test_one_step_without_logs_reads_none(api: MemoryApi) -> None:
    found = deferred(one_step(logs=False, deferrable=True))
    assert found.trigger.serialize()[1]["logs"] is False
    api.set_conditions(only(api)["metadata"]["name"], Complete="True")
    run(one_step(logs=False, deferrable=True), event=said("reached", of=only(api)))
    assert "read_log" not in {call.verb for call in api.calls}


@pytest.mark.parametrize(
    ("action", "conditions", "is_deleted"),
    [
        ("delete", {"Complete": "True"}, True),
        ("delete", {"Failed": "True"}, True),
        ("delete_on_success", {"Complete": "True"}, True),
        ("delete_on_success", {"Failed": "True"}, False),
        ("keep", {"Complete": "True"}, False),
        ("keep", {"Failed": "True"}, False),
    ],
)
def test_on_finish_action(api: MemoryApi, action: str, conditions: dict[str, str], is_deleted: bool) -> None:
    ends(api, **conditions)  # type: ignore[arg-type]
    operator = one_step(on_finish_action=action)
    if "Failed" in conditions:
        with pytest.raises(SkyClusterError):
            run(operator)
    else:
        run(operator)
    assert bool(api.deletions) is is_deleted


def test_a_result_comes_back(api: MemoryApi) -> None:
    ends(api, result=b'{"loss": 0.5}', Complete="True")
    value, _ = run(one_step(result_path="/tmp/result.json"))
    assert value == {"loss": 0.5}
    run_text = only(api)["spec"]["task"]["run"]
    assert "python fit.py" in run_text
    assert "/tmp/result.json" in run_text


def test_a_job_that_leaves_nothing_returns_nothing(api: MemoryApi) -> None:
    ends(api, Complete="True")
    value, _ = run(one_step(result_path="/tmp/result.json"))
    assert value is None


def test_a_lost_result_is_an_error_and_the_next_try_runs_anew(api: MemoryApi) -> None:
    def happens(name: str) -> None:
        api.set_job(name)
        api.set_conditions(name, Complete="True")
        api.results[uid(api)] = RemoteResult("lost", b"", "2 of 3 frames were had")

    at_read(api, 3, happens)
    with pytest.raises(ResultLostError, match="2 of 3 frames"):
        run(one_step(result_path="/tmp/result.json"))
    assert api.deletions == [uid(api)]


@pytest.mark.parametrize("body", [RemoteResult("lost", b"", "a disk failed"), RemoteResult("present", b"{", "")], ids=["lost", "no JSON"])
@pytest.mark.parametrize("policy", ["delete", "delete_on_success", "keep"])
def test_after_a_lost_result_the_next_try_runs_anew_whatever_is_kept(api: MemoryApi, policy: str, body: RemoteResult) -> None:
    """Bug: where the object was kept, each try found it complete, asked for its result, and lost it again."""
    given = {"result_path": "/tmp/result.json", "on_finish_action": policy, "retries": 2}
    ends(api, Complete="True")
    complete = api.on_call

    def on_call(call: Call) -> None:
        complete(call)
        if call.verb == "result":
            api.results[uid(api)] = body

    api.on_call = on_call
    with pytest.raises(ResultLostError):
        run(one_step(**given))
    assert bool(api.deletions) == (policy == "delete")

    api.on_call = lambda call: api.finish_deletions() if call.verb == "wait_gone" else None
    with pytest.raises(TaskDeferred):
        run(one_step(**given, deferrable=True), try_number=2)
    assert len(api.creations) == 2
    assert api.deletions == [api.creations[0]["metadata"]["uid"]]
    api.finish_deletions()
    api.set_conditions(only(api)["metadata"]["name"], Complete="True")
    api.results[uid(api)] = RemoteResult("present", b"41", "")
    value, _ = run(one_step(**given, deferrable=True), event=said("reached", of=only(api)), try_number=2)
    assert value == 41


def test_a_lost_result_is_told_even_if_that_can_not_be_written_down(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try finds the same, and writes it down then."""
    ends(api, Complete="True")
    monkeypatch.setattr(api, "result", lambda *_, **__: RemoteResult("lost", b"", "a disk failed"))
    with monkeypatch.context() as patch:
        patch.setattr(api, "annotate", lambda *_, **__: raises(ApiError("kube-apiserver is away")))
        with pytest.raises(ResultLostError):
            run(one_step(result_path="/r.json", on_finish_action="keep"))
    with pytest.raises(ResultLostError):
        run(one_step(result_path="/r.json", on_finish_action="keep"), try_number=2)
    assert only(api)["metadata"]["annotations"][COLLECTED] == "true"
    assert len(api.creations) == 1


@pytest.mark.parametrize("policy", ["delete_on_success", "keep"])
def test_a_result_that_can_not_be_had_now_is_never_taken_for_lost(api: MemoryApi, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(api, Complete="True")
    with monkeypatch.context() as patch:
        patch.setattr(api, "result", lambda *_, **__: raises(ApiError("the log process is away", status=503)))
        with pytest.raises(ApiError):
            run(one_step(result_path="/r.json", on_finish_action=policy))
    assert COLLECTED not in only(api)["metadata"]["annotations"]


def raises(error: Exception) -> Any:
    raise error


def test_a_result_that_cannot_be_had_now_is_kept_for_the_next_try(api: MemoryApi) -> None:
    ends(api, result=b"41", Complete="True")
    found = api.result

    def away(*_: Any, **__: Any) -> RemoteResult:
        raise ApiError("the log process is away", status=503)

    api.result = away  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="away"):
        run(one_step(result_path="/tmp/result.json"))
    assert not api.deletions
    api.result = found  # type: ignore[method-assign]
    value, _ = run(one_step(result_path="/tmp/result.json"), try_number=2)
    assert value == 41
    assert len(api.creations) == 1


def test_what_is_complete_outlives_a_worker_that_cannot_look_at_it(api: MemoryApi) -> None:
    """Only the first calls fail, so that a deletion would not."""
    deferred(one_step(deferrable=True))
    api.faults |= {len(api.calls) + number: refused() for number in (1, 2)}
    with pytest.raises(ApiError):
        run(one_step(deferrable=True), event=said("reached", of=only(api)))
    assert not api.deletions


def test_a_failure_is_told_even_if_it_cannot_be_told_whose_object_it_is(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(api, Failed=("True", "NoCapacity", "no GPU"))
    operator = create()
    identity, calls = operator._identity, list[int]()

    def asks_airflow_which_is_away(context: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("Airflow is away")
        return identity(context)

    monkeypatch.setattr(operator, "_identity", asks_airflow_which_is_away)
    with pytest.raises(SkyClusterError, match="no GPU"):
        run(operator)
    assert len(calls) > 2


def test_one_step_needs_a_job(api: MemoryApi) -> None:
    with pytest.raises(AirflowFailException, match="has no run"):
        run(one_step(task={"resources": {"cpus": 1}}))
    assert not api.creations


def test_the_rest_of_the_log_is_printed_after_the_trigger(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    found = deferred(one_step(deferrable=True))
    assert found.trigger.serialize()[1]["logs"] is True
    name = only(api)["metadata"]["name"]
    api.set_job(name)
    api.logs[uid(api)], api.log_states[uid(api)] = b"printed\nnot yet\n", "complete"
    operator = one_step(deferrable=True)
    lines: list[str] = []
    monkeypatch.setattr(type(operator.log), "info", lambda _, event, *args, **__: lines.append(event % args), raising=False)
    run(operator, event=said("reached", of=only(api), log_offset_bytes=8, log_attempt=1))
    assert "not yet" in lines
    assert "printed" not in lines


@pytest.mark.parametrize("verb", ["annotate", "delete"])
def test_a_failure_to_clean_up_spoils_no_result(api: MemoryApi, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(api, result=b"41", Complete="True")

    def fails(*_: Any, **__: Any) -> bool:
        raise ApiError("kube-apiserver is away")

    monkeypatch.setattr(api, verb, fails)
    value, _ = run(one_step(result_path="/tmp/result.json"))
    assert value == 41


@pytest.mark.parametrize("verb", ["read", "annotate", "delete"])
@pytest.mark.parametrize("after", [True, False])
def test_a_result_that_was_taken_outlives_a_clean_up_that_is_out_of_time(api: MemoryApi, verb: str, after: bool) -> None:
    """Bug: the task failed with its result marked as taken, so that the next try ran a finished job again."""
    ends(api, result=b"41", Complete="True")
    happens, seen = api.on_call, list[str]()

    def on_call(call: Call) -> None:
        seen.append(call.verb)
        if "result" in seen and call.verb == verb:
            api.faults.setdefault(len(api.calls), Fault(AirflowTaskTimeout(), after=after))
        happens(call)

    api.on_call = on_call
    value, _ = run(one_step(result_path="/tmp/result.json"))
    assert value == 41


def test_a_skip_outlives_a_clean_up_that_is_out_of_time(api: MemoryApi) -> None:
    ends(api, result=told(99), Failed=("True", "JobFailed", "exit 99"))
    happens = api.on_call

    def on_call(call: Call) -> None:
        if call.verb == "delete":
            api.faults[len(api.calls)] = Fault(AirflowTaskTimeout(), after=False)
        happens(call)

    api.on_call = on_call
    with pytest.raises(AirflowSkipException):
        run(one_step(result_path="/tmp/result.json", skip_on_exit_code=99))


@pytest.mark.parametrize("verb", ["result", "annotate", "delete"])
def test_a_try_that_was_overtaken_cleans_nothing_up(api: MemoryApi, verb: str) -> None:
    """It was cut off after the job's end, and the next try is about to take the result."""
    ends(api, result=b"41", Complete="True")
    happens = api.on_call

    def on_call(call: Call) -> None:
        if call.verb == verb:
            api.on_call = lambda _: None
            api.annotate(NAMESPACE, call.name, {OWNER_TRY: "2"})
        happens(call)

    api.on_call = on_call
    value, _ = run(one_step(result_path="/tmp/result.json"))
    assert value == 41
    assert not api.deletions
    if verb != "delete":
        assert COLLECTED not in only(api)["metadata"]["annotations"]


def told(code: int) -> bytes:
    """What comes back of a script that tells its exit code (tests/provider/test_remote_shell.py reads a true one)."""
    return json.dumps(error_value(ExitCodeError(str(code)), "")).encode()


@pytest.mark.parametrize("skip_on_exit_code", [99, [98, 99], {99}])
@pytest.mark.parametrize("policy", ["delete", "delete_on_success", "keep"])
def test_a_job_may_skip_its_task_by_its_exit_code(api: MemoryApi, skip_on_exit_code: Any, policy: str) -> None:
    ends(api, b"nothing to do\n", result=told(99), Failed=("True", "JobFailed", "exit"))
    with pytest.raises(AirflowSkipException, match="exited with 99"):
        run(one_step(skip_on_exit_code=skip_on_exit_code, result_path="/r.json", on_finish_action=policy))
    assert len(api.deletions) == (policy != "keep")


@pytest.mark.parametrize("result", [told(98), None], ids=["another code", "none told"])
def test_a_job_with_another_exit_code_has_failed(api: MemoryApi, result: bytes | None) -> None:
    ends(api, b"boom\n", result=result, Failed=("True", "JobFailed", "exit 98"))
    with pytest.raises(SkyClusterError, match=r"exit 98(.|\n)*boom"):
        run(one_step(skip_on_exit_code=99, result_path="/r.json"))


def test_an_exit_code_can_not_be_told_without_the_way_of_a_result(api: MemoryApi) -> None:
    with pytest.raises(ValueError, match="wants result_path"):
        one_step(skip_on_exit_code=99)
    with pytest.raises(ValueError, match="0 is a success"):
        one_step(skip_on_exit_code=0, result_path="/r.json")
    elsewhere = {"spec": {"taskRef": {"configMapKeyRef": {"name": "t", "key": "k"}}}}
    manifest = {"apiVersion": "skyoperator.dev/v1alpha1", "kind": "SkyCluster", **elsewhere}
    operator = one_step(skip_on_exit_code=99, result_path="/r.json", task=None, manifest=manifest)
    with pytest.raises(AirflowFailException, match="is in a ConfigMap"):
        run(operator)
    assert not api.objects


# Logs and delete.


def made(api: MemoryApi, **context: Any) -> dict[str, str]:
    """What a create task before has made."""
    becomes(api, Ready="True")
    value, _ = run(create(), **context)
    api.on_call = lambda _: None
    return dict(value)


def logs(**given: Any) -> Any:
    return new(SkyClusterLogsOperator, {"task_id": "logs", "deferrable": False, **given})


def delete(**given: Any) -> Any:
    return new(SkyClusterDeleteOperator, {"task_id": "down", **given})


ELSEWHERE = {
    "apiVersion": "skyoperator.dev/v1alpha1",
    "kind": "SkyCluster",
    "metadata": {"namespace": "other"},
    "spec": {"task": TASK},
}


def made_elsewhere(api: MemoryApi, monkeypatch: pytest.MonkeyPatch, where: str, xcoms: XComs, **context: Any) -> Body:
    """What a create task made where this task's connection does not lead: in a manifest's namespace, or as another deployment."""
    given: dict[str, Any] = {"manifest": ELSEWHERE} if where == "namespace" else {}
    with monkeypatch.context() as patch:
        if where == "deployment":
            patch.setattr(MemoryApi, "deployment", "dev")
        waits = deferred(create(deferrable=True, **given), xcoms=xcoms, **context)
    arguments = waits.trigger.serialize()[1]
    return api.objects[arguments["namespace"], arguments["name"]]


@pytest.mark.parametrize("by", ["xcom", "text", "name", "task"])
def test_logs_finds_its_object(api: MemoryApi, by: str) -> None:
    value = made(api)
    given: dict[str, dict[str, Any]] = {
        "xcom": {"cluster": value},
        "text": {"cluster": str(value)},
        "name": {"cluster": value["name"]},
        "task": {"cluster_task_id": "fit"},
    }
    ends(api, b"line\n", number=1, Complete="True")
    found, _ = run(logs(**given[by]))
    assert found == value
    assert not api.deletions


def test_logs_do_not_take_one_map_index_for_all(api: MemoryApi) -> None:
    values = [made(api, map_index=index) for index in range(2)]
    for value, condition in zip(values, ("Failed", "Complete"), strict=True):
        api.set_conditions(value["name"], **{condition: "True"})
    with pytest.raises(AirflowFailException, match="map indexes 0, 1"):
        run(logs(cluster_task_id="fit"))
    assert run(logs(cluster_task_id="fit"), map_index=1)[0] == values[1]
    with pytest.raises(SkyClusterError, match="FailedReason"):
        run(logs(cluster_task_id="fit"), map_index=0)


def test_logs_fails_with_the_job_and_keeps_the_object(api: MemoryApi) -> None:
    value = made(api)
    ends(api, b"boom\n", number=2, Failed=("True", "JobFailed", "exit 3"))
    with pytest.raises(SkyClusterError, match=r"exit 3(.|\n)*boom"):
        run(logs(cluster=value))
    assert not api.deletions


@pytest.mark.parametrize("ending", ["Complete", "Failed"])
def test_the_whole_log_is_copied_however_the_job_ends(api: MemoryApi, tmp_path: Path, ending: str) -> None:
    value = made(api)
    text = b"x" * 300_000 + b"\nend\n"
    ends(api, text, number=2, **{ending: "True"})  # type: ignore[arg-type]
    operator = logs(cluster=value, log_path=f"file://{tmp_path}/deep/{{{{ run_id }}}}.log")
    if ending == "Failed":
        with pytest.raises(SkyClusterError):
            run(operator)
    else:
        run(operator)
    assert (tmp_path / "deep" / "manual__1.log").read_bytes() == text


def test_a_copy_without_the_logs_end_is_said_to_be_none(api: MemoryApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = made(api)
    api.set_job(value["name"])
    api.set_conditions(value["name"], Complete="True")
    api.logs[value["uid"]] = b"one\n"
    run(logs(cluster=value, log_path=str(tmp_path / "train.log")))
    assert (tmp_path / "train.log").read_text().startswith("one\n[This log is not whole: its end has not come")


def test_logs_of_what_is_gone_fail(api: MemoryApi) -> None:
    with pytest.raises(SkyClusterError, match="never made"):
        run(logs(cluster="no-such"))
    with pytest.raises(SkyClusterError, match="task fit made"):
        run(logs(cluster_task_id="fit"))


def test_logs_defer_and_never_delete(api: MemoryApi) -> None:
    value = made(api)
    found = deferred(logs(cluster=value, deferrable=True))
    arguments = found.trigger.serialize()[1]
    assert (arguments["logs"], arguments["on_kill_action"], arguments["wait_for"]) == (True, "keep", "complete")
    with pytest.raises(SkyClusterError):
        run(logs(cluster=value, deferrable=True), event=said("failed", of=only(api)))
    assert not api.deletions


def test_logs_of_another_object_are_not_taken_for_these(api: MemoryApi) -> None:
    """Bug: green on red, where Airflow gave the number of another task's trigger to this one's."""
    value = made(api)
    waits = deferred(logs(cluster=value, deferrable=True))
    another = {"metadata": {**only(api)["metadata"], "name": "another", "uid": "another"}}
    with pytest.raises(TaskDeferred) as caught:
        run(logs(cluster=value, deferrable=True), event=said("reached", of=another), after=waits)
    assert caught.value.trigger.serialize()[1]["uid"] == value["uid"]


def test_logs_that_a_trigger_lost_sight_of_go_on_where_they_were(api: MemoryApi) -> None:
    value = made(api)
    with pytest.raises(TaskDeferred) as caught:
        run(logs(cluster=value, deferrable=True), event=lost(of=only(api), log_offset_bytes=77, log_attempt=2))
    again = caught.value.trigger.serialize()[1]
    assert (again["log_offset_bytes"], again["log_attempt"], again["times_lost"]) == (77, 2, 1)
    api.set_conditions(value["name"], Complete="True")
    assert run(logs(cluster=value, deferrable=True), event=lost(of=only(api)))[0] == value
    assert not api.deletions


@pytest.mark.parametrize("given", [{"cluster_task_id": "fit"}, {"cluster": "{{ launched }}"}, {"cluster": "{{ launched.name }}"}])
def test_delete_finds_its_target_and_is_idempotent(api: MemoryApi, given: dict[str, str]) -> None:
    value = made(api)
    context, _ = context_of(operator := delete(**given), launched=value)
    for _ in range(2):
        operator = delete(**given)
        operator.render_template_fields(context)
        operator.execute(context)
        api.finish_deletions()
    assert api.deletions == [value["uid"]]


@pytest.mark.parametrize("where", ["namespace", "deployment"])
def test_delete_finds_what_was_made_where_its_own_connection_does_not_lead(
    api: MemoryApi, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Bug: green, and the cluster ran on."""
    xcoms: XComs = {}
    body = made_elsewhere(api, monkeypatch, where, xcoms)
    run(delete(cluster_task_id="fit"), xcoms=xcoms)
    assert api.deletions == [body["metadata"]["uid"]]


@pytest.mark.parametrize("where", ["namespace", "deployment"])
def test_logs_find_what_was_made_where_their_own_connection_does_not_lead(
    api: MemoryApi, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    xcoms: XComs = {}
    metadata = made_elsewhere(api, monkeypatch, where, xcoms)["metadata"]
    api.set_conditions(metadata["name"], metadata["namespace"], Complete="True")
    assert run(logs(cluster_task_id="fit"), xcoms=xcoms)[0]["uid"] == metadata["uid"]


@pytest.mark.parametrize("where", ["namespace", "deployment"])
def test_delete_finds_what_a_worker_that_died_made_elsewhere(api: MemoryApi, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """It said where it would be before it made it, and never came to say which it was."""
    xcoms: XComs = {}
    api.faults = {3: died(after=True), **{number: died(after=False) for number in range(4, 10)}}
    with pytest.raises(Died):
        made_elsewhere(api, monkeypatch, where, xcoms)
    api.faults.clear()
    assert len(api.live()) == 1
    run(delete(cluster_task_id="fit"), xcoms=xcoms)
    assert api.deletions == [uid(api)]


def test_delete_misses_nothing_that_the_task_made(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was cleared, and its DAG edited meanwhile, so that its objects are in two namespaces."""
    xcoms: XComs = {}
    deferred(create(deferrable=True), xcoms=xcoms)
    made_elsewhere(api, monkeypatch, "namespace", xcoms, try_number=2, max_tries=1)
    run(delete(cluster_task_id="fit"), xcoms=xcoms)
    assert sorted(api.deletions) == sorted(body["metadata"]["uid"] for body in api.objects.values())
    assert len(api.deletions) == 2


def test_delete_takes_what_an_earlier_try_told_for_a_place_to_look(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object of that try is gone; another stands there that the task made, and a third that it did not."""
    xcoms: XComs = {}
    first = made_elsewhere(api, monkeypatch, "namespace", xcoms)
    api.objects.clear()
    second = made_elsewhere(api, monkeypatch, "namespace", {}, try_number=2)
    made_elsewhere(api, monkeypatch, "namespace", {}, map_index=3)
    made_by_another_task = create(task_id="other", deferrable=True, manifest=ELSEWHERE)
    deferred(made_by_another_task)
    assert first["metadata"]["name"] == second["metadata"]["name"]
    run(delete(cluster_task_id="fit"), map_index=-1, xcoms=xcoms)
    kept = {body["metadata"]["annotations"]["airflow.skyoperator.dev/task-id"] for body in api.live()}
    assert second["metadata"]["uid"] in api.deletions
    assert kept == {"other"}


@pytest.mark.parametrize("xcom", ["a text", {"name": 3}, ["a text", None]])
def test_what_another_xcom_of_that_key_holds_is_passed_over(api: MemoryApi, xcom: Any) -> None:
    value = made(api)
    run(delete(cluster_task_id="fit"), xcoms={("fit", -1, "skycluster"): xcom})
    assert api.deletions == [value["uid"]]


def test_what_was_told_is_taken_by_its_uid_though_its_labels_are_gone(api: MemoryApi) -> None:
    xcoms: XComs = {}
    deferred(create(deferrable=True), xcoms=xcoms)
    only(api)["metadata"]["labels"] = {}
    run(delete(cluster_task_id="fit"), xcoms=xcoms)
    assert api.deletions == [uid(api)]


@pytest.mark.parametrize("where", ["namespace", "deployment"])
def test_mapped_tasks_tell_each_of_their_own(api: MemoryApi, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    xcoms: XComs = {}
    bodies = [made_elsewhere(api, monkeypatch, where, xcoms, map_index=index) for index in range(3)]
    uids = [body["metadata"]["uid"] for body in bodies]
    with pytest.raises(AirflowFailException, match="map indexes 0, 1, 2"):
        run(logs(cluster_task_id="fit"), xcoms=xcoms)
    run(delete(cluster_task_id="fit"), map_index=1, xcoms=xcoms)
    assert api.deletions == [uids[1]]
    api.finish_deletions()
    run(delete(cluster_task_id="fit"), map_index=1, xcoms=xcoms)
    assert api.deletions == [uids[1]]
    run(delete(cluster_task_id="fit"), xcoms=xcoms)
    assert sorted(api.deletions) == sorted(uids)


def test_a_mapped_task_finds_what_one_that_is_not_mapped_made(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    xcoms: XComs = {}
    body = made_elsewhere(api, monkeypatch, "namespace", xcoms)
    run(delete(cluster_task_id="fit"), map_index=1, xcoms=xcoms)
    assert api.deletions == [body["metadata"]["uid"]]


def test_delete_finds_what_a_create_task_that_failed_could_not_return(api: MemoryApi) -> None:
    at_read(api, 1, lambda name: api.faults.update({len(api.calls): forbidden()}))
    api.delete, delete_of_api = lambda *_, **__: False, api.delete  # type: ignore[method-assign]
    with pytest.raises(ApiError):
        run(create())
    api.delete = delete_of_api  # type: ignore[method-assign]
    run(delete(cluster=None, cluster_task_id="fit"))
    assert api.deletions == [uid(api)]


def test_delete_leaves_a_successor_of_the_same_name(api: MemoryApi) -> None:
    value = made(api)
    run(delete(cluster={**value, "uid": "another"}))
    assert not api.deletions


def test_delete_takes_only_its_own_map_index_and_all_when_it_is_unmapped(api: MemoryApi) -> None:
    values = [made(api, map_index=index) for index in range(3)]
    run(delete(cluster_task_id="fit"), map_index=1)
    assert api.deletions == [values[1]["uid"]]
    api.finish_deletions()
    run(delete(cluster_task_id="fit"), map_index=1)
    assert api.deletions == [values[1]["uid"]], "another index's is no replacement for one's own that is gone"
    run(delete(cluster_task_id="fit"))
    assert sorted(api.deletions) == sorted(value["uid"] for value in values)


def test_delete_waits_until_it_is_really_gone(api: MemoryApi) -> None:
    value = made(api)
    waits: list[Call] = []

    def on_call(call: Call) -> None:
        if call.verb == "wait_gone":
            waits.append(call)
            if len(waits) == 3:
                api.finish_deletions()

    api.on_call = on_call
    run(delete(cluster=value, wait_until_gone=True))
    assert len(waits) == 3
    assert not api.objects


def test_which_object_has_to_be_said() -> None:
    for operator in (SkyClusterLogsOperator, SkyClusterDeleteOperator):
        with pytest.raises(ValueError, match="cluster_task_id="):
            operator(task_id="x")


@pytest.mark.parametrize("operator", [logs, delete])
def test_a_reference_that_means_nothing_is_the_authors_error(api: MemoryApi, operator: Callable[..., Any]) -> None:
    with pytest.raises(AirflowFailException, match="names no SkyCluster"):
        run(operator(cluster=["a"]))
