"""Where open ports are reached, on real SkyPilot. The local cluster has no load balancer: its values say `ports: podip`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

from tests.e2e.support import WORKLOADS, KubectlError, Sky, eventually, head_pod, kubectl, nothing_left

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/ports.yaml"
LAUNCH_SECONDS = 240
FETCH = "python3 -c \"import urllib.request as u; print(u.urlopen('http://{}/', timeout=5).read().decode())\""


def test_an_open_port_answers_where_the_status_says_until_its_cluster_goes(apply: Callable[..., Sky]) -> None:
    this = apply("ports", **yaml.safe_load(EXAMPLE.read_text())["spec"])
    (found,) = eventually("the port has an address", lambda: _endpoints(this), seconds=LAUNCH_SECONDS)
    address = kubectl("get", head_pod(this.cluster), "-n", WORKLOADS, "-o", "jsonpath={.status.podIP}")
    assert found == {"port": "8080", "url": f"{address}:8080"}
    eventually("the port answers", lambda: "Hello from port 8080" in _fetched(this, found["url"]), seconds=60)

    cluster = this.cluster
    kubectl("patch", "skyc", this.name, "-n", this.namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    this.until("Suspended", seconds=90)
    nothing_left(cluster, seconds=60)
    assert _endpoints(this) is None


def _endpoints(this: Sky) -> list[dict[str, str]] | None:
    found: list[dict[str, str]] | None = this.status().get("cluster", {}).get("endpoints")
    return found


def _fetched(this: Sky, url: str) -> str:
    """What the port answers to its own cluster; nothing while nobody listens yet."""
    with suppress(KubectlError):
        return this.shell(FETCH.format(url))
    return ""
