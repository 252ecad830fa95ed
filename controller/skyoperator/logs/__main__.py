"""`python -m skyoperator.logs`: the log process.

certificate, front proxy ─► HTTPS ─► kopf's watch + collector + sweeps, until a signal
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final, NoReturn

from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient

from skyoperator import handlers
from skyoperator.kube import KubeApi, KubeError, api_client, is_served, uids
from skyoperator.login_secret import LoginSecret
from skyoperator.logs.archive import Archive
from skyoperator.logs.certificate_keeper import BundleApiService, BundleConfigMap, CertificateKeeper, CertificateSecret, Published
from skyoperator.logs.certificates import Lifetimes, names_of
from skyoperator.logs.collector import Collector, Pace
from skyoperator.logs.metrics import REGISTRY, Archived, serve_metrics
from skyoperator.logs.objects import Objects, catch_up
from skyoperator.logs.reporter import Reporter
from skyoperator.logs.settings import LogSettings
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import Limits
from skyoperator.logs.web.access import AccessReviews
from skyoperator.logs.web.front_proxy import FrontProxyWatch
from skyoperator.logs.web.identity import BearerDoor, FirstOf, FrontProxyDoor
from skyoperator.logs.web.server import hang_up, serve
from skyoperator.logs.web.tls import Contexts
from skyoperator.process import configure_logging, until_one_ends
from skyoperator.settings import SettingsError
from skyoperator.sky.credentials import Credentials, KeptLogin, SecretDirectory
from skyoperator.sky.logs import LogClient

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 600.0


async def run(settings: LogSettings) -> None:
    """Serve until told to stop. Raises KubeError if the certificate can't be had, OSError if the volume can't be read."""
    limits = Limits(
        log_bytes=settings.max_log_bytes, total_bytes=settings.max_total_bytes, retention=timedelta(days=settings.retention_days)
    )
    store = await asyncio.to_thread(Store, settings.directory, limits)
    async with api_client() as client, log_client(settings, kube := KubeApi(client, instance=settings.instance)) as source:
        collector = Collector(source, store, Reporter(kube).report, Pace(interval_seconds=settings.interval_seconds))
        objects = Objects(kube, collector)
        REGISTRY.register(Archived(lambda: store.used_bytes, lambda: store.failures))
        list_uids = partial(uids, client, settings.namespaces)
        catching_up = asyncio.create_task(catch_up(objects, list_uids))
        archive = Archive(store, objects, collector, kube)
        async with serving(settings, kube, client, archive, is_ready=catching_up.done) as beside:
            watching = handlers.watch(objects.happened, namespaces=settings.namespaces, is_served=partial(is_served, client))
            sweeping = sweep(store, objects, list_uids)
            await until_one_ends(watching, objects.run(), sweeping, *beside, then=collector.stop)


@asynccontextmanager
async def log_client(settings: LogSettings, kube: KubeApi) -> AsyncIterator[LogClient]:
    """Yield a client with the login that the controller made; without a Secret for it, with the mounted credentials."""
    credentials: Credentials = SecretDirectory(settings.credentials_dir, f"the Secret mounted at {settings.credentials_dir}")
    if settings.login_secret:
        credentials = KeptLogin(LoginSecret(kube, namespace=settings.namespace, name=settings.login_secret))
    async with LogClient.connect(settings.skypilot_endpoint, credentials) as source:
        yield source


@asynccontextmanager
async def serving(
    settings: LogSettings, kube: KubeApi, client: ApiClient, archive: Archive, *, is_ready: Callable[[], bool]
) -> AsyncIterator[Sequence[Awaitable[NoReturn]]]:
    """Serve the logs; yield what is to be run beside that."""
    contexts = Contexts()
    front_door = FrontProxyDoor(contexts.trusts)
    keeper = certificate_keeper(settings, kube, client, contexts)
    front_proxy = FrontProxyWatch(kube, front_door, contexts)
    await keeper.step()
    if settings.api_service:
        await front_proxy.step()
    doors = FirstOf(front_door, BearerDoor(kube))
    web = await serve(
        settings.https_port,
        logs=archive,
        authenticator=doors,
        authorizer=AccessReviews(kube),
        ssl_context=contexts.listening,
        is_ready=is_ready,
        max_followers=settings.max_followers,
    )
    front_proxy.hang_up = partial(hang_up, web)
    metrics = await serve_metrics(settings.metrics_port)
    try:
        yield (keeper.run(), front_proxy.run()) if settings.api_service else (keeper.run(),)
    finally:
        await web.cleanup()
        await metrics.cleanup()


def certificate_keeper(settings: LogSettings, kube: KubeApi, client: ApiClient, contexts: Contexts) -> CertificateKeeper:
    """Return who keeps the certificate, and tells everybody by which authority to verify it."""
    where = {"namespace": settings.namespace}
    published: list[Published] = [BundleConfigMap(kube, name=settings.authority_config_map, **where)]
    if settings.api_service:
        published.append(BundleApiService(CustomObjectsApi(client), name=settings.api_service, service=settings.service, **where))
    names = names_of(settings.service, settings.namespace, settings.cluster_domain)
    secret = CertificateSecret(kube, name=settings.certificate_secret, **where)
    return CertificateKeeper(secret, published, contexts.use_certificate, names=names, lifetimes=Lifetimes())


async def sweep(store: Store, objects: Objects, uids: Callable[[], Awaitable[frozenset[str]]]) -> NoReturn:
    """Remove what was kept long enough or is too much, for ever. While the objects can't be listed, none of them counts as gone."""
    while True:
        alive: frozenset[str] | None = None
        known = objects.uids()
        try:
            alive = await uids()
            objects.forget(known - alive)
        except KubeError as error:
            logger.warning("%s", error)
        await asyncio.to_thread(store.sweep, alive)
        await asyncio.sleep(SWEEP_SECONDS)


def main() -> int:
    """Return the exit code."""
    try:
        settings = LogSettings.from_environment(os.environ)
    except SettingsError as error:
        print(f"skyoperator.logs: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
