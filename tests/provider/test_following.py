"""A worker that waits: what it prints, when it stops, and what becomes of a value that takes its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest
from skyoperator_provider.errors import ApiError, ResultLostError, SkyClusterError
from skyoperator_provider.following import PIECE_BYTES, Follower, LogStream, resumed
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.identity import Identity
from skyoperator_provider.manifest import build
from skyoperator_provider.ownership import Target
from skyoperator_provider.remote.far.failure import error_value
from skyoperator_provider.results import WAIT_SECONDS, await_value, raise_remote
from skyoperator_provider.skycluster import Outcome, WaitFor

from tests.provider.memory import NAMESPACE, Call, Clock, MemoryApi

IDENTITY = Identity("prod", "train", "manual__1", "fit")
NAME = IDENTITY.name


class Lines:
    """A logger that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def info(self, event: str, *args: object) -> None:
        self.lines.append(event % args)

    def warning(self, event: str, *args: object) -> None:
        self.warnings.append(event % args)


class Job:
    """One object, what is printed about it, and the time that passes."""

    def __init__(self) -> None:
        self.api, self.log, self.clock = MemoryApi(), Lines(), Clock()
        self.target = Target.of(self.api.create(build(IDENTITY, NAMESPACE, 1, task={"run": "true"})))
        self.is_killed = False
        self.follower = Follower(
            self.api, self.target, log=self.log, is_killed=lambda: self.is_killed, clock=self.clock, sleep=self.clock.sleep
        )
        self.stream = LogStream(self.api, self.target, log=self.log)

    def happens(self, *what: Callable[[], None]) -> None:
        """One thing after the other, each in the pause after a look."""
        self.clock.on_sleep = iter(what)

    def writes(self, text: bytes, attempt: int = 1) -> None:
        self.api.set_job(NAME, attempt=attempt, had=False)
        key = f"{self.target.uid}/{attempt}"
        self.api.logs[key] = self.api.logs.get(key, b"") + text

    def is_had(self, attempt: int = 1, state: str = "complete") -> None:
        self.api.set_job(NAME, attempt=attempt)
        self.api.log_states[f"{self.target.uid}/{attempt}"] = state

    @property
    def printed(self) -> list[str]:
        return [line for line in self.log.lines if not line.startswith("SkyCluster")]


@pytest.fixture
def job() -> Job:
    return Job()


def test_the_log_is_printed_while_it_grows_and_no_line_is_torn(job: Job) -> None:
    job.happens(
        lambda: job.writes(b"one\ntw"),
        lambda: job.writes("o\nthré".encode()[:-1]),
        lambda: job.writes("é".encode()[1:] + b"e\n"),
        lambda: job.api.set_conditions(NAME, Complete="True"),
    )
    assert job.follower.wait(WaitFor.COMPLETE, job.stream).outcome is Outcome.REACHED
    assert job.printed == ["one", "two", "thrée"]


def test_what_comes_after_the_jobs_end_is_printed_too(job: Job) -> None:
    job.writes(b"one\n")
    job.happens(lambda: job.writes(b"last"), job.is_had)
    job.follower.drain(job.stream)
    assert job.printed == ["one", "last"]


def test_the_end_is_not_waited_for_where_there_is_no_log_process(job: Job) -> None:
    job.follower.drain(job.stream)
    assert job.clock.now == 1000


def test_nor_for_ever(job: Job) -> None:
    job.writes(b"one\n")
    job.follower.drain(job.stream)
    assert 1045 < job.clock.now < 1055
    assert "its end has not come" in job.log.warnings[0]


