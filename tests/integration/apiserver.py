"""A proxy between the controller and the real kube-apiserver, in which a test breaks things.

Plain HTTP on loopback towards the controller, TLS towards the server; credentials pass through. Watches stream line by line, so that
they can be cut, expired and repeated. Everything else is answered by the real server, except where a fault says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml
from aiohttp import web

from tests.e2e.support import kubectl

HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive", "accept-encoding"})


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    """Return what kube-apiserver says when it does not do as asked."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message}


ATTEMPT, ACKNOWLEDGED = '"attempt"', '"requestID"'
"""What the body of a status says that has an attempt in it, or its request."""

EXPIRED = status(410, "Expired", "too old resource version: 1 (2)")


@dataclass
class Fault:
    """What happens to the next `times` calls of this method whose path ends so, that are about the object, and whose body says so.

    The method WATCH is a GET that watches.

    answer   this status and body instead of the server's; the server never hears of it
    lost     the server acts, the connection drops before its answer is passed on
    spoilt   the server gets what `spoil` makes of the body
    meddled  `meddle` is awaited first, then the server decides
    late     the server acts, then `meddle` is awaited, then its answer is passed on
    """

    method: str
    path: str = ""
    about: str = ""
    says: str = ""
    kind: Literal["answer", "lost", "spoilt", "meddled", "late"] = "answer"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | str = ""
    spoil: Callable[[bytes], bytes] = bytes
    meddle: Callable[[], Awaitable[object]] | None = None
    times: int = 1
    struck: int = 0

    def strikes(self, http: web.Request, body: bytes) -> bool:
        """Tell whether this call is meant, and count it."""
        method = "WATCH" if "watch" in http.query else http.method
        meant = method == self.method and http.path.endswith(self.path) and self.says.encode() in body
        if not meant or not (http.path.endswith(f"/{self.about}") or f"/{self.about}/" in http.path or self.about.encode() in body):
            return False
        if self.struck >= self.times:
            return False
        self.struck += 1
        return True


@dataclass
class Watch:
    """One watch that is under way, and what it has said."""

    http: web.Request
    asked: aiohttp.ClientResponse
    answer: web.StreamResponse
    lines: list[bytes] = field(default_factory=list)


class ApiServer:
    """The proxy. `address` is where the controller's kubeconfig points."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server, self._session = server, session
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._watches: list[Watch] = []
        self.faults: list[Fault] = []
        self._stale = 0
        self.watched = 0
        """How many watches the server has accepted."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def fault(self, method: str, **fault: Any) -> Fault:
        """Let the next calls of this kind go wrong; see Fault."""
        self.faults.append(Fault(method, **fault))
        return self.faults[-1]

    def heal(self) -> None:
        """Take back every fault."""
        self.faults.clear()

    def drop_watches(self) -> None:
        """Cut every watch, as a load balancer does."""
        for watch in self._watches:
            _abort(watch.http)
            watch.asked.close()

    async def say_on_watches(self, event: dict[str, Any]) -> None:
        """Send an event on every watch, as if it were the server's."""
        for watch in list(self._watches):
            await watch.answer.write(json.dumps(event).encode() + b"\n")

    async def tear_watches(self) -> None:
        """Cut every watch in the middle of an event."""
        for watch in list(self._watches):
            await watch.answer.write(b'{"type":"MODIFIED","object":{"meta')
        self.drop_watches()

    async def repeat_watches(self) -> int:
        """Send everything again that the watches under way have said; return how many events that was."""
        lines = [(watch, line) for watch in self._watches for line in watch.lines]
        for watch, line in lines:
            await watch.answer.write(line)
        return len(lines)

    def outdate_next_watch(self) -> None:
        """Let the next watch ask for a version so old that the server itself says 410, and cut those under way."""
        self._stale = 1
        self.drop_watches()

    async def accepted(self, watches: int, *, seconds: float = 60) -> None:
        """Wait until the server has accepted so many watches: the client's back-off may outlast what a list has told it."""
        async with asyncio.timeout(seconds):
            while self.watched < watches:
                await asyncio.sleep(0.2)

    async def start(self) -> None:
        """Listen: on the same port as before, if there was one."""
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections, and cut those that are open: what clients see of a server that restarts."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        fault = next((fault for fault in self.faults if fault.strikes(http, body)), None)
        if fault is not None:
            return await self._struck(fault, http, body)
        if "watch" in http.query:
            return await self._watch(http)
        return await self._forward(http, body)

    async def _struck(self, fault: Fault, http: web.Request, body: bytes) -> web.Response:
        if fault.kind == "answer":
            return _instead(fault)
        if fault.kind == "meddled" and fault.meddle is not None:
            await fault.meddle()
        answer = await self._forward(http, fault.spoil(body))
        if fault.kind == "late" and fault.meddle is not None:
            await fault.meddle()
        if fault.kind == "lost":
            _abort(http)
        return answer

    async def _forward(self, http: web.Request, body: bytes) -> web.Response:
        async with self._ask(http, body, {}) as answer:
            return web.Response(status=answer.status, body=await answer.read(), headers=_passed_on(answer.headers))

    def _ask(self, http: web.Request, body: bytes, query: dict[str, str]) -> Any:
        url = f"{self._server}{http.path}"
        return self._session.request(http.method, url, params={**http.query, **query}, data=body or None, headers=_passed_on(http.headers))

    async def _watch(self, http: web.Request) -> web.StreamResponse:
        stale, self._stale = self._stale, 0
        async with self._ask(http, b"", {"resourceVersion": "1"} if stale else {}) as asked:
            answer = web.StreamResponse(status=asked.status, headers=_passed_on(asked.headers))
            await answer.prepare(http)
            watch = Watch(http, asked, answer)
            self._watches.append(watch)
            self.watched += asked.status == HTTPStatus.OK
            try:
                with suppress(aiohttp.ClientError, ConnectionError):
                    async for line in asked.content:
                        watch.lines.append(line)
                        await answer.write(line)
            finally:
                self._watches.remove(watch)
            return answer


def _instead(fault: Fault) -> web.Response:
    plain = isinstance(fault.body, str)
    text = str(fault.body) if plain else json.dumps(fault.body)
    return web.Response(status=fault.status, text=text, content_type="text/plain" if plain else "application/json", headers=fault.headers)


def _abort(http: web.Request) -> None:
    if http.transport is not None:
        http.transport.abort()


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


@asynccontextmanager
async def proxied() -> AsyncIterator[ApiServer]:
    """Yield a proxy to the current kubeconfig's server, started."""
    cluster = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))["clusters"][0]["cluster"]
    trust = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
    connector = aiohttp.TCPConnector(ssl=trust, limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**21, skip_auto_headers=["Accept-Encoding"])
    async with session:
        api = ApiServer(cluster["server"], session)
        await api.start()
        yield api
        await api.stop()
        await asyncio.sleep(0)


def kubeconfig(address: str, token: str, path: Path) -> Path:
    """Write a kubeconfig that leads to the proxy with this token."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxied", "cluster": {"server": address}}],
        "users": [{"name": "controller", "user": {"token": token}}],
        "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "controller"}}],
        "current-context": "proxied",
    }
    path.write_text(json.dumps(config))
    return path
