"""`python -m skyoperator`: the controller process.

probes ─► lease ─► observer + kopf's watch + workers, until a signal or a lost lease ─► workers finish ─► lease given up
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from skyoperator import handlers, probes
from skyoperator.admission import Admission
from skyoperator.events import waking
from skyoperator.hold import Hold
from skyoperator.kube import Key, KubeApi, api_client, is_served
from skyoperator.lease import Lease, LeaseLostError
from skyoperator.login_secret import LoginSecret
from skyoperator.metrics import REGISTRY, Held, Launches, Objects, Orphaned
from skyoperator.observe import Observer
from skyoperator.orphan_registry import OrphanRegistry
from skyoperator.orphans import Orphans, instance_label
from skyoperator.process import configure_logging, until_one_ends
from skyoperator.reconcile import Reconciler
from skyoperator.settings import Settings, SettingsError
from skyoperator.sky.client import POST_TIMEOUT_SECONDS, SkyPilotClient
from skyoperator.sky.credentials import MintedLogin, SecretDirectory
from skyoperator.sky.types import SkyPilot
from skyoperator.task import Policy, cluster_name
from skyoperator.workers import Workers

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Serve until told to stop. Raises LeaseLostError when somebody else took over."""
    async with (
        api_client() as kubernetes,
        skypilot(settings, kube := KubeApi(kubernetes, instance=settings.instance)) as sky,
    ):
        lease = Lease(kubernetes, namespace=settings.lease_namespace, name=settings.lease_name, holder=settings.holder)
        admission = Admission(settings.max_in_flight_launches)
        hold = Hold()
        observer = Observer(sky, admission=admission, hold=hold)
        registry = OrphanRegistry(kubernetes, lease, namespaces=settings.namespaces, instance=settings.instance)

        def watched() -> Iterable[str]:
            return workers.uids()

        orphans = make_orphans(sky, registry, watched, settings, lease)
        workers = make_workers(kube=kube, sky=sky, observer=observer, lease=lease, orphans=orphans, policy=settings.policy)
        measure(workers, admission, hold, orphans)
        web = await probes.serve(
            settings.http_port,
            registry=REGISTRY,
            oldest_pass_seconds=workers.oldest_pass_seconds,
            is_active=lambda: lease.seconds_left() > 0,
        )
        try:
            await acquire(lease)
            watching = handlers.watch(waking(workers), namespaces=settings.namespaces, is_served=partial(is_served, kubernetes))
            await until_one_ends(lease.hold(), observer.run(), orphans.run(), watching, then=workers.stop)
        finally:
            await lease.release()
            await web.cleanup()


@asynccontextmanager
async def skypilot(settings: Settings, kube: KubeApi) -> AsyncIterator[SkyPilotClient]:
    """Yield a client with a login of our own, made with the mounted credentials; without a Secret for it, with these themselves."""
    mounted = SecretDirectory(settings.credentials_dir, f"the Secret mounted at {settings.credentials_dir}")
    async with SkyPilotClient.connect(settings.skypilot_endpoint, mounted) as client:
        if not settings.login_secret:
            yield client
            return
        store = LoginSecret(kube, namespace=settings.lease_namespace, name=settings.login_secret)
        async with SkyPilotClient.connect(settings.skypilot_endpoint, MintedLogin(store, client.mint_login)) as ours:
            yield ours


def make_workers(*, kube: KubeApi, sky: SkyPilot, observer: Observer, lease: Lease, orphans: Orphans, policy: Policy) -> Workers:
    """Return the workers, with everything they need."""
    reconciler = Reconciler(
        kube=kube,
        sky=sky,
        observer=observer,
        holder=lease,
        installation=orphans,
        post_timeout_seconds=POST_TIMEOUT_SECONDS,
        policy=policy,
    )

    def forget(key: Key) -> None:
        observer.forget(cluster_name(key.name, key.uid))

    return Workers(reconciler, forget)


def make_orphans(
    sky: SkyPilot, registry: OrphanRegistry, watched: Callable[[], Iterable[str]], settings: Settings, lease: Lease
) -> Orphans:
    """Return who looks for clusters without an object."""
    return Orphans(
        sky,
        registry,
        instance=lambda: instance_label(lease.uid, settings.instance),
        watched=watched,
        serves=lambda namespace: not settings.namespaces or namespace in settings.namespaces,
    )


def measure(workers: Workers, admission: Admission, hold: Hold, orphans: Orphans) -> None:
    """Let Prometheus see it all."""
    REGISTRY.register(Objects(workers.phases, workers.oldest_pass_seconds))
    REGISTRY.register(Launches(lambda: admission.in_flight, lambda: admission.queued))
    REGISTRY.register(Held(lambda: hold.count))
    REGISTRY.register(Orphaned(lambda: orphans.count))


async def acquire(lease: Lease) -> None:
    """Wait for the lease, or for a signal: process 1 of a container ignores those that nobody handles."""
    waiting = asyncio.create_task(lease.acquire())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, waiting.cancel)
    try:
        await waiting
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


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
    except LeaseLostError as error:
        logger.warning("%s: another controller may be active. This one ends, and stands by once it is started again.", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
