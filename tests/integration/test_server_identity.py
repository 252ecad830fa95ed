"""A server that lost its database, between a real kube-apiserver and a real controller process: nothing is concluded from its emptiness."""

from __future__ import annotations

import asyncio
import json
import signal
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tests.e2e.support import Sky, kubectl
from tests.integration.conftest import Controllers, reached
from tests.standin.control import Control

LOGIN_SECRET = "login"
RUN = {"resources": {"infra": "k8s"}, "run": "sleep"}
PLAIN = {"resources": {"infra": "k8s"}}


@pytest.fixture
def minting(controllers: Controllers) -> Controllers:
    """Controllers that make a user of their own and keep its login in a Secret, as the chart has them do it."""
    kubectl("create", "secret", "generic", LOGIN_SECRET, "-n", controllers.namespace)
    controllers.extra["SKYOPERATOR_LOGIN_SECRET"] = LOGIN_SECRET
    return controllers


def stored_login(namespace: str) -> tuple[str, str]:
    data = json.loads(kubectl("get", "secret", LOGIN_SECRET, "-n", namespace, "-o", "json")).get("data") or {}
    return b64decode(data.get("username", "")).decode(), b64decode(data.get("password", "")).decode()


async def until(what: str, look: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Return the first truthy answer."""
    try:
        async with asyncio.timeout(seconds):
            while not (seen := await asyncio.to_thread(look)):
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:.0f} s: {what}") from None
    return seen


def but_cluster_ready(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "conditions": [found for found in status["conditions"] if found["type"] != "ClusterReady"]}


async def is_unknown(this: Sky, words: str) -> None:
    def look() -> bool:
        status, reason, message = this.condition("ClusterReady") or ("", "", "")
        return (status, reason) == ("Unknown", "SkyPilotUnreachable") and words in message

    await until(f"{this.name} says {words!r}", look)


async def launched(controllers: Controllers, control: Control) -> tuple[Sky, Sky, Sky]:
    """A job at work, a plain cluster, and a deleted object whose teardown waits for what comes."""
    control.jobs(seconds=1000)
    job = Sky.apply(controllers.namespace, "job", task=RUN)
    plain = Sky.apply(controllers.namespace, "plain", task=PLAIN, autostop={"idleMinutes": 600})
    leaving = Sky.apply(controllers.namespace, "leaving", task=RUN)
    for this, phase in ((job, "Running"), (plain, "Ready"), (leaving, "Running")):
        await reached(this, phase)
    return job, plain, leaving


async def test_a_user_is_made_and_kept_for_the_next_controller(minting: Controllers, standin: tuple[Control, str]) -> None:
    control, _ = standin
    first = await minting.start()
    await reached(Sky.apply(minting.namespace, "one", task=RUN), "Succeeded")
    name, password = stored_login(minting.namespace)
    assert list(control.users.imported) == [name]
    log = first.log.read_text()
    assert "made a user of our own" in log
    assert password not in log

    control.users.basic = None
    await minting.start("second")
    assert await first.end(signal.SIGTERM) == 0
    await reached(Sky.apply(minting.namespace, "two", task=RUN), "Succeeded", seconds=60)
    assert stored_login(minting.namespace) == (name, password)


async def test_a_wiped_server_holds_everything_until_a_person_decides(minting: Controllers, standin: tuple[Control, str]) -> None:
    control, _ = standin
    await minting.start()
    job, plain, leaving = await launched(minting, control)
    before = {this.name: but_cluster_ready(this.status()) for this in (job, plain)}
    server = before["job"]["cluster"]["server"]
    downs, launches = control.world.calls["POST /down"], len(control.world.launches)

    control.wipe()
    for this in (job, plain):
        await is_unknown(this, f"kubectl -n {minting.namespace} patch secret {LOGIN_SECRET} --type=merge -p '{{\"data\":null}}'")
        assert but_cluster_ready(this.status()) == before[this.name]
    kubectl("delete", "skyc", leaving.name, "-n", minting.namespace, "--wait=false")
    await asyncio.sleep(15)
    assert leaving.exists()
    assert control.users.imported == {}, "a user that is rejected is not replaced"

    kubectl("patch", "secret", LOGIN_SECRET, "-n", minting.namespace, "--type=merge", "-p", '{"data":null}')
    for this in (job, plain, leaving):
        await is_unknown(this, f"The cluster is on the SkyPilot API server {server}")
    fresh = Sky.apply(minting.namespace, "fresh", task=RUN)
    await reached(fresh, "Running")
    assert fresh.status()["cluster"]["server"] != server
    for this in (job, plain):
        assert but_cluster_ready(this.status()) == before[this.name]
    assert leaving.exists()
    assert (control.world.calls["POST /down"], len(control.world.launches)) == (downs, launches + 1)
    assert len(control.state()["forgotten"]) == 3

    kubectl("annotate", "skyc", "--all", "-n", minting.namespace, "--overwrite", f"skyoperator.dev/confirm-lost={_now()}")
    await until("the deleted one is let go", lambda: not leaving.exists())
    for this in (job, plain):
        await until(f"{this.name} is lost", partial(lost, this))
    assert fresh.status()["phase"] == "Running"
    assert list(control.state()["clusters"]) == [fresh.cluster]


def lost(this: Sky) -> bool:
    """Whether it failed for its lost cluster, or has gone on with another one."""
    status = this.status()
    return bool(status.get("failures", {}).get("reason") == "ClusterLost")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
