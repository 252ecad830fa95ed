"""Objects that are deleted before their launch has ended. Their file comes last.

A worker of SkyPilot 0.14.1 that was cancelled in one launch can hang in its next one, before it has a row: seen once in some twenty runs.
A launch that a test waits for had better not be that one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.e2e.support import SMALL, Sky, eventually, kubectl, nothing_left

Apply = Callable[..., Sky]


def test_a_delete_while_it_is_launched_leaves_nothing(apply: Apply) -> None:
    this = apply("mid-launch", task={"resources": SMALL, "run": "sleep 1000"})
    eventually("the cluster has a row", lambda: this.status().get("cluster", {}).get("status") == "INIT", seconds=60)
    cluster = this.cluster
    this.delete(seconds=60)
    nothing_left(cluster, seconds=1)


def test_a_delete_while_it_is_queued_leaves_nothing(apply: Apply) -> None:
    """Two long workers on this machine: the later launches wait in SkyPilot's queue."""
    crowd = [apply(f"crowd-{number}", task={"resources": SMALL, "run": "sleep 1000"}) for number in range(5)]
    for this in crowd:
        eventually(f"{this.name} is taken", partial(request_of, this), seconds=60)
    names = [this.name for this in crowd]
    clusters = [this.cluster for this in crowd]
    kubectl("delete", "skyc", *names, "-n", crowd[0].namespace, "--timeout=60s", timeout_seconds=70)
    for cluster in clusters:
        nothing_left(cluster, seconds=5)


def request_of(this: Sky) -> str | None:
    found: str | None = this.status().get("launch", {}).get("requestID")
    return found
