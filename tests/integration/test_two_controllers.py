"""Two controllers, one lease: whatever happens to the one that holds it, each attempt is launched once."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime

import pytest

from tests.e2e.support import RELEASE, kubectl
from tests.integration.apiserver import ATTEMPT, ApiServer
from tests.integration.conftest import Controllers, Process, reached
from tests.integration.stage import Stage
from tests.standin.control import Control

LEASE_SECONDS = 60


@pytest.fixture
async def stage(api: ApiServer, behind: Controllers, standin: tuple[Control, str]) -> Stage:
    return Stage(api, behind, standin[0], await behind.start())


async def test_frozen_between_the_attempt_and_its_post_for_longer_than_the_lease(stage: Stage) -> None:
    """The other one takes over, waits until a launch would have shown up, and launches. Thawed, the first one must not, and ends."""
    frozen = stage.process
    await holds(frozen, seconds=30)

    async def freeze() -> None:
        frozen.send(signal.SIGSTOP)

    stage.api.fault("PUT", path="/status", about="contended", says=ATTEMPT, kind="late", meddle=freeze)
    this = stage.apply("contended")
    second = await stage.controllers.start("second")
    await holds(second, seconds=LEASE_SECONDS + 60)
    await reached(this, "Succeeded", seconds=150)
    stage.ran_once(this)

    frozen.send(signal.SIGCONT)
    assert await ended(frozen) == 1
    await stage.logged("is no longer held by first", "another controller may be active", seconds=1)
    stage.process = second
    await stage.ends_well(this)


async def test_the_lease_is_stolen(stage: Stage) -> None:
    """Somebody writes another holder into it: the controller ends within seconds, and whoever comes next goes on."""
    stage.skypilot.launches(seconds=15.0, row_after=1.0)
    this = stage.apply("stolen")
    await reached(this, "Launching")
    kubectl("patch", "lease", f"{RELEASE}-controller", "-n", stage.namespace, "--type=merge", "-p", json.dumps({"spec": thief()}))
    assert await ended(stage.process) == 1
    await stage.logged("is no longer held by first", seconds=1)

    kubectl("delete", "lease", f"{RELEASE}-controller", "-n", stage.namespace)
    stage.process = await stage.controllers.start("third")
    await stage.ends_well(this)


async def test_the_lease_is_deleted(stage: Stage) -> None:
    """It is made again by whom it belonged to."""
    this = stage.apply("careless")
    await reached(this, "Launching")
    kubectl("delete", "lease", f"{RELEASE}-controller", "-n", stage.namespace)
    await stage.ends_well(this)


async def test_skypilot_is_killed_before_it_has_set_the_cluster_up(stage: Stage) -> None:
    """Its row is turned UP, and has no queue that could be read: no job can be in it, so the launch is sent again, once."""
    stage.skypilot.launches(seconds=6.0, row_after=0.5)
    this = stage.apply("half-built")
    async with asyncio.timeout(60):
        while not stage.skypilot.state()["clusters"]:
            await asyncio.sleep(0.1)
    await stage.skypilot.restart(down_seconds=2.0)
    await reached(this, "Succeeded", seconds=150)
    assert list(stage.skypilot.state()["executions"].values()) == [1]
    assert stage.launches() == {"half-built": 2}
    await stage.goes_well(this)


async def test_told_to_stop_while_a_launch_is_being_answered(stage: Stage) -> None:
    """It waits for the answer and writes it down: the next one need not look for it."""
    stage.skypilot.fault("launch", "late", seconds=8.0)
    this = stage.apply("interrupted")
    async with asyncio.timeout(60):
        while not stage.launches():
            await asyncio.sleep(0.1)
    assert await stage.process.end(signal.SIGTERM) == 0
    assert "requestID" in this.status()["launch"]
    stage.process = await stage.controllers.start("second")
    await stage.ends_well(this)


def thief() -> dict[str, object]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": "thief", "renewTime": now, "acquireTime": now}


async def ended(process: Process) -> int:
    assert process.process is not None
    async with asyncio.timeout(60):
        return await process.process.wait()


async def holds(process: Process, *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while "holding Lease" not in process.log.read_text():
            await asyncio.sleep(0.5)
