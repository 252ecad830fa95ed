"""The REST interface, as sky/server/server.py has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.standin import recorded
from tests.standin.control import Control
from tests.standin.script import Fault
from tests.standin.world import Posted, Request, task_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REQUIRED = {
    "launch": {"task", "cluster_name"},
    "down": {"cluster_name"},
    "queue": {"cluster_name"},
    "cancel": {"cluster_name", "job_ids"},
    "autostop": {"cluster_name", "idle_minutes"},
    "endpoints": {"cluster"},
}
_POSTS = ("launch", "down", "queue", "status", "cancel", "autostop", "endpoints", "api/cancel")
_FIELDS = {"request_id", "name", "entrypoint", "request_body", "status", "return_value", "error", "pid", "created_at"} | {
    "cluster_name", "schedule_type", "user_id", "status_msg", "should_retry", "finished_at", "file_mounts_blob_id"
}  # fmt: skip


_VERSIONS = {"X-SkyPilot-API-Version": recorded.API_VERSION, "X-SkyPilot-Version": recorded.VERSION}


class Invalid(Exception):  # noqa: N818
    """A body that does not fit: a 422."""

    def __init__(self, wrongs: list[dict[str, Any]]) -> None:
        super().__init__(wrongs)
        self.wrongs = wrongs


class Rest:
    """The routes, over one Control."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def routes(self) -> list[web.RouteDef]:
        """Return what the server answers; everything else is its 404."""
        return [
            *(web.post(f"/{path}", self._post(path, path.replace("/", "_"))) for path in _POSTS),
            web.post("/logs", self._logs),
            web.post("/provision_logs", self._provision_logs),
            web.get("/api/get", self._get),
            web.get("/api/status", self._list),
            web.get("/api/health", self._health),
            web.get("/users", self._users),
            web.post("/users/import", self._import),
        ]

    @web.middleware
    async def gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Drop, reject or pass a call, in the order of SkyPilot's middlewares."""
        if request.path.startswith("/_control/"):
            return await handler(request)
        if self._control.unreachable:
            return _dropped(request)
        self._control.world.calls[f"{request.method} {request.path}"] += 1
        refusal = self._unauthorized(request)
        if refusal is not None:
            return refusal
        try:
            answer = _mismatch(request) or await handler(request)
        except web.HTTPNotFound:
            answer = web.json_response({"detail": "Not Found"}, status=404)
        except Invalid as invalid:
            answer = web.json_response({"detail": invalid.wrongs}, status=422)
        answer.headers.update(_VERSIONS)
        return answer

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if request.path == "/api/health":
            return None
        return self._control.users.refusal(request.headers.get("Authorization"))

    def _post(self, path: str, name: str) -> Handler:
        async def handle(http: web.Request) -> web.StreamResponse:
            body = await _body(http, _REQUIRED.get(path, set()))
            cluster_name = body.get("cluster_name") or body.get("cluster")
            fault = self._control.script.take_fault(name, cluster_name or "")
            if fault is not None and fault.kind in {"before", "refused"}:
                return _struck(fault)
            if fault is not None and fault.kind == "delayed":
                await asyncio.sleep(fault.seconds)
            request = Request(name, cluster_name, body)
            self._record(request)
            self._control.workers.start(request)
            answer = web.json_response(None, headers={"X-SkyPilot-Request-ID": request.id})
            return await _answered(http, answer, fault)

        return handle

    def _record(self, request: Request) -> None:
        if request.name != "launch":
            return
        try:
            name = str(task_of(request.body["task"]).get("name"))
        except Exception:  # noqa: BLE001 - whatever is wrong with the task is the worker's to say
            name = ""
        posted = Posted(request.created_at, str(request.cluster_name), name, request.id, request.body["task"])
        self._control.world.launches.append(posted)

    async def _logs(self, http: web.Request) -> web.StreamResponse:
        """Stream a job's log; the stream is a 200 whatever becomes of the request behind it (server.py:2499)."""
        body = await _body(http, {"cluster_name", "job_id"})
        request = Request("logs", body["cluster_name"], body)
        self._control.workers.start(request)
        await request.done.wait()
        text = ""
        if request.error is None:
            request.value, text = request.value
        return web.Response(text=text, headers={"X-SkyPilot-Request-ID": request.id})

    async def _provision_logs(self, http: web.Request) -> web.StreamResponse:
        """Return the log of the cluster's latest launch; no request is behind it (server.py:2624)."""
        name = (await _body(http, {"cluster_name"}))["cluster_name"]
        if name not in {posted.cluster_name for posted in self._control.world.launches}:
            detail = "Provision log path is not recorded for this cluster. Please relaunch to generate provisioning logs."
            return web.json_response({"detail": detail}, status=404)
        return web.Response(text=f"Launching {name} on Kubernetes.\n")

    async def _get(self, http: web.Request) -> web.StreamResponse:
        """Wait until the request has finished, however long that takes (server.py:2841)."""
        request_id = http.query.get("request_id", "")
        request = self._control.world.requests.get(request_id)
        if request is None:
            return web.json_response({"detail": f"Request {request_id!r} not found"}, status=404)
        await request.done.wait()
        if request_id not in self._control.world.requests:
            return _dropped(http)
        row = recorded.request_result(request)
        return web.json_response({"detail": row}, status=500) if request.error else web.json_response(row)

    async def _list(self, http: web.Request) -> web.StreamResponse:
        """List requests, newest first. `request_ids` overrules all other parameters, and returns bodies (server.py:3181)."""
        known = self._control.world.requests
        if "request_ids" in http.query:
            named = [known[request_id] for request_id in http.query.getall("request_ids") if request_id in known]
            return web.json_response([recorded.request_listed(found, set(), with_body=True) for found in named])
        fields = set(http.query.getall("fields", []))
        if unknown := sorted(fields - _FIELDS):
            return web.json_response({"detail": f"Unknown request field(s): {unknown}."}, status=400)
        with_body = not fields or "request_body" in fields
        rows = [recorded.request_listed(found, fields, with_body=with_body) for found in self._wanted(http)]
        return web.json_response(rows[: int(http.query.get("limit", len(rows)))])

    def _wanted(self, http: web.Request) -> list[Request]:
        cluster_name = http.query.get("cluster_name")
        every = http.query.get("all_status", "").lower() == "true"
        newest_first = reversed(self._control.world.requests.values())
        return [found for found in newest_first if (every or found.active) and (cluster_name is None or found.cluster_name == cluster_name)]

    async def _users(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._control.users.rows())

    async def _import(self, http: web.Request) -> web.StreamResponse:
        """Make users. There is no request behind it."""
        body = await _body(http, {"csv_content"})
        fault = self._control.script.take_fault("import", "")
        if fault is not None and fault.kind in {"before", "refused"}:
            return _struck(fault)
        return await _answered(http, self._control.users.take_in(body["csv_content"]), fault)

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "healthy", "api_version": recorded.API_VERSION, "version": recorded.VERSION})


