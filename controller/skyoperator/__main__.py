"""`python -m skyoperator`: the controller process.

probes ─► lease ─► observer + kopf's watch + workers, until a signal or a lost lease ─► workers finish ─► lease given up
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import kopf

from skyoperator import handlers, probes
from skyoperator.kube import Key, KubeApi, api_client, is_served
from skyoperator.lease import Lease
from skyoperator.metrics import REGISTRY, Objects
from skyoperator.observe import Observer
from skyoperator.reconcile import Reconciler
from skyoperator.settings import Settings, SettingsError
from skyoperator.sky.client import POST_TIMEOUT_SECONDS, SkyPilotClient
from skyoperator.sky.credentials import SecretDirectory
from skyoperator.sky.types import SkyPilot
from skyoperator.task import cluster_name
from skyoperator.workers import Workers

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Serve until told to stop. Raises LeaseLostError when somebody else took over."""
    async with (
        api_client() as kubernetes,
        SkyPilotClient.connect(
            settings.skypilot_endpoint, SecretDirectory(settings.credentials_dir, f"the Secret mounted at {settings.credentials_dir}")
        ) as sky,
    ):
        lease = Lease(kubernetes, namespace=settings.lease_namespace, name=settings.lease_name, holder=settings.holder)
        observer = Observer(sky, server=settings.skypilot_endpoint)
        kube = KubeApi(kubernetes, instance=settings.instance)
        workers = make_workers(kube, sky, observer, lease)
        REGISTRY.register(Objects(workers.phases, workers.oldest_pass_seconds))
        web = await probes.serve(
            settings.http_port,
            registry=REGISTRY,
            oldest_pass_seconds=workers.oldest_pass_seconds,
            is_active=lambda: lease.seconds_left() > 0,
        )
        try:
            await acquire(lease)
            watching = handlers.watch(workers, namespaces=settings.namespaces, is_served=partial(is_served, kubernetes))
            await until_one_ends(lease.hold(), observer.run(), watching, then=workers.stop)
        finally:
            await lease.release()
            await web.cleanup()


def make_workers(kube: KubeApi, sky: SkyPilot, observer: Observer, lease: Lease) -> Workers:
    """Return the workers, with everything they need."""
    reconciler = Reconciler(kube=kube, sky=sky, observer=observer, holder=lease, post_timeout_seconds=POST_TIMEOUT_SECONDS)

    def forget(key: Key) -> None:
        observer.forget(cluster_name(key.name, key.uid))

    return Workers(reconciler, forget)


async def acquire(lease: Lease) -> None:
    """Wait for the lease, or for a signal: process 1 of a container ignores those that nobody handles."""
    waiting = asyncio.create_task(lease.acquire())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, waiting.cancel)
    try:
        await waiting
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def until_one_ends(*parts: Awaitable[None], then: Callable[[], Awaitable[None]]) -> None:
    """Run all parts until one of them ends, do `then` while the others go on, and cancel them. Raises what the first one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await then()
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


def configure_logging(level: str) -> None:
    """Log JSON lines. kopf reports each watch event it has handed on: of use to nobody but who debugs it."""
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(level)
    if level != "DEBUG":
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)


def main() -> int:
    """Return the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"skyoperator: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    try:
        asyncio.run(run(settings))
    except asyncio.CancelledError:
        logger.info("stopped while standing by")
    return 0


if __name__ == "__main__":
    sys.exit(main())
