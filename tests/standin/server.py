"""The stand-in as an HTTP server on a loopback port, with its control beside it under /_control."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from tests.standin.control import Control
from tests.standin.rest import Rest

CONTROLS = ("launches", "jobs", "fault", "set", "require", "restart", "wipe", "finish", "delete_pods", "break_cluster", "state")


@asynccontextmanager
async def serving(control: Control, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve this control's server; yield its address. Port 0 takes a free one."""
    rest = Rest(control)
    app = web.Application(middlewares=[rest.gate], client_max_size=16 << 20)
    app.add_routes([*rest.routes(), web.post("/_control/{verb}", _verb(control))])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        control.close()
        await runner.cleanup()


class RemoteControl:
    """The control of a stand-in in another process."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._address = address
        self._session = session

    async def __call__(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Call `Control.verb(*args, **kwargs)` there and return what it returns. Raises ValueError with its complaint."""
        body = {"args": args, "kwargs": kwargs}
        async with self._session.post(f"{self._address}/_control/{verb}", json=body) as answer:
            if answer.status != 200:
                raise ValueError(await answer.text())
            return await answer.json()


def _verb(control: Control) -> Any:
    async def handle(http: web.Request) -> web.Response:
        verb, body = http.match_info["verb"], await http.json()
        if verb not in CONTROLS:
            return web.Response(text=f"No such control: {verb}", status=404)
        try:
            result = getattr(control, verb)(*body["args"], **body["kwargs"])
            return web.json_response(await result if inspect.isawaitable(result) else result)
        except (TypeError, ValueError, KeyError) as error:
            return web.Response(text=f"{verb}: {error!r}", status=400)

    return handle
