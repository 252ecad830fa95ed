"""What Prometheus is told of the logs. A registry of its own: the controller is another process."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

REGISTRY: Final = CollectorRegistry()

FOLLOWERS: Final = Gauge(
    "skyoperator_log_followers", "Readers that follow a log, those included that wait for it to begin.", registry=REGISTRY
)


async def serve_metrics(port: int, *, host: str | None = None) -> web.AppRunner:
    """Return a server of /metrics over plain HTTP, started; the caller cleans it up. Nothing of a log is to be had there."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host=host, port=port).start()
    return runner