@pytest.mark.parametrize("cause", ["gone", "replaced", "away"])
def test_an_end_that_cannot_be_told_is_said(job: Job, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a log without its end looked like a whole one."""
    job.writes(b"one\n")
    job.stream.turn_to(1)
    if cause == "away":
        away(job, monkeypatch, 503)
    elif cause == "gone":
        job.api.objects.clear()
    else:
        job.api.objects[NAMESPACE, NAME]["metadata"]["uid"] = "another"
    job.follower.drain(job.stream)
    assert job.printed == ["one"]
    assert "its end has not come" in job.log.warnings[0]


def test_nothing_is_said_of_an_end_that_was_had(job: Job) -> None:
    job.writes(b"one\n")
    job.is_had()
    job.follower.drain(job.stream)
    assert not job.log.warnings


def test_each_attempt_has_a_log_of_its_own(job: Job) -> None:
    """The second one is shorter than the offset that the first one was read to."""
    job.writes(b"the first one had much to say\nand was cut o")
    job.happens(
        lambda: job.writes(b"second\n", attempt=2),
        lambda: job.api.set_conditions(NAME, Complete="True"),
    )
    job.follower.wait(WaitFor.COMPLETE, job.stream)
    assert job.printed[:2] == ["the first one had much to say", "and was cut o"]
    assert job.printed[-1] == "second"


def test_a_log_that_cannot_be_read_fails_nothing_and_is_told_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ApiError("the log process is away")

    monkeypatch.setattr(job.api, "read_log", away)
    job.happens(lambda: None, lambda: None, lambda: job.api.set_conditions(NAME, Complete="True"))
    assert job.follower.wait(WaitFor.COMPLETE, job.stream).outcome is Outcome.REACHED
    assert len(job.log.warnings) == 1
    assert job.follower.last_lines() == []


def test_what_is_missing_from_a_log_is_said(job: Job) -> None:
    job.writes(b"one\n")
    job.is_had(state="incomplete")
    job.follower.drain(job.stream)
    assert job.printed == ["one"]
    assert "not whole: a disk failed" in job.log.warnings[0]


def test_a_log_of_many_pieces_is_printed_and_copied_whole(job: Job) -> None:
    text = b"".join(b"%07d\n" % number for number in range(PIECE_BYTES // 8 * 2 + 5))
    job.writes(text)
    job.is_had()
    job.follower.drain(job.stream)
    assert "\n".join(job.printed).encode() + b"\n" == text
    job.api.logs[job.target.uid], job.api.log_states[job.target.uid] = text, "complete"
    copy = BytesIO()
    assert job.follower.copy_log(copy) == ""
    assert copy.getvalue() == text


@pytest.mark.parametrize(("state", "missing"), [("live", "its end has not come"), ("incomplete", "a disk failed")])
@pytest.mark.parametrize("text", [b"one\ntwo\n", b"one\ntwo"])
def test_a_copy_that_is_not_whole_says_so_at_its_end(job: Job, state: str, missing: str, text: bytes) -> None:
    """Bug: a file without the end of the log, a green task, and no word of it."""
    job.api.logs[job.target.uid], job.api.log_states[job.target.uid] = text, state
    copy = BytesIO()
    assert missing in job.follower.copy_log(copy)
    *lines, last = copy.getvalue().decode().splitlines()
    assert lines == ["one", "two"]
    assert last.startswith("[")
    assert missing in last


def test_a_copy_of_no_log_says_so(job: Job) -> None:
    copy = BytesIO()
    assert job.follower.copy_log(copy) == "there is no such log"
    assert copy.getvalue() == b"[This log is not whole: there is no such log]\n"


def test_the_worker_goes_on_where_the_trigger_stopped(job: Job) -> None:
    job.writes(b"seen\nnot seen\n", attempt=2)
    job.is_had(attempt=2)
    stream = resumed(job.api, job.target, {"log_offset_bytes": 5, "log_attempt": 2}, log=job.log)
    job.follower.drain(stream)
    assert job.printed == ["not seen"]


def test_where_it_is_is_said_once_for_each_change(job: Job) -> None:
    job.api.set_conditions(NAME, Ready=("False", "Queued", "waits for a GPU"))
    job.happens(
        lambda: None,
        lambda: job.api.set_conditions(NAME, Ready=("True", "Running", "the job runs")),
        lambda: job.api.set_conditions(NAME, Complete="True"),
    )
    job.follower.wait(WaitFor.COMPLETE)
    assert [line.split(": ", 1)[1] for line in job.log.lines] == ["waits for a GPU", "the job runs"]


def test_a_kill_ends_the_waiting(job: Job) -> None:
    job.happens(lambda: setattr(job, "is_killed", True))
    with pytest.raises(SkyClusterError, match="killed"):
        job.follower.wait(WaitFor.COMPLETE)
    with pytest.raises(SkyClusterError, match="killed"):
        job.follower.drain(job.stream)


def away(job: Job, monkeypatch: pytest.MonkeyPatch, status: int | None) -> Callable[[], None]:
    """Kubernetes does not answer; return what brings it back."""
    read = job.api.read

    def refuses(*_: Any, **__: Any) -> None:
        raise ApiError("kube-apiserver is away", status=status)

    monkeypatch.setattr(job.api, "read", refuses)
    return lambda: monkeypatch.setattr(job.api, "read", read)


@pytest.mark.parametrize("status", [None, 429, 503])
def test_a_job_is_not_given_up_for_an_api_server_that_comes_back(job: Job, monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    back = away(job, monkeypatch, status)
    job.happens(*[lambda: None] * 100, back, lambda: job.api.set_conditions(NAME, Complete="True"))
    assert job.follower.wait(WaitFor.COMPLETE).outcome is Outcome.REACHED


def test_absences_that_are_over_do_not_add_up(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    backs: list[Callable[[], None]] = []

    def goes() -> None:
        backs.append(away(job, monkeypatch, 503))

    def comes() -> None:
        backs.pop()()

    pauses = [goes, *[lambda: None] * 150, comes, lambda: None] * 3
    job.happens(*pauses, lambda: job.api.set_conditions(NAME, Complete="True"))
    assert job.follower.wait(WaitFor.COMPLETE).outcome is Outcome.REACHED


def test_one_that_stays_away_is_the_tasks_error_in_the_end(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    away(job, monkeypatch, 503)
    with pytest.raises(ApiError, match="away"):
        job.follower.wait(WaitFor.COMPLETE)
    assert job.clock.now > 1600


def test_a_missing_right_is_the_tasks_error_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    away(job, monkeypatch, 403)
    with pytest.raises(ApiError, match="away"):
        job.follower.wait(WaitFor.COMPLETE)
    assert job.clock.now == 1000


def test_a_job_that_has_ended_does_not_fail_for_the_end_of_its_log(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.writes(b"one\n")
    job.stream.turn_to(1)
    away(job, monkeypatch, 503)
    job.follower.drain(job.stream)
    assert job.printed == ["one"]


# What the job returned.


def value_of(job: Job, *, is_expected: bool = True) -> Any:
    return await_value(job.api, job.target, is_expected=is_expected, clock=job.clock, sleep=job.clock.sleep)


def returns(job: Job, state: Any, body: bytes = b"", message: str = "") -> None:
    job.api.results[job.target.uid] = RemoteResult(state, body, message)


def test_a_value_is_waited_for_while_it_may_come(job: Job) -> None:
    job.writes(b"")
    job.happens(lambda: None, lambda: returns(job, "present", b"[1]"))
    assert value_of(job) == [1]


def test_a_value_that_comes_between_two_questions_is_not_missed(job: Job) -> None:
    """The archive is finished after it was asked for the value, and before it was asked whether it is finished."""
    job.writes(b"")

    def comes(_: Call) -> None:
        job.is_had()
        returns(job, "present", b"[1]")

    def on_call(call: Call) -> None:
        if call.verb == "result":
            job.api.on_call = comes

    job.api.on_call = on_call
    assert value_of(job) == [1]


@pytest.mark.parametrize("is_expected", [True, False])
def test_lost_is_never_none(job: Job, is_expected: bool) -> None:
    returns(job, "lost", message="1 of 2 frames")
    with pytest.raises(ResultLostError, match="1 of 2 frames"):
        value_of(job, is_expected=is_expected)


def test_one_that_had_to_come_and_did_not_is_lost(job: Job) -> None:
    job.writes(b"")
    job.is_had()
    with pytest.raises(ResultLostError):
        value_of(job)
    assert value_of(job, is_expected=False) is None


@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_value_of_what_is_gone_is_lost_and_not_none(job: Job, is_replaced: bool) -> None:
    """A short time to live, or kubectl delete, before the worker comes to it; nobody knows any more what the job returned."""
    job.writes(b"")
    job.is_had()
    uid = job.target.uid
    if is_replaced:
        job.api.objects[NAMESPACE, NAME]["metadata"]["uid"] = "another"
    else:
        job.api.objects.clear()
    with pytest.raises(ResultLostError, match="deleted before its result was taken"):
        value_of(job, is_expected=False)
    job.api.results[uid] = RemoteResult("present", b"[1]", "")
    assert value_of(job, is_expected=False) == [1]


def test_one_that_is_deleted_between_two_questions_is_lost_and_not_none(job: Job) -> None:
    job.writes(b"")
    job.is_had()

    def on_call(call: Call) -> None:
        if call.verb == "result":
            job.api.objects.clear()

    job.api.on_call = on_call
    with pytest.raises(ResultLostError):
        value_of(job, is_expected=False)


def test_one_of_which_nobody_knows_is_neither_lost_nor_none(job: Job) -> None:
    job.writes(b"")
    with pytest.raises(SkyClusterError, match="next try asks for it again") as caught:
        value_of(job, is_expected=False)
    assert not isinstance(caught.value, ResultLostError)
    assert job.clock.now > 1000 + WAIT_SECONDS


def test_a_body_that_means_nothing_is_lost(job: Job) -> None:
    returns(job, "present", b"{")
    with pytest.raises(ResultLostError, match="can't be read"):
        value_of(job)


def records(job: Job, state: str, *, by: str = "log", log_state: str = "Archived", **more: Any) -> None:
    """The log process has written what it has of the value, and the controller has copied it."""
    job.writes(b"")
    job.is_had()
    status = job.api.objects[NAMESPACE, NAME]["status"]
    status["log"]["state"] = log_state
    status[by]["result"] = {"state": state, **more}


@pytest.mark.parametrize("by", ["log", "job"])
@pytest.mark.parametrize("is_expected", [True, False])
def test_one_that_was_collected_and_is_not_kept_any_more_is_lost_and_not_none(job: Job, by: str, is_expected: bool) -> None:
    """Bug: the log's volume was lost, and the task was green with the value None."""
    records(job, "Collected", by=by)
    with pytest.raises(ResultLostError, match="was collected, and is not there any more"):
        value_of(job, is_expected=is_expected)


def test_one_that_was_collected_is_waited_for_while_it_is_collected_once_more(job: Job) -> None:
    """A cluster that is kept still has it, and the job need not run again."""
    records(job, "Collected")
    job.happens(lambda: None, lambda: returns(job, "present", b"[1]"))
    assert value_of(job) == [1]


def test_one_that_was_lost_stays_lost_without_its_log(job: Job) -> None:
    records(job, "Lost")
    with pytest.raises(ResultLostError, match="not all of it was had"):
        value_of(job, is_expected=False)
    assert job.clock.now == 1000


def test_one_that_may_have_been_in_what_is_missing_of_the_log_is_not_none(job: Job) -> None:
    records(job, "Lost", log_state="Incomplete")
    del job.api.objects[NAMESPACE, NAME]["status"]["log"]["result"]
    with pytest.raises(ResultLostError, match="in what is missing of its log"):
        value_of(job, is_expected=False)


def test_what_an_earlier_attempt_recorded_says_nothing_of_the_latest(job: Job) -> None:
    records(job, "Collected")
    job.api.set_job(NAME, attempt=2, had=False)
    del job.api.objects[NAMESPACE, NAME]["status"]["job"]["log"]
    assert value_of(job, is_expected=False) is None


@pytest.mark.parametrize("is_same", [True, False])
def test_another_value_than_was_collected_is_not_taken_for_it(job: Job, is_same: bool) -> None:
    records(job, "Collected", sha256=sha256(b"[1]" if is_same else b"[2]").hexdigest(), bytes=3)
    returns(job, "present", b"[1]")
    if is_same:
        assert value_of(job) == [1]
    else:
        with pytest.raises(ResultLostError, match="another than was collected"):
            value_of(job)


def test_what_an_earlier_attempt_raised_is_not_raised_for_a_later_one_that_returned(job: Job) -> None:
    """Bug: while the log process had not seen the second launch yet, it answered with the first one's."""
    job.is_had(attempt=2)
    job.api.results[f"{job.target.uid}/1"] = RemoteResult("present", json.dumps(error_value(ValueError("old"), "")).encode(), "")
    job.api.results[f"{job.target.uid}/2"] = RemoteResult("present", b"[2]", "")
    job.api.results[job.target.uid] = job.api.results[f"{job.target.uid}/1"]
    assert value_of(job) == [2]


def test_a_failure_without_words_of_the_function_raises_nothing(job: Job) -> None:
    raise_remote(job.api, job.target)
    returns(job, "lost")
    raise_remote(job.api, job.target)
