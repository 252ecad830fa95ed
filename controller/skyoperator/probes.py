"""What kubelet and Prometheus ask for: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

OLDEST_PASS_SECONDS: Final = 300.0
"""A pass that takes longer hangs: its calls all have time-outs that add up to less."""


async def serve(
    port: int, *, registry: CollectorRegistry, oldest_pass_seconds: Callable[[], float], is_active: Callable[[], bool]
) -> web.AppRunner:
    """Return the server, started; the caller cleans it up."""

    async def healthz(_: web.Request) -> web.Response:
        age = oldest_pass_seconds()
        return web.Response(status=200 if age < OLDEST_PASS_SECONDS else 500, text=f"oldest pass under way: {age:.0f} s\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="active\n" if is_active() else "standing by for the lease\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
