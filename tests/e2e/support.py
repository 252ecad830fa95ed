"""A real cluster in the hands of a test: kubectl, SkyClusters, and looks at what SkyPilot left behind."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RELEASE = "skyoperator"
WORKLOADS = f"{RELEASE}-workloads"
SMALL = {"infra": "k8s", "cpus": "0.25+", "memory": "1+"}


def kubectl(*words: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
    """Return what kubectl prints; raise with its complaint."""
    done = subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    if done.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class KubectlError(Exception):
    pass


@contextmanager
def port_forward(namespace: str = RELEASE, service: str = f"svc/{RELEASE}-skypilot", port: int = 46580) -> Iterator[int]:
    """A way to a Service, by default SkyPilot's API server: yields the port of this machine that leads there."""
    command = ["kubectl", "-n", namespace, "port-forward", service, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            said = forward.stdout.readline()
            assert said.startswith("Forwarding from "), f"kubectl port-forward said: {said!r}"
            yield int(said.split()[2].rpartition(":")[2])
        finally:
            forward.terminate()


def kubeconfig_of(account: str, namespace: str, path: Path, *, hours: int = 2) -> Path:
    """Write a kubeconfig with the rights of a service account, and no more."""
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    token = kubectl("create", "token", account, "-n", namespace, f"--duration={hours}h").strip()
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.write_text(yaml.safe_dump(config))
    return path


def skypilot_credentials(directory: Path) -> Path:
    """The release's own Secret for SkyPilot's API server, as the files that the controller mounts."""
    secret = json.loads(kubectl("get", "secret", f"{RELEASE}-skypilot-credentials", "-n", RELEASE, "-o", "json"))
    for key, value in secret["data"].items():
        (directory / key).write_bytes(b64decode(value))
    return directory


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(what: str, probe: Callable[[], Any], *, seconds: float, every_seconds: float = 0.5) -> Any:
    """Return the first truthy answer of the probe; fail with its last answer after the deadline."""
    deadline, answer = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        time.sleep(every_seconds)
    raise AssertionError(f"not within {seconds:.0f} s: {what}; last seen: {answer!r}")


@dataclass(frozen=True)
class Sky:
    """One SkyCluster object."""

    namespace: str
    name: str

    @classmethod
    def apply(cls, namespace: str, name: str, **spec: Any) -> Sky:
        manifest = {"apiVersion": "skyoperator.dev/v1alpha1", "kind": "SkyCluster", "metadata": {"name": name}, "spec": spec}
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
        return cls(namespace, name)

    def body(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(kubectl("get", "skyc", self.name, "-n", self.namespace, "-o", "json"))
        return answer

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.body().get("status", {})
        return answer

    def condition(self, type_: str) -> tuple[str, str, str] | None:
        for found in self.status().get("conditions", []):
            if found["type"] == type_:
                return found["status"], found["reason"], found["message"]
        return None

    def until(self, type_: str, *, seconds: float) -> tuple[str, str]:
        """Wait until the condition is True; return its reason and message."""
        return self._until(type_, "True", seconds)

    def until_not(self, type_: str, *, seconds: float) -> tuple[str, str]:
        """Wait until the condition is False; return its reason and message."""
        return self._until(type_, "False", seconds)

    def _until(self, type_: str, wanted: str, seconds: float) -> tuple[str, str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.condition(type_)
            if found is not None and found[0] == wanted:
                return found[1], found[2]
            time.sleep(0.5)
        raise AssertionError(f"{self.name}: {type_} is not {wanted} after {seconds:.0f} s: {json.dumps(self.status(), indent=1)}")

    @property
    def cluster(self) -> str:
        name: str = self.status()["cluster"]["name"]
        return name

    def delete(self, *, seconds: float = 120) -> None:
        kubectl(
            "delete",
            "skyc",
            self.name,
            "-n",
            self.namespace,
            "--ignore-not-found",
            f"--timeout={seconds:.0f}s",
            timeout_seconds=seconds + 10,
        )

    def exists(self) -> bool:
        return bool(kubectl("get", "skyc", self.name, "-n", self.namespace, "--ignore-not-found", "-o", "name").strip())

    def shell(self, command: str) -> str:
        """Run a command on the cluster's head node."""
        return kubectl("exec", "-n", WORKLOADS, head_pod(self.cluster), "--", "bash", "-c", command)


def reasons(this: Sky) -> set[str]:
    """The reasons of the object's Events."""
    found = json.loads(kubectl("get", "events", "-n", this.namespace, "-o", "json"))["items"]
    return {event["reason"] for event in found if event["involvedObject"]["name"] == this.name}


def head_pod(cluster: str) -> str:
    return next(pod for pod in pods_of(cluster) if pod.endswith("-head"))


def pods_of(cluster: str) -> list[str]:
    """The pods of clusters whose names begin so. By annotation: the pods' own names are cut short for the hash of SkyPilot's user."""
    pods = json.loads(kubectl("get", "pods", "-n", WORKLOADS, "-o", "json"))["items"]
    named = [(pod["metadata"]["name"], pod["metadata"].get("annotations", {}).get("skypilot-cluster-name", "")) for pod in pods]
    return [f"pod/{name}" for name, of in named if of.startswith(cluster)]


def sky_cli(*words: str) -> str:
    """SkyPilot's own CLI in the API server's pod, where loopback asks for no password."""
    return kubectl("exec", "-n", RELEASE, f"deployment/{RELEASE}-skypilot", "-c", "skypilot", "--", "sky", *words)


def rows() -> list[str]:
    """The names of all of SkyPilot's clusters."""
    code = "import sky; print(*[c.name for c in sky.get(sky.status(all_users=True))])"
    words = ["exec", "-n", RELEASE, f"deployment/{RELEASE}-skypilot", "-c", "skypilot", "--", "python", "-c", code]
    return kubectl(*words).split()


def jobs_of(cluster: str) -> list[str]:
    """The names of all jobs of a cluster's queue."""
    code = f"import sky; print(*[job['job_name'] for job in sky.get(sky.queue('{cluster}', all_users=True))])"
    words = ["exec", "-n", RELEASE, f"deployment/{RELEASE}-skypilot", "-c", "skypilot", "--", "python", "-c", code]
    return kubectl(*words).split()


def left_of(cluster: str) -> list[str]:
    """What is left of a cluster: pods and rows."""
    return [*pods_of(cluster), *(name for name in rows() if name == cluster)]


def nothing_left(cluster: str, *, seconds: float) -> None:
    deadline, left = time.monotonic() + seconds, ["not looked yet"]
    while left and time.monotonic() < deadline:
        with suppress(KubectlError):
            left = left_of(cluster)
        time.sleep(1)
    assert not left, f"{cluster} left {left}"
