"""SkyClusters as users, mistaken users and attackers may write them: a thousand of them from one seed.

valid        out of the vocabulary of docs/task.md; most of them launch
half-valid   one of those with one thing wrong with it
nasty        what would reach beyond the cluster, or is no task at all
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from tests.parser.tasks import ALLOWED_INFRA, PLACES, TRICKY

Kind = Literal["valid", "half-valid", "nasty"]

POLICY: Mapping[str, Any] = {
    "allowedBuckets": ["s3://datasets"],
    "allowedVolumes": ["scratch"],
    "allowTaskKeys": ["config", "inputs"],
}
"""The policy of the controller under test, as the chart's values."""


@dataclass(frozen=True)
class Made:
    """One object as it is sent to the API server of Kubernetes."""

    kind: Kind
    body: dict[str, Any]


def objects(seed: int, count: int) -> Iterator[Made]:
    """Yield that many objects, the same for the same seed."""
    rng = Random(seed)
    for index in range(count):
        kind: Kind = rng.choices(("valid", "half-valid", "nasty"), (60, 20, 20))[0]
        task = {"valid": valid, "half-valid": half_valid, "nasty": nasty}[kind](rng)
        yield Made(kind, _object(rng, index, kind, task))


SECRET_NAMES = ("HF_TOKEN", "GIT_TOKEN")
GOOD_KEYS = ("plain", "quotes", "lines", "empty")
CANARY = "c4n4ry-5ecret"
SECRET: Mapping[str, bytes] = {
    "plain": CANARY.encode(),
    "quotes": f"""{CANARY}'"`$(id)$HOME{{{{ x }}}}", "/y": "/etc""".encode(),
    "lines": f"{CANARY}\n---\nrun: x\n".encode(),
    "empty": b"",
    "binary": CANARY.encode() + b"\xff\xfe\x00",
    "huge": CANARY.encode() * 10_000,
}
"""The Secret `known` of the namespace: each value but the empty one holds the canary."""
TASKS: Mapping[str, str] = {
    "task.yaml": "resources: {infra: k8s}\nrun: echo hi\n",
    "mount": "file_mounts: {/x: /etc}\n",
    "broken": "run: [\n",
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nenvs: *b\n",
    "twice": "run: a\nrun: b\n",
    "typed": "envs: {A: 2024-01-01}\n",
    "object": "!!python/object:os.system {}\n",
    "empty": "",
}
"""The ConfigMap `known` of the namespace."""

# A field that the CRD gets is one more line here.
FIELDS: Mapping[str, Callable[[Random], Any]] = {
    "whenFinished": lambda rng: rng.choice(["Down", "Keep"]),
    "deletionPolicy": lambda rng: rng.choice(["Down", "Down", "Down", "Orphan"]),
    "secrets": lambda rng: [_variable(name, "known", key) for name, key in zip(SECRET_NAMES, rng.sample(GOOD_KEYS, 2), strict=False)],
    "autostop": lambda rng: {"idleMinutes": rng.randint(60, 1000)},
    "backoffLimit": lambda rng: rng.randint(0, 3),
    "retryOn": lambda rng: rng.sample(["NoCapacity", "ClusterLost", "SkyPilotError", "JobFailed"], rng.randint(0, 4)),
    "preRunningDeadlineSeconds": lambda rng: rng.randint(3_000, 10_000),
    "activeDeadlineSeconds": lambda rng: rng.randint(3_000, 10_000),
    "suspend": lambda rng: rng.random() < 0.1,
}


def _variable(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "secretKeyRef": {"name": secret, "key": key}}


