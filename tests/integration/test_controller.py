"""The controller process against a real kube-apiserver: what only a real one does to it."""

from __future__ import annotations

import asyncio
import json
import signal

import aiohttp

from tests.e2e.support import Sky, kubectl
from tests.integration.conftest import Controllers, gone, reached
from tests.standin.control import Control

RUN = {"resources": {"infra": "k8s"}, "run": "echo hi"}


async def test_from_apply_to_gone(controllers: Controllers, standin: tuple[Control, str]) -> None:
    await controllers.start()
    this = Sky.apply(controllers.namespace, "hello", task=RUN, whenFinished="Keep")
    status = await reached(this, "Succeeded")
    assert status["cluster"]["status"] == "UP"  # type: ignore[index]
    kubectl("delete", "skyc", "hello", "-n", this.namespace, "--wait=false")
    await gone(this)
    state = standin[0].state()
    assert (list(state["executions"].values()), state["clusters"]) == ([1], {})


async def test_an_object_deleted_while_no_controller_ran_is_torn_down_first(controllers: Controllers, standin: tuple[Control, str]) -> None:
    """kopf's daemons would skip it, and its finalizer with it."""
    first = await controllers.start()
    this = Sky.apply(controllers.namespace, "orphaned", task={**RUN, "run": "sleep"}, whenFinished="Keep")
    await reached(this, "Succeeded")
    await first.end(signal.SIGKILL)
    kubectl("delete", "skyc", this.name, "-n", this.namespace, "--wait=false")
    assert this.exists()

    await controllers.start()
    await gone(this)
    assert standin[0].state()["clusters"] == {}


async def test_orphan_leaves_the_cluster(controllers: Controllers, standin: tuple[Control, str]) -> None:
    await controllers.start()
    this = Sky.apply(controllers.namespace, "left", task=RUN, whenFinished="Keep", deletionPolicy="Orphan")
    await reached(this, "Succeeded")
    kubectl("delete", "skyc", this.name, "-n", this.namespace, "--wait=false")
    await gone(this, seconds=10)
    assert list(standin[0].state()["clusters"].values()) == ["UP"]


async def test_only_the_holder_of_the_lease_acts_and_a_clean_stop_hands_it_over(
    controllers: Controllers, standin: tuple[Control, str]
) -> None:
    first = await controllers.start("first")
    this = Sky.apply(controllers.namespace, "one", task=RUN)
    await reached(this, "Succeeded", seconds=60)
    second = await controllers.start("second")
    await _says(second.port, "standing by")
    assert lease_holder(controllers.namespace) == "first"

    assert await first.end(signal.SIGTERM) == 0
    await _says(second.port, "active")
    assert lease_holder(controllers.namespace) == "second"
    that = Sky.apply(controllers.namespace, "two", task=RUN)
    await reached(that, "Succeeded", seconds=60)
    assert sorted(standin[0].state()["executions"].values()) == [1, 1]


async def test_an_outage_shows_and_heals(controllers: Controllers, standin: tuple[Control, str]) -> None:
    control, _ = standin
    control.jobs(seconds=1000)
    await controllers.start()
    this = Sky.apply(controllers.namespace, "away", task=RUN)
    await reached(this, "Running")
    await _condition(this, "ClusterReady", "True")
    before = await asyncio.to_thread(this.status)

    control.set(unreachable=True)
    await _condition(this, "ClusterReady", "Unknown")
    status = await asyncio.to_thread(this.status)
    assert _but_cluster_ready(status) == _but_cluster_ready(before)
    control.set(unreachable=False)
    await _condition(this, "ClusterReady", "True")


async def test_a_finished_object_is_written_no_more(controllers: Controllers, standin: tuple[Control, str]) -> None:
    control, _ = standin
    await controllers.start()
    this = Sky.apply(controllers.namespace, "silent", task=RUN)
    await reached(this, "Succeeded", seconds=60)
    version = this.body()["metadata"]["resourceVersion"]
    control.set(unreachable=True)
    await asyncio.sleep(5)
    assert this.body()["metadata"]["resourceVersion"] == version


async def test_where_open_ports_are_reached(controllers: Controllers, standin: tuple[Control, str]) -> None:
    control, _ = standin
    control.set(address_seconds=3)
    await controllers.start()
    task = {"resources": {"infra": "k8s", "ports": [8080, "9000-9001"]}}
    this = Sky.apply(controllers.namespace, "serves", task=task, autostop={"idleMinutes": 60})
    await reached(this, "Ready")
    found = [{"port": port, "url": f"203.0.113.7:{port}"} for port in ("8080", "9000", "9001")]
    await _endpoints(this, found)

    edited = {"task": {"resources": {"ports": [8080]}}}
    kubectl("patch", "skyc", this.name, "-n", this.namespace, "--type=merge", "-p", json.dumps({"spec": edited}))
    await _endpoints(this, None)
    await _endpoints(this, found[:1])

    kubectl("patch", "skyc", this.name, "-n", this.namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    await reached(this, "Suspended")
    await _endpoints(this, None)


async def test_what_prometheus_reads(controllers: Controllers) -> None:
    process = await controllers.start()
    this = Sky.apply(controllers.namespace, "counted", task=RUN, whenFinished="Keep")
    await reached(this, "Succeeded")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{process.port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert 'skyoperator_launches_total{answer="accepted"} 1.0' in lines
    assert 'skyoperator_clusters{phase="Succeeded"} 1.0' in lines


def lease_holder(namespace: str) -> str:
    return str(json.loads(kubectl("get", "lease", "controller", "-n", namespace, "-o", "json"))["spec"]["holderIdentity"])


def _but_cluster_ready(status: dict[str, object]) -> dict[str, object]:
    conditions = [found for found in status["conditions"] if found["type"] != "ClusterReady"]  # type: ignore[attr-defined]
    return {**status, "conditions": conditions}


async def _endpoints(this: Sky, wanted: list[dict[str, str]] | None) -> None:
    """Wait until these are shown, and no others."""
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(this.status))["cluster"].get("endpoints") != wanted:
            await asyncio.sleep(0.2)


async def _condition(this: Sky, type_: str, wanted: str) -> None:
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(this.condition, type_) or ("",))[0] != wanted:
            await asyncio.sleep(0.2)


async def _says(port: str, words: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if words in await answer.text():
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.2)
