"""The controller is killed with SIGKILL at the worst moments. Each job counts its own executions on the node: there is exactly one.

The controller runs here as a process, with the service account of the one in the cluster, which is scaled to zero meanwhile. Between
it and SkyPilot stands a proxy that can hold back the answer to a launch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import NAMESPACE
from tests.e2e.proxy import HoldingProxy
from tests.e2e.support import (
    RELEASE,
    SMALL,
    Sky,
    eventually,
    free_port,
    jobs_of,
    kubeconfig_of,
    kubectl,
    port_forward,
    skypilot_credentials,
)

Apply = Callable[..., Sky]
COUNTING = {"resources": SMALL, "run": "echo ran >> ~/executions; sleep 8"}


@dataclass
class Controller:
    """The controller as a process that can be killed."""

    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0

    def start(self) -> None:
        self.lives += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "skyoperator"], env={**os.environ, **self.environment}, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"it died by itself: {self.log.read_text()[-3000:]}"
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def proxy() -> Iterator[HoldingProxy]:
    """A way to SkyPilot's API server on which answers can be held back."""
    with port_forward() as port, HoldingProxy(free_port(), port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def in_cluster_controller_off() -> Iterator[None]:
    deployment = f"deployment/{RELEASE}-controller"
    kubectl("scale", deployment, "-n", RELEASE, "--replicas=0")
    kubectl("wait", "--for=delete", "pod", "-n", RELEASE, "-l", "app.kubernetes.io/component=controller", "--timeout=60s")
    yield
    kubectl("scale", deployment, "-n", RELEASE, "--replicas=1")
    kubectl("rollout", "status", deployment, "-n", RELEASE, "--timeout=120s", timeout_seconds=130)


@pytest.fixture
def controller(in_cluster_controller_off: None, proxy: HoldingProxy, tmp_path: Path) -> Iterator[Controller]:
    environment = {
        "KUBECONFIG": str(as_service_account(tmp_path)),
        "SKYOPERATOR_SKYPILOT_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        "SKYOPERATOR_CREDENTIALS_DIR": str(skypilot_credentials(tmp_path)),
        "SKYOPERATOR_NAMESPACES": NAMESPACE,
        "SKYOPERATOR_INSTANCE": f"{RELEASE}/{RELEASE}",
        "SKYOPERATOR_LEASE_NAMESPACE": RELEASE,
        "SKYOPERATOR_LEASE_NAME": f"{RELEASE}-controller",
        "SKYOPERATOR_POD_NAME": "killed-in-tests",
        "SKYOPERATOR_HTTP_PORT": str(free_port()),
    }
    running = Controller(environment, tmp_path / "controller.log")
    running.start()
    yield running
    running.stop()
    print(running.log.read_text()[-6000:])


def as_service_account(directory: Path, *, hours: int = 1) -> Path:
    """A kubeconfig with the rights that the chart gives the controller, and no more."""
    return kubeconfig_of(f"{RELEASE}-controller", RELEASE, directory / "kubeconfig", hours=hours)


@pytest.fixture
def launches(proxy: HoldingProxy) -> Callable[[], int]:
    """How many launches have reached SkyPilot since the test began."""
    before = proxy.launches
    return lambda: proxy.launches - before


def ran_exactly_once(this: Sky) -> None:
    """By the job's own count on its node, and by SkyPilot's queue: the fence had nothing to stop."""
    this.until("Complete", seconds=300)
    assert this.shell("cat ~/executions").split() == ["ran"]
    assert this.status()["job"]["id"] == 1
    assert len(jobs_of(this.cluster)) == 1
    assert "failures" not in this.status()


def test_killed_as_soon_as_the_attempt_is_written_down(controller: Controller, apply: Apply, launches: Callable[[], int]) -> None:
    this = apply("kill-early", task=COUNTING, whenFinished="Keep")
    eventually("the attempt is written down", lambda: "launch" in this.status(), seconds=60, every_seconds=0.05)
    controller.kill()
    controller.start()
    ran_exactly_once(this)
    assert launches() == 1


def test_killed_between_post_and_its_answer(controller: Controller, apply: Apply, proxy: HoldingProxy, launches: Callable[[], int]) -> None:
    with proxy.holding("/launch") as held:
        this = apply("kill-post", task=COUNTING, whenFinished="Keep")
        held.wait(seconds=60)
        controller.kill()
    assert "requestID" not in this.status()["launch"]
    controller.start()
    ran_exactly_once(this)
    assert launches() == 1


def test_killed_before_post_reached_the_server(
    controller: Controller, apply: Apply, proxy: HoldingProxy, launches: Callable[[], int]
) -> None:
    with proxy.holding("/launch", before=True) as held:
        this = apply("kill-before", task=COUNTING, whenFinished="Keep")
        held.wait(seconds=60)
        controller.kill()
    controller.start()
    ran_exactly_once(this)
    assert launches() == 1


def test_killed_while_provisioning_and_while_the_job_runs(controller: Controller, apply: Apply, launches: Callable[[], int]) -> None:
    this = apply("kill-twice", task=COUNTING, whenFinished="Keep")
    eventually("the cluster has a row", lambda: this.status().get("cluster", {}).get("status") == "INIT", seconds=90)
    controller.kill()
    controller.start()
    eventually("the job runs", lambda: this.status().get("job", {}).get("status") == "RUNNING", seconds=240)
    controller.kill()
    controller.start()
    ran_exactly_once(this)
    assert controller.lives == 3
    assert launches() == 1
