"""A thousand objects at once, from anybody: the controller outlives them all, answers each, and lets nothing through.

The seed is printed; FUZZ_SEED repeats it, FUZZ_OBJECTS says how many.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from random import SystemRandom
from typing import Any

import pytest
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.exceptions import ApiException
from skyoperator.api.v1alpha1 import GROUP, PLURAL, VERSION, ConditionType
from skyoperator.kube import api_client

from tests.e2e.support import kubectl
from tests.fuzz.objects import CANARY, POLICY, SECRET, TASKS, Made, objects
from tests.integration.conftest import Controllers
from tests.parser.conftest import SkyPilot
from tests.standin.control import Control

COUNT = int(os.environ.get("FUZZ_OBJECTS", "1000"))
SEED = int(os.environ.get("FUZZ_SEED") or SystemRandom().randrange(2**32))
AT_ONCE = 16
STUCK_SECONDS = 120
LAUNCHED_SHARE = 0.3


class Namespace:
    """The SkyClusters of one namespace, straight at the API server."""

    def __init__(self, api: CustomObjectsApi, name: str) -> None:
        self._api = api
        self._where = (GROUP, VERSION, name, PLURAL)

    async def create(self, made: Made) -> int:
        """Return the HTTP status that the API server answers with.

        Its warnings are not asked for: each unknown field is one header, and aiohttp takes 128.
        """
        try:
            await self._api.create_namespaced_custom_object(*self._where, made.body, field_validation="Ignore")
        except ApiException as error:
            return int(error.status)
        return 201

    async def list(self) -> list[dict[str, Any]]:
        answer: Any = await self._api.list_namespaced_custom_object(*self._where)
        return list(answer["items"])

    async def delete_all(self) -> None:
        await self._api.delete_collection_namespaced_custom_object(*self._where)

    async def let_go(self) -> None:
        """Delete what a failed test left, finalizers and all."""
        await self.delete_all()
        for body in await self.list():
            with suppress(ApiException):
                await self._api.patch_namespaced_custom_object(
                    *self._where,
                    body["metadata"]["name"],
                    {"metadata": {"finalizers": None}},
                    _content_type="application/merge-patch+json",
                )


@pytest.fixture
async def here(namespace: str) -> AsyncIterator[Namespace]:
    data = {key: b64encode(value).decode() for key, value in SECRET.items()}
    for kind, content in (("Secret", data), ("ConfigMap", dict(TASKS))):
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "known"}, "data": content}
        kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
    async with api_client() as client:
        this = Namespace(CustomObjectsApi(client), namespace)
        yield this
        await this.let_go()


async def create_all(here: Namespace, every: Iterable[Made]) -> Counter[tuple[str, int]]:
    """Return how often the API server gave which answer to which kind of object."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(made: Made) -> tuple[str, int]:
        async with gate:
            return made.kind, await here.create(made)

    return Counter(await asyncio.gather(*(one(made) for made in every)))


def is_of_config(answer: dict[str, str]) -> bool:
    """Tell whether SkyPilot refuses what is in `config`: where the installer lets that through, it is passed on as it is."""
    return "Check problematic field(s): $.config" in answer["error"]


def conditions(body: dict[str, Any]) -> dict[str, str]:
    return {found["type"]: found["status"] for found in body.get("status", {}).get("conditions", [])}


def settled(body: dict[str, Any]) -> bool:
    """Whether the controller has nothing more to do for the object: refused, ended, suspended, or up for good."""
    found = conditions(body)
    if set(found) < set(ConditionType):
        return False
    ended = "True" in (found["Complete"], found["Failed"], found["Suspended"])
    return found["Accepted"] == "False" or ended or body["status"]["phase"] == "Ready"


