"""Keeps the server's certificate in a Secret, its authorities where clients look for them, and the server up to date with both.

The chart makes Secret, ConfigMap and APIService, so that the process needs no right to create any: that right can't be tied to a name.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NoReturn, Protocol, cast

from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.exceptions import ApiException

from skyoperator.kube import TIMEOUT_SECONDS, Json, KubeError, explained, is_missing
from skyoperator.logs.certificates import AUTHORITY, Identity, Lifetimes, due_at, renewed

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""How often the bundle is looked after where others may change it, and another replica's renewal is taken over."""
RETRY_SECONDS: Final = 10.0
TRIES: Final = 5
"""How often a Secret is read again that another replica wrote in between."""

_SECRET_PATH: Final = "/api/v1/namespaces/{namespace}/secrets/{name}"  # noqa: S105 - a path
_CONFIG_MAP_PATH: Final = "/api/v1/namespaces/{namespace}/configmaps/{name}"
_API_SERVICES: Final = ("apiregistration.k8s.io", "v1", "apiservices")


class Calls(Protocol):
    """`KubeApi.call`."""

    async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
        """Return the answer. Raises ApiException, and what aiohttp raises."""


class Published(Protocol):
    """Where clients find the authorities."""

    async def publish(self, bundle: bytes) -> None:
        """See to it that this is what they find. Raises KubeError."""


class CertificateSecret:
    """The Secret. Two processes that renew at the same time agree on what was written first."""

    def __init__(self, kube: Calls, *, namespace: str, name: str) -> None:
        self._kube = kube
        self._names = {"namespace": namespace, "name": name}

    async def renewed(self, renew: Callable[[Identity | None], Identity]) -> Identity:
        """Return what is kept there, after `renew`. Raises KubeError."""
        with _made_by_helm(), explained("keep the server's certificate in", f"Secret {self._names['namespace']}/{self._names['name']}"):
            for _ in range(TRIES):
                read = await self._kube.call("GET", _SECRET_PATH, self._names)
                current = Identity.from_data({key: b64decode(value) for key, value in (read.get("data") or {}).items()})
                identity = renew(current)
                if identity == current or await self._has_written(read, identity):
                    return identity
        raise KubeError(f"Secret {self._names['namespace']}/{self._names['name']} is written by others all the time")

    async def _has_written(self, read: Json, identity: Identity) -> bool:
        data = {key: b64encode(value).decode() for key, value in identity.data().items()}
        try:
            await self._kube.call("PUT", _SECRET_PATH, self._names, {**read, "data": {**(read.get("data") or {}), **data}})
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True


class BundleConfigMap:
    """A `Published`: the ConfigMap for who comes with a token, by port-forward or from inside the cluster."""

    def __init__(self, kube: Calls, *, namespace: str, name: str) -> None:
        self._kube = kube
        self._names = {"namespace": namespace, "name": name}

    async def publish(self, bundle: bytes) -> None:
        """See `Published.publish`."""
        with (
            _made_by_helm(),
            explained("publish the certificate authority in", f"ConfigMap {self._names['namespace']}/{self._names['name']}"),
        ):
            read = await self._kube.call("GET", _CONFIG_MAP_PATH, self._names)
            if (read.get("data") or {}).get(AUTHORITY) != bundle.decode():
                await self._kube.call("PUT", _CONFIG_MAP_PATH, self._names, {**read, "data": {AUTHORITY: bundle.decode()}})


class BundleApiService:
    """A `Published`: the APIService, by which kube-apiserver verifies us. One that points to somebody else is left alone."""

    def __init__(self, api: CustomObjectsApi, *, name: str, service: str, namespace: str) -> None:
        self._api = api
        self._name = name
        self._service = {"name": service, "namespace": namespace}

    async def publish(self, bundle: bytes) -> None:
        """See `Published.publish`."""
        wanted = b64encode(bundle).decode()
        with _made_by_helm(), explained("set the caBundle of", f"APIService {self._name}"):
            read = cast("Json", await self._api.get_cluster_custom_object(*_API_SERVICES, self._name, _request_timeout=TIMEOUT_SECONDS))
            service = read["spec"].get("service") or {}
            if {key: service.get(key) for key in self._service} != self._service:
                logger.warning(
                    "APIService %s points to %s/%s, which is not us; it is left as it is. "
                    "Only one release of a cluster can serve it: set logs.apiService.enabled=false for the others.",
                    self._name,
                    service.get("namespace"),
                    service.get("name"),
                )
            elif read["spec"].get("caBundle") != wanted:
                await self._patch(str(read["metadata"]["resourceVersion"]), wanted)

    async def _patch(self, resource_version: str, ca_bundle: str) -> None:
        """Set it, if nobody pointed it elsewhere since it was read."""
        body = {"metadata": {"resourceVersion": resource_version}, "spec": {"caBundle": ca_bundle}}
        await self._api.patch_cluster_custom_object(
            *_API_SERVICES, self._name, body, _content_type="application/merge-patch+json", _request_timeout=TIMEOUT_SECONDS
        )


class CertificateKeeper:
    """`step` before the server is started, `run` beside it."""

    def __init__(
        self,
        secret: CertificateSecret,
        published: Sequence[Published],
        use: Callable[[bytes, bytes], None],
        *,
        names: Sequence[str],
        lifetimes: Lifetimes,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`use` is given certificate and key, PEM, whenever there are others."""
        self._secret = secret
        self._published = published
        self._use = use
        self._names = names
        self._lifetimes = lifetimes
        self._clock = clock
        self._shown: Identity | None = None

    async def step(self) -> float:
        """Renew what is due, publish the authorities, show the certificate; return after how many seconds to look again.

        Raises KubeError if the Secret can't be had. While the authorities can't be published, the old certificate is shown as long as
        that can be: nobody could verify the new one, if its authority is new as well.
        """
        identity = await self._secret.renewed(lambda current: renewed(current, self._clock(), names=self._names, lifetimes=self._lifetimes))
        is_published = await self._publish(identity.bundle)
        if self._shown is None or is_published or self._clock() >= due_at(self._shown, self._lifetimes) + self._lifetimes.certificate / 6:
            self._show(identity)
        if not is_published:
            return RETRY_SECONDS
        return min(max((due_at(identity, self._lifetimes) - self._clock()).total_seconds(), 0.1), LOOK_SECONDS)

    async def _publish(self, bundle: bytes) -> bool:
        """Return whether all places have it; one that is broken keeps it from no other."""
        return all([await _is_published(place, bundle) for place in self._published])

    def _show(self, identity: Identity) -> None:
        if self._shown is None or self._shown.certificate != identity.certificate:
            self._use(identity.certificate, identity.key)
            logger.info("the server shows a certificate that is renewed by %s", due_at(identity, self._lifetimes))
        self._shown = identity

    async def run(self) -> NoReturn:
        """Keep all that up to date, for ever."""
        while True:
            try:
                seconds = await self.step()
            except KubeError as error:
                logger.warning("%s", error)
                seconds = RETRY_SECONDS
            await asyncio.sleep(seconds)


async def _is_published(place: Published, bundle: bytes) -> bool:
    try:
        await place.publish(bundle)
    except KubeError as error:
        logger.warning("%s", error)
        return False
    return True


@contextmanager
def _made_by_helm() -> Iterator[None]:
    """Say of what is not there how it comes back."""
    try:
        yield
    except KubeError as error:
        if not is_missing(error):
            raise
        raise KubeError(f"{error}. `helm upgrade` makes it again") from error.__cause__
