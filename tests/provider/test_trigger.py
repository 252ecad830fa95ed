"""The trigger: one event for each end there is, and a deletion for a kill and for nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.triggers.base import BaseTrigger
from skyoperator_provider.errors import ApiError
from skyoperator_provider.feed import Pace
from skyoperator_provider.identity import OWNER_TRY, RESUMED
from skyoperator_provider.triggers import skycluster as module
from skyoperator_provider.triggers.skycluster import SkyClusterTrigger
from skyoperator_provider.watches import Key, Source, watches

from tests.provider.kubernetes_server import served, serving, status_of
from tests.provider.scripted_api import NAMESPACE, ScriptedApi, until

LOST = ApiError("connection lost")
USER_ACTION = getattr(triggerer_job_runner, "_USER_ACTION_CANCEL_MSG", None)
"""What a triggerer cancels with when somebody marked or cleared the task. Below 3.3 it tells nothing, then or when it stops."""
TASK_INSTANCE = cast(
    "Any",
    SimpleNamespace(id="ti", dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1, context_carrier=None),
)


class ScriptedTrigger(SkyClusterTrigger):
    """Reaches a scripted API; everything else is the trigger's own."""

    api: ScriptedApi

    async def _find_source(self) -> Source:
        return Source(Key("https://kubernetes", "credentials", self.namespace), self.api.connect)


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture(autouse=True)
async def _nothing_is_left(api: ScriptedApi) -> AsyncIterator[None]:
    watches().pace = Pace(first_pause_seconds=0.0, longest_pause_seconds=0.0, short_watch_seconds=0.0)
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (api.open_watches, api.open_clients, watches()._feeds, watches()._clients) == (0, 0, {}, {})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "GONE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def _is_marked_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow says so of the task, unless the test has it say something else."""
    monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: {"run": {"task": "failed"}}))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the trigger says in its task's log."""
    lines: list[str] = []

    class Log:
        def info(self, words: str, *values: object) -> None:
            lines.append(words % values)

        def warning(self, words: str, *values: object, exc_info: bool = False) -> None:
            lines.append(f"WARNING {words % values}")

        def exception(self, words: str, *values: object) -> None:
            lines.append(f"ERROR {words % values}")

    SkyClusterTrigger._log = cast("Any", Log())
    yield lines
    SkyClusterTrigger._log = None


def trigger(api: ScriptedApi, **changes: Any) -> ScriptedTrigger:
    given: dict[str, Any] = {
        "name": "train",
        "namespace": NAMESPACE,
        "uid": "uid-of-train",
        "wait_for": "complete",
        "kubernetes_conn_id": "kubernetes_default",
        "owner_try": "1",
    }
    made = ScriptedTrigger(**{**given, **changes})
    made.api = api
    made.task_instance = TASK_INSTANCE
    return made


async def events_of(this: BaseTrigger) -> list[Any]:
    """All events: there must be one."""
    return [event.payload async for event in this.run()]


async def event_of(this: BaseTrigger) -> dict[str, Any]:
    (event,) = await events_of(this)
    assert set(event) == {
        *("status", "reason", "message", "name", "namespace", "uid", "log_offset_bytes", "log_attempt"),
        *("deadline_epoch_seconds", "times_lost"),
    }
    assert (event["name"], event["namespace"]) == ("train", NAMESPACE)
    return cast("dict[str, Any]", json.loads(json.dumps(event)))


async def killed(this: ScriptedTrigger) -> None:
    """As the triggerer ends a trigger whose task was killed: cancelled while it waits, then told."""
    running = asyncio.create_task(events_of(this))
    await until(lambda: this.api.open_watches == 1)
    running.cancel(USER_ACTION)
    with pytest.raises(asyncio.CancelledError):
        await running
    if module.IS_TOLD_OF_KILLS:
        await this.on_kill()
    await this.cleanup()


