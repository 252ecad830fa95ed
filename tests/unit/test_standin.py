"""The stand-in has SkyPilot's traps, in SkyPilot's order: a controller that passes against it must have met them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import yaml
from skyoperator.sky import (
    ClusterStatus,
    Launched,
    NoCredentials,
    RequestError,
    RequestStatus,
    SkyPilotClient,
    SkyPilotUnreachable,
    UnknownRequest,
)
from skyoperator.task.fence import fenced

from tests.standin.control import Control
from tests.standin.server import serving
from tests.standin.world import Request, fence

FENCED = yaml.safe_dump({"name": "u-a1", "run": fenced("python train.py", "run", "u-a1")})
PLAIN = "name: u-a1\nrun: python train.py\n"


@pytest.fixture
def control() -> Control:
    return Control(long_workers=1)


@pytest.fixture
async def sky(control: Control) -> AsyncIterator[SkyPilotClient]:
    async with serving(control) as address, SkyPilotClient.connect(address, NoCredentials()) as connected:
        yield connected


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def status_of(sky: SkyPilotClient, name: str, request_id: str) -> RequestStatus:
    return next(request.status for request in await sky.requests_of(name) if request.id == request_id)


async def test_launches_beyond_the_long_workers_wait_their_turn(sky: SkyPilotClient, control: Control) -> None:
    control.launches(seconds=0.7)
    ids = [await sky.launch(f"c{n}", PLAIN) for n in range(3)]
    assert [await status_of(sky, f"c{n}", ids[n]) for n in range(3)] == ["RUNNING", "PENDING", "PENDING"]
    for request_id in ids:
        assert await sky.result_of(request_id) == Launched(1)
    finished = [control.world.requests[request_id].finished_at or 0.0 for request_id in ids]
    assert finished == sorted(finished)


async def test_a_second_launch_of_a_cluster_parks_and_frees_its_worker(sky: SkyPilotClient, control: Control) -> None:
    control.set(long_workers=2)
    control.launches("c", seconds=0.3)
    first, second = await sky.launch("c", PLAIN), await sky.launch("c", PLAIN)
    await until(lambda: control.world.requests[second].status == "WAITING")
    assert await sky.result_of(await sky.launch("other", PLAIN)) == Launched(1)
    assert await status_of(sky, "c", first) == "RUNNING"
    assert await sky.result_of(second) == Launched(2)


@pytest.mark.parametrize(("task", "times"), [(FENCED, 1), (PLAIN, 2)])
async def test_the_attempt_fence_lets_the_users_part_run_once(sky: SkyPilotClient, control: Control, task: str, times: int) -> None:
    for _ in range(2):
        await sky.result_of(await sky.launch("c", task))
    await until(lambda: all(job.end_at for job in control.world.clusters["c"].jobs))
    assert (len(control.world.launches), control.world.executions) == (2, {"u-a1": times})


async def test_a_new_cluster_has_no_markers_of_the_old_one(sky: SkyPilotClient, control: Control) -> None:
    for expected in (1, 2):
        await sky.result_of(await sky.launch("c", FENCED))
        await until(lambda: all(job.end_at for job in control.world.clusters["c"].jobs))
        assert control.world.executions["u-a1"] == expected
        control.delete_pods("c")
        assert await sky.clusters() == ()


def test_each_attempt_has_a_marker_of_its_own() -> None:
    markers = [fence(fenced("python train.py", "run", job)) for job in ("u-a1", "u-a2", "v-a1")]
    assert None not in markers
    assert len(set(markers)) == 3


@pytest.mark.parametrize("run", ["python x", "", 'f() {\n  local mark="/m"\n}\npython x\nf\nunset -f f\n'])
def test_a_script_without_a_fence_at_its_head_has_none(run: str) -> None:
    assert fence(run) is None


async def test_down_without_a_row_leaves_the_queued_launch_alive(sky: SkyPilotClient, control: Control) -> None:
    control.launches("busy", seconds=0.2)
    await sky.launch("busy", PLAIN)
    queued = await sky.launch("c", PLAIN)
    assert isinstance(await sky.result_of(await sky.down("c")), RequestError)
    assert await sky.result_of(queued) == Launched(1)


async def test_a_cancelled_worker_can_still_make_the_row(sky: SkyPilotClient, control: Control) -> None:
    control.launches(seconds=30, row_after=1.5)
    control.set(cancel_lag_seconds=3)
    request_id = await sky.launch("c", PLAIN)
    await until(lambda: control.world.requests[request_id].status == "RUNNING")
    await sky.result_of(await sky.cancel([request_id]))
    assert await status_of(sky, "c", request_id) == "CANCELLED"
    assert await sky.clusters() == ()
    await until(lambda: "c" in control.world.clusters)
    (row,) = await sky.clusters()
    assert row.status is ClusterStatus.INIT


async def test_down_does_not_wait_for_a_worker_that_can_still_make_the_row(sky: SkyPilotClient, control: Control) -> None:
    await sky.result_of(await sky.launch("c", PLAIN))
    control.launches(seconds=30, row_after=0.3)
    control.set(cancel_lag_seconds=0.6)
    request_id = await sky.launch("c", PLAIN)
    await until(lambda: control.world.requests[request_id].status == "RUNNING")
    assert await sky.result_of(await sky.down("c")) == Launched(None)
    assert (await sky.clusters(), await sky.active_requests()) == ((), ())
    await until(lambda: "c" in control.world.clusters)


async def test_a_restart_turns_half_a_launch_up_without_a_job(sky: SkyPilotClient, control: Control) -> None:
    control.launches(seconds=30, row_after=0)
    await sky.launch("c", PLAIN)
    await until(lambda: "c" in control.world.clusters)
    await control.restart()
    (row,) = await sky.clusters()
    assert (row.status, await sky.jobs("c"), await sky.active_requests()) == (ClusterStatus.UP, (), ())


async def test_a_restart_hangs_up_on_who_waits_for_a_result(sky: SkyPilotClient, control: Control) -> None:
    control.launches(seconds=30)
    waiting = asyncio.create_task(sky.result_of(await sky.launch("c", PLAIN)))
    await until(lambda: control.world.calls["GET /api/get"] == 1)
    await control.restart()
    with pytest.raises((SkyPilotUnreachable, UnknownRequest)):
        await waiting


async def test_a_broken_cluster_is_unhealthy(sky: SkyPilotClient, control: Control) -> None:
    await sky.result_of(await sky.launch("c", PLAIN))
    control.break_cluster("c")
    (row,) = await sky.clusters()
    assert (row.status, row.unhealthy) == (ClusterStatus.INIT, True)


async def test_a_wiped_server_forgets_clusters_that_run_on(sky: SkyPilotClient, control: Control) -> None:
    control.jobs(seconds=30)
    await sky.result_of(await sky.launch("c", PLAIN))
    before = await sky.identity()
    control.wipe()
    assert (await sky.clusters(), await sky.active_requests(), control.state()["forgotten"]) == ((), (), ["c"])
    assert await sky.identity() != before
    (lost,) = control.world.forgotten
    await until(lambda: lost.jobs[0].status == "RUNNING")


@pytest.mark.parametrize(("ids", "cancelled"), [([1], [1]), ([], []), ([1, 7], [1]), (None, [2])])
async def test_cancelling_no_job_by_id_cancels_the_latest(
    sky: SkyPilotClient, control: Control, ids: list[int] | None, cancelled: list[int]
) -> None:
    control.jobs(seconds=30)
    for _ in range(2):
        await sky.result_of(await sky.launch("c", PLAIN))
    jobs = control.world.clusters["c"].jobs
    await until(lambda: all(job.status == "RUNNING" for job in jobs))
    request = Request("cancel", "c", {"job_ids": ids})
    control.workers.start(request)
    await request.done.wait()
    assert [job.id for job in jobs if job.status == "CANCELLED"] == cancelled


async def test_unreachable_drops_every_connection_until_told_otherwise(sky: SkyPilotClient, control: Control) -> None:
    control.set(unreachable=True)
    with pytest.raises(SkyPilotUnreachable, match="can't be reached"):
        await sky.check()
    control.set(unreachable=False)
    await sky.check()


async def test_what_was_scripted_last_counts(sky: SkyPilotClient, control: Control) -> None:
    control.launches("train-*", error={"type": "ResourcesUnavailableError", "message": "none"})
    assert await sky.result_of(await sky.launch("train-1", PLAIN)) == RequestError("ResourcesUnavailableError", "none")
    assert await sky.result_of(await sky.launch("other", PLAIN)) == Launched(1)
    control.launches("train-*")
    assert await sky.result_of(await sky.launch("train-1", PLAIN)) == Launched(1)


async def test_ports_have_an_address_once_there_is_one(sky: SkyPilotClient, control: Control) -> None:
    control.set(address_seconds=1000)
    task = yaml.safe_dump({"name": "u-a1", "resources": {"ports": [9000, "8000-8001,8080"]}})
    await sky.result_of(await sky.launch("c", task))
    assert await sky.endpoints("c") == {}
    control.set(address_seconds=0)
    assert await sky.endpoints("c") == {str(port): f"203.0.113.7:{port}" for port in (8000, 8001, 8080, 9000)}
