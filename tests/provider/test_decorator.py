"""@task.sky, from the DAG file to what the function returned: what is sent runs here under bash, as it would on the cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, mask_secret
from skyoperator_provider.decorators.sky import sky_task
from skyoperator_provider.errors import ResultLostError, SkyRemoteError
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.masking import holds_secret

from tests.provider import far_side
from tests.provider.airflows import DagBag
from tests.provider.contexts import context_of
from tests.provider.memory import NAMESPACE, Call, MemoryApi

DAG_FILE = """
from airflow.providers.common.compat.sdk import dag, task


def scaled(value):
    return value * 10


@dag(schedule=None)
def remote():
    @task.sky(task={"resources": {"cpus": 1}}, include=[scaled], deferrable=False, poll_seconds=0)
    def fit(rate, *, run_id=None, logical_date=None):
        import os

        print("# fitting", rate)
        return {"rate": scaled(rate), "run": run_id, "date": logical_date, "rank": os.environ.get("SKYPILOT_NODE_RANK")}

    @task.sky(task={}, deferrable=False, poll_seconds=0)
    def skips():
        class AirflowSkipException(Exception):
            pass

        raise AirflowSkipException("nothing new today")

    @task.sky(task={}, deferrable=False, poll_seconds=0)
    def fails():
        class AirflowFailException(Exception):
            pass

        raise AirflowFailException("the data are wrong")

    @task.sky(task={}, deferrable=False, poll_seconds=0)
    def raises():
        return 1 / 0

    fit(7)
    skips()
    fails()
    raises()


found = remote()
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Any:
    """The tasks of the DAG file, parsed as the dag processor parses it."""
    path = tmp_path / "dags" / "remote.py"
    path.parent.mkdir()
    path.write_text(DAG_FILE)
    bag = DagBag(str(path))
    assert not bag.import_errors
    return bag.dags["remote"].task_dict


def cluster(api: MemoryApi, home: Path) -> list[far_side.Ran]:
    """Launch what is created: its run is run here, and its end is what the controller would write. Returns the runs."""
    runs: list[far_side.Ran] = []

    def on_call(call: Call) -> None:
        body = api.objects.get((NAMESPACE, call.name))
        if call.verb != "read" or body is None or runs:
            return
        ran = far_side.run(body["spec"]["task"]["run"], home, SKYPILOT_NODE_RANK="0")
        runs.append(ran)
        api.set_job(call.name)
        api.set_conditions(call.name, **({"Failed": ("True", "JobFailed", f"exit {ran.code}")} if ran.code else {"Complete": "True"}))
        api.logs[body["metadata"]["uid"]], api.log_states[body["metadata"]["uid"]] = ran.log.encode(), "complete"
        if ran.body is not None:
            api.results[body["metadata"]["uid"]] = RemoteResult("present", ran.body, "")

    api.on_call = on_call
    return runs


def run(operator: Any, **context: Any) -> Any:
    given, _ = context_of(operator, **context)
    operator.render_template_fields(given)
    return operator.execute(given)


def test_the_dag_file_parses_and_the_task_says_what_it_is(tasks: Any) -> None:
    assert tasks["fit"].operator_name == "@task.sky"
    assert set(tasks) == {"fit", "skips", "fails", "raises"}


def test_the_function_runs_on_the_cluster_with_its_arguments_and_its_context(api: MemoryApi, tasks: Any, tmp_path: Path) -> None:
    date = datetime(2026, 1, 2, tzinfo=UTC)
    runs = cluster(api, tmp_path)
    value = run(tasks["fit"], logical_date=date, dag_run="what nobody asked for")
    assert value == {"rate": 70, "run": "manual__1", "date": date, "rank": "0"}
    assert "# fitting 7" in runs[0].log
    assert api.deletions


