"""python -m deploy.demo [--own-cluster]: installs the chart, applies examples/hello.yaml, shows what becomes of it, and cleans up.

Everything it does is a command that it prints first, so that the reader can do the same by hand.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from deploy.local.layout import layout

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLE: Final = "examples/hello.yaml"
OBJECT: Final = "skycluster/hello"
RELEASE: Final = "skyoperator"
WORKLOADS: Final = f"{RELEASE}-workloads"
LAUNCH_TIMEOUT_SECONDS: Final = 600
DELETE_TIMEOUT_SECONDS: Final = 120
PODS_GONE_SECONDS: Final = 40
"""A pod that SkyPilot has deleted may take its grace period of 30 s."""

WHAT_NEXT: Final = """
What to try next
  kubectl apply -f examples/two-nodes.yaml; kubectl sky logs -f two-nodes    two nodes, gone when the job ends; its log stays
  kubectl explain skycluster.spec                                    every field
  kubectl get skyc -o wide; kubectl describe skyc                    state, events
  make cluster-status                                                the local Kubernetes
  make cluster-down                                                  end it; `make demo` brings it back in seconds
"""


class DemoError(Exception):
    """The demo can't go on; says what was seen and where to look."""


class Clock:
    """Prefixes lines with the seconds since the demo began."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print the lines of text, timed."""
        for line in text.rstrip().splitlines():
            print(f"{time.monotonic() - self._start:6.1f} s  {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--own-cluster", action="store_true", help="use the cluster of KUBECONFIG instead of the local one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="more chart values")
    options = parser.parse_args(arguments)
    clock = Clock()
    try:
        prepare(clock, own_cluster=options.own_cluster, values=options.set)
        show(clock)
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    print(WHAT_NEXT)
    return 0


def prepare(clock: Clock, *, own_cluster: bool, values: Sequence[str]) -> None:
    """Bring up what the demo runs on. Raises DemoError."""
    chart = ["helm", "upgrade", "--install", RELEASE, "deploy/helm/skyoperator", "--namespace", RELEASE, "--create-namespace", "--wait"]
    if not own_cluster:
        run(clock, [sys.executable, "-m", "deploy.local", "cluster-up", "images", "tools"], quiet=True)
        chart += ["--values", "deploy/local/values.yaml", "--values", str(layout().state / "values.json")]
    chart += [part for value in values for part in ("--set", value)]
    run(clock, [*chart, "--timeout", "10m", "--hide-notes"])


def show(clock: Clock) -> None:
    """Apply, watch, read, delete, prove. Raises DemoError."""
    run(clock, ["kubectl", "apply", "-f", EXAMPLE])
    final = follow(clock)
    cluster = final["status"]["cluster"]["name"]
    run(clock, ["kubectl", "get", OBJECT, "-o", "wide"])
    run(clock, ["kubectl", "get", "pods", "-n", WORKLOADS])
    if not pods_of(cluster):
        raise DemoError(f"there is no pod of {cluster} in {WORKLOADS}, though its job has run")
    run(clock, ["kubectl", "sky", "logs", "hello"])
    run(clock, ["kubectl", "delete", OBJECT, f"--timeout={DELETE_TIMEOUT_SECONDS}s"])
    prove_gone(clock, cluster)
    run(clock, ["kubectl", "sky", "logs", "hello", "--tail", "1"])


def follow(clock: Clock) -> dict[str, Any]:
    """Print a line whenever the object changes, until its job has ended. Returns the object. Raises DemoError."""
    deadline, last = time.monotonic() + LAUNCH_TIMEOUT_SECONDS, ""
    while time.monotonic() < deadline:
        this: dict[str, Any] = json.loads(output(["kubectl", "get", OBJECT, "-o", "json"]))
        line = summary(this)
        if line != last:
            clock.say(line)
        last = line
        if condition(this, "Complete") == "True":
            return this
        if condition(this, "Failed") == "True" or condition(this, "Accepted") == "False":
            raise DemoError(f"the job did not complete: {line}\nLook at: kubectl describe {OBJECT}")
        time.sleep(0.5)
    raise DemoError(f"no end after {LAUNCH_TIMEOUT_SECONDS} s: {last}\nLook at: kubectl describe {OBJECT}; kubectl get pods -n {WORKLOADS}")


def summary(this: dict[str, Any]) -> str:
    """Return the object's state on one line."""
    status = this.get("status", {})
    cluster, job = status.get("cluster", {}), status.get("job", {})
    ready: dict[str, str] = next((found for found in status.get("conditions", []) if found["type"] == "Ready"), {})
    words = [status.get("phase", "-"), f"Ready={ready.get('status', '-')}/{ready.get('reason', '-')}"]
    words += [f"cluster={cluster['status']}"] if cluster.get("status") else []
    words += [f"job={job['status']}"] if job.get("status") else []
    return "  ".join(words)


def condition(this: dict[str, Any], type_: str) -> str | None:
    """Return the status of one condition of the object, or None while there is none."""
    return next((found["status"] for found in this.get("status", {}).get("conditions", []) if found["type"] == type_), None)


def prove_gone(clock: Clock, cluster: str) -> None:
    """Show that no pod and no row of the cluster is left. Raises DemoError if there is."""
    deadline = time.monotonic() + PODS_GONE_SECONDS
    while (left := pods_of(cluster)) and time.monotonic() < deadline:
        time.sleep(1)
    left += [line for line in output(sky("status", "--all-users")).splitlines() if cluster in line]
    if left:
        raise DemoError(f"{cluster} left something behind: {left}")
    clock.say(f"gone: no pod, no SkyPilot row of {cluster}")


def pods_of(cluster: str) -> list[str]:
    """Return the cluster's pods, by annotation: their names, and SkyPilot's label, are cut short for the hash of SkyPilot's user."""
    pods: list[dict[str, Any]] = json.loads(output(["kubectl", "get", "pods", "-n", WORKLOADS, "-o", "json"]))["items"]
    return [pod["metadata"]["name"] for pod in pods if pod["metadata"].get("annotations", {}).get("skypilot-cluster-name") == cluster]


def sky(*words: str) -> list[str]:
    """Return SkyPilot's own CLI in the API server's pod, where no password is asked for."""
    return ["kubectl", "exec", "-n", RELEASE, f"deployment/{RELEASE}-skypilot", "-c", "skypilot", "--", "sky", *words]


def run(clock: Clock, command: Sequence[str], *, quiet: bool = False) -> None:
    """Print the command and run it. Raises DemoError."""
    if not quiet:
        clock.say(f"$ {shlex.join(command)}")
    if execute(command).returncode != 0:
        raise DemoError(f"failed: {shlex.join(command)}")


def execute(command: Sequence[str], **pipes: int) -> subprocess.CompletedProcess[str]:
    """Run the command in the checkout. Raises DemoError if there is no such program."""
    try:
        return subprocess.run(command, cwd=ROOT, text=True, check=False, **pipes)  # type: ignore[call-overload,no-any-return]
    except FileNotFoundError as error:
        raise DemoError(f"{command[0]} is not installed. `make tools` brings kubectl and helm.") from error


def output(command: Sequence[str]) -> str:
    """Return what the command prints. Raises DemoError."""
    done = execute(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise DemoError(f"failed: {shlex.join(command)}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