@pytest.mark.parametrize("uid", ["u-1", None])
def test_a_trigger_is_made_again_from_what_it_says_of_itself(uid: str | None) -> None:
    given: dict[str, Any] = {
        "name": "train",
        "namespace": "ml",
        "uid": uid,
        "wait_for": "ready",
        "kubernetes_conn_id": "gpu",
        "config_file": "/kubeconfig",
        "deadline_epoch_seconds": 1764143000.5,
        "owner_try": "3",
        "on_kill_action": "keep",
        "missing_grace_seconds": 60.0,
        "logs": True,
        "log_offset_bytes": 77,
        "log_attempt": 2,
        "logging_interval_seconds": 5.0,
        "times_lost": 2,
        "keep_on_success": True,
    }
    path, arguments = SkyClusterTrigger(**given).serialize()
    assert arguments == given
    assert path == "skyoperator_provider.triggers.skycluster.SkyClusterTrigger"
    sent = BaseSerialization.deserialize(BaseSerialization.serialize(arguments))
    assert SkyClusterTrigger(**sent).serialize() == (path, given)
    assert type(arguments["wait_for"]) is str


def test_a_word_that_is_none_is_refused_before_anything_is_deferred() -> None:
    with pytest.raises(ValueError, match="'done' is not a valid WaitFor"):
        SkyClusterTrigger(name="a", namespace="b", wait_for="done", kubernetes_conn_id="c")

    with pytest.raises(ValueError, match="must be delete or keep, not 'stop'"):
        SkyClusterTrigger(name="a", namespace="b", wait_for="ready", kubernetes_conn_id="c", on_kill_action="stop")


def test_parsing_a_dag_loads_no_kubernetes() -> None:
    code = (
        "import sys, skyoperator_provider.triggers.skycluster\n"
        "assert not {'kubernetes', 'kubernetes_asyncio', 'aiohttp'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2] / "airflow_plugin")


FIRST_TRIGGERS = """
import asyncio, gc, sys, threading
from skyoperator_provider.triggers.skycluster import SkyClusterTrigger

class Noting:
    threads = set()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0].startswith("kubernetes"):
            cls.threads.add(threading.current_thread())

def find():
    asyncio.run(SkyClusterTrigger(name="a", namespace="ml", wait_for="ready", kubernetes_conn_id="gpu")._find_source())

sys.meta_path.insert(0, Noting)
find()
"""


@pytest.mark.parametrize(
    "so",
    [
        pytest.param("Noting.threads and threading.main_thread() not in Noting.threads", id="loaded in a thread"),
        pytest.param("gc.get_freeze_count() > len(gc.get_objects())", id="not walked by each collection"),
        pytest.param("(frozen := gc.get_freeze_count()) and not find() and gc.get_freeze_count() <= frozen", id="once"),
    ],
)
def test_loading_kubernetes_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch, so: str) -> None:
    """Bug: for a second or two no other trigger runs, and then for 0.25 s at each collection; Airflow says that its thread was blocked."""
    monkeypatch.setenv("AIRFLOW_CONN_GPU", connection("https://gpu"))
    code = f"{FIRST_TRIGGERS}assert {so}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2] / "airflow_plugin")


@pytest.mark.parametrize(
    ("wait_for", "conditions", "status", "reason"),
    [
        ("complete", {"Complete": "True"}, "reached", "CompleteReason"),
        ("ready", {"Ready": "True"}, "reached", "ReadyReason"),
        ("accepted", {"Accepted": "True"}, "reached", "AcceptedReason"),
        ("complete", {"Failed": "True"}, "failed", "FailedReason"),
        ("complete", {"Accepted": "False"}, "rejected", "AcceptedReason"),
    ],
)
async def test_the_event_has_the_objects_own_words(
    api: ScriptedApi, wait_for: str, conditions: dict[str, str], status: str, reason: str
) -> None:
    api.put("train")
    waiting = asyncio.create_task(event_of(trigger(api, wait_for=wait_for)))
    await until(lambda: api.open_watches == 1)
    api.put("train", conditions)
    event = await waiting
    assert (event["status"], event["reason"], event["uid"]) == (status, reason, "uid-of-train")
    assert event["message"].endswith("it is")