def test_a_retry_finds_the_object_unchanged(api: MemoryApi, tasks: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stable bytes: other ones would look like another task."""
    runs = cluster(api, tmp_path)
    api.on_call, later = lambda _: None, api.on_call
    operator = tasks["fit"]
    given, _ = context_of(operator)
    first = operator._run({**given, "logical_date": None})
    second = operator._run({**given, "logical_date": None})
    assert first == second
    assert not runs
    api.on_call = later


@pytest.mark.parametrize(
    ("task_id", "error", "words"),
    [
        ("skips", AirflowSkipException, "nothing new today"),
        ("fails", AirflowFailException, "the data are wrong"),
        ("raises", SkyRemoteError, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_it_raises_is_raised_here(
    api: MemoryApi, tasks: Any, tmp_path: Path, task_id: str, error: type[Exception], words: str
) -> None:
    cluster(api, tmp_path)
    with pytest.raises(error, match=words) as caught:
        run(tasks[task_id])
    if isinstance(caught.value, SkyRemoteError):
        assert caught.value.remote_type.endswith("ZeroDivisionError")
        assert "return 1 / 0" in caught.value.remote_traceback
        assert "remote.py" in str(caught.value)
    assert api.deletions


def test_a_job_that_ended_well_and_returned_nothing_at_all_has_lost_its_value(api: MemoryApi, tasks: Any) -> None:
    def on_call(call: Call) -> None:
        if call.verb == "read" and (NAMESPACE, call.name) in api.objects:
            api.set_job(call.name)
            api.set_conditions(call.name, Complete="True")

    api.on_call = on_call
    with pytest.raises(ResultLostError):
        run(tasks["fit"], logical_date=None)


def test_a_job_that_failed_before_the_function_is_a_failed_job(api: MemoryApi, tasks: Any) -> None:
    def on_call(call: Call) -> None:
        if call.verb == "read" and (NAMESPACE, call.name) in api.objects:
            api.set_job(call.name)
            api.set_conditions(call.name, Failed=("True", "SetupFailed", "pip did not find it"))

    api.on_call = on_call
    with pytest.raises(Exception, match="SetupFailed: pip did not find it"):
        run(tasks["fit"], logical_date=None)


def noop(value: Any = None) -> Any:
    return value


def decorated(**given: Any) -> Any:
    return sky_task(noop, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": {"run": "true"}}, "the function is what is run"),
        ({"task_file": "task.yaml"}, "takes no task_file"),
        ({"manifest": {}}, "takes no manifest"),
        ({"skip_on_exit_code": 99}, "takes no skip_on_exit_code"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_file_is_parsed(given: dict[str, Any], words: str) -> None:
    with DAG("train", schedule=None), pytest.raises(ValueError, match=words):
        decorated(**given)()


OUTSIDE = 3


def test_a_function_that_cannot_be_sent_is_refused_when_the_file_is_parsed() -> None:
    def uses_a_global() -> int:
        return OUTSIDE

    with DAG("train", schedule=None), pytest.raises(ValueError, match="OUTSIDE, a global of the module"):
        sky_task(uses_a_global)()


def test_an_argument_that_cannot_be_sent_is_the_authors_error(api: MemoryApi) -> None:
    with DAG("train", schedule=None):
        operator = decorated()(object()).operator
    with pytest.raises(AirflowFailException, match=r"argument value"):
        run(operator)
    assert not api.creations


@pytest.mark.parametrize(("args", "kwargs"), [([{"key": "s3cr3t-of-mine"}], {}), ([], {"value": "s3cr3t-of-mine"})])
def test_a_masked_argument_points_to_secrets(api: MemoryApi, args: Any, kwargs: Any) -> None:
    mask_secret("s3cr3t-of-mine")
    with DAG("train", schedule=None):
        operator = decorated(poll_seconds=0)(*args, **kwargs).operator
    with pytest.raises(AirflowFailException, match=r"argument value holds.*secrets=") as caught:
        run(operator)
    assert "s3cr3t" not in str(caught.value)
    assert not api.creations


KEY = "-----BEGIN KEY-----\nMIIabc\ndef=\n-----END KEY-----"


@pytest.mark.parametrize(
    "value",
    [KEY, [KEY], {"a": [{"b": KEY}]}, ({KEY: 1},), {KEY}, KEY.encode(), [f"#!/bin/sh\n{KEY}exit"]],
    ids=["text", "list", "dict", "key", "set", "bytes", "within"],
)
def test_a_masked_argument_of_several_lines_is_found_wherever_it_is(api: MemoryApi, value: Any) -> None:
    mask_secret(KEY)
    with DAG("train", schedule=None):
        operator = decorated(poll_seconds=0, serializer="cloudpickle")(value).operator
    with pytest.raises(AirflowFailException, match=r"argument value holds.*secrets="):
        run(operator)
    assert not api.creations


def test_an_argument_that_holds_itself_is_searched_to_an_end(api: MemoryApi) -> None:
    value: list[Any] = []
    value.append(value)
    assert not holds_secret(value)


TOKEN = "s3cr3t-of-a-default"
KEYS = (TOKEN.encode(), {TOKEN: 1})


def logs_in(token: str = TOKEN, *, keys: Any = KEYS) -> str:
    return f"{token}{keys}"


def task_of(function: Any, *args: Any, **kwargs: Any) -> Any:
    made: Any = sky_task(function, poll_seconds=0)
    return made(*args, **kwargs).operator


@pytest.mark.parametrize("given", [{}, {"token": "public"}, {"token": "public", "keys": "public"}], ids=["none", "one", "all"])
def test_a_masked_default_points_to_secrets(api: MemoryApi, given: dict[str, str]) -> None:
    """Bug: what a default was evaluated to here went to the cluster unseen. It is sent even where the call gives another value."""
    mask_secret(TOKEN)
    with DAG("train", schedule=None):
        operator = task_of(logs_in, **given)
    with pytest.raises(
        AirflowFailException, match=r"the default of token of logs_in\(\), the default of keys of logs_in\(\) holds.*secrets="
    ) as caught:
        run(operator)
    assert "s3cr3t" not in str(caught.value)
    assert not api.creations


def test_a_masked_default_of_an_included_function_points_to_secrets(api: MemoryApi) -> None:
    mask_secret(TOKEN)
    with DAG("train", schedule=None):
        operator = decorated(include=[logs_in], poll_seconds=0)().operator
    with pytest.raises(AirflowFailException, match=r"the default of token of logs_in\(\), .*secrets="):
        run(operator)
    assert not api.creations


def takes_both(value: Any, /, **others: Any) -> Any:
    return value, others


@pytest.mark.parametrize(("first", "second"), [(TOKEN, "x"), ("x", TOKEN)])
def test_two_arguments_of_one_name_are_both_searched(api: MemoryApi, first: str, second: str) -> None:
    mask_secret(TOKEN)
    with DAG("train", schedule=None):
        operator = task_of(takes_both, first, value=second)
    with pytest.raises(AirflowFailException, match=r"argument value holds"):
        run(operator)


class Settings:
    """Its repr tells nothing of what is in it."""

    token = "s3cr3t-of-a-class"

    def __init__(self, key: str = "") -> None:
        self.key = key


@pytest.mark.parametrize("value", [Settings("s3cr3t-of-mine"), [Settings(KEY)], Settings()], ids=["attribute", "lines", "class"])
def test_what_is_pickled_is_searched_as_it_is_sent(api: MemoryApi, value: Any) -> None:
    for secret in ("s3cr3t-of-mine", KEY, Settings.token):
        mask_secret(secret)
    with DAG("train", schedule=None):
        operator = decorated(poll_seconds=0, serializer="cloudpickle")(value).operator
    with pytest.raises(AirflowFailException, match=r"argument value holds.*secrets="):
        run(operator)
    assert not api.creations


class Lazy(Sequence[str]):
    """As Airflow's own of a mapped task's values: what is in it is read when it is sent."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return [KEY][index]


@pytest.mark.parametrize("value", [Lazy(), deque([KEY])], ids=["lazy", "deque"])
def test_what_is_sent_as_a_list_is_searched_as_one(api: MemoryApi, value: Any) -> None:
    mask_secret(KEY)
    with DAG("train", schedule=None):
        operator = decorated(poll_seconds=0)(value).operator
    with pytest.raises(AirflowFailException, match=r"argument value holds.*secrets="):
        run(operator)
    assert not api.creations


def test_what_is_too_large_names_the_argument(api: MemoryApi) -> None:
    import random  # noqa: PLC0415

    with DAG("train", schedule=None):
        operator = decorated(task={"setup": "x" * 20_000})(random.Random(1).randbytes(40_000)).operator
    with pytest.raises(AirflowFailException, match=r"largest argument, value"):
        run(operator)


def test_mapped_arguments_make_tasks_of_their_own(api: MemoryApi, tmp_path: Path) -> None:
    with DAG("train", schedule=None) as dag:
        decorated(deferrable=False, poll_seconds=0).expand(value=["{{ run_id }} ${#A[@]}", 2])
    mapped = dag.get_task("noop")
    cluster(api, tmp_path)
    unmapped: Any = mapped.unmap({"op_kwargs": {"value": "{{ run_id }} ${#A[@]}"}})
    context, _ = context_of(unmapped, map_index=0)
    unmapped._do_render_template_fields(unmapped, mapped.template_fields, context, mapped.get_template_env(), set())
    assert unmapped.execute(context) == "manual__1 ${#A[@]}"


def test_multiple_outputs_are_told_to_airflow() -> None:
    with DAG("train", schedule=None):
        operator = decorated(multiple_outputs=True)().operator
    assert operator.multiple_outputs
