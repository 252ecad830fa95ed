"""A Kubernetes API over HTTP, of which each test says what it answers; or SkyClusters in memory, served as Kubernetes serves them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from kubernetes_asyncio.client import Configuration
from skyoperator_provider.errors import ApiError
from skyoperator_provider.hooks.logs import Place

from tests.provider.scripted_api import NAMESPACE, ScriptedApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OBJECTS = f"/apis/skyoperator.dev/v1alpha1/namespaces/{NAMESPACE}/skyclusters"
LOG = f"/apis/logs.skyoperator.dev/v1alpha1/namespaces/{NAMESPACE}/skyclusters/train/log"


def status_of(code: int, reason: str, message: str, **details: str) -> web.Response:
    """As kube-apiserver says that something is not so."""
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}, status=code)


@dataclass
class Server:
    """A Kubernetes API of which each test says what it answers."""

    answer: Handler
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        self.bodies.append(await request.text())
        self.authorizations.append(request.headers.get("Authorization"))
        return await self.answer(request)

    def configuration(self) -> Configuration:
        found = Configuration(host=self.url)
        found.api_key["BearerToken"] = "Bearer secret"
        return found


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[Server]:
    server = Server(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()


def served(api: ScriptedApi) -> Handler:
    """Answer as Kubernetes does, with what is in memory."""

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix(OBJECTS).strip("/")
        try:
            if request.path == LOG:
                return await _log(api, request)
            if not name:
                return await (_watch if "watch" in request.query else _list)(api, request)
            return await (_delete if request.method == "DELETE" else _get)(api, request, name)
        except ApiError as error:
            return status_of(error.status or 500, error.reason, str(error))

    return answer


async def _list(api: ScriptedApi, request: web.Request) -> web.Response:
    page = await api.list(NAMESPACE, limit=int(request.query["limit"]), continue_=request.query.get("continue", ""))
    return web.json_response({"metadata": {"resourceVersion": page.resource_version, "continue": page.continue_}, "items": page.items})


async def _get(api: ScriptedApi, _: web.Request, name: str) -> web.Response:
    found = await api.get(NAMESPACE, name)
    if found is None:
        return status_of(404, "NotFound", f'"{name}" not found', name=name, group="skyoperator.dev", kind="skyclusters")
    return web.json_response(found)


async def _delete(api: ScriptedApi, request: web.Request, name: str) -> web.Response:
    conditions = (await request.json())["preconditions"]
    await api.delete(NAMESPACE, name, uid=conditions["uid"], resource_version=conditions["resourceVersion"])
    return web.json_response({"kind": "Status", "status": "Success"})


async def _watch(api: ScriptedApi, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    version, seconds = request.query["resourceVersion"], int(request.query["timeoutSeconds"])
    async with aclosing(api.watch(NAMESPACE, resource_version=version, timeout_seconds=seconds)) as events:
        await response.prepare(request)
        async for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
    return response


async def _log(api: ScriptedApi, request: web.Request) -> web.Response:
    def number(key: str) -> int | None:
        return int(request.query[key]) if key in request.query else None

    place = Place(request.query["uid"], number("attempt"), number("offsetBytes") or 0, number("limitBytes"), number("tailLines"))
    piece = await api.log(NAMESPACE, "train", place)
    if piece.next_offset_bytes is None:
        return status_of(404, "NotFound", piece.message, name="train", kind="skyclusters")
    headers = {"Skyoperator-Next-Offset": str(piece.next_offset_bytes), "Skyoperator-Log-State": piece.state}
    return web.Response(body=piece.data, headers=headers)
