"""A real SkyPilot API server loses its database while clusters run: they run on, and nothing is concluded, until a person decides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tests.e2e.support import RELEASE, SMALL, WORKLOADS, KubectlError, Sky, eventually, kubectl, nothing_left, pods_of

LOGIN_SECRET = f"{RELEASE}-skypilot-login"
ACCEPT = ["patch", "secret", LOGIN_SECRET, "--type=merge", "-p", '{"data":null}']
JOB = {"resources": dict(SMALL), "run": "echo alive; sleep 3000"}


def wipe() -> None:
    """Delete everything in ~/.sky while no process of the server can write, and end them all; the kubelet starts it again."""
    command = "kill -STOP -1; find /root/.sky -mindepth 1 -delete; kill -KILL -1"
    with suppress(KubectlError):  # it dies with the container
        kubectl("exec", "-n", RELEASE, f"deployment/{RELEASE}-skypilot", "-c", "skypilot", "--", "sh", "-c", command)


def says(this: Sky, words: str) -> bool:
    status, reason, message = this.condition("ClusterReady") or ("", "", "")
    return (status, reason) == ("Unknown", "SkyPilotUnreachable") and words in message


def but_cluster_ready(this: Sky) -> dict[str, Any]:
    """All that may not change. A look at the queue that the server's death cut off is noted as unknownSince, and counts for nothing."""
    status = this.status()
    status["job"].pop("unknownSince", None)
    return {**status, "conditions": [found for found in status["conditions"] if found["type"] != "ClusterReady"]}


def is_running_as(this: Sky, attempt: int) -> bool:
    """Seen at work in its queue: from then on its status is still, until its end."""
    status = this.status()
    return bool(status.get("job", {}).get("status") == "RUNNING" and status["launch"]["attempt"] == attempt)


def end_by_hand(cluster: str) -> None:
    """What the chart's README has people do with what a lost server left running, for one cluster."""
    services = kubectl("get", "services", "-n", WORKLOADS, "-o", "name").split()
    kubectl("delete", "-n", WORKLOADS, *pods_of(cluster), *(name for name in services if name.startswith(f"service/{cluster}-")))


def test_a_wiped_server_holds_everything_until_a_person_decides(apply: Callable[..., Sky]) -> None:
    job, leaving = apply("identity-job", task=JOB), apply("identity-leaving", task=JOB)
    for this in (job, leaving):
        eventually(f"{this.name} runs", partial(is_running_as, this, 1), seconds=240)
    before, server = but_cluster_ready(job), job.status()["cluster"]["server"]
    pods = [*pods_of(job.cluster), *pods_of(leaving.cluster)]

    wipe()
    eventually("the server does not know us", lambda: says(job, f"kubectl -n {RELEASE} {' '.join(ACCEPT[:-1])}"), seconds=240)
    kubectl("delete", "skyc", leaving.name, "-n", leaving.namespace, "--wait=false")
    assert but_cluster_ready(job) == before
    assert [*pods_of(job.cluster), *pods_of(leaving.cluster)] == pods

    kubectl("-n", RELEASE, *ACCEPT)
    for this in (job, leaving):
        eventually("it says where its cluster was", partial(says, this, f"The cluster is on the SkyPilot API server {server}"), seconds=60)
    new = apply("identity-new", task={"resources": dict(SMALL), "run": "echo new"})
    new.until("Complete", seconds=300)
    assert new.status()["cluster"]["server"] not in {server, None}
    assert but_cluster_ready(job) == before
    assert leaving.exists()
    assert [*pods_of(job.cluster), *pods_of(leaving.cluster)] == pods

    for cluster in (job.cluster, leaving.cluster):
        end_by_hand(cluster)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kubectl("annotate", "skyc", job.name, leaving.name, "-n", job.namespace, f"skyoperator.dev/confirm-lost={now}")
    eventually("the deleted one is let go", lambda: not leaving.exists(), seconds=60)
    eventually("the job runs again", lambda: is_running_as(job, 2), seconds=300)
    assert job.status()["cluster"]["server"] == new.status()["cluster"]["server"]
    cluster = job.cluster
    job.delete()
    nothing_left(cluster, seconds=60)
