"""The sensor: it ends as soon as there is nothing to wait for any more, and touches nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from skyoperator_provider.errors import ApiError, SkyClusterError
from skyoperator_provider.following import Patience
from skyoperator_provider.identity import Identity
from skyoperator_provider.manifest import build
from skyoperator_provider.sensors import skycluster as sensor_module
from skyoperator_provider.sensors.skycluster import SkyClusterSensor

from tests.provider.airflows import HAS_SDK, DeferralTimeoutError, RescheduleException
from tests.provider.contexts import context_of
from tests.provider.memory import NAMESPACE, Call, MemoryApi, forbidden, refused

UPSTREAM = Identity("prod", "train", "manual__1", "fit")


@pytest.fixture
def made(api: MemoryApi) -> dict[str, str]:
    """An object of a create task."""
    metadata = api.create(build(UPSTREAM, NAMESPACE, 1, task={"run": "true"}))["metadata"]
    return {key: metadata[key] for key in ("name", "namespace", "uid")}


def sensor(**given: Any) -> SkyClusterSensor:
    return SkyClusterSensor(**{"task_id": "wait", "dag": DAG("train", schedule=None), "poke_interval": 0, "deferrable": False, **given})


def run(operator: SkyClusterSensor, **context: Any) -> None:
    given, _ = context_of(operator, **context)
    operator.render_template_fields(given)
    operator.execute(given)


def at_read(api: MemoryApi, number: int, happens: Callable[[], None]) -> None:
    reads: list[Call] = []

    def on_call(call: Call) -> None:
        if call.verb == "read":
            reads.append(call)
            if len(reads) == number:
                happens()

    api.on_call = on_call


def only_read(api: MemoryApi) -> bool:
    return {call.verb for call in api.calls} <= {"read", "list", "create"}


@pytest.mark.parametrize(("wait_for", "condition"), [("accepted", "Accepted"), ("ready", "Ready"), ("complete", "Complete")])
def test_it_waits_for_what_it_was_told(api: MemoryApi, made: dict[str, str], wait_for: Any, condition: str) -> None:
    at_read(api, 4, lambda: api.set_conditions(made["name"], **{condition: "True"}))
    run(sensor(cluster=made, wait_for=wait_for))
    assert [call.verb for call in api.calls].count("read") == 4
    assert only_read(api)


@pytest.mark.parametrize("by", ["name", "xcom", "task"])
def test_it_finds_its_object(api: MemoryApi, made: dict[str, str], by: str) -> None:
    api.set_conditions(made["name"], Complete="True")
    given: dict[str, dict[str, Any]] = {
        "name": {"cluster": made["name"]},
        "xcom": {"cluster": made},
        "task": {"cluster_task_id": "fit"},
    }
    run(sensor(**given[by]))


def test_it_finds_what_was_made_where_its_own_connection_does_not_lead(api: MemoryApi) -> None:
    upstream = replace(UPSTREAM, deployment="dev")
    api.create(build(upstream, "other", 1, task={"run": "true"}))
    api.set_conditions(upstream.name, "other", Complete="True")
    told = {"name": upstream.name, "namespace": "other", "deployment": "dev"}
    run(sensor(cluster_task_id="fit"), xcoms={("fit", -1, "skycluster"): told})


@pytest.mark.parametrize(
    ("conditions", "error", "reason"),
    [
        ({"Failed": ("True", "JobFailed", "exit 3")}, SkyClusterError, "JobFailed"),
        ({"Accepted": ("False", "InvalidTask", "num_node?")}, AirflowFailException, "InvalidTask"),
        ({"Failed": ("True", "PolicyDenied", "violates PodSecurity")}, AirflowFailException, "PolicyDenied"),
        ({"Accepted": ("False", "SecretNotFound", "no hf")}, SkyClusterError, "SecretNotFound"),
    ],
)
def test_a_bad_end_fails_at_once(
    api: MemoryApi, made: dict[str, str], conditions: dict[str, Any], error: type[Exception], reason: str
) -> None:
    at_read(api, 2, lambda: api.set_conditions(made["name"], **conditions))
    with pytest.raises(error, match=reason):
        run(sensor(cluster=made))
    assert only_read(api)


def test_a_deletion_fails_at_once_also_by_name(api: MemoryApi, made: dict[str, str]) -> None:
    at_read(api, 3, api.objects.clear)
    with pytest.raises(SkyClusterError, match="not there any more"):
        run(sensor(cluster=made["name"], missing_grace_seconds=3600))


def test_another_of_the_same_name_is_not_waited_for(api: MemoryApi, made: dict[str, str]) -> None:
    """It was deleted and made anew between two pokes: what this sensor was to wait for is gone."""

    def replaced() -> None:
        api.objects.clear()
        api.create(build(UPSTREAM, NAMESPACE, 2, task={"run": "true"}))

    at_read(api, 3, replaced)
    with pytest.raises(SkyClusterError, match="not there any more"):
        run(sensor(cluster=made["name"], missing_grace_seconds=3600))


def test_what_comes_within_the_grace_is_waited_for(api: MemoryApi) -> None:
    def comes() -> None:
        api.create(build(UPSTREAM, NAMESPACE, 1, task={"run": "true"}))
        api.set_conditions(UPSTREAM.name, Complete="True")

    at_read(api, 3, comes)
    run(sensor(cluster=UPSTREAM.name, missing_grace_seconds=3600))


def test_what_never_comes_fails_after_the_grace(api: MemoryApi) -> None:
    with pytest.raises(SkyClusterError, match="was not there within 0 s") as caught:
        run(sensor(cluster="no-such", missing_grace_seconds=0))
    assert caught.value.reason == "NotFound"


def test_an_object_with_a_uid_that_is_not_there_is_gone(api: MemoryApi, made: dict[str, str]) -> None:
    api.objects.clear()
    with pytest.raises(SkyClusterError, match="not there any more"):
        run(sensor(cluster=made, missing_grace_seconds=3600))


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_does_not_take_one_map_index_for_all(api: MemoryApi, deferrable: bool) -> None:
    """The newest is complete; that another one failed must not be passed over."""
    for index, condition in ((0, "Failed"), (1, "Complete")):
        identity = replace(UPSTREAM, map_index=index)
        api.create(build(identity, NAMESPACE, 1, task={"run": "true"}))
        api.set_conditions(identity.name, **{condition: "True"})
    with pytest.raises(AirflowFailException, match=r"map indexes 0, 1; .*expand"):
        run(sensor(cluster_task_id="fit", deferrable=deferrable))
    run(sensor(cluster_task_id="fit"), map_index=1)
    with pytest.raises(SkyClusterError, match="FailedReason"):
        run(sensor(cluster_task_id="fit"), map_index=0)


def test_several_series_of_one_task_are_its_newest(api: MemoryApi, made: dict[str, str]) -> None:
    api.set_conditions(made["name"], Failed="True")
    newest = replace(UPSTREAM, series=1)
    api.create(build(newest, NAMESPACE, 2, task={"run": "true"}))
    api.set_conditions(newest.name, Complete="True")
    run(sensor(cluster_task_id="fit"))


def test_a_task_that_left_nothing_fails_at_once(api: MemoryApi) -> None:
    with pytest.raises(SkyClusterError, match="Task fit has left no SkyCluster"):
        run(sensor(cluster_task_id="fit", missing_grace_seconds=3600))


def test_rescheduled_pokes_share_one_grace(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each poke is a process of its own, so only Airflow knows when the first one of this try was."""
    first = datetime.now(UTC) - timedelta(seconds=100)
    if not HAS_SDK:
        monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda *, try_number, **_: first if try_number <= 2 else None)
    for grace_seconds, expected in ((600, RescheduleException), (60, SkyClusterError)):
        operator = sensor(cluster="no-such", mode="reschedule", missing_grace_seconds=grace_seconds)
        given, _ = context_of(operator, try_number=2)
        if HAS_SDK:
            given["ti"].get_first_reschedule_date = lambda _: first
        with pytest.raises(expected):
            operator.execute(given)


