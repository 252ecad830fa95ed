"""From apply to gone on real SkyPilot: what jobs do, what is left of them, and what users see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.support import SMALL, Sky, eventually, kubectl, nothing_left, reasons, sky_cli

Apply = Callable[..., Sky]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAUNCH_SECONDS = 240


def example(name: str) -> dict[str, object]:
    spec: dict[str, object] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["spec"]
    return spec


def test_hello_completes_keeps_its_cluster_and_takes_it_along(apply: Apply) -> None:
    this = apply("hello", **example("hello"))
    kubectl("wait", "--for=condition=Complete", f"skyc/{this.name}", "-n", this.namespace, "--timeout=240s", timeout_seconds=250)
    status = this.status()
    assert (status["phase"], status["job"]["status"], status["cluster"]["status"]) == ("Succeeded", "SUCCEEDED", "UP")
    assert "5050" in sky_cli("logs", this.cluster, "1", "--no-follow")
    assert reasons(this) >= {"Launching", "JobSubmitted", "JobSucceeded"}

    cluster = this.cluster
    this.delete(seconds=60)
    nothing_left(cluster, seconds=30)


@pytest.fixture
def repository(namespace: str) -> Iterator[str]:
    """The URL of a git repository in the cluster, with the branches main and other."""
    manifest = str(Path(__file__).with_name("git_server.yaml"))
    kubectl("apply", "-n", namespace, "-f", manifest)
    kubectl("wait", "--for=condition=Ready", "pod/git", "-n", namespace, "--timeout=60s")
    yield f"http://git.{namespace}.svc/cgi-bin/git/repo.git"
    kubectl("delete", "-n", namespace, "-f", manifest, "--wait=false")


def test_two_at_once_one_with_two_nodes_one_from_git(apply: Apply, repository: str) -> None:
    from_git = apply(
        "git", task={"workdir": {"url": repository, "ref": "other"}, "resources": SMALL, "run": "python3 train.py"}, whenFinished="Keep"
    )
    pair = apply("two-nodes", **{**example("two-nodes"), "whenFinished": "Keep"})
    pair.until("Complete", seconds=LAUNCH_SECONDS)
    assert pair.status()["cluster"]["nodes"] == 2
    log = sky_cli("logs", pair.cluster, "1", "--no-follow")
    assert all(f"I am {rank} of 2" in log for rank in (0, 1))
    from_git.until("Complete", seconds=LAUNCH_SECONDS)
    assert "from the other branch" in sky_cli("logs", from_git.cluster, "1", "--no-follow")


def test_a_job_that_fails_is_failed_and_takes_its_cluster_along(apply: Apply) -> None:
    failing = apply("exit-3", task={"resources": SMALL, "run": "echo about to fail; exit 3"})

    reason, message = failing.until("Failed", seconds=LAUNCH_SECONDS)
    assert reason == "JobFailed"
    assert "failed with return code list: [3]" in message
    assert failing.condition("Complete")[0] == "False"  # type: ignore[index]
    eventually("the failed one is down by itself", lambda: failing.status()["phase"] == "Failed", seconds=60)
    nothing_left(failing.cluster, seconds=5)
