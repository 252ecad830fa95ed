"""What the controller writes to the Kubernetes API, over HTTP: never over what somebody else has written since."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from skyoperator.api.v1alpha1 import GROUP, PLURAL, VERSION, SkyClusterStatus
from skyoperator.kube import Conflict, Gone, Key, KubeApi, KubeError, is_served

from tests.unit.build import RUN, UID

KEY = Key("ml", "train", UID)
PATH = f"/apis/{GROUP}/{VERSION}/namespaces/ml/{PLURAL}/train"


@dataclass
class OneObject:
    """kube-apiserver with one object. As there, who names no resourceVersion writes over whatever is stored."""

    body: dict[str, Any] = field(
        default_factory=lambda: {
            "metadata": {"name": "train", "namespace": "ml", "uid": UID, "generation": 1, "resourceVersion": "1"},
            "spec": {"task": RUN},
        }
    )
    groups: tuple[str, ...] = (GROUP,)
    kinds: tuple[str, ...] | None = (PLURAL,)
    is_there: bool = True

    def write(self, **parts: Any) -> None:
        version = str(int(self.body["metadata"]["resourceVersion"]) + 1)
        self.body = {**self.body, **parts, "metadata": {**self.body["metadata"], "resourceVersion": version}}

    async def get(self, request: web.Request) -> web.Response:
        if not self.is_there:
            status = {"kind": "Status", "reason": "NotFound", "details": {"name": "train", "group": GROUP, "kind": PLURAL}}
            return web.json_response(status, status=404)
        return web.json_response(self.body)

    async def put_status(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted["metadata"].get("resourceVersion") not in {None, self.body["metadata"]["resourceVersion"]}:
            return web.json_response({"kind": "Status", "reason": "Conflict"}, status=409)
        self.write(status=wanted["status"])
        return web.json_response(self.body)

    async def list_groups(self, request: web.Request) -> web.Response:
        return web.json_response({"groups": [{"name": name} for name in self.groups]})

    async def list_kinds(self, request: web.Request) -> web.Response:
        if self.kinds is None:
            return web.json_response({"kind": "Status", "reason": "NotFound"}, status=404)
        return web.json_response({"resources": [{"name": name} for name in self.kinds]})


@pytest.fixture
def stored() -> OneObject:
    return OneObject()


@pytest.fixture
async def client(stored: OneObject) -> AsyncIterator[ApiClient]:
    app = web.Application()
    app.router.add_get(PATH, stored.get)
    app.router.add_put(f"{PATH}/status", stored.put_status)
    app.router.add_get("/apis", stored.list_groups)
    app.router.add_get(f"/apis/{GROUP}/{VERSION}", stored.list_kinds)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with ApiClient(configuration) as connected:
            yield connected
    finally:
        await runner.cleanup()


async def test_a_status_is_never_written_over_a_newer_object(client: ApiClient, stored: OneObject) -> None:
    kube = KubeApi(client, instance="test")
    this = await kube.get(KEY)
    stored.write(status={"observedGeneration": 7})
    with pytest.raises(Conflict):
        await kube.put_status(this, SkyClusterStatus(observed_generation=1))
    assert stored.body["status"] == {"observedGeneration": 7}
    fresh = await kube.put_status(await kube.get(KEY), SkyClusterStatus(observed_generation=8))
    assert fresh.status.observed_generation == stored.body["status"]["observedGeneration"] == 8


async def test_another_object_of_that_name_is_not_ours(client: ApiClient) -> None:
    with pytest.raises(Gone):
        await KubeApi(client, instance="test").get(Key("ml", "train", "another"))


async def test_a_404_that_is_not_of_this_object_is_no_proof_that_it_is_gone(client: ApiClient) -> None:
    with pytest.raises(KubeError) as raised:
        await KubeApi(client, instance="test").get(Key("ml", "other", UID))
    assert not isinstance(raised.value, Gone)


@pytest.mark.parametrize(
    ("groups", "kinds", "expected"),
    [((GROUP,), (PLURAL,), True), ((GROUP,), ("others",), False), ((GROUP,), None, False), (("apps",), (PLURAL,), False)],
)
async def test_whether_skyclusters_are_served(
    client: ApiClient, stored: OneObject, groups: tuple[str, ...], kinds: tuple[str, ...] | None, expected: bool
) -> None:
    stored.groups, stored.kinds = groups, kinds
    assert await is_served(client) is expected


async def test_a_name_is_the_object_that_has_it_now_or_nobodys(client: ApiClient) -> None:
    kube = KubeApi(client, instance="i")
    this = await kube.named("ml", "train")
    assert this is not None
    assert this.uid == UID


async def test_a_404_of_somebody_else_does_not_say_that_there_is_no_object(client: ApiClient) -> None:
    with pytest.raises(KubeError):
        await KubeApi(client, instance="i").named("ml", "other")


async def test_kube_apiservers_own_404_says_that_there_is_no_object(client: ApiClient, stored: OneObject) -> None:
    stored.is_there = False
    assert await KubeApi(client, instance="i").named("ml", "train") is None