async def until(what: str, here: Namespace, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return the objects once `done` holds for all of them; fail with a few for which it does not, if their number stands still."""
    number, since = -1, time.monotonic()
    while True:
        every = await here.list()
        left = [body for body in every if not done(body)]
        if not left:
            return every
        if len(left) != number:
            number, since = len(left), time.monotonic()
        shown = [{**body, "metadata": body["metadata"]["name"]} for body in left[:3]]
        assert time.monotonic() - since < STUCK_SECONDS, f"{number} objects are not {what}: {json.dumps(shown, indent=1)[:6000]}"
        await asyncio.sleep(2)


def harm(out: dict[str, Any], task: dict[str, Any]) -> list[str]:
    """Return, by name, what came out of SkyPilot's parser that the user may not reach, or did not write."""
    places = {"task": out["foreign"], **{f"resources[{index}]": found["foreign"] for index, found in enumerate(out["resources"])}}
    found = [f"{place}.{key}" for place, keys in places.items() for key, value in keys.items() if value]
    config = task.get("config") or {}
    wrote = {"overrides": config, "hooks": None, "inputs": task.get("inputs"), "outputs": None, "event_callback": None}
    each = [out["on_request"], *(resources["on_request"] for resources in out["resources"])]
    found += [key for group in each for key, value in group.items() if key in wrote and (value or {}) != (wrote[key] or {})]
    local = ["local path"] if out["local"] else []
    sources = [*out["file_mounts"].values(), *(storage["source"] for storage in out["storage"].values())]
    return found + local + [f"source {source}" for source in sources if not f"{source}/".startswith("s3://datasets/")]


async def test_a_thousand_objects_of_every_kind(
    here: Namespace,
    controllers: Controllers,
    standin: tuple[Control, str],
    skypilot: SkyPilot,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    control, _ = standin
    control.launches(seconds=0.1, row_after=0.02)
    control.jobs(seconds=0.05)
    control.set(long_workers=64)
    monkeypatch.setenv("SKYOPERATOR_POLICY", json.dumps(POLICY))
    monkeypatch.setenv("SKYOPERATOR_MAX_IN_FLIGHT_LAUNCHES", "64")
    process = await controllers.start()
    with capsys.disabled():
        print(f"\n{COUNT} objects, FUZZ_SEED={SEED}")
    begun = time.monotonic()

    answers = await create_all(here, objects(SEED, COUNT))
    assert not [answer for answer in answers if answer[1] >= 500]
    every = await until("settled", here, settled)
    took = time.monotonic() - begun
    launched = control.world.launches
    parsed = {posted.cluster_name: skypilot.ask("parse", posted.task) for posted in launched}
    reasons = Counter(_accepted(body) for body in every)
    with capsys.disabled():
        print(f"answers of the API server: {dict(answers)}\naccepted or why not: {dict(reasons)}")
        print(f"launched: {len(launched)} of {COUNT}; all settled after {took:.0f} s")

    assert len(every) == sum(number for (_, status), number in answers.items() if status == 201)
    assert len(launched) == len(parsed), "a cluster was launched twice"
    assert len(parsed) >= LAUNCHED_SHARE * COUNT
    refused = {name: answer for name, answer in parsed.items() if "ok" not in answer and not is_of_config(answer)}
    assert not refused, "SkyPilot itself refuses what we accepted"
    tasks = {body["status"]["cluster"]["name"]: body["spec"].get("task", {}) for body in every if "cluster" in body["status"]}
    understood = {name: answer["ok"] for name, answer in parsed.items() if "ok" in answer}
    assert not {name: found for name, answer in understood.items() if (found := harm(answer, tasks[name]))}

    assert CANARY not in json.dumps(every)
    assert CANARY not in kubectl("get", "events", "-n", controllers.namespace, "-o", "json")

    await here.delete_all()
    await until("gone", here, lambda _: False)
    with capsys.disabled():
        print(f"all gone after {time.monotonic() - begun:.0f} s")
    orphaned = sum(body["spec"]["deletionPolicy"] == "Orphan" for body in every)
    assert len(control.world.clusters) <= orphaned
    assert max(control.world.executions.values()) == 1
    log = process.log.read_text()
    assert CANARY not in log
    assert process.process is not None
    assert process.process.returncode is None, "the controller has died"
    assert [line for line in log.splitlines() if _is_error(line)] == []


def _accepted(body: dict[str, Any]) -> str:
    (found,) = [found for found in body["status"]["conditions"] if found["type"] == "Accepted"]
    return str(found["reason"])


def _is_error(line: str) -> bool:
    return "Traceback" in line or json.loads(line).get("severity") in ("error", "critical")
