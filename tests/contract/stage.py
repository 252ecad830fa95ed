"""A server to ask, as the contract's cases see it: the product's client, and raw HTTP for what the client never sends."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import yaml
from skyoperator.sky import Credentials, Launched, RequestError, SkyPilotClient, SkyPilotUnreachable
from skyoperator.sky.http import Http
from skyoperator.sky.logs import LogClient
from yarl import URL

_T = TypeVar("_T")


@dataclass(frozen=True)
class Raw:
    """An answer as it came."""

    status: int
    json: Any
    request_id: str


@dataclass(frozen=True)
class Stage:
    """One server, and how patient to be with it."""

    endpoint: str
    credentials: Credentials
    session: aiohttp.ClientSession
    resources: dict[str, Any]
    deadline_seconds: float
    poll_seconds: float

    @property
    def sky(self) -> SkyPilotClient:
        """The product's client."""
        return self.client(self.credentials)

    @property
    def logs(self) -> LogClient:
        """The log process's client."""
        return LogClient(Http(self.endpoint, credentials=self.credentials, session=self.session))

    def client(self, credentials: Credentials) -> SkyPilotClient:
        """Return a client that shows other credentials."""
        return SkyPilotClient(self.endpoint, credentials=credentials, session=self.session)

    async def raw(self, method: str, path: str, **call: Any) -> Raw:
        """Make a call that the client does not make."""
        authorization = await self.credentials.authorization()
        headers = {"X-SkyPilot-API-Version": "62", "X-SkyPilot-Version": "0.14.1", **call.pop("headers", {})}
        if authorization is not None:
            headers["Authorization"] = authorization
        async with self.session.request(method, f"{self.endpoint}{path}", headers=headers, **call) as answer:
            said = await answer.json(content_type=None)
            return Raw(answer.status, said, answer.headers.get("X-SkyPilot-Request-ID", ""))

    @asynccontextmanager
    async def posting(self, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """Send a POST, never read its answer, and hang up at the end."""
        url, content = URL(self.endpoint), json.dumps(body).encode()
        headers = {
            "Host": url.authority,
            "Authorization": await self.credentials.authorization() or "",
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "X-SkyPilot-API-Version": "62",
            "X-Forwarded-For": "192.0.2.1",
        }
        head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
        try:
            await writer.drain()
            yield
        finally:
            writer.close()
            await writer.wait_closed()

    def task(self, name: str, **fields: Any) -> str:
        """Return a task's YAML, small enough for a test cluster; no field of value None."""
        labels = {"skyoperator-uid": "0123"}
        task = {"name": name, "resources": {**self.resources, "labels": labels}, **fields}
        return yaml.safe_dump({key: value for key, value in task.items() if value is not None})

    async def until(self, look: Callable[[], Awaitable[_T]], good: Callable[[_T], bool]) -> _T:
        """Look again and again until it is good; return what was seen. Raises AssertionError at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.deadline_seconds
        while True:
            seen = await look()
            if good(seen):
                return seen
            assert loop.time() < deadline, f"not within {self.deadline_seconds:g} s; last seen: {seen}"
            await asyncio.sleep(self.poll_seconds)

    async def result(self, request_id: str) -> Launched | RequestError:
        """Return a request's outcome, however long it takes up to the deadline."""

        async def look() -> Launched | RequestError | None:
            with suppress(SkyPilotUnreachable):
                return await self.sky.result_of(request_id)
            return None

        seen = await self.until(look, lambda found: found is not None)
        assert seen is not None
        return seen

    async def down(self, name: str) -> Launched | RequestError:
        """Tear a cluster down and return the outcome."""
        return await self.result(await self.sky.down(name))

    @asynccontextmanager
    async def cluster(self, prefix: str) -> AsyncIterator[str]:
        """Yield a cluster name that nobody used before; whatever has become of it, nothing is left at the end."""
        name = fresh(prefix)
        try:
            yield name
        finally:
            active = [request.id for request in await self.sky.active_requests() if request.cluster_name == name]
            if active:
                await self.result(await self.sky.cancel(active))
            if name in {row.name for row in await self.sky.clusters()}:
                await self.down(name)


def fresh(prefix: str) -> str:
    """Return a name that nobody used before."""
    return f"{prefix}-{secrets.token_hex(3)}"
