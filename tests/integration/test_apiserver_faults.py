"""kube-apiserver answers the controller's calls as real ones do on a bad day: one launch, the right end, nothing left.

The controller reaches the real server through a proxy of the test's, with exactly the rights that the chart gives it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.support import RELEASE, Sky, kubectl
from tests.integration.apiserver import ACKNOWLEDGED, ATTEMPT, ApiServer, status
from tests.integration.conftest import Controllers, gone, reached
from tests.integration.stage import Stage
from tests.standin.control import Control

ANSWERS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "headers": {"Retry-After": "1"}, "body": "Too many requests, please try again later.\n"},
    "500": {"status": 500, "body": status(500, "InternalError", "etcdserver: request timed out")},
    "503": {"status": 503, "headers": {"Retry-After": "1"}, "body": "apiserver is shutting down.\n"},
    "404": {"status": 404, "body": "404 page not found\n"},
    "lost": {"kind": "lost", "times": 2},  # aiohttp asks once more by itself, except at POST and PATCH
}
CALLS: dict[str, dict[str, Any]] = {
    "read": {"method": "GET"},
    "accept": {"method": "PUT", "path": "/status"},
    "attempt": {"method": "PUT", "path": "/status", "says": ATTEMPT},
    "acknowledge": {"method": "PUT", "path": "/status", "says": ACKNOWLEDGED},
    "finalizer": {"method": "PATCH"},
    "event": {"method": "POST", "path": "/events"},
}
FAILED = {
    "read": "could not read",
    "accept": "could not write the status of",
    "attempt": "could not write the status of",
    "acknowledge": "could not write the status of",
    "finalizer": "could not set the finalizers of",
    "event": "could not post an event about",
}
SAID = {"429": "HTTP 429", "500": "etcdserver: request timed out", "503": "HTTP 503", "404": "HTTP 404", "lost": "does not answer"}


@pytest.fixture
async def stage(api: ApiServer, behind: Controllers, standin: tuple[Control, str]) -> Stage:
    return Stage(api, behind, standin[0], await behind.start())


@pytest.mark.parametrize("how", ANSWERS)
async def test_each_call_fails_in_each_way(stage: Stage, how: str) -> None:
    """An answer that is lost may have been a write: the attempt's is followed by no launch, but by a look for one."""
    for call, which in CALLS.items():
        stage.api.fault(about=f"{call}-{how}", **which, **ANSWERS[how])
    these = [stage.apply(f"{call}-{how}") for call in CALLS]
    await stage.ends_well(*these)
    for call in CALLS:
        await stage.logged(FAILED[call], f"SkyCluster {stage.namespace}/{call}-{how}", SAID[how], seconds=1)
    assert all(fault.struck for fault in stage.api.faults)


@pytest.mark.parametrize("how", ["503", "lost"])
async def test_the_finalizer_is_removed_with_trouble(stage: Stage, how: str) -> None:
    """A removal whose answer is lost was one: the object is gone, and not an error."""
    this = stage.apply("leaving")
    await reached(this, "Succeeded")
    fault = stage.api.fault("PATCH", about="leaving", **ANSWERS[how])
    await stage.ends_well(this)
    assert fault.struck == 1


async def test_somebody_else_writes_between_our_read_and_our_write(stage: Stage) -> None:
    def meddle(name: str, count: list[int]) -> Any:
        async def annotate() -> None:
            count.append(1)
            await asyncio.to_thread(kubectl, "annotate", "skyc", name, "-n", stage.namespace, "--overwrite", f"seen={len(count)}")

        return annotate

    faults = [
        stage.api.fault(about=f"{call}-raced", **which, times=3, kind="meddled", meddle=meddle(f"{call}-raced", []))
        for call, which in CALLS.items()
        if call not in {"read", "event"}
    ]
    await stage.ends_well(*(stage.apply(fault.about) for fault in faults))
    assert [fault.struck for fault in faults] == [3] * len(faults)


async def test_deleted_between_our_read_and_the_attempt(stage: Stage) -> None:
    """The attempt is not written down, so nothing is launched."""

    async def delete() -> None:
        await asyncio.to_thread(kubectl, "delete", "skyc", "withdrawn", "-n", stage.namespace, "--wait=false")

    stage.api.fault("PUT", path="/status", about="withdrawn", says=ATTEMPT, kind="meddled", meddle=delete)
    this = stage.apply("withdrawn")
    await gone(this)
    assert not stage.launches()
    assert stage.process.is_alive()


async def test_another_object_takes_the_name_between_our_read_and_the_attempt(stage: Stage) -> None:
    """The old one was let go by hand; only the new one is launched, under a name of its own."""
    replaced = asyncio.Event()

    async def replace() -> None:
        await asyncio.to_thread(kubectl, "patch", "skyc", "twice", "-n", stage.namespace, "--type=merge", "-p", UNBOUND)
        await asyncio.to_thread(kubectl, "delete", "skyc", "twice", "-n", stage.namespace)
        await asyncio.to_thread(stage.apply, "twice")
        replaced.set()

    stage.api.fault("PUT", path="/status", about="twice", says=ATTEMPT, kind="meddled", meddle=replace)
    old = stage.apply("twice").body()["metadata"]["uid"]
    this = Sky(stage.namespace, "twice")
    await asyncio.wait_for(replaced.wait(), 40)
    await reached(this, "Succeeded")
    assert this.body()["metadata"]["uid"] != old
    await stage.ends_well(this)


UNBOUND = '{"metadata":{"finalizers":null}}'


async def test_a_status_that_the_schema_refuses(stage: Stage) -> None:
    """It is said, in the server's words, and nothing is launched on top of what could not be written down."""

    def nonsense(body: bytes) -> bytes:
        sent = json.loads(body)
        return json.dumps({**sent, "status": {**sent["status"], "phase": "Nonsense"}}).encode()

    fault = stage.api.fault("PUT", path="/status", about="refused", says=ATTEMPT, times=3, kind="spoilt", spoil=nonsense)
    this = stage.apply("refused")
    await stage.logged(f"could not write the status of SkyCluster {stage.namespace}/refused: HTTP 422", "Nonsense")
    assert not stage.launches()
    await stage.ends_well(this)
    assert fault.struck == 3
    (note,) = notes(stage, "StatusRefused")
    assert "Nonsense" in note
    assert "Is the CRD of the controller's version?" in note


def notes(stage: Stage, reason: str) -> list[str]:
    """What the Events of this reason say."""
    events = json.loads(kubectl("get", "events.events.k8s.io", "-n", stage.namespace, "-o", "json"))["items"]
    return [event["note"] for event in events if event["reason"] == reason]


async def test_rights_taken_away_and_given_back(stage: Stage, rights: str) -> None:
    before = stage.apply("before")
    await reached(before, "Succeeded")
    kubectl("delete", "rolebinding", "-n", stage.namespace, f"{RELEASE}.{stage.namespace}.controller")
    stage.api.drop_watches()
    meanwhile = stage.apply("meanwhile")
    kubectl("delete", "skyc", "before", "-n", stage.namespace, "--wait=false")
    await stage.logged("forbidden", "cannot watch resource", seconds=60)
    kubectl("apply", "-n", stage.namespace, "-f", "-", stdin=rights)
    await reached(meanwhile, "Succeeded", seconds=90)
    await gone(before)
    assert stage.launches() == {"before": 1, "meanwhile": 1}
    await stage.goes_well(meanwhile)