async def test_an_end_that_is_there_already_is_told_at_once_even_after_the_deadline(api: ScriptedApi) -> None:
    """Bug: a triggerer that was away for an hour turns a job that succeeded into one that timed out."""
    api.put("train", {"Complete": "True"})
    assert (await event_of(trigger(api, deadline_epoch_seconds=time.time() - 3600)))["status"] == "reached"


async def test_an_object_that_goes_is_gone(api: ScriptedApi) -> None:
    api.put("train")
    waiting = asyncio.create_task(event_of(trigger(api)))
    await until(lambda: api.open_watches == 1)
    api.remove("train")
    assert (await waiting)["status"] == "gone"


async def test_a_clear_that_comes_then_ends_it_without_an_event(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 3600.0)
    api.put("train")
    this = trigger(api)
    waiting = asyncio.create_task(event_of(this))
    await until(lambda: api.open_watches == 1)
    api.remove("train")
    api.put("train", uid="second")
    for _ in range(10):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await this.cleanup()
    assert "train" in api.objects


async def test_another_object_of_the_same_name_is_not_it(api: ScriptedApi) -> None:
    api.put("train", {"Complete": "True"}, uid="another")
    assert (await event_of(trigger(api)))["status"] == "gone"


async def test_that_it_is_gone_is_kept_back_while_a_clear_may_be_on_its_way(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the next try deleted the object of the one before, whose trigger spoke of it to the next try, and failed that."""
    monkeypatch.setattr(module, "GONE_SECONDS", 0.3)
    began = asyncio.get_running_loop().time()
    assert (await event_of(trigger(api)))["status"] == "gone"
    assert asyncio.get_running_loop().time() - began >= 0.3


async def test_a_sensors_object_is_the_first_that_it_sees(api: ScriptedApi) -> None:
    api.put("train", uid="first")
    waiting = asyncio.create_task(event_of(trigger(api, uid=None)))
    await until(lambda: api.open_watches == 1)
    for _ in range(10):
        await asyncio.sleep(0)
    api.remove("train")
    api.put("train", {"Complete": "True"}, uid="second")
    event = await waiting
    assert (event["status"], event["uid"]) == ("gone", "first")


async def test_a_sensor_misses_what_never_was(api: ScriptedApi) -> None:
    event = await event_of(trigger(api, uid=None))
    assert (event["status"], event["uid"]) == ("missing", None)
    assert "ml/train" in event["message"]
    event = await event_of(trigger(api, uid=None, missing_grace_seconds=0.05))
    assert event["status"] == "missing"


async def test_a_sensor_waits_for_what_is_yet_to_be_made(api: ScriptedApi) -> None:
    waiting = asyncio.create_task(event_of(trigger(api, uid=None, missing_grace_seconds=3600.0)))
    await until(lambda: api.open_watches == 1)
    api.put("train")
    api.put("train", {"Complete": "True"})
    event = await waiting
    assert (event["status"], event["uid"]) == ("reached", "uid-of-train")


async def test_the_deadline_is_the_triggers_own(api: ScriptedApi) -> None:
    api.put("train", {"Accepted": "True"})
    event = await event_of(trigger(api, deadline_epoch_seconds=time.time() + 0.05))
    assert (event["status"], event["reason"]) == ("timeout", "DeadlineExceeded")


async def test_the_deadline_holds_while_kubernetes_is_away(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 0.05)
    api.held["get"] = asyncio.Event()
    event = await event_of(trigger(api, deadline_epoch_seconds=time.time() - 1))
    assert event["status"] == "timeout"


@pytest.mark.parametrize(
    ("error", "reason"), [(ApiError("the verb watch", status=HTTPStatus.FORBIDDEN, reason="Forbidden"), "Forbidden"), (LOST, "ApiError")]
)
async def test_kubernetes_that_stays_away_is_an_error(api: ScriptedApi, error: ApiError, reason: str) -> None:
    api.put("train")
    api.forever["watch"] = error
    event = await event_of(trigger(api))
    assert (event["status"], event["reason"]) == ("error", reason)
    assert event["message"].startswith(str(error))


async def test_a_connection_that_can_not_be_read_is_an_error(api: ScriptedApi, logged: list[str]) -> None:
    """Bug: the trigger fails with a traceback, Airflow fails the task, and what it made runs on."""

    class Broken(ScriptedTrigger):
        async def _find_source(self) -> Source:
            raise FileNotFoundError("/kubeconfig")

    this = Broken(name="train", namespace=NAMESPACE, wait_for="complete", kubernetes_conn_id="c")
    event = await event_of(this)
    assert (event["status"], event["reason"], event["message"]) == ("error", "FileNotFoundError", "/kubeconfig")
    assert logged == ["ERROR Can't wait for SkyCluster ml/train"]


async def test_the_event_comes_after_everything_is_closed(api: ScriptedApi) -> None:
    """Bug: an event that is yielded inside a context manager leaves the connection open, and the generator does not stop."""
    api.put("train", {"Complete": "True"})
    running = cast("Any", trigger(api).run())
    await anext(running)
    assert (api.open_watches, api.open_clients) == (0, 0)
    with pytest.raises(StopAsyncIteration):
        await anext(running)


async def test_the_log_is_shown_while_waiting_and_the_event_says_how_far(api: ScriptedApi, logged: list[str]) -> None:
    status = {"launch": {"attempt": 2}, "job": {"name": "j"}}
    api.put("train", status=status)
    api.logs[2] = b"one\n100 % of %s\nthr"
    waiting = asyncio.create_task(event_of(trigger(api, logs=True, logging_interval_seconds=0.01)))
    async with asyncio.timeout(60):
        while len(logged) < 2:
            await asyncio.sleep(0.01)
    api.put("train", {"Complete": "True"}, status=status)
    event = await waiting
    assert logged == ["one", "100 % of %s"]
    assert (event["log_offset_bytes"], event["log_attempt"]) == (len(b"one\n100 % of %s\n"), 2)


async def test_a_log_that_can_not_be_read_is_no_failure(api: ScriptedApi, logged: list[str]) -> None:
    status = {"launch": {"attempt": 1}, "job": {"name": "j"}}
    api.put("train", status=status)
    api.forever["log"] = ApiError("the verb get on skyclusters/log", status=HTTPStatus.FORBIDDEN)
    waiting = asyncio.create_task(event_of(trigger(api, logs=True, logging_interval_seconds=0.01)))
    async with asyncio.timeout(60):
        while api.calls["log"] < 4:
            await asyncio.sleep(0.01)
    api.put("train", {"Complete": "True"}, status=status)
    assert (await waiting)["status"] == "reached"
    assert len(logged) == 1
    assert "the verb get on skyclusters/log" in logged[0]


async def test_without_logs_none_is_read_and_the_offset_stays(api: ScriptedApi) -> None:
    api.put("train", {"Complete": "True"}, status={"launch": {"attempt": 1}, "job": {"name": "j"}})
    event = await event_of(trigger(api, log_offset_bytes=5, log_attempt=1))
    assert (event["log_offset_bytes"], event["log_attempt"], api.calls["log"]) == (5, 1, 0)


async def test_a_task_that_is_killed_takes_its_object_along(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    await killed(trigger(api))
    assert api.objects == {}
    assert logged == ["Deleted SkyCluster ml/train: its task was killed"]


async def test_it_is_deleted_whatever_the_controller_writes_meanwhile(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    api.held["delete"] = asyncio.Event()
    killing = asyncio.create_task(killed(trigger(api)))
    await until(lambda: api.calls["delete"] == 1)
    api.put("train", {"Ready": "True"})
    api.held["delete"].set()
    await killing
    assert api.objects == {}
    assert (api.calls["delete"], api.calls["get"]) == (2, 3)


async def test_an_object_that_the_next_try_takes_meanwhile_is_left_alone(api: ScriptedApi, logged: list[str]) -> None:
    """Bug: after a clear the next try adopts the object before the old trigger is told; its cluster is taken down under it."""
    api.put("train", annotations={OWNER_TRY: "1"})
    api.held["delete"] = asyncio.Event()
    killing = asyncio.create_task(killed(trigger(api)))
    await until(lambda: api.calls["delete"] == 1)
    api.put("train", annotations={OWNER_TRY: "2"})
    api.held["delete"].set()
    await killing
    assert "train" in api.objects
    assert api.calls["delete"] == 1
    assert logged == ["SkyCluster ml/train is left alone: it belongs to try 2 now"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("owner", "it belongs to try 2 now"),
        ("uid", "it is another one, with uid another"),
        ("deleting", "it is being deleted already"),
        ("gone", "it is gone"),
    ],
)
async def test_what_is_not_this_trys_is_left_alone(api: ScriptedApi, logged: list[str], change: str, words: str) -> None:
    api.put("train", annotations={OWNER_TRY: "2" if change == "owner" else "1"}, uid="another" if change == "uid" else None)
    if change == "deleting":
        api.mark_deleting("train")
    if change == "gone":
        api.remove("train")
    await trigger(api).on_kill()
    assert api.calls["delete"] == 0
    assert logged == [f"SkyCluster ml/train is left alone: {words}"]


async def test_an_object_that_goes_between_look_and_deletion_is_no_error(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    api.held["delete"] = asyncio.Event()
    killing = asyncio.create_task(trigger(api).on_kill())
    await until(lambda: api.calls["delete"] == 1)
    api.remove("train")
    api.held["delete"].set()
    await killing
    assert not any(line.startswith("ERROR") for line in logged)


async def test_a_kill_meets_an_api_that_stumbles(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    api.faults["get"].append(LOST)
    api.faults["delete"].append(LOST)
    await trigger(api).on_kill()
    assert api.objects == {}


async def test_a_kill_that_is_forbidden_says_so_and_ends(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    api.forever["delete"] = ApiError("needs the verb delete", status=HTTPStatus.FORBIDDEN)
    await trigger(api).on_kill()
    assert api.calls["delete"] == 1
    assert logged == ["ERROR Could not delete SkyCluster ml/train: its own deadline ends it"]


async def test_a_kill_ends_in_time_if_nobody_answers(api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_SECONDS", 0.05)
    api.put("train")
    api.held["get"] = asyncio.Event()
    await trigger(api).on_kill()
    assert logged == ["ERROR Could not delete SkyCluster ml/train: its own deadline ends it"]


async def test_a_hundred_kills_share_one_client_and_take_turns(api: ScriptedApi, logged: list[str]) -> None:
    for number in range(100):
        api.put(f"job-{number}", annotations={OWNER_TRY: "1"})
    api.held["get"] = asyncio.Event()
    killing = [asyncio.create_task(trigger(api, name=f"job-{n}", uid=f"uid-of-job-{n}").on_kill()) for n in range(100)]
    await until(lambda: api.calls["get"] == 16)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (api.open_clients, api.calls["connect"], api.calls["get"]) == (1, 1, 16)
    api.held["get"].set()
    await asyncio.gather(*killing)
    assert api.objects == {}


@pytest.mark.parametrize("changes", [{"on_kill_action": "keep"}, {"uid": None}], ids=["keep", "no uid"])
async def test_what_is_not_ours_to_delete_is_not_even_read(api: ScriptedApi, changes: dict[str, Any]) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    await trigger(api, **changes).on_kill()
    assert api.calls["get"] == api.calls["delete"] == 0


async def test_after_the_event_nothing_is_deleted(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", False)
    api.put("train", {"Complete": "True"}, annotations={OWNER_TRY: "1"})
    this = trigger(api)
    states(monkeypatch, this, "failed")
    await event_of(this)
    await this.on_kill()
    await this.cleanup()
    assert api.calls["delete"] == 0


def states(monkeypatch: pytest.MonkeyPatch, this: SkyClusterTrigger, state: str | None, *, map_index: int = -1) -> list[dict[str, Any]]:
    """Let Airflow say this of the trigger's task; returns what it is asked."""
    asked: list[dict[str, Any]] = []

    def get_task_states(**question: Any) -> dict[str, Any]:
        asked.append(question)
        if state == "error":
            raise RuntimeError("the API server is away")
        if state == "no run":
            return {}
        return {"run": {"task" if map_index < 0 else f"task_{map_index}": state}}

    monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    this.task_instance = cast("Any", SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=map_index))
    return asked