async def _body(http: web.Request, required: set[str]) -> dict[str, Any]:
    """Return the JSON body. Raises Invalid, which repeats the body as FastAPI does."""
    try:
        body = json.loads(await http.text())
    except ValueError as error:
        raise Invalid([{"type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {}}]) from error
    if missing := sorted(required - body.keys()):
        raise Invalid([{"type": "missing", "loc": ["body", key], "msg": "Field required", "input": body} for key in missing])
    return dict(body)


async def _answered(http: web.Request, answer: web.Response, fault: Fault | None) -> web.StreamResponse:
    if fault is not None and fault.kind == "late":
        await asyncio.sleep(fault.seconds)
    elif fault is not None and fault.kind == "lost":
        return _dropped(http)
    elif fault is not None and fault.kind == "after":
        return _struck(fault)
    return answer


def _struck(fault: Fault) -> web.Response:
    if fault.kind == "refused":
        raise Invalid([{"type": "value_error", "loc": ["body", "task"], "msg": "Refused by the script", "input": "s3cret"}])
    return web.Response(text="Internal Server Error", status=500)


def _dropped(http: web.Request) -> web.Response:
    if http.transport is not None:
        http.transport.abort()
    return web.Response()


def _mismatch(http: web.Request) -> web.Response | None:
    version = http.headers.get("X-SkyPilot-API-Version")
    if version is None or int(version) >= 24:
        return None
    words = "\x1b[33mYour SkyPilot client version is too old:0.1\n\x1b[0mThe server is running on 0.14.1."
    return web.json_response({"error": "version_mismatch", "message": words}, status=400)
