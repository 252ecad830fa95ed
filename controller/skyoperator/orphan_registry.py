"""What Kubernetes knows of the owners of clusters: objects by LIST, clusters left behind in an annotation of our Lease, Events on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.api_client import ApiClient

from skyoperator.api.v1alpha1 import GROUP, PLURAL, VERSION
from skyoperator.kube import TIMEOUT_SECONDS, event_body, explained
from skyoperator.lease import Lease
from skyoperator.orphans import as_text, from_text

RELEASED: Final = f"{GROUP}/released-clusters"
PAGE: Final = 100
"""Objects read at once: only their uids are kept."""


class OrphanRegistry:
    """An `orphans.Registry`."""

    def __init__(self, client: ApiClient, lease: Lease, *, namespaces: Sequence[str], instance: str) -> None:
        self._api = CustomObjectsApi(client)
        self._lease = lease
        self._namespaces = namespaces
        self._instance = instance

    async def uids(self) -> frozenset[str]:
        """See `Registry.uids`."""
        found: set[str] = set()
        with explained("list", "SkyClusters"):
            for namespace in self._namespaces or (None,):
                page = await self._page(namespace, None)
                found.update(item["metadata"]["uid"] for item in page["items"])
                while going_on := page["metadata"].get("continue"):
                    page = await self._page(namespace, going_on)
                    found.update(item["metadata"]["uid"] for item in page["items"])
        return frozenset(found)

    async def _page(self, namespace: str | None, going_on: str | None) -> dict[str, Any]:
        how: dict[str, Any] = {"limit": PAGE, "_continue": going_on, "_request_timeout": TIMEOUT_SECONDS}
        if namespace is None:
            page = await self._api.list_cluster_custom_object(GROUP, VERSION, PLURAL, **how)
        else:
            page = await self._api.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, **how)
        return cast("dict[str, Any]", page)

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
