"""Open ports are asked about beside everything else, ever more seldom, and only where there are any.

Which bug would turn this red: a cluster without ports that is asked, a load balancer that never comes and takes SkyPilot's workers, or
holds up a pass, a queue or another cluster's ports, an address that is found out and told to nobody, one of an earlier launch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from skyoperator.endpoint_reader import FIRST_PAUSE_SECONDS, LONGEST_KNOWN_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from skyoperator.lanes import PATIENCE_SECONDS
from skyoperator.observe import CALM_SECONDS
from skyoperator.sky.types import ClusterStatus, RequestError, RequestFailed
from skyoperator.subject import Subject

from tests.unit.build import JOB
from tests.unit.states import SECOND_JOB
from tests.unit.watching import CALM, OUTAGE, QUEUE, RUNNING, Stage, a_row, staged, time

pytestmark = pytest.mark.looptime(start=1000)

SERVES = Subject("a", ports_of=JOB, is_urgent=False)
FOUND = {"8080": "192.0.2.7:8080"}
LOAD_BALANCER_SECONDS = 60.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        stage.sky.rows = (a_row(),)
        yield stage


def asked(stage: Stage, name: str = "a") -> list[float]:
    return [call.at for call in stage.sky.calls if call.name == "endpoints" and call.of == name]


@pytest.mark.parametrize("subject", [CALM, QUEUE])
async def test_nobody_asks_about_a_cluster_without_ports(stage: Stage, subject: Subject) -> None:
    await stage.look(subject)
    assert (await stage.fresh_look(subject)).endpoints is None
    assert asked(stage) == []


async def test_an_answer_is_told_once_and_shown(stage: Stage) -> None:
    stage.sky.addresses["a"] = FOUND
    assert (await stage.look(SERVES)).endpoints is None
    await asyncio.sleep(1)
    assert len(stage.woken) == 1
    assert (await stage.look(SERVES)).endpoints == FOUND
    await asyncio.sleep(LONGEST_KNOWN_PAUSE_SECONDS * 10)
    assert len(stage.woken) == 1
    pauses = [later - earlier for earlier, later in pairwise(asked(stage))]
    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_KNOWN_PAUSE_SECONDS


async def test_an_address_that_is_not_there_yet_is_asked_for_ever_more_seldom_until_it_is(stage: Stage) -> None:
    await stage.look(SERVES)
    await asyncio.sleep(LONGEST_PAUSE_SECONDS * 5)
    pauses = [later - earlier for earlier, later in pairwise(asked(stage))]
    assert pauses[:5] == [2, 4, 8, 16, 32]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    stage.woken.clear()
    stage.sky.addresses["a"] = FOUND
    await asyncio.sleep(LONGEST_PAUSE_SECONDS)
    assert len(stage.woken) == 1
    assert (await stage.look(SERVES)).endpoints == FOUND


async def test_one_more_port_is_noticed_soon_after_the_first(stage: Stage) -> None:
    await stage.look(SERVES)
    await asyncio.sleep(1)
    stage.sky.addresses["a"] = FOUND
    await asyncio.sleep(FIRST_PAUSE_SECONDS)
    stage.sky.addresses["a"] = both = {**FOUND, "9090": "192.0.2.7:9090"}
    await asyncio.sleep(FIRST_PAUSE_SECONDS)
    assert (await stage.look(SERVES)).endpoints == both


async def test_only_a_cluster_that_is_up_is_asked_and_once_it_is_again_it_is_asked_anew(stage: Stage) -> None:
    stage.sky.addresses["a"], stage.sky.rows = FOUND, (a_row(status=ClusterStatus.INIT),)
    await stage.look(SERVES)
    await stage.fresh_look(SERVES)
    assert asked(stage) == []
    stage.sky.rows = (a_row(),)
    assert (await stage.fresh_look(SERVES)).endpoints == FOUND
    stage.sky.rows = (a_row(status=ClusterStatus.STOPPED),)
    assert (await stage.fresh_look(SERVES)).endpoints is None
    stage.sky.rows, stage.sky.addresses["a"] = (a_row(),), {"8080": "192.0.2.8:8080"}
    assert (await stage.fresh_look(SERVES)).endpoints == {"8080": "192.0.2.8:8080"}


async def test_another_launch_is_asked_about_at_once_and_what_was_known_of_the_last_is_not_shown(stage: Stage) -> None:
    stage.sky.addresses["a"] = FOUND
    await stage.look(SERVES)
    await stage.fresh_look(SERVES)
    await asyncio.sleep(1)
    stage.sky.addresses["a"] = {"9090": "192.0.2.7:9090"}
    stage.sky.calls.clear()
    again = Subject("a", ports_of=SECOND_JOB, is_urgent=False)
    assert (await stage.look(again)).endpoints is None
    await asyncio.sleep(1)
    assert len(asked(stage)) == 1
    assert (await stage.look(again)).endpoints == {"9090": "192.0.2.7:9090"}


@pytest.mark.parametrize("failure", [OUTAGE, RequestFailed(RequestError("ApiException", "429")), ValueError("garbage")])
async def test_a_question_that_fails_changes_nothing_and_ends_nothing(stage: Stage, failure: Exception) -> None:
    stage.sky.addresses["a"] = FOUND
    await stage.look(SERVES)
    await stage.fresh_look(SERVES)
    stage.woken.clear()
    stage.sky.failures["endpoints"] = failure
    await asyncio.sleep(LONGEST_KNOWN_PAUSE_SECONDS)
    assert (await stage.look(SERVES)).endpoints == FOUND
    assert stage.woken == []
    stage.sky.failures.clear()
    stage.sky.addresses["a"] = {}
    await asyncio.sleep(LONGEST_KNOWN_PAUSE_SECONDS)
    assert (await stage.look(SERVES)).endpoints == {}


async def test_a_senseless_answer_is_logged_with_its_cluster(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.sky.failures["endpoints"] = ValueError("garbage")
    with caplog.at_level(logging.WARNING):
        await stage.look(SERVES)
        await asyncio.sleep(1)
    assert [record.message for record in caplog.records] == ["a: its endpoints make no sense"]


async def test_nothing_is_asked_and_nothing_known_while_the_server_is_away(stage: Stage) -> None:
    stage.sky.addresses["a"] = FOUND
    await stage.look(SERVES)
    await stage.fresh_look(SERVES)
    stage.sky.failures["clusters"] = OUTAGE
    await asyncio.sleep(CALM_SECONDS + 1)
    stage.sky.calls.clear()
    assert (await stage.look(SERVES)).endpoints is None
    await asyncio.sleep(LONGEST_KNOWN_PAUSE_SECONDS)
    assert asked(stage) == []
    stage.sky.failures.clear()
    assert (await stage.fresh_look(SERVES)).endpoints == FOUND


async def test_who_follows_no_more_asks_no_more(stage: Stage) -> None:
    await stage.look(SERVES)
    await asyncio.sleep(1)
    stage.observer.forget("a")
    stage.sky.calls.clear()
    await asyncio.sleep(LONGEST_PAUSE_SECONDS)
    assert asked(stage) == []


async def test_load_balancers_that_never_come_hold_up_nobody_and_take_few_workers(stage: Stage) -> None:
    """Nine clusters never get an address, and SkyPilot waits a minute for each, each time; two are answered at once."""
    never = [f"n{number}" for number in range(9)]
    stage.sky.rows = tuple(a_row(name) for name in (*never, "a", "b"))
    stage.sky.queues, stage.sky.addresses = {"a": (RUNNING,)}, {"a": FOUND, "b": FOUND}
    stage.sky.seconds = dict.fromkeys(never, LOAD_BALANCER_SECONDS)
    for name in never:
        before = time()
        await stage.look(Subject(name, ports_of=JOB, is_urgent=False))
        assert time() == before
    both = Subject("a", job_name=JOB, ports_of=JOB, is_urgent=False)
    await stage.look(both)
    await asyncio.sleep(1)
    assert (await stage.look(both)).jobs == (RUNNING,)
    await asyncio.sleep(PATIENCE_SECONDS * len(never))
    assert (await stage.look(both)).endpoints == FOUND
    later = Subject("b", ports_of=JOB, is_urgent=False)
    await stage.look(later)
    await asyncio.sleep(1)
    assert (await stage.look(later)).endpoints == FOUND
    await asyncio.sleep(6000)
    began = [at for name in never for at in asked(stage, name)]
    assert max(sum(at <= now < at + LOAD_BALANCER_SECONDS for at in began) for now in began) <= 5
    late = [at for at in began if at > time() - 3000]
    assert len(late) * LOAD_BALANCER_SECONDS / 3000 <= 1