def _object(rng: Random, index: int, kind: Kind, task: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {field: value(rng) for field, value in FIELDS.items() if rng.random() < 0.3}
    if rng.random() < 0.1:
        spec["taskRef"] = {"name": "known", "key": "task.yaml" if kind == "valid" else rng.choice([*TASKS, "absent"])}
    else:
        spec["task"] = task
    if kind != "valid" and rng.random() < 0.2:
        spec |= _wrong(rng)
    return {
        "apiVersion": "skyoperator.dev/v1alpha1",
        "kind": "SkyCluster",
        "metadata": {"name": name(rng, index, kind), "labels": {"kind": kind}},
        "spec": spec,
        **({"status": {"phase": "Succeeded", "launch": {"attempt": 9}}} if kind == "nasty" else {}),
    }


def _wrong(rng: Random) -> dict[str, Any]:
    """Return fields of the spec that are wrong in themselves, or point at what is not there or no text."""
    name = rng.choice([*SECRET_NAMES, "E0", "SKYPILOT_TASK_ID", "_A", "A-B", "GIT_URL", "SKYPILOT_DOCKER_PASSWORD"])
    secret, key = rng.choice([("known", "binary"), ("known", "huge"), ("known", "absent"), ("absent", "plain"), ("known", "plain")])
    unfit = [_variable("HF_TOKEN", "known", rng.choice(["binary", "huge"]))]
    return rng.choice(
        [{"secrets": unfit}, {"secrets": [_variable(name, secret, key)]}, {rng.choice([*FIELDS, "taskRef", "unknown"]): junk(rng)}]
    )


def name(rng: Random, index: int, kind: Kind) -> str:
    """Return a name; among those of nasty objects are some that Kubernetes refuses."""
    shapes = [f"f{index}", f"{index}-x", f"a.b-{index}", f"{index}.{'x' * 50}", f"long-{index}-{'y' * 50}"]
    return rng.choice([*shapes, f"Upper-{index}", f"-{index}", f"z{index}" * 30, f"f_{index}"] if kind == "nasty" else shapes)[:253]


def valid(rng: Random) -> dict[str, Any]:
    """Return a task that the controller accepts."""
    parts: dict[str, Callable[[Random], Any]] = {
        "name": lambda rng: rng.choice(["train", "my.task-1", "A"]),
        "num_nodes": lambda rng: rng.randint(1, 4),
        "resources": resources,
        "envs": lambda rng: {f"E{number}": rng.choice([*TRICKY, 1, True, 0.5]) for number in range(rng.randint(0, 3))},
        "workdir": lambda rng: {"url": "https://git.example.com/o/r", **rng.choice([{}, {"ref": "main"}, {"ref": "0123abc"}])},
        "setup": lambda rng: rng.choice(TRICKY[:-2]),
        "run": lambda rng: rng.choice(["true", "echo hi", *TRICKY[:-2]]),
        "file_mounts": lambda rng: {"/data": rng.choice(["s3://datasets/a", {"source": "s3://datasets", "mode": "COPY"}])},
        "volumes": lambda rng: {"/scratch": "scratch"},
        "config": lambda rng: {"kubernetes": {"provision_timeout": 60}},
        "inputs": lambda rng: {"s3://datasets": 1},
    }
    often = {"run": 0.9, "resources": 0.8, "file_mounts": 0.1, "volumes": 0.1, "config": 0.05, "inputs": 0.05}
    return {key: make(rng) for key, make in parts.items() if rng.random() < often.get(key, 0.4)}


def resources(rng: Random) -> dict[str, Any]:
    """Return resources, sometimes with alternatives."""
    common: dict[str, list[Any]] = {
        "cpus": [1, "2+", 0.5],
        "memory": ["4", "8GB+", 16],
        "use_spot": [True, False],
        "ports": [8080, ["8000-8010"]],
        "labels": [{"team": "research"}, {}],
        "image_id": ["docker:debian:bookworm"],
        "disk_size": [100],
    }
    base = {key: copy.deepcopy(rng.choice(values)) for key, values in common.items() if rng.random() < 0.3}
    if rng.random() < 0.25:
        return {**base, rng.choice(["any_of", "ordered"]): [{"infra": rng.choice(ALLOWED_INFRA)} for _ in range(rng.randint(1, 3))]}
    return {**base, **rng.choice(PLACES), **rng.choice([{}, {"accelerators": "H100:1"}, {"gpus": {"A100": 1}}])}


def half_valid(rng: Random) -> Any:
    """Return a valid task with one thing changed, somewhere."""
    task: Any = valid(rng)
    holder, key = rng.choice([*_places(task)] or [(task, "run")])
    change = rng.choice(["replace", "misspell", "drop", "add", "own"])
    if isinstance(holder, dict) and change != "replace":
        value = holder.pop(key, None)
        if change != "drop":
            holder[{"misspell": f"{key}s", "add": "extra", "own": f"_{key}"}[change]] = value
    else:
        holder[key] = junk(rng)
    return task


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (holder, key) of a tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def junk(rng: Random) -> Any:
    """Return a value that fits hardly anywhere."""
    deep: Any = "x"
    for _ in range(rng.choice([3, 40])):
        deep = rng.choice([{"a": deep}, [deep]])
    return rng.choice(
        [
            None, True, 0, -1, 2**53, 2**63 - 1, 1.5, 1e308, "", " ", "x" * rng.choice([100, 60_000]), "../../etc", "/etc/passwd",
            "~/.sky/state.db", "file:///etc", "$HOME", "${E0}", "$(id)", "a\nb: c", "\x00", "\x1b[31m", "\ud800", [], {}, [[]], [None],
            {"": ""}, {"_x": 1}, {"a b": 1}, {"\u202e": "\ufeff"}, {f"k{number}": number for number in range(2_000)}, deep, *TRICKY,
        ]
    )  # fmt: skip


LOGIN = {"username": "u", "password": "p", "server": "s"}
PRIVILEGED = {"kubernetes": {"pod_config": {"spec": {"hostNetwork": True}}}}
ATTACKS: tuple[dict[str, Any], ...] = (
    {"file_mounts": {"/x": "/var/run/secrets/kubernetes.io/serviceaccount"}},
    {"file_mounts": {"/x": "~/.sky/state.db"}},
    {"file_mounts": {"/x": {"source": "/etc"}}},
    {"file_mounts": {"/x": {"store": "volume", "name": "prod", "source": "/etc"}}},
    {"file_mounts": {"/x": {"name": "new", "persistent": False}}},
    {"file_mounts": {"/x": "s3://datasets-of-others"}},
    {"envs": {"V": 'k", "/y": "/etc'}, "file_mounts": {"/x": "s3://datasets/$V"}},
    {"envs": {"V": "/etc"}, "file_mounts": {"/x": "$V"}},
    {"envs": {"V": "_force_delete"}, "file_mounts": {"/x": {"source": "s3://datasets", "$V": True}}},
    {"workdir": "/etc"},
    {"workdir": {"url": "https://h/o/r", "ref": "--upload-pack=id"}},
    {"workdir": {"url": "ext::sh -c id"}},
    {"secrets": {"TOKEN": None}},
    {"secrets": ["secrets:global.TOKEN"]},
    {"managed_secrets": ["TOKEN"]},
    {"resources": {"_cluster_config_overrides": PRIVILEGED}},
    {"resources": {"any_of": [{"infra": "k8s", "_cluster_config_overrides": PRIVILEGED}]}},
    {"resources": {"_docker_login_config": LOGIN}},
    {"envs": {f"SKYPILOT_DOCKER_{key.upper()}": "x" for key in LOGIN}, "resources": {"image_id": "docker:a"}},
    {"resources": {"image_id": "docker:a\n  securityContext: {privileged: true}"}},
    {"resources": {"labels": {"skypilot-cluster": "another"}}},
    {"resources": {"labels": {"skyoperator-uid": "x"}}},
    {"resources": {"labels": {"skyoperator-instance": "x"}}},
    {"resources": {"volumes": [{"path": "/x", "name": "prod"}]}},
    {"resources": {"autostop": {"idle_minutes": 1, "hook": "curl x"}}},
    {"resources": {"hooks": [{"run": "curl x"}]}},
    {"volumes": {"/x": {"name": "scratch", "host_path": "/"}}},
    {"config": {"kubernetes": {"_x": 1}}},
    {"service": {"replicas": 1}, "pool": {"workers": 1}},
    {"file_mounts_mapping": {"/x": "/etc"}},
    {"volume_mounts": []},
    {"_metadata": {}, "_user_specified_yaml": "run: x"},
)


def nasty(rng: Random) -> Any:
    """Return an attack in an otherwise valid task, or no task at all."""
    if rng.random() < 0.25:
        return junk(rng)
    base = {key: value for key, value in valid(rng).items() if rng.random() < 0.5}
    return {**base, **copy.deepcopy(rng.choice(ATTACKS))}
