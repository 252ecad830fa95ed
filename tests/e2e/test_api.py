"""Every field of the spec on real SkyPilot. The objects are applied together, so that what one waits for is time in which others work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.support import RELEASE, SMALL, Sky, eventually, head_pod, kubectl, nothing_left, pods_of, sky_cli

LAUNCH_SECONDS = 400
CANARY = f"canary-{uuid4().hex}"
FROM_THE_MAP = """
resources: {infra: k8s, cpus: 0.25+, memory: 1+}
run: |
  printf %s "$TOKEN" | sha256sum
"""


def patch(this: Sky, **spec: Any) -> None:
    kubectl("patch", "skyc", this.name, "-n", this.namespace, "--type=merge", "-p", json.dumps({"spec": spec}))


def phase(this: Sky, wanted: str, *, seconds: float) -> dict[str, Any]:
    """Wait until the object is in the phase; return its status."""

    def look() -> dict[str, Any] | None:
        status = this.status()
        return status if status.get("phase") == wanted else None

    found: dict[str, Any] = eventually(f"{this.name} is {wanted}", look, seconds=seconds)
    return found


def uid_of_head(this: Sky) -> str:
    pod = head_pod(this.cluster).removeprefix("pod/")
    return kubectl("get", "pod", pod, "-n", f"{RELEASE}-workloads", "-o", "jsonpath={.metadata.uid}")


@pytest.fixture(scope="module")
def objects(namespace: str) -> Iterator[dict[str, Sky]]:
    """All objects, on their way together."""
    suffix = uuid4().hex[:4]
    kubectl("create", "configmap", f"tasks-{suffix}", "-n", namespace, f"--from-literal=task.yaml={FROM_THE_MAP}")
    token = {"name": "TOKEN", "secretKeyRef": {"name": f"hf-{suffix}", "key": "token"}}
    specs: dict[str, dict[str, Any]] = {
        "overdue": {"task": {"resources": SMALL, "run": "sleep 1000"}, "activeDeadlineSeconds": 260, "whenFinished": "Keep"},
        "suspend": {"task": {"resources": SMALL, "run": "sleep 1000"}},
        "lost": {"task": {"resources": SMALL, "run": "sleep 45; echo done"}, "backoffLimit": 1},
        "plain": {"task": {"resources": SMALL}, "autostop": {"idleMinutes": 600}},
        "secret": {"taskRef": {"name": f"tasks-{suffix}"}, "secrets": [token], "whenFinished": "Keep", "ttlSecondsAfterFinished": 600},
    }
    made = {name: Sky.apply(namespace, f"{name}-{suffix}", **spec) for name, spec in specs.items()}
    yield made
    names = [this.name for this in made.values()]
    kubectl("delete", "skyc", *names, "-n", namespace, "--ignore-not-found", "--timeout=200s", timeout_seconds=210)
    kubectl("delete", "configmap", f"tasks-{suffix}", "-n", namespace)
    kubectl("delete", "secret", f"hf-{suffix}", "-n", namespace)


def test_a_cluster_that_is_lost_is_launched_again(objects: dict[str, Sky]) -> None:
    this = objects["lost"]
    eventually("the job runs", lambda: this.status().get("job", {}).get("status") == "RUNNING", seconds=LAUNCH_SECONDS)
    for pod in pods_of(this.cluster):
        kubectl("delete", pod, "-n", f"{RELEASE}-workloads", "--wait=false")
    status = eventually("the loss is counted", lambda: this.status() if "failures" in this.status() else None, seconds=150)
    assert (status["failures"]["count"], status["failures"]["reason"]) == (1, "ClusterLost")


def test_suspended_nothing_runs_and_resumed_the_edited_task_does(objects: dict[str, Sky]) -> None:
    this = objects["suspend"]
    phase(this, "Running", seconds=LAUNCH_SECONDS)
    cluster = this.cluster
    patch(this, task={"run": "echo edited"})
    assert this.until_not("Accepted", seconds=20)[0] == "ImmutableTask"
    patch(this, suspend=True)
    assert this.until("Suspended", seconds=90)[0] == "Suspended"
    nothing_left(cluster, seconds=60)
    assert "startTime" not in this.status()
    patch(this, suspend=False, whenFinished="Keep")
    this.until("Complete", seconds=LAUNCH_SECONDS)
    assert this.status()["launch"]["attempt"] == 2
    assert "edited" in sky_cli("logs", this.cluster, "1", "--no-follow")


def test_past_its_deadline_the_job_is_cancelled_and_the_cluster_kept(objects: dict[str, Sky]) -> None:
    this = objects["overdue"]
    reason, message = this.until("Failed", seconds=LAUNCH_SECONDS)
    assert (reason, message) == ("DeadlineExceeded", "The time of activeDeadlineSeconds (260 s) is over.")
    eventually("the job is cancelled", lambda: this.status()["job"].get("status") == "CANCELLED", seconds=60)
    assert this.status()["cluster"]["status"] == "UP"


def test_a_secret_that_is_missing_heals_and_its_value_is_shown_nowhere(objects: dict[str, Sky]) -> None:
    this = objects["secret"]
    reason, message = this.until_not("Accepted", seconds=30)
    secret = this.body()["spec"]["secrets"][0]["secretKeyRef"]["name"]
    assert (reason, message) == ("SecretNotFound", f"spec.secrets[0]: there is no Secret {secret} in namespace {this.namespace}")
    kubectl("create", "secret", "generic", secret, "-n", this.namespace, f"--from-literal=token={CANARY}")
    this.until("Complete", seconds=LAUNCH_SECONDS)
    assert hashlib.sha256(CANARY.encode()).hexdigest() in sky_cli("logs", this.cluster, "1", "--no-follow")
    for what, shown in everything_shown(this).items():
        assert this.name in shown or what in {"metrics", "pods"}, f"{what} shows nothing of the object at all"
        assert CANARY not in shown, what


def everything_shown(this: Sky) -> dict[str, str]:
    """All that is written about the object where people without a right to its Secret may read."""
    controller = f"deployment/{RELEASE}-controller"
    metrics = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
    return {
        "object": kubectl("get", "skyc", this.name, "-n", this.namespace, "-o", "yaml", "--show-managed-fields"),
        "events": kubectl("get", "events", "-n", this.namespace, "-o", "yaml"),
        "log": kubectl("logs", controller, "-n", RELEASE),
        "metrics": kubectl("exec", controller, "-n", RELEASE, "--", "python", "-c", metrics),
        "pods": kubectl("get", "pods", "-n", f"{RELEASE}-workloads", "-o", "yaml"),
    }


def test_a_plain_cluster_takes_edits_and_ends_when_it_is_idle(objects: dict[str, Sky]) -> None:
    this = objects["plain"]
    phase(this, "Ready", seconds=LAUNCH_SECONDS)
    first = uid_of_head(this)
    patch(this, task={"setup": "touch /tmp/edited"})
    eventually("the edit is launched", lambda: this.status()["launch"]["attempt"] == 2, seconds=30)
    phase(this, "Ready", seconds=LAUNCH_SECONDS)
    assert uid_of_head(this) == first
    assert this.shell("ls /tmp/edited").strip() == "/tmp/edited"

    patch(this, task={"resources": {**SMALL, "cpus": "0.5+"}})
    eventually("a new cluster is launched", lambda: this.status()["launch"]["attempt"] == 3, seconds=120)
    phase(this, "Ready", seconds=LAUNCH_SECONDS)
    assert uid_of_head(this) != first

    cluster = this.cluster
    patch(this, autostop={"idleMinutes": 1})
    assert this.until("Complete", seconds=150)[0] == "Autostopped"
    nothing_left(cluster, seconds=90)
    assert this.condition("Ready") == ("True", "Autostopped", this.condition("Complete")[2])  # type: ignore[index]


def test_the_lost_cluster_was_launched_again_and_its_job_ran_to_its_end(objects: dict[str, Sky]) -> None:
    this = objects["lost"]
    this.until("Complete", seconds=LAUNCH_SECONDS)
    assert this.status()["launch"]["attempt"] == 2


def test_a_finished_object_goes_when_its_time_is_over(objects: dict[str, Sky]) -> None:
    this = objects["secret"]
    cluster = this.cluster
    patch(this, ttlSecondsAfterFinished=1)
    eventually("the object is gone", lambda: not this.exists(), seconds=120)
    nothing_left(cluster, seconds=60)


def test_what_is_abandoned_can_be_deleted_at_once_and_keeps_its_cluster(objects: dict[str, Sky]) -> None:
    this = objects["overdue"]
    cluster = this.cluster
    kubectl("annotate", "skyc", this.name, "-n", this.namespace, "skyoperator.dev/abandon=true")
    this.delete(seconds=30)
    assert pods_of(cluster)
    sky_cli("down", "-y", cluster)
    nothing_left(cluster, seconds=60)