LEFT = ["failed", "upstream_failed", "success", "skipped", "removed", None, "no run"]
LIVE = ["deferred", "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule"]


@pytest.mark.parametrize("map_index", [-1, 7])
@pytest.mark.parametrize("is_told", [True, False], ids=["from 3.3", "below 3.3"])
@pytest.mark.parametrize(
    ("state", "is_deleted"), [*((state, True) for state in LEFT), *((state, False) for state in LIVE)], ids=[*map(str, LEFT), *LIVE]
)
async def test_only_a_task_that_nobody_goes_on_with_was_killed(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch, state: str | None, is_deleted: bool, is_told: bool, map_index: int
) -> None:
    """Bug: a triggerer that stalled, and whose tasks another one took over, deletes the clusters of all of them when it wakes up."""
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", is_told)
    api.put("train", annotations={OWNER_TRY: "1"})
    this = trigger(api)
    asked = states(monkeypatch, this, state, map_index=map_index)
    await (this.on_kill() if is_told else this.cleanup())
    assert ("train" not in api.objects) == is_deleted
    assert asked == [{"dag_id": "dag", "task_ids": ["task"], "run_ids": ["run"], "map_index": map_index}]


def test_a_trigger_of_an_earlier_version_is_made_too() -> None:
    """Deferred before an upgrade, it says nothing of what came later."""
    _, arguments = SkyClusterTrigger(name="a", namespace="b", wait_for="ready", kubernetes_conn_id="c").serialize()
    del arguments["keep_on_success"]
    assert SkyClusterTrigger(**arguments).serialize()[1] == {**arguments, "keep_on_success": False}


