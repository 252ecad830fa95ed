"""Failures provoked on real SkyPilot: each has its reason, SkyPilot's own words and an Event, and leaves nothing behind.

What stands in the way of everybody (quota, rights, admission) comes first, one after the other. All the rest is applied at once, since
most of it is waiting: SkyPilot looks at a cluster about once a minute, and one that it finds unhealthy must stay so for a while.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.images import CONTROLLER
from tests.e2e.support import RELEASE, SMALL, WORKLOADS, Sky, head_pod, kubectl, nothing_left, pods_of, reasons

Apply = Callable[..., Sky]
ONCE = {"backoffLimit": 0}
TINY = {**SMALL, "cpus": "0.1+"}
LAUNCH_SECONDS = 400
LOST_SECONDS = 330
SLEEP = {"resources": TINY, "run": "sleep 1000"}


@contextmanager
def no_quota() -> Iterator[None]:
    kubectl("create", "quota", "none", "-n", WORKLOADS, "--hard=pods=0")
    try:
        yield
    finally:
        kubectl("delete", "quota", "none", "-n", WORKLOADS)


@contextmanager
def no_right_to_create_pods() -> Iterator[None]:
    role: dict[str, Any] = json.loads(kubectl("get", "role", f"{RELEASE}-skypilot", "-n", WORKLOADS, "-o", "json"))
    del role["metadata"]["resourceVersion"]
    rules = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "create" or rule["resources"] != ["pods"]]} for rule in role["rules"]
    ]
    try:
        kubectl("replace", "-f", "-", stdin=json.dumps({**role, "rules": rules}))
        yield
    finally:
        kubectl("replace", "-f", "-", stdin=json.dumps(role))


@contextmanager
def restricted_pods() -> Iterator[None]:
    key = "pod-security.kubernetes.io/enforce"
    before = json.loads(kubectl("get", "namespace", WORKLOADS, "-o", "json"))["metadata"]["labels"][key]
    try:
        kubectl("label", "namespace", WORKLOADS, f"{key}=restricted", "--overwrite")
        yield
    finally:
        kubectl("label", "namespace", WORKLOADS, f"{key}={before}", "--overwrite")


OBSTACLES: dict[str, tuple[Callable[[], AbstractContextManager[None]], str, str]] = {
    "quota": (no_quota, "QuotaExceeded", "exceeded quota: none"),
    "rights": (no_right_to_create_pods, "AuthFailed", 'cannot create resource "pods"'),
    "pod-security": (restricted_pods, "PolicyDenied", 'violates PodSecurity "restricted:latest"'),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_a_refusal_of_the_api_is_told_though_skypilot_keeps_it_to_its_log(apply: Apply, name: str) -> None:
    obstacle, reason, words = OBSTACLES[name]
    with obstacle():
        this = apply(name, task=SLEEP, **ONCE)
        assert_failed(this, reason, words, seconds=90)
    nothing_left(this.cluster, seconds=30)


def delete_pod(suffix: str) -> Callable[[str], None]:
    def strike(cluster: str) -> None:
        (pod,) = (pod for pod in pods_of(cluster) if pod.endswith(suffix))
        kubectl("delete", pod, "-n", WORKLOADS, "--grace-period=1", "--wait=false")

    return strike


def evict(cluster: str) -> None:
    """As kubectl drain does."""
    name = head_pod(cluster).removeprefix("pod/")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": WORKLOADS}}
    kubectl("create", "--raw", f"/api/v1/namespaces/{WORKLOADS}/pods/{name}/eviction", "-f", "-", stdin=json.dumps(eviction))


@dataclass(frozen=True)
class Case:
    """A task, what is done to its cluster once the job runs, and what is said then."""

    resources: dict[str, Any]
    reason: str
    words: str
    task: dict[str, Any] = field(default_factory=lambda: {"run": "sleep 1000"})
    strike: Callable[[str], None] | None = None
    or_else: tuple[str, str] | None = None
    """Another reason and its words, where it is a race which of two things SkyPilot finds first."""


EAT_MEMORY = "python3 -c 'x = [bytearray(1 << 24) for _ in range(200)]'"
FILL_DISK = "dd if=/dev/zero of=/root/big bs=1M count=1500; sleep 1000"
CASES = {
    "worker-deleted": Case(TINY, "ClusterLost", "Cluster is abnormal because ", {**SLEEP, "num_nodes": 2}, delete_pod("-worker1")),
    "out-of-disk": Case(TINY, "ClusterLost", "ephemeral", {"run": FILL_DISK}),
    "pod-deleted": Case(TINY, "ClusterLost", "was lost", strike=delete_pod("-head")),
    "drained": Case(TINY, "ClusterLost", "was lost", strike=evict),
    "setup-fails": Case(TINY, "SetupFailed", "Job 1's setup failed", {"setup": "exit 7", "run": "echo never"}),
    "out-of-memory": Case(TINY, "JobFailed", "ran out of memory", {"run": EAT_MEMORY}),
    "no-such-gpu": Case({**TINY, "accelerators": "H100:8"}, "NoCapacity", "H100"),
    "unknown-gpu": Case({**TINY, "accelerators": "H1000:8"}, "NoCapacity", "H1000"),
    "too-many-cpus": Case({**TINY, "cpus": "64"}, "NoCapacity", "cpus=64"),
    "cloud-not-enabled": Case({"infra": "aws"}, "AuthFailed", "aws which is not enabled"),
    "no-image": Case({**TINY, "image_id": "docker:127.0.0.1:5/nothing:1"}, "ImagePullFailed", "ErrImagePull"),
    "bad-image-name": Case({**TINY, "image_id": "docker:No//Image:1"}, "ImagePullFailed", "InvalidImageName"),
    "image-without-shell": Case({**TINY, "image_id": "docker:localhost/pause:1"}, "SkyPilotError", "StartError"),
    "image-without-runtime": Case(
        {**TINY, "image_id": f"docker:{CONTROLLER}"}, "SkyPilotError", "pod", or_else=("InvalidTask", "Failed to find SSH user")
    ),
}


@pytest.fixture(scope="module")
def limits() -> Iterator[None]:
    """Limits for pods that name none, as cautious administrators set them; without them a greedy job takes all that the node has."""
    limit = {"type": "Container", "default": {"memory": "2Gi", "ephemeral-storage": "1Gi"}}
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": [limit]}}
    kubectl("apply", "-n", WORKLOADS, "-f", "-", stdin=json.dumps(manifest))
    yield
    kubectl("delete", "limitrange", "limits", "-n", WORKLOADS)


@pytest.fixture(scope="module")
def crowd(limits: None) -> Iterator[dict[str, Sky]]:
    """Every case at once, each struck as soon as its job runs."""
    made = {
        name: Sky.apply("e2e", f"{name}-{uuid4().hex[:4]}", task={"resources": case.resources, **task_of(case)}, **ONCE)
        for name, case in CASES.items()
    }
    try:
        strike_all(made)
        yield made
    finally:
        names = [this.name for this in made.values()]
        kubectl("delete", "skyc", *names, "-n", "e2e", "--ignore-not-found", "--timeout=150s", timeout_seconds=160)


def task_of(case: Case) -> dict[str, Any]:
    return {key: value for key, value in case.task.items() if key != "resources"}


def strike_all(made: dict[str, Sky]) -> None:
    waiting = {name: strike for name, case in CASES.items() if (strike := case.strike) is not None}
    deadline = time.monotonic() + LAUNCH_SECONDS
    while waiting and time.monotonic() < deadline:
        for name in [name for name in waiting if made[name].status().get("job", {}).get("status") == "RUNNING"]:
            waiting.pop(name)(made[name].cluster)
        time.sleep(0.5)
    assert not waiting, f"no running job within {LAUNCH_SECONDS} s: {sorted(waiting)}"


@pytest.mark.parametrize("name", CASES)
def test_a_failure_has_its_reason_and_leaves_nothing(crowd: dict[str, Sky], name: str) -> None:
    this, case = crowd[name], CASES[name]
    this.until("Failed", seconds=LOST_SECONDS)
    reason, words = (case.reason, case.words) if case.or_else is None or has_reason(this, case.reason) else case.or_else
    assert_failed(this, reason, words, seconds=LOST_SECONDS)
    nothing_left(this.cluster, seconds=90)


def has_reason(this: Sky, reason: str) -> bool:
    found = this.condition("Failed")
    return found is not None and found[1] == reason


def assert_failed(this: Sky, reason: str, words: str, *, seconds: float) -> None:
    got, message = this.until("Failed", seconds=seconds)
    assert (got, words in message) == (reason, True), message
    assert this.condition("Ready")[:2] == ("False", reason)  # type: ignore[index]
    assert this.condition("Stalled")[0] == "True"  # type: ignore[index]
    assert reason in reasons(this)