class Clock:
    """A time that the test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(sensor_module, "Patience", lambda: Patience(clock=lambda: self.seconds))


def test_an_api_that_is_away_for_some_minutes_is_borne(api: MemoryApi, made: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a sensor of hours fails because kube-apiserver was replaced."""
    clock = Clock(monkeypatch)
    operator = sensor(cluster=made)
    context, _ = context_of(operator)
    for _ in range(3):
        for _ in range(2):
            api.faults[len(api.calls) + 1] = refused()
            assert not operator.poke(context)
            clock.seconds += 500
        assert not operator.poke(context), "it was there, so the next outage is another one"
    api.faults[len(api.calls) + 1] = refused()
    assert not operator.poke(context)
    clock.seconds += 601
    api.faults[len(api.calls) + 1] = refused()
    with pytest.raises(ApiError):
        operator.poke(context)


def test_the_task_that_made_it_may_be_looked_for_in_vain_too(api: MemoryApi, made: dict[str, str]) -> None:
    operator = sensor(cluster_task_id="fit")
    context, _ = context_of(operator)
    api.faults[len(api.calls) + 1] = refused()
    assert not operator.poke(context)


def test_a_right_that_is_missing_is_not_borne(api: MemoryApi, made: dict[str, str]) -> None:
    operator = sensor(cluster=made)
    context, _ = context_of(operator)
    api.faults[len(api.calls) + 1] = forbidden()
    with pytest.raises(ApiError):
        operator.poke(context)


def test_soft_fail_skips(api: MemoryApi, made: dict[str, str]) -> None:
    api.set_conditions(made["name"], Accepted=("False", "InvalidTask", "no"))
    with pytest.raises(AirflowSkipException):
        run(sensor(cluster=made, soft_fail=True))


