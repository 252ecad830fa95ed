"""What Prometheus is told. Gauges are collected when asked for, from the objects as last seen, so that no series goes stale."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REGISTRY: Final = CollectorRegistry()

RECONCILES: Final = Counter("skyoperator_reconciles", "Passes over an object, by result.", ["result"], registry=REGISTRY)
RECONCILE_SECONDS: Final = Histogram("skyoperator_reconcile_seconds", "How long a pass over an object took.", registry=REGISTRY)
LAUNCHES: Final = Counter(
    "skyoperator_launches", "Launches sent to SkyPilot, by how it answered: accepted, refused, unanswered.", ["answer"], registry=REGISTRY
)


class Objects(Collector):
    """The SkyClusters, by phase."""

    def __init__(self, phases: Callable[[], Iterable[str]], oldest_seconds: Callable[[], float]) -> None:
        self._phases = phases
        self._oldest_seconds = oldest_seconds

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges as they are now."""
        clusters = GaugeMetricFamily("skyoperator_clusters", "SkyClusters, by phase.", labels=["phase"])
        for phase, count in sorted(Count(self._phases()).items()):
            clusters.add_metric([phase], count)
        oldest = GaugeMetricFamily(
            "skyoperator_oldest_reconcile_seconds",
            "For how long the pass that is under way longest has been so.",
            value=self._oldest_seconds(),
        )
        return [clusters, oldest]


class Launches(Collector):
    """The launches under way and those in line."""

    def __init__(self, in_flight: Callable[[], int], queued: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._queued = queued

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges as they are now."""
        yield GaugeMetricFamily(
            "skyoperator_launches_in_flight", "Launches that SkyPilot has or is about to get, of whichever user.", value=self._in_flight()
        )
        yield GaugeMetricFamily("skyoperator_launches_queued", "SkyClusters that wait for their turn to launch.", value=self._queued())


class Held(Collector):
    """The clusters that vanished together."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauge as it is now. Above 0 somebody has to look: alert on it."""
        yield GaugeMetricFamily(
            "skyoperator_held_clusters", "Clusters that vanished together and are held as unknown until confirmed.", value=self._count()
        )


class Orphaned(Collector):
    """The clusters without an object."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauge as it is now."""
        yield GaugeMetricFamily("skyoperator_orphaned_clusters", "Clusters launched here that no SkyCluster owns.", value=self._count())
