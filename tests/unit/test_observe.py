"""What an object is shown: never older than its own last action, never absence for ignorance, and nothing that did not change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from skyoperator.observe import CALM_SECONDS, URGENT_SECONDS
from skyoperator.sky.types import (
    Cluster,
    ClusterStatus,
    Job,
    JobStatus,
    Launched,
    Request,
    RequestError,
    RequestStatus,
    SkyPilotUnreachable,
)
from skyoperator.snapshot import UNBROKEN_SECONDS
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS
from skyoperator.world import ABSENT, World

from tests.unit.build import JOB
from tests.unit.watching import (
    ATTEMPT,
    CALM,
    FAILED,
    IDLE,
    LAUNCH,
    OUTAGE,
    POLL,
    QUEUE,
    RUNNING,
    SUCCEEDED,
    Stage,
    a_request,
    a_row,
    now,
    staged,
    time,
)

pytestmark = pytest.mark.looptime(start=1000)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def test_nobody_waits_nobody_polls(stage: Stage) -> None:
    await asyncio.sleep(1000)
    assert stage.sky.calls == []
    await stage.look()
    stage.observer.forget("a")
    await asyncio.sleep(URGENT_SECONDS + 1)
    asked = len(stage.sky.calls)
    await asyncio.sleep(1000)
    assert len(stage.sky.calls) == asked


@pytest.mark.parametrize(("subject", "seconds"), [(IDLE, URGENT_SECONDS), (CALM, CALM_SECONDS)])
async def test_it_polls_as_often_as_what_is_followed_needs(stage: Stage, subject: Subject, seconds: float) -> None:
    await stage.look(subject)
    await asyncio.sleep(seconds * 10 + 1)
    assert len(stage.sky.asked("clusters")) == 11


async def test_requests_are_asked_before_rows(stage: Stage) -> None:
    await stage.look()
    assert [call.name for call in stage.sky.calls] == ["identity", *POLL]


async def test_one_poll_answers_everybody_who_waits(stage: Stage) -> None:
    stage.sky.seconds = {"clusters": 1.0}
    names = [f"c{number}" for number in range(20)]
    stage.sky.rows = tuple(a_row(name) for name in names)
    worlds = await asyncio.gather(*(stage.look(Subject(name)) for name in names))
    assert [world.cluster for world in worlds] == list(stage.sky.rows)
    assert [call.name for call in stage.sky.calls] == ["identity", *POLL]


async def test_a_look_after_an_action_is_never_older_than_it(stage: Stage) -> None:
    await stage.look()
    stage.sky.seconds = {"clusters": 1.5}
    await asyncio.sleep(URGENT_SECONDS + 0.5)
    assert len(stage.sky.asked("active_requests")) == len(stage.sky.asked("clusters")) == 2
    acted_at = now()
    stage.sky.active = (a_request(),)
    stage.observer.acted("a")
    world = await stage.look()
    assert world.active == (a_request(),)
    assert world.acted_at == acted_at


async def test_an_action_on_one_cluster_holds_up_no_look_of_another(stage: Stage) -> None:
    await stage.look(Subject("b"))
    await stage.look()
    stage.sky.seconds = {"clusters": 5.0}
    stage.observer.acted("a")
    before = time()
    await stage.look(Subject("b"))
    assert time() == before


async def test_a_first_look_is_never_older_than_the_calm_pause(stage: Stage) -> None:
    await stage.look(Subject("b"))
    stage.observer.forget("b")
    await asyncio.sleep(CALM_SECONDS + URGENT_SECONDS + 1)
    stage.sky.rows = (a_row(),)
    assert (await stage.look()).cluster == a_row()


@pytest.mark.parametrize("question", POLL)
@pytest.mark.parametrize("failure", [OUTAGE, ValueError("garbage")])
@pytest.mark.parametrize("subject", [LAUNCH, ATTEMPT, QUEUE])
async def test_a_look_that_fails_knows_nothing_and_ends_nothing(stage: Stage, question: str, failure: Exception, subject: Subject) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(subject)
    stage.sky.failures[question] = failure
    world = await stage.fresh_look(subject)
    assert str(failure) in world.complaint
    unknown = World(now=now(), server="", complaint=world.complaint)
    assert world == unknown
    assert not stage.running.done()
    stage.sky.failures.clear()
    world = await stage.fresh_look(subject)
    assert (world.cluster, world.complaint) == (a_row(), "")


async def test_an_outage_keeps_its_first_complaint_and_the_next_has_its_own(stage: Stage) -> None:
    for first in ("first", "of the next"):
        for words in (first, "later", "later still"):
            stage.sky.failures["clusters"] = SkyPilotUnreachable(words)
            assert (await stage.fresh_look()).complaint == first
        stage.sky.failures.clear()
        assert (await stage.fresh_look()).complaint == ""


async def test_an_outage_wakes_once_and_its_end_once(stage: Stage) -> None:
    await stage.look()
    await asyncio.sleep(30)
    stage.woken.clear()
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(100)
    stage.sky.failures.clear()
    await asyncio.sleep(100)
    assert len(stage.woken) == 2


async def test_the_server_is_reachable_since_its_first_answer_after_an_outage(stage: Stage) -> None:
    first = (await stage.look()).reachable_since
    assert (await stage.fresh_look()).reachable_since == first
    stage.sky.failures["clusters"] = OUTAGE
    assert (await stage.fresh_look()).reachable_since is None
    before = now()
    stage.sky.failures.clear()
    since = (await stage.fresh_look()).reachable_since
    assert since is not None
    assert since >= before


async def test_time_in_which_nobody_looked_is_no_time_the_server_answered(stage: Stage) -> None:
    await stage.look()
    stage.observer.forget("a")
    await asyncio.sleep(UNBROKEN_SECONDS + URGENT_SECONDS + 1)
    before = now()
    since = (await stage.look()).reachable_since
    assert since is not None
    assert since >= before


async def test_emptiness_needs_two_looks_and_grows_between_them(stage: Stage) -> None:
    assert (await stage.look()).empty_seconds == 0
    await asyncio.sleep(URGENT_SECONDS * 2 + 0.5)
    assert (await stage.look()).empty_seconds == URGENT_SECONDS * 2


async def test_emptiness_that_is_confirmed_wakes_once(stage: Stage) -> None:
    await stage.look()
    stage.woken.clear()
    before = time()
    await asyncio.sleep(CONFIRM_SECONDS * 5)
    assert stage.woken == [before + CONFIRM_SECONDS]


@pytest.mark.parametrize("what", ["acted", "row", "request"])
async def test_emptiness_starts_anew(stage: Stage, what: str) -> None:
    await stage.look()
    assert (await stage.fresh_look()).empty_seconds >= CONFIRM_SECONDS
    if what == "acted":
        stage.observer.acted("a")
    else:
        stage.sky.rows = (a_row(),) if what == "row" else ()
        stage.sky.active = (a_request(),) if what == "request" else ()
        await asyncio.sleep(URGENT_SECONDS + 0.5)
    assert (await stage.look()).empty_seconds == 0
    stage.sky.rows, stage.sky.active = (), ()
    await asyncio.sleep(CONFIRM_SECONDS - 0.5)
    assert (await stage.look()).empty_seconds < CONFIRM_SECONDS


async def test_a_look_that_failed_is_not_empty(stage: Stage) -> None:
    stage.sky.failures["clusters"] = OUTAGE
    await stage.look()
    await asyncio.sleep(100)
    stage.sky.failures.clear()
    await asyncio.sleep(URGENT_SECONDS + 0.5)
    assert (await stage.look()).empty_seconds < CONFIRM_SECONDS


async def test_a_look_that_began_before_an_action_proves_no_emptiness(stage: Stage) -> None:
    await stage.look()
    stage.sky.seconds = {"clusters": 1.5}
    await asyncio.sleep(URGENT_SECONDS + 0.5)
    stage.observer.acted("a")
    acted_at = time()
    world = await stage.look()
    assert world.empty_seconds == 0
    await asyncio.sleep(URGENT_SECONDS * 2)
    assert (await stage.look()).empty_seconds <= time() - acted_at - 1.5


async def test_what_is_the_same_wakes_nobody(stage: Stage) -> None:
    stage.sky.rows, stage.sky.active, stage.sky.queues = (a_row(),), (a_request(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    await asyncio.sleep(30)
    stage.woken.clear()
    for number in range(10):
        stage.sky.active = (
            replace(a_request(), status_msg=f"{number} min"),
            a_request(f"q{number}", "queue"),
            a_request(f"o{number}", cluster="other"),
        )
        stage.sky.rows = (a_row(), a_row(f"other-{number}"))
        await asyncio.sleep(30)
    assert stage.woken == []


@pytest.mark.parametrize(
    "change",
    [
        {"active": (a_request(), a_request("r2", "down"))},
        {"active": (a_request(status=RequestStatus.WAITING),)},
        {"active": ()},
        {"rows": (a_row(status=ClusterStatus.INIT),)},
        {"rows": ()},
    ],
)
async def test_a_change_wakes_once_within_a_poll(stage: Stage, change: dict[str, tuple[Request | Cluster, ...]]) -> None:
    stage.sky.rows, stage.sky.active = (a_row(),), (a_request(),)
    await stage.look()
    await asyncio.sleep(30)
    stage.woken.clear()
    changed_at = time()
    for name, value in change.items():
        setattr(stage.sky, name, value)
    await asyncio.sleep(CONFIRM_SECONDS - 1)
    (woken_at,) = stage.woken
    assert woken_at - changed_at <= URGENT_SECONDS


async def test_a_job_that_changes_wakes_and_is_shown(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    assert (await stage.fresh_look(QUEUE)).jobs == (RUNNING,)
    stage.woken.clear()
    stage.sky.queues["a"] = (SUCCEEDED,)
    world = await stage.fresh_look(QUEUE)
    assert (world.queue_was_read, world.jobs) == (True, (SUCCEEDED,))
    assert len(stage.woken) == 1


async def test_a_job_that_fails_is_shown_with_the_last_words_of_its_log(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (Job(1, JOB, JobStatus.FAILED),)}
    stage.sky.logs = {1: "hello\nERROR: Job 1 failed with return code list: [3]\n"}
    await stage.look(QUEUE)
    assert (await stage.fresh_look(QUEUE)).job_words == "ERROR: Job 1 failed with return code list: [3]\nhello"


async def test_a_queue_that_cannot_be_read_is_unknown_until_it_can(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    for failure in (OUTAGE, ValueError("garbage")):
        stage.sky.failures["jobs"] = failure
        world = await stage.fresh_look(QUEUE)
        assert (world.cluster, world.queue_was_read, world.jobs) == (a_row(), True, None)
        stage.sky.failures.clear()
        assert (await stage.fresh_look(QUEUE)).jobs == (RUNNING,)


@pytest.mark.parametrize("row", [(), (a_row(status=ClusterStatus.INIT),), (a_row(status=ClusterStatus.STOPPED),)])
async def test_a_row_that_is_no_longer_up_drops_the_queue_at_once(stage: Stage, row: tuple[Cluster, ...]) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    await asyncio.sleep(30)
    stage.sky.rows = row
    await asyncio.sleep(CALM_SECONDS + 0.1)
    world = await stage.look(QUEUE)
    assert (world.queue_was_read, world.jobs) == (False, None)
    read = len(stage.sky.asked("jobs"))
    await asyncio.sleep(100)
    assert len(stage.sky.asked("jobs")) == read


async def test_a_queue_read_before_an_action_does_not_count(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    await asyncio.sleep(30)
    stage.observer.acted("a")
    world = await stage.look(QUEUE)
    assert (world.cluster, world.queue_was_read, world.jobs) == (a_row(), False, None)
    assert (await stage.fresh_look(QUEUE)).jobs == (RUNNING,)


async def test_a_queue_nobody_asks_for_is_not_read(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues = (a_row(),), {"a": (RUNNING,)}
    await stage.look(QUEUE)
    await asyncio.sleep(30)
    stage.observer.forget("a")
    read = len(stage.sky.asked("jobs"))
    assert read > 0
    await stage.look(CALM)
    await asyncio.sleep(100)
    assert len(stage.sky.asked("jobs")) == read


async def test_a_slow_queue_holds_up_neither_its_own_nor_another_clusters_look(stage: Stage) -> None:
    other = Subject("b", job_name=JOB)
    stage.sky.rows, stage.sky.queues = (a_row(), a_row("b")), {"a": (RUNNING,), "b": (RUNNING,)}
    stage.sky.seconds = {"a": 500.0}
    await asyncio.gather(stage.look(QUEUE), stage.look(other))
    await asyncio.sleep(0.1)
    before = time()
    assert not (await stage.look(QUEUE)).queue_was_read
    assert (await stage.look(other)).jobs == (RUNNING,)
    stage.sky.queues["b"] = (SUCCEEDED,)
    assert time() == before
    await asyncio.sleep(20)
    assert (await stage.look(other)).jobs == (SUCCEEDED,)


async def test_the_request_we_know_is_shown_while_it_is_active(stage: Stage) -> None:
    stage.sky.active = (a_request("other"), a_request())
    world = await stage.look(LAUNCH)
    assert (world.launch, world.outcome) == (a_request(), None)
    assert [call.name for call in stage.sky.calls] == ["identity", *POLL]


@pytest.mark.parametrize("outcome", [Launched(1), RequestError("ResourcesUnavailableError", "no GPU")])
async def test_the_request_we_know_is_shown_with_its_outcome(stage: Stage, outcome: Launched | RequestError) -> None:
    stage.sky.ended, stage.sky.results = (FAILED,), {"r1": outcome}
    world = await stage.look(LAUNCH)
    assert (world.launch, world.outcome) == (FAILED, outcome)


async def test_a_request_that_the_server_does_not_know_is_absent(stage: Stage) -> None:
    stage.sky.ended = (a_request("other", status=RequestStatus.FAILED),)
    assert (await stage.look(LAUNCH)).launch is ABSENT
    stage.sky.ended = (FAILED,)
    assert (await stage.look(LAUNCH)).launch is ABSENT


async def test_a_request_that_cannot_be_asked_for_is_not_absent(stage: Stage) -> None:
    stage.sky.failures["requests_of"] = OUTAGE
    assert (await stage.look(LAUNCH)).launch is None
    assert (await stage.look(ATTEMPT)).attempt is None
    del stage.sky.failures["requests_of"]
    stage.sky.ended, stage.sky.names, stage.sky.results = (FAILED,), {"r1": JOB}, {"r1": Launched(1)}
    stage.sky.failures["task_name_of"] = OUTAGE
    assert (await stage.look(ATTEMPT)).attempt is None
    stage.sky.failures["result_of"] = OUTAGE
    assert (await stage.look(LAUNCH)).outcome is None


@pytest.mark.parametrize("request_", [a_request(), FAILED])
async def test_an_attempt_is_found_by_its_own_name_alone(stage: Stage, request_: Request) -> None:
    stage.sky.ended, stage.sky.results = (request_,), {"r1": RequestError("ResourcesUnavailableError", "no GPU")}
    assert (await stage.look(ATTEMPT)).attempt is ABSENT
    stage.sky.names = {"r1": "sky-cmd"}
    assert (await stage.look(ATTEMPT)).attempt is ABSENT
    stage.sky.names = {"r1": JOB}
    assert (await stage.look(ATTEMPT)).attempt == request_


@pytest.mark.parametrize("kind", ["RequestInterruptedError", "ServerTemporarilyUnavailableError", "BrokenProcessPool"])
async def test_a_launch_that_the_server_dropped_is_no_trace_of_an_attempt(stage: Stage, kind: str) -> None:
    stage.sky.ended, stage.sky.names = (FAILED,), {"r1": JOB}
    stage.sky.results = {"r1": RequestError(kind, "try again")}
    assert (await stage.look(ATTEMPT)).attempt is ABSENT


async def test_a_launch_whose_body_we_may_not_read_may_be_the_attempt(stage: Stage) -> None:
    stage.sky.ended, stage.sky.names = (FAILED,), {"r1": None}
    assert (await stage.look(ATTEMPT)).attempt is None


async def test_a_launch_that_the_server_dropped_hides_no_other(stage: Stage) -> None:
    taken = a_request("r0", status=RequestStatus.SUCCEEDED)
    stage.sky.ended, stage.sky.names = (FAILED, taken), {"r1": JOB, "r0": JOB}
    stage.sky.results = {"r1": RequestError("RequestInterruptedError", "try again"), "r0": Launched(1)}
    assert (await stage.look(ATTEMPT)).attempt == taken


async def fails_to_go_down(stage: Stage, number: int) -> float:
    """Let another /down fail; return for how long the next is then to wait."""
    stage.sky.results = {f"d{number}": RequestError("RuntimeError", f"pods stay, {number}")}
    stage.observer.acted("a", down_id=f"d{number}")
    world = await stage.look(CALM)
    assert (world.down_error, world.may_down) == (f"pods stay, {number}", False)
    began_at = time()
    while not (await stage.look(CALM)).may_down:
        await asyncio.sleep(0.5)
    return time() - began_at


async def test_a_down_that_fails_is_said_and_asked_again_ever_more_seldom(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    world = await stage.look(CALM)
    assert (world.down_error, world.may_down) == ("", True)
    assert [await fails_to_go_down(stage, number) for number in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    stage.sky.results = {"d9": Launched(None)}
    stage.observer.acted("a", down_id="d9")
    world = await stage.look(CALM)
    assert (world.down_error, world.may_down) == ("", True)
    assert await fails_to_go_down(stage, 10) == 2


async def test_a_down_that_is_under_way_has_not_failed(stage: Stage) -> None:
    stage.sky.rows, stage.sky.active = (a_row(),), (a_request("d1", "down"),)
    await stage.look()
    stage.sky.results = {"d1": RequestError("RuntimeError", "pods stay")}
    stage.observer.acted("a", down_id="d1")
    assert (await stage.look()).down_error == ""
    stage.sky.active = ()
    assert (await stage.fresh_look()).down_error == "pods stay"


async def test_the_error_of_a_down_goes_with_its_cluster(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    await stage.look()
    await fails_to_go_down(stage, 1)
    stage.sky.results = {"d2": Launched(None)}
    stage.sky.rows = ()
    stage.observer.acted("a", down_id="d2")
    world = await stage.look()
    assert (world.cluster, world.down_error) == (ABSENT, "")


async def test_the_error_of_a_down_is_not_the_next_clusters(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    await stage.look()
    await fails_to_go_down(stage, 1)
    stage.sky.rows = ()
    await stage.fresh_look()
    stage.sky.rows = (a_row(),)
    assert (await stage.fresh_look()).down_error == ""


@pytest.mark.looptime(start=0)
async def test_a_queue_that_was_never_read_is_unread_right_after_boot_too(stage: Stage) -> None:
    stage.sky.rows, stage.sky.queues, stage.sky.seconds = (a_row(),), {"a": (RUNNING,)}, {"a": 500.0}
    await stage.look(QUEUE)
    assert not (await stage.look(QUEUE)).queue_was_read
