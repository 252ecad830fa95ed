"""What the polls ask SkyPilot for.

A request's body holds the user's secrets in plain text; it is read to adopt a launch, and never else.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer
from skyoperator.sky import NoCredentials, SkyPilotClient


async def test_polls_never_fetch_bodies() -> None:
    asked: list[list[str]] = []

    async def status(http: web.Request) -> web.Response:
        asked.append(http.query.getall("fields", []))
        return web.json_response([])

    app = web.Application()
    app.router.add_get("/api/status", status)
    async with TestServer(app) as server, SkyPilotClient.connect(str(server.make_url("")), NoCredentials()) as sky:
        await sky.active_requests()
        await sky.requests_of("a")
    assert len(asked) == 2
    for fields in asked:
        assert {"request_id", "status"} <= set(fields)
        assert "request_body" not in fields
