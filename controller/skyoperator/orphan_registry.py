"""What Kubernetes knows of the owners of clusters: objects by LIST, clusters left behind in an annotation of our Lease, Events on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient

from skyoperator.api.v1alpha1 import GROUP
from skyoperator.kube import TIMEOUT_SECONDS, event_body, explained, uids
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
        with explained("read", "which clusters were left behind"):
            return from_text(await self._lease.annotation(RELEASED))

    async def set_released(self, released: Mapping[str, datetime]) -> None:
        """See `Registry.set_released`."""
        with explained("write down", "which clusters were left behind"):
            await self._lease.annotate(RELEASED, as_text(released))

    async def announce(self, note: str) -> None:
        """See `Registry.announce`. The Lease stands for the installation: the object that would have the Event is gone."""
        lease = self._lease
        regarding = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "namespace": lease.namespace,
            "name": lease.name,
            "uid": lease.uid,
        }
        body = event_body(regarding, kind="Warning", reason="OrphanedCluster", note=note, instance=self._instance)
        with explained("post an event about", f"Lease {lease.namespace}/{lease.name}"):
            await self._api.create_namespaced_custom_object(
                "events.k8s.io", "v1", lease.namespace, "events", body, _request_timeout=TIMEOUT_SECONDS
            )