@pytest.mark.parametrize("is_told", [True, False], ids=["from 3.3", "below 3.3"])
@pytest.mark.parametrize("state", LEFT)
async def test_what_later_tasks_are_to_have_is_kept_if_its_task_was_marked_success(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch, state: str | None, is_told: bool
) -> None:
    """Bug: launch was marked success, the cluster deleted, and the log that was to be read next was red."""
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", is_told)
    api.put("train", annotations={OWNER_TRY: "1"})
    this = trigger(api, keep_on_success=True)
    states(monkeypatch, this, state)
    await (this.on_kill() if is_told else this.cleanup())
    assert ("train" in api.objects) == (state == "success")


@pytest.mark.parametrize("is_told", [True, False], ids=["from 3.3", "below 3.3"])
@pytest.mark.parametrize("state", ["success", "failed"])
async def test_what_a_worker_went_on_with_is_no_triggers_to_delete(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch, state: str, is_told: bool
) -> None:
    """Bug: another triggerer fired, Create succeeded, and the first triggerer wakes up and deletes the cluster of the tasks that follow."""
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", is_told)
    api.put("train", {"Ready": "True"}, annotations={OWNER_TRY: "1", RESUMED: "1"})
    this = trigger(api)
    states(monkeypatch, this, state)
    await (this.on_kill() if is_told else this.cleanup())
    assert "train" in api.objects
    assert logged == ["SkyCluster ml/train is left alone: a worker has gone on with it"]


