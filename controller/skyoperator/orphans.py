"""Clusters that we launched and that no object owns any more: found and reported, never touched.

One is left behind when somebody removes our finalizer, restores an old etcd, or deletes the CRD: nobody shows it, and it costs money.

    labelled as ours, and its object is not among those that are watched, for 15 min ─► not in a complete LIST either ─► reported

Not reported is what was left behind on purpose: its name is remembered before its object goes (`release`), in an annotation of the
controller's Lease, so that the next process knows it too. Nor what was launched for a namespace that is not served here: its object
can't be seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NoReturn, Protocol

from skyoperator.clock import utc_now
from skyoperator.sky.types import INSTANCE_LABEL, NAMESPACE_LABEL, Cluster, SkyPilot, SkyPilotError

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 60.0
ORPHANED_AFTER: Final = timedelta(minutes=15)
REMEMBERED_AT_MOST: Final = 500
FORGOTTEN_AFTER: Final = timedelta(days=1)
"""A cluster that was left behind and is gone is remembered for so long: an empty list may be a server that lost its data for a while."""


def instance_label(lease_uid: str, instance: str) -> str:
    """Return the value by which this installation knows its clusters; one that any cloud takes.

    The name of an installation is not enough, since two Kubernetes clusters may share one SkyPilot server. The uid is that of the
    controller's own Lease, which it reads anyway: that of kube-system would need a right on the whole cluster. Who deletes the Lease
    gives the installation a new identity, and its older clusters are reported no more; never is a cluster reported that is none of ours.
    """
    return hashlib.sha256(f"{lease_uid}/{instance}".encode()).hexdigest()[:16]


class Registry(Protocol):
    """What Kubernetes knows of owners. Every method may raise KubeError."""

    async def uids(self) -> frozenset[str]:
        """Return the uids of all objects that are served here: a complete list, or an error."""

    async def released(self) -> Mapping[str, datetime]:
        """Return the names of the clusters that were left behind on purpose, and when."""

    async def set_released(self, released: Mapping[str, datetime]) -> None:
        """Remember these, and no others. Raises Conflict if somebody wrote them in between."""

    async def announce(self, note: str) -> None:
        """Post an Event of a cluster without an object."""


class Orphans:
    """Looks for orphans every minute. `watched` returns the uids of the objects that are watched, `serves` tells of a namespace."""

    def __init__(
        self,
        sky: SkyPilot,
        registry: Registry,
        *,
        instance: Callable[[], str],
        watched: Callable[[], Iterable[str]],
        serves: Callable[[str], bool],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._sky = sky
        self._registry = registry
        self._instance = instance
        self._watched = watched
        self._serves = serves
        self._now = now
        self._unowned_since: dict[str, datetime] = {}
        self._orphans: set[str] = set()
        self._remembering = asyncio.Lock()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._orphans)

    def label(self) -> str:
        """Return the value that all clusters of this installation are labelled with."""
        return self._instance()

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except Exception:
                logger.exception("could not look for clusters without an object")

    async def release(self, cluster_name: str) -> None:
        """Remember that the cluster is left behind on purpose. Call it before its object goes. Raises KubeError."""
        async with self._remembering:
            released = {**await self._registry.released(), cluster_name: self._now()}
            newest = sorted(released, key=lambda name: released[name])[-REMEMBERED_AT_MOST:]
            await self._registry.set_released({name: released[name] for name in newest})

    async def check(self) -> None:
        """Look once. Raises KubeError."""
        try:
            clusters = await self._sky.clusters()
        except SkyPilotError as error:
            logger.debug("not known which clusters there are: %s", error)
            return
        suspects = {cluster.name: cluster for cluster in self._unwatched(clusters)}
        self._orphans &= suspects.keys()
        self._unowned_since = {name: self._unowned_since.get(name, self._now()) for name in suspects}
        released = await self._registry.released()
        due = {name for name, since in self._unowned_since.items() if self._now() - since >= ORPHANED_AFTER} - self._orphans
        if unexplained := due - released.keys():
            await self._judge([suspects[name] for name in unexplained])
        names = {cluster.name for cluster in clusters}
        if self._kept(released, names) != released:
            await self._prune(names)

    def _unwatched(self, clusters: Iterable[Cluster]) -> list[Cluster]:
        instance, watched = self.label(), set(self._watched())
        ours = (cluster for cluster in clusters if cluster.labels.get(INSTANCE_LABEL) == instance)
        return [it for it in ours if it.uid_label not in watched and self._serves(it.labels.get(NAMESPACE_LABEL, ""))]

    async def _judge(self, suspects: list[Cluster]) -> None:
        uids = await self._registry.uids()
        for cluster in suspects:
            if cluster.uid_label in uids:
                del self._unowned_since[cluster.name]
            else:
                self._orphans.add(cluster.name)
                note = (
                    f"Cluster {cluster.name} was launched here and belongs to no SkyCluster any more (it was that with uid "
                    f"{cluster.uid_label}). It may cost money. If nobody needs it: sky down {cluster.name}"
                )
                logger.warning(note)
                await self._registry.announce(note)

    async def _prune(self, names: set[str]) -> None:
        """Forget what was left behind once it is gone for long."""
        async with self._remembering:
            released = await self._registry.released()
            await self._registry.set_released(self._kept(released, names))

    def _kept(self, released: Mapping[str, datetime], names: set[str]) -> dict[str, datetime]:
        return {name: at for name, at in released.items() if name in names or self._now() - at < FORGOTTEN_AFTER}


def as_text(released: Mapping[str, datetime]) -> str:
    """Return what is remembered as an annotation holds it."""
    return json.dumps({name: at.isoformat(timespec="seconds") for name, at in released.items()}, separators=(",", ":"))


def from_text(text: str) -> dict[str, datetime]:
    """Return what an annotation holds; nothing if somebody made it unreadable. Raises nothing."""
    try:
        found = json.loads(text or "{}")
        return {str(name): _moment(at) for name, at in found.items()}
    except (ValueError, TypeError, AttributeError):
        logger.warning("the annotation of the clusters left behind makes no sense and is begun anew: %.200s", text)
        return {}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return moment
