"""What chaos kills, and what it counts.

Everything here puts up with a kube-apiserver that is away for some seconds: that is part of the chaos, not a failure of the test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from deploy.local import cluster
from deploy.local.layout import layout
from tests.e2e.support import RELEASE, KubectlError, eventually, free_port, kubectl

Victim = Literal["controller", "skypilot", "kube-apiserver"]
VICTIMS: tuple[Victim, ...] = ("controller", "skypilot", "kube-apiserver")
BACK_SECONDS = 180

T = TypeVar("T")

# The job: it counts itself under a number of its own, so that a count that has to be sent twice is still one.
COUNT = """\
import random, sys, time, urllib.request
url = f"http://counter.{sys.argv[1]}.svc/{sys.argv[2]}/{random.getrandbits(64):x}"
for again in range(120):
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).read()
        break
    except OSError:
        time.sleep(1)
else:
    sys.exit("the counter was not reached")
"""


def counting(namespace: str, name: str, then: str) -> str:
    """A run script that counts its execution and goes on with `then`."""
    return f"python3 - {namespace} {name} <<'END'\n{COUNT}END\n{then}"


def steady(what: Callable[[], T], *, seconds: float = BACK_SECONDS) -> T:
    """Return what it returns, as soon as kubectl gets through."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return what()
        except (KubectlError, subprocess.TimeoutExpired):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def executions(namespace: str) -> dict[str, int]:
    """How many executions each object's job has counted."""
    answer: dict[str, int] = json.loads(
        steady(lambda: kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/services/counter:80/proxy/"))
    )
    return answer


def pod_of(component: str) -> dict[str, Any] | None:
    """The component's running pod."""
    selector = f"app.kubernetes.io/component={component}"
    pods = json.loads(kubectl("get", "pods", "-n", RELEASE, "-l", selector, "-o", "json"))["items"]
    return next((pod for pod in pods if "deletionTimestamp" not in pod["metadata"]), None)


def processes(said: str, *, within: str = "") -> list[int]:
    """The processes of this machine whose command line has these words, in the control group of this pod."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if said in words and within in (entry / "cgroup").read_text() and (entry / "stat").read_text().split()[2] != "Z":
                found.append(int(entry.name))
    return found


def kill_processes(said: str, *, within: str = "") -> int:
    """kill -9; returns how many there were."""
    found = processes(said, within=within)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


MAIN_PROCESS = {"controller": "python -m skyoperator", "skypilot": "sky.server.server"}


def kill_pod(component: str, chance: random.Random) -> None:
    """End the component: its process by kill -9, or its whole pod without time to say goodbye.

    A container that has died a few times is started again ever later; a new pod starts from the beginning.
    """
    pod = eventually(f"{component} has a pod", lambda: steady(lambda: pod_of(component)), seconds=BACK_SECONDS)
    restarts = sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
    killed = 0
    if restarts < 2 and chance.random() < 0.6:
        killed = kill_processes(MAIN_PROCESS[component], within=pod["metadata"]["uid"])
    if not killed:
        name = pod["metadata"]["name"]
        steady(lambda: kubectl("delete", "pod", name, "-n", RELEASE, "--grace-period=1", "--wait=false", "--ignore-not-found"))


def kill_api_server() -> None:
    """kill -9 of kube-apiserver; the node starts it again."""
    before = cluster.health(layout()).restarts.get("kube-apiserver", 0)
    assert kill_processes("kubenode kube-apiserver"), "there is no kube-apiserver to kill"
    eventually(
        "the node has started kube-apiserver again",
        lambda: cluster.health(layout()).restarts.get("kube-apiserver", 0) > before,
        seconds=BACK_SECONDS,
    )
    steady(lambda: kubectl("get", "--raw", "/readyz", timeout_seconds=5))


class Forward:
    """A port of this machine that leads to SkyPilot's API server, and leads there again after everything in between has died."""

    def __init__(self) -> None:
        self.port = free_port()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self) -> None:
        """kubectl may hold on to a pod that is no more: begin anew if nobody answers for three looks."""
        command = ["kubectl", "-n", RELEASE, "port-forward", f"svc/{RELEASE}-skypilot", f"{self.port}:46580"]
        while not self._ending.is_set():
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                silent = 0
                while silent < 3 and process.poll() is None and not self._ending.wait(2):
                    silent = 0 if self.answers() else silent + 1
                process.terminate()

    def answers(self) -> bool:
        """Whether SkyPilot's API server answers."""
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/health", timeout=3):
            return True
        return False

    @contextmanager
    def open(self) -> Iterator[Forward]:
        self._thread.start()
        yield self
        self._ending.set()
        self._thread.join(20)

    def requests_of(self, prefix: str) -> list[dict[str, Any]]:
        """SkyPilot's active requests about clusters whose names begin so; raises OSError while it is away."""
        query = "fields=name&fields=status&fields=cluster_name"
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status?{query}", timeout=5) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
        return [request for request in found if (request.get("cluster_name") or "").startswith(prefix)]

    def is_idle(self) -> bool:
        """Whether SkyPilot answers, and has nothing to do for us."""
        with suppress(OSError, ValueError):
            return not self.requests_of("chaos-")
        return False

    def pending_launch(self) -> bool:
        """Whether a launch waits in SkyPilot's queue."""
        with suppress(OSError, ValueError):
            return any(request["status"] == "PENDING" and "launch" in request["name"] for request in self.requests_of("chaos-"))
        return False


class Figures:
    """What is printed at the end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.began = time.monotonic()
        self.kills: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.executions = 0
        self.objects = 0
        self.accepted = 0

    def say(self, what: str) -> None:
        """Print a line with the time, for whoever watches."""
        print(f"{time.monotonic() - self.began:7.1f} s  {what}", flush=True)

    def summary(self) -> str:
        return (
            f"seed {self.seed}: {sum(self.kills.values())} kills {dict(self.kills)}, of them {dict(self.moments)}; {self.objects} objects, "
            f"{self.accepted} launches taken by SkyPilot, {max(0, self.accepted - self.objects)} of them again; "
            f"{self.executions} executions; ends {dict(self.ends)}; {time.monotonic() - self.began:.0f} s"
        )
