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