# Deferred.


def test_it_defers_with_all_that_the_trigger_needs(api: MemoryApi, made: dict[str, str]) -> None:
    before = time.time()
    with pytest.raises(TaskDeferred) as caught:
        run(sensor(cluster=made["name"], deferrable=True, timeout=300, missing_grace_seconds=30, wait_for="ready"))
    arguments = caught.value.trigger.serialize()[1]
    assert before + 300 <= arguments.pop("deadline_epoch_seconds") <= before + 310
    expected = {"name": made["name"], "namespace": NAMESPACE, "uid": None, "wait_for": "ready", "missing_grace_seconds": 30}
    assert expected.items() <= arguments.items()
    assert arguments["on_kill_action"] == "keep"
    assert type(caught.value.timeout) is timedelta
    assert caught.value.timeout > timedelta(seconds=300)


def resume(operator: SkyClusterSensor, made: Mapping[str, Any], status: str, reason: str = "R", **more: Any) -> Any:
    given, _ = context_of(operator)
    operator.render_template_fields(given)
    event = {"status": status, "reason": reason, "message": "why it is so", **made, "log_offset_bytes": 0, "times_lost": 3, **more}
    return operator.resume_execution("execute_complete", {"event": event}, given)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        ("failed", "JobFailed", SkyClusterError),
        ("rejected", "InvalidTask", AirflowFailException),
        ("gone", "Deleted", SkyClusterError),
        ("missing", "NotFound", SkyClusterError),
        ("error", "Forbidden", SkyClusterError),
        ("timeout", "DeadlineExceeded", AirflowSensorTimeout),
    ],
)
def test_each_bad_event_fails(api: MemoryApi, made: dict[str, str], status: str, reason: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="why it is so"):
        resume(sensor(cluster=made, deferrable=True), made, status, reason)
    with pytest.raises(AirflowSkipException):
        resume(sensor(cluster=made, deferrable=True, soft_fail=True), made, status, reason)
    assert only_read(api)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_goes_on_out_of_a_triggers_sight_is_waited_for_again(api: MemoryApi, made: dict[str, str], is_there: bool) -> None:
    """What was never there yet is waited for, too: its grace begins anew."""
    waited = made if is_there else {**made, "name": "to-come", "uid": None}
    until = datetime.now(UTC).timestamp() + 100
    with pytest.raises(TaskDeferred) as caught:
        resume(sensor(cluster=made, deferrable=True), waited, "error", times_lost=1, deadline_epoch_seconds=until)
    again = caught.value.trigger.serialize()[1]
    assert (again["name"], again["uid"], again["times_lost"]) == (waited["name"], waited["uid"], 2)
    assert again["deadline_epoch_seconds"] == pytest.approx(until, abs=1)


def test_what_is_said_of_another_object_ends_no_waiting(api: MemoryApi, made: dict[str, str]) -> None:
    """Bug: green on red, where Airflow gave the number of another task's trigger to this one's."""
    operator = sensor(cluster=made, deferrable=True)
    given, _ = context_of(operator)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(given)
    event = {"status": "reached", "reason": "R", "message": "", **made, "uid": "another", "log_offset_bytes": 0}
    with pytest.raises(TaskDeferred) as again:
        operator.resume_execution("execute_complete", {**(caught.value.kwargs or {}), "event": event}, given)
    assert again.value.trigger.serialize()[1]["uid"] == made["uid"]


def test_what_ended_out_of_a_triggers_sight_ends_the_waiting(api: MemoryApi, made: dict[str, str]) -> None:
    api.set_conditions(made["name"], Complete=("True", "JobSucceeded", ""))
    resume(sensor(cluster=made, deferrable=True), made, "error", times_lost=0)
    api.set_conditions(made["name"], Complete=("False", "", ""), Failed=("True", "NoCapacity", "no GPU"))
    with pytest.raises(SkyClusterError, match="no GPU"):
        resume(sensor(cluster=made, deferrable=True), made, "error", times_lost=0)


def test_it_goes_on_when_it_was_reached(api: MemoryApi, made: dict[str, str]) -> None:
    resume(sensor(cluster=made, deferrable=True), made, "reached")


def test_airflows_own_timeout_is_a_sensors(api: MemoryApi, made: dict[str, str]) -> None:
    """Airflow 2 tells it from no other failure of a trigger."""
    operator = sensor(cluster=made, deferrable=True)
    given, _ = context_of(operator)
    with pytest.raises(AirflowSensorTimeout if HAS_SDK else DeferralTimeoutError):
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, given)
    assert only_read(api)


def test_a_kill_touches_nothing(api: MemoryApi, made: dict[str, str]) -> None:
    sensor(cluster=made).on_kill()
    assert only_read(api)


def test_which_object_has_to_be_said() -> None:
    with pytest.raises(ValueError, match="cluster_task_id="):
        SkyClusterSensor(task_id="wait")
