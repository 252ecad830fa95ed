"""The controller process under measurement, and a watch that notes when each object changed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.watch import Watch
from skyoperator.api.v1alpha1 import GROUP, KIND, PLURAL, VERSION

from tests.e2e.support import free_port

TASK = {"resources": {"infra": "k8s"}, "run": "sleep infinity"}
AT_ONCE = 20


@dataclass
class Objects:
    """All objects as last seen, and how often they were written."""

    api: CustomObjectsApi
    namespace: str
    status: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def watch(self) -> None:
        """Follow the objects for ever."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, ApiException):
                async with Watch() as watch:  # type: ignore[no-untyped-call]
                    listing = self.api.list_namespaced_custom_object
                    async for event in watch.stream(listing, GROUP, VERSION, self.namespace, PLURAL, timeout_seconds=3600):
                        await self._take(event)

    async def _take(self, event: dict[str, Any]) -> None:
        body, kind = event["object"], event["type"]
        name = body["metadata"]["name"]
        if kind == "DELETED":
            self.status.pop(name, None)
        elif kind in {"ADDED", "MODIFIED"}:
            self.status[name] = body.get("status", {})
        self.writes += kind == "MODIFIED"
        async with self.changed:
            self.changed.notify_all()

    async def create(self, *names: str) -> None:
        """Apply these all at once."""
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._create(name, gate) for name in names))

    async def _create(self, name: str, gate: asyncio.Semaphore) -> None:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": {"task": TASK}}
        async with gate:
            await self.api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)

    async def until(self, are_so: Callable[[dict[str, dict[str, Any]]], bool], *, seconds: float) -> None:
        """Wait for the objects to be as asked. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: are_so(self.status))


@asynccontextmanager
async def watched(client: ApiClient, namespace: str) -> AsyncIterator[Objects]:
    """Yield the objects of a namespace."""
    objects = Objects(CustomObjectsApi(client), namespace)
    watching = asyncio.create_task(objects.watch())
    yield objects
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


@asynccontextmanager
async def controller(namespace: str, endpoint: str, directory: Path, *, max_in_flight: int) -> AsyncIterator[int]:
    """Yield the process id of a controller for the namespace. Its log is in the directory."""
    port = free_port()
    variables = {
        "SKYPILOT_ENDPOINT": endpoint,
        "CREDENTIALS_DIR": str(directory),
        "NAMESPACES": namespace,
        "INSTANCE": f"{namespace}/bench",
        "LEASE_NAMESPACE": namespace,
        "LEASE_NAME": "controller",
        "POD_NAME": "bench",
        "HTTP_PORT": str(port),
        "MAX_IN_FLIGHT_LAUNCHES": str(max_in_flight),
    }
    environment = {**os.environ, **{f"SKYOPERATOR_{name}": value for name, value in variables.items()}}
    (directory / "token").write_text("bench")
    with (directory / "controller.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "skyoperator", env=environment, stdout=log, stderr=log)
    try:
        await _is_active(port)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _is_active(port: int) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if "active" in await answer.text():
                        return
            await asyncio.sleep(0.1)


async def seconds_until(objects: Objects, name: str, is_so: Callable[[dict[str, Any]], bool], *, at_most: float) -> float:
    """Return how long it takes from now until the object's status is so."""
    began_at = time.monotonic()
    await objects.until(lambda status: is_so(status.get(name, {})), seconds=at_most)
    return time.monotonic() - began_at
