"""What Prometheus is told of the logs. A registry of its own: the controller is another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

REGISTRY: Final = CollectorRegistry()

FOLLOWERS: Final = Gauge(
    "skyoperator_log_followers", "Readers that follow a log, those included that wait for it to begin.", registry=REGISTRY
)

COLLECTED: Final = Counter("skyoperator_log_collected_bytes", "Bytes of logs that were had from SkyPilot.", registry=REGISTRY)
ENDED: Final = Counter("skyoperator_logs_ended", "Logs that ended, by how.", ["state"], registry=REGISTRY)


class Archived(Collector):
    """What the volume holds, and how often it refused something."""

    def __init__(self, used_bytes: Callable[[], int], failures: Callable[[], int]) -> None:
        self._used_bytes = used_bytes
        self._failures = failures

    def collect(self) -> Iterator[Metric]:
        """Return what there is now."""
        yield GaugeMetricFamily("skyoperator_log_archive_bytes", "What the archived logs take on the volume.", self._used_bytes())
        yield CounterMetricFamily("skyoperator_log_archive_failures", "How often the volume refused something.", self._failures())


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
