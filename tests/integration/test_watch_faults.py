"""The watch breaks, or the whole kube-apiserver goes away: the controller stays, sees what it missed, and launches nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.support import kubectl
from tests.integration.apiserver import EXPIRED, ApiServer, status
from tests.integration.conftest import Controllers, gone, reached
from tests.integration.stage import Stage
from tests.standin.control import Control

Trouble = Callable[[ApiServer], Awaitable[object]]


@pytest.fixture
async def stage(api: ApiServer, behind: Controllers, standin: tuple[Control, str]) -> Stage:
    return Stage(api, behind, standin[0], await behind.start())


async def dropped(api: ApiServer) -> None:
    api.drop_watches()


async def torn(api: ApiServer) -> None:
    await api.tear_watches()


async def expired(api: ApiServer) -> None:
    await api.say_on_watches({"type": "ERROR", "object": EXPIRED})


async def really_expired(api: ApiServer) -> None:
    api.outdate_next_watch()


async def failed(api: ApiServer) -> None:
    await api.say_on_watches({"type": "ERROR", "object": status(500, "InternalError", "etcdserver: no leader")})


def refused(method: str, code: int, reason: str, *, times: int = 1) -> Trouble:
    async def refuse(api: ApiServer) -> None:
        path = "/skyclusters"
        api.fault(method, path=path, status=code, times=times, body=status(code, reason, f"{method} refused"), headers={"Retry-After": "1"})
        await expired(api)

    refuse.__name__ = f"{method.lower()}_{code}_{times}_times"
    return refuse


TROUBLES: list[Trouble] = [
    dropped,
    torn,
    expired,
    really_expired,
    failed,
    refused("WATCH", 401, "Unauthorized"),
    refused("WATCH", 403, "Forbidden", times=3),
    refused("WATCH", 404, "NotFound"),
    refused("WATCH", 410, "Expired"),
    refused("WATCH", 429, "TooManyRequests", times=3),
    refused("WATCH", 503, "ServiceUnavailable", times=4),
    refused("GET", 401, "Unauthorized"),
    refused("GET", 404, "NotFound"),
    refused("GET", 500, "InternalError", times=4),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
async def test_the_watch_breaks(stage: Stage, trouble: Trouble) -> None:
    """Whatever ends it, it is begun again: what was made, or deleted, meanwhile is seen."""
    before = stage.apply("before")
    await reached(before, "Succeeded")
    watched = stage.api.watched
    await trouble(stage.api)
    kubectl("delete", "skyc", "before", "-n", stage.namespace, "--wait=false")
    after = stage.apply("after")
    await gone(before, seconds=100)
    await reached(after, "Succeeded", seconds=60)
    await stage.api.accepted(watched + 1)
    assert stage.launches() == {"before": 1, "after": 1}
    await stage.goes_well(after)


async def test_the_same_events_again(stage: Stage) -> None:
    """Replays of a watch are no news, at whatever point an object is."""
    stage.skypilot.launches(seconds=3.0, row_after=1.0)
    this = stage.apply("replayed")
    repeated = 0
    while await asyncio.to_thread(lambda: this.status().get("phase")) != "Succeeded":
        repeated += await stage.api.repeat_watches()
    assert repeated > 10
    await stage.api.repeat_watches()
    await stage.ends_well(this)


async def test_the_server_restarts(stage: Stage) -> None:
    """Refused connections for some seconds, in the middle of a launch and at its end."""
    stage.skypilot.launches(seconds=4.0, row_after=1.0)
    this = stage.apply("through")
    await reached(this, "Launching")
    await restart(stage, seconds=8)
    await stage.logged("could not", "SkyCluster", "through", "the Kubernetes API does not answer", seconds=1)
    that = stage.apply("afterwards")
    await stage.ends_well(this, that)


async def test_the_server_is_away_for_longer_than_the_lease_holds(stage: Stage) -> None:
    """The controller ends, for another may be active by then; the next one goes on from what was written down."""
    stage.skypilot.launches(seconds=20.0, row_after=1.0)
    this = stage.apply("handed-on")
    await reached(this, "Launching")
    await stage.api.stop()
    assert stage.process.process is not None
    async with asyncio.timeout(100):
        code = await stage.process.process.wait()
    assert code == 1
    await stage.logged("is no longer held by first", seconds=1)
    await stage.api.start()
    stage.process = await stage.controllers.start("second")
    await stage.ends_well(this)


async def test_a_controller_that_starts_before_the_server(api: ApiServer, behind: Controllers, standin: tuple[Control, str]) -> None:
    await api.stop()
    stage = Stage(api, behind, standin[0], await behind.start())
    this = stage.apply("early")
    await stage.logged("could not renew Lease")
    await api.start()
    await stage.ends_well(this)


async def test_a_controller_that_starts_before_the_crd_is_served(api: ApiServer, behind: Controllers, standin: tuple[Control, str]) -> None:
    """A server that has just started serves custom resources some seconds after it answers."""
    api.fault("GET", path="/apis/skyoperator.dev/v1alpha1", status=404, body="404 page not found\n", times=3)
    stage = Stage(api, behind, standin[0], await behind.start())
    this = stage.apply("early")
    await stage.ends_well(this)
    await stage.logged("skyclusters.skyoperator.dev", "not served", seconds=1)


async def restart(stage: Stage, *, seconds: float) -> None:
    await stage.api.stop()
    await asyncio.sleep(seconds)
    await stage.api.start()