async def test_that_a_worker_went_on_with_an_earlier_try_saves_nothing(api: ScriptedApi, logged: list[str]) -> None:
    api.put("train", annotations={OWNER_TRY: "2", RESUMED: "1"})
    await trigger(api, owner_try="2").on_kill()
    assert api.objects == {}


async def test_an_airflow_that_stumbles_when_it_is_asked_is_asked_again(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    answers: list[Any] = [RuntimeError("the database is away"), {"run": {"task": "failed"}}]

    def get_task_states(**_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    await trigger(api).on_kill()
    assert api.objects == {}


async def test_without_an_answer_of_airflow_nothing_is_deleted(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion would be for good; what is left ends by its own deadline."""
    api.put("train", annotations={OWNER_TRY: "1"})
    this = trigger(api)
    asked = states(monkeypatch, this, "error")
    await this.on_kill()
    assert (len(asked), api.calls["delete"]) == (3, 0)
    (line,) = logged
    assert line.startswith("WARNING Can't tell whether the task was killed (RuntimeError('the API server is away'))")


@pytest.mark.parametrize("zone", [UTC, None])
async def test_below_3_3_airflows_own_timeout_is_no_kill(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, zone: Any) -> None:
    """Bug: the task goes on in a worker to see what became of its object, and finds that the trigger deleted it."""
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", False)
    api.put("train", annotations={OWNER_TRY: "1"})
    this = trigger(api)
    asked = states(monkeypatch, this, "failed")
    timeout_after = (datetime.now(UTC) - timedelta(seconds=1)).replace(tzinfo=zone)
    monkeypatch.setattr(this, "timeout_after", timeout_after, raising=False)
    await this.cleanup()
    assert (asked, api.calls["delete"]) == ([], 0)
    timeout_after = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=zone)
    monkeypatch.setattr(this, "timeout_after", timeout_after, raising=False)
    await this.cleanup()
    assert api.objects == {}


async def test_from_3_3_on_cleanup_deletes_nothing(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: every restart of a triggerer takes down every cluster."""
    monkeypatch.setattr(module, "IS_TOLD_OF_KILLS", True)
    api.put("train", annotations={OWNER_TRY: "1"})
    this = trigger(api)
    asked = states(monkeypatch, this, "failed")
    running = asyncio.create_task(events_of(this))
    await until(lambda: api.open_watches == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await this.cleanup()
    assert (asked, api.calls["delete"]) == ([], 0)


def test_who_is_told_of_kills_is_told_how() -> None:
    assert (USER_ACTION is not None) == module.IS_TOLD_OF_KILLS


def airflows_runner() -> TriggerRunner:
    return TriggerRunner()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("message", "state", "timeout_seconds", "is_deleted"),
    [
        (USER_ACTION, "failed", 3600, True),
        (USER_ACTION, "deferred", 3600, False),
        (None, "deferred", 3600, False),
        (None, "failed", 3600, USER_ACTION is None),
        (USER_ACTION, "failed", -1, False),
    ],
    ids=["killed", "another triggerer has it", "triggerer stops", "killed while it stops", "timed out"],
)
async def test_in_airflows_own_runner(
    api: ScriptedApi,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    message: str | None,
    state: str,
    timeout_seconds: int,
    is_deleted: bool,
) -> None:
    api.put("train", annotations={OWNER_TRY: "1"})
    runner, this = airflows_runner(), trigger(api)
    states(monkeypatch, this, state)
    this.task_instance = TASK_INSTANCE
    timeout_after = datetime.now(UTC) + timedelta(seconds=timeout_seconds)
    monkeypatch.setattr(this, "timeout_after", timeout_after, raising=False)  # as create_triggers does
    task = asyncio.create_task(runner.run_trigger(1, this, timeout_after))
    runner.triggers[1] = {"task": task, "name": "train", "events": 0, "is_watcher": False}
    await until(lambda: api.open_watches == 1)
    task.cancel(message)
    await asyncio.wait([task])
    assert task.cancelled()
    assert ("train" not in api.objects) == is_deleted
    assert not runner.events


async def test_in_airflows_own_runner_that_cancels_again_and_again(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor asks for what is to go once a second, and the first question to Airflow takes several."""
    api.put("train", annotations={OWNER_TRY: "1"})
    runner, this = airflows_runner(), trigger(api)
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> bool:
        is_asked.set()
        await may_answer.wait()
        return True

    monkeypatch.setattr(this, "safe_to_cancel", slow)
    task = asyncio.create_task(runner.run_trigger(1, this))
    runner.triggers[1] = {"task": task, "name": "train", "events": 0, "is_watcher": False}
    await until(lambda: api.open_watches == 1)
    for _ in range(3):
        runner.to_cancel.append(1)
        await runner.cancel_triggers()  # type: ignore[no-untyped-call]
        await is_asked.wait()
    may_answer.set()
    # Who is cancelled twice leaves asyncio.wait_for while what it waits for still runs (asyncio/tasks.py, _cancel_and_wait).
    await asyncio.wait([task])
    await until(lambda: "train" not in api.objects)


async def test_in_airflows_own_runner_to_the_event(api: ScriptedApi) -> None:
    api.put("train", {"Complete": "True"})
    runner = airflows_runner()
    task = asyncio.create_task(runner.run_trigger(1, trigger(api)))
    runner.triggers[1] = {"task": task, "name": "train", "events": 0, "is_watcher": False}
    await task
    ((_, event, *_),) = runner.events
    assert event.payload["status"] == "reached"
    assert [dict(context) for context in api.contexts] == [{}], "what the feed says would be in this task's log"


def connection(url: str, user: dict[str, Any] | None = None) -> str:
    """An Airflow connection to that server, as the environment takes it."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
    }
    return json.dumps({"conn_type": "kubernetes", "extra": {"kube_config": kubeconfig}})


async def test_a_program_that_makes_tokens_makes_no_watch_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: on EKS and GKE each trigger has a token of its own, and so a watch of its own."""
    credential = "{'apiVersion': 'client.authentication.k8s.io/v1beta1', 'kind': 'ExecCredential', 'status': {'token': uuid.uuid4().hex}}"
    code = f"import json, uuid; print(json.dumps({credential}))"
    program = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": sys.executable, "args": ["-c", code]}
    monkeypatch.setenv("AIRFLOW_CONN_EKS", connection("https://eks", {"exec": program}))
    monkeypatch.setenv("AIRFLOW_CONN_GPU", connection("https://eks"))
    keys = [
        await SkyClusterTrigger(name="a", namespace="ml", wait_for="ready", kubernetes_conn_id=c)._find_source()
        for c in ("eks", "eks", "gpu")
    ]
    assert keys[0].key == keys[1].key != keys[2].key


async def test_a_401_is_met_with_what_the_connection_says_by_now(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the hook keeps the token that it read first, and all who wait fail when it expires."""
    api.put("train")
    wanted, answer = ["Bearer old"], served(api)

    async def checked(request: web.Request) -> web.StreamResponse:
        is_known = request.headers["Authorization"] == wanted[0]
        return await answer(request) if is_known else status_of(401, "Unauthorized", "Unauthorized")

    async with serving(checked) as server:
        monkeypatch.setenv("AIRFLOW_CONN_GPU", connection(server.url, {"token": "old"}))
        _, arguments = trigger(api, kubernetes_conn_id="gpu").serialize()
        waiting = asyncio.create_task(event_of(SkyClusterTrigger(**arguments)))
        async with asyncio.timeout(60):
            while not api.open_watches:
                await asyncio.sleep(0.01)
        wanted[0] = "Bearer new"
        monkeypatch.setenv("AIRFLOW_CONN_GPU", connection(server.url, {"token": "new"}))
        api.interrupt()
        while not waiting.done() and "Bearer new" not in server.authorizations:
            await asyncio.sleep(0.01)
        api.put("train", {"Complete": "True"})
        assert (await waiting)["status"] == "reached"


async def test_over_the_wire_from_an_airflow_connection_to_the_event_and_the_kill(
    api: ScriptedApi, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"launch": {"attempt": 1}, "job": {"name": "j"}}
    api.put("train", status=status, annotations={OWNER_TRY: "1"})
    api.logs[1] = b"over the wire\n"
    async with serving(served(api)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_GPU", connection(server.url))
        _, arguments = trigger(api, kubernetes_conn_id="gpu", logs=True, logging_interval_seconds=0.01).serialize()
        waiting = [asyncio.create_task(event_of(SkyClusterTrigger(**arguments))) for _ in range(3)]
        async with asyncio.timeout(60):
            while len(logged) < 3:
                await asyncio.sleep(0.01)
        assert api.most_open_watches == 1
        api.put("train", {"Complete": "True"}, status=status)
        events = await asyncio.gather(*waiting)
        assert [event["status"] for event in events] == ["reached"] * 3
        assert logged == ["over the wire"] * 3
        killed_one = SkyClusterTrigger(**arguments)
        killed_one.task_instance = TASK_INSTANCE
        await killed_one.on_kill()
        assert api.objects == {}
        await until(lambda: api.open_watches == 0)
        assert set(server.authorizations) == {"Bearer secret"}
