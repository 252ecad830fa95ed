"""What the search for orphans needs of a real kube-apiserver: complete lists, a memory on the Lease, Events about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from skyoperator import kube
from skyoperator.kube import KubeError, api_client
from skyoperator.lease import Lease
from skyoperator.orphan_registry import OrphanRegistry

from tests.e2e.support import Sky, kubectl

RUN = {"resources": {"infra": "k8s"}, "run": "echo hi"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def lease(namespace: str) -> AsyncIterator[Lease]:
    async with api_client() as client:
        lease = Lease(client, namespace=namespace, name="controller", holder="first")
        await lease.acquire()
        yield lease
        await lease.release()


@pytest.fixture
async def registry(namespace: str, lease: Lease) -> AsyncIterator[OrphanRegistry]:
    async with api_client() as client:
        yield OrphanRegistry(client, lease, namespaces=[namespace], instance="test")


async def test_all_objects_are_listed_page_by_page(namespace: str, registry: OrphanRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "PAGE", 2)
    made = [Sky.apply(namespace, f"n{number}", task=RUN) for number in range(5)]
    assert await registry.uids() == {this.body()["metadata"]["uid"] for this in made}


async def test_what_is_remembered_is_on_the_lease_and_stays_there(registry: OrphanRegistry, lease: Lease) -> None:
    assert await registry.released() == {}
    holding = asyncio.create_task(lease.hold())
    await registry.set_released({"a": NOW})
    await asyncio.sleep(6)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert await registry.released() == {"a": NOW}
    found = json.loads(kubectl("get", "lease", lease.name, "-n", lease.namespace, "-o", "json"))
    assert found["metadata"]["uid"] == lease.uid
    assert found["spec"]["holderIdentity"] == "first"


async def test_an_event_tells_of_an_orphan(registry: OrphanRegistry, lease: Lease) -> None:
    await registry.announce("Cluster a belongs to nobody.")
    (event,) = json.loads(kubectl("get", "events.events.k8s.io", "-n", lease.namespace, "-o", "json"))["items"]
    assert (event["reason"], event["note"], event["type"]) == ("OrphanedCluster", "Cluster a belongs to nobody.", "Warning")
    assert event["regarding"]["uid"] == lease.uid


async def test_a_lease_that_is_gone_is_said(registry: OrphanRegistry, lease: Lease) -> None:
    kubectl("delete", "lease", lease.name, "-n", lease.namespace)
    with pytest.raises(KubeError, match=f"write down which clusters were left behind.*no Lease {lease.namespace}/controller"):
        await registry.set_released({"a": NOW})
