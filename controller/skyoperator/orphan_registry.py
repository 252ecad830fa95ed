"""What Kubernetes knows of the owners of clusters: objects by LIST, clusters left behind in an annotation of our Lease, Events on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import aiohttp
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from skyoperator.api.v1alpha1 import GROUP
from skyoperator.kube import TIMEOUT_SECONDS, KubeError, uids
from skyoperator.lease import Lease
from skyoperator.orphans import as_text, from_text

RELEASED: Final = f"{GROUP}/released-clusters"


class OrphanRegistry:
    """An `orphans.Registry`."""

    def __init__(self, client: ApiClient, lease: Lease, *, namespaces: Sequence[str], instance: str) -> None:
        self._api = CustomObjectsApi(client)
        self._client = client
        self._lease = lease
        self._namespaces = namespaces
        self._instance = instance

    async def uids(self) -> frozenset[str]:
        """See `Registry.uids`."""
        return await uids(self._client, self._namespaces)

    async def released(self) -> Mapping[str, datetime]:
        """See `Registry.released`."""
        with _explained("read which clusters were left behind"):
            return from_text(await self._lease.annotation(RELEASED))

    async def set_released(self, released: Mapping[str, datetime]) -> None:
        """See `Registry.set_released`."""
        with _explained("write down which clusters were left behind"):
            await self._lease.annotate(RELEASED, as_text(released))

    async def announce(self, note: str) -> None:
        """See `Registry.announce`. The Lease stands for the installation: the object that would have the Event is gone."""
        lease = self._lease
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{lease.name}-", "namespace": lease.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning",
            "reason": "OrphanedCluster",
            "action": "Reconcile",
            "note": note,
            "reportingController": f"{GROUP}/controller",
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "namespace": lease.namespace,
                "name": lease.name,
                "uid": lease.uid,
            },
        }
        with _explained("post an Event"):
            await self._api.create_namespaced_custom_object(
                "events.k8s.io", "v1", lease.namespace, "events", body, _request_timeout=TIMEOUT_SECONDS
            )


@contextmanager
def _explained(deed: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        raise KubeError(f"could not {deed}: HTTP {error.status} {error.body or error.reason}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise KubeError(f"could not {deed}: the Kubernetes API does not answer ({error!r})") from error
