"""One active controller per scope, by a coordination.k8s.io Lease (KEP-589), and how much of it is left.

Kubernetes' Python client has a leader election, but it tells nobody how long the lease still holds, which is what a POST that must
not overlap with another controller's needs; and it ends at the first connection error.

Time on a lease is counted by our own monotonic clock from before we asked for it, and another holder's from when we last saw it
renewed, as client-go does: clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any, Final, NoReturn, cast

import aiohttp
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

logger = logging.getLogger(__name__)

DURATION_SECONDS: Final = 60.0
RENEW_SECONDS: Final = 5.0
REQUEST_TIMEOUT_SECONDS: Final = 5.0

_LEASES: Final = ("coordination.k8s.io", "v1")


def time_since_boot() -> float:
    """Return the seconds since boot; unlike the monotonic clock this one goes on while the machine is suspended."""
    return clock_gettime(CLOCK_BOOTTIME)


class LeaseLostError(Exception):
    """We are no longer the active controller and must act no more."""


class Lease:
    """Our hold on the lease. `acquire`, then `hold` beside everything else; `seconds_left` before what must not overlap."""

    def __init__(self, client: ApiClient, *, namespace: str, name: str, holder: str, clock: Callable[[], float] = time_since_boot) -> None:
        self._api = CustomObjectsApi(client)
        self.namespace, self.name = namespace, name
        self.uid = ""
        """The Lease object's; empty before it was first read."""
        self._holder = holder
        self._writing = asyncio.Lock()
        self._clock = clock
        self._held_until = float("-inf")
        self._seen: tuple[object, float] | None = None

    def seconds_left(self) -> float:
        """Return for how long nobody else can become active, in seconds; negative once somebody may have."""
        return self._held_until - self._clock()

    async def acquire(self) -> None:
        """Return once the lease is ours."""
        logger.info("waiting for Lease %s/%s as %s", self.namespace, self.name, self._holder)
        while not await self._try():  # noqa: ASYNC110 - the event is on another machine
            await asyncio.sleep(RENEW_SECONDS / 2)
        logger.info("holding Lease %s/%s", self.namespace, self.name)

    async def hold(self) -> NoReturn:
        """Renew for ever. Raises LeaseLostError as soon as somebody else may be active."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.seconds_left(), 0.0)):
                    await asyncio.sleep(RENEW_SECONDS)
                    await self._try()
            if self.seconds_left() <= 0:
                raise LeaseLostError(f"Lease {self.namespace}/{self.name} is no longer held by {self._holder}")

    async def release(self) -> None:
        """Give the lease up, so that a successor need not wait for it to run out. Call it once nothing acts any more."""
        self._held_until = float("-inf")
        try:
            lease = await self._read()
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._holder:
                lease["spec"]["holderIdentity"] = ""
                await self._write(lease)
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("could not give Lease %s/%s up; it runs out by itself: %r", self.namespace, self.name, error)

    async def annotation(self, key: str) -> str:
        """Return an annotation of the Lease, "" if it has none. Raises what the client raises."""
        lease = await self._read()
        return str(_annotations(lease).get(key, "")) if lease is not None else ""

    async def annotate(self, key: str, value: str) -> None:
        """Set an annotation of the Lease. Raises what the client raises: ApiException 409 if somebody wrote it in between."""
        async with self._writing:
            lease = await self._read()
            if lease is None:
                raise ApiException(status=HTTPStatus.NOT_FOUND, reason=f"no Lease {self.namespace}/{self.name}")
            lease["metadata"]["annotations"] = {**_annotations(lease), key: value}
            await self._write(lease)

    async def _try(self) -> bool:
        asked_at = self._clock()
        try:
            async with self._writing:
                held = await self._take(await self._read())
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("could not renew Lease %s/%s: %r", self.namespace, self.name, error)
            return False
        if held:
            self._held_until = asked_at + DURATION_SECONDS
        elif self._held_until > asked_at:
            self._held_until = float("-inf")
        return held

    async def _take(self, lease: dict[str, Any] | None) -> bool:
        """Return whether the lease is ours now. Raises ApiException at a conflict: somebody wrote it in between, perhaps only a label."""
        if lease is None:
            await self._create()
            return True
        before = lease.get("spec") or {}
        holder = before.get("holderIdentity")
        if holder and holder != self._holder and not self._has_run_out(lease, before):
            return False
        lease["spec"] = self._spec(before)
        await self._write(lease)
        return True

    def _has_run_out(self, lease: dict[str, Any], spec: dict[str, Any]) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = before.get("holderIdentity") == self._holder
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": before.get("acquireTime", now) if is_ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if is_ours else 1),
        }

    async def _read(self) -> dict[str, Any] | None:
        try:
            lease = await self._api.get_namespaced_custom_object(
                *_LEASES, self.namespace, "leases", self.name, _request_timeout=REQUEST_TIMEOUT_SECONDS
            )
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return self._known(lease)

    def _known(self, lease: object) -> dict[str, Any]:
        """Return what was read, and keep its uid."""
        known = cast("dict[str, Any]", lease)
        self.uid = known["metadata"].get("uid", "")
        return known

    async def _create(self) -> None:
        body = {
            "apiVersion": "/".join(_LEASES),
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec({}),
        }
        lease = await self._api.create_namespaced_custom_object(
            *_LEASES, self.namespace, "leases", body, _request_timeout=REQUEST_TIMEOUT_SECONDS
        )
        self._known(lease)

    async def _write(self, lease: dict[str, Any]) -> None:
        await self._api.replace_namespaced_custom_object(
            *_LEASES, self.namespace, "leases", self.name, lease, _request_timeout=REQUEST_TIMEOUT_SECONDS
        )


def _annotations(lease: dict[str, Any]) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}
