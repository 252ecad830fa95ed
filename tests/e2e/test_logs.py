"""A job's log: read by who may and by nobody else, live, and the same after its cluster and every process of ours have gone."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from skyoperator.logs import frames

from tests.e2e.conftest import NAMESPACE
from tests.e2e.support import RELEASE, SMALL, KubectlError, Sky, eventually, kubectl, nothing_left

Apply = Callable[..., Sky]
LOGS = f"{RELEASE}-logs"
ROOT = "/apis/logs.skyoperator.dev/v1alpha1"
RESULT = b'{"loss": 0.25}'
LINES = 20


def told(name: str, of: str = "log", **query: str) -> str:
    """The path of an object's log, or result."""
    return f"{ROOT}/namespaces/{NAMESPACE}/skyclusters/{name}/{of}?{urlencode(query)}"


def read(name: str, token: str, **query: str) -> bytes:
    """The log, as the bearer of this token gets it through kube-apiserver. Bytes: kubectl() would translate line ends."""
    done = subprocess.run(["kubectl", "--token", token, "get", "--raw", told(name, **query)], capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise KubectlError(done.stderr.decode())
    return done.stdout


def account(name: str, *, may_read: bool) -> str:
    """The token of a new service account, which may read logs and nothing else, or nothing."""
    name = f"{name}-{uuid4().hex[:4]}"
    kubectl("create", "serviceaccount", name, "-n", NAMESPACE)
    if may_read:
        rules = [{"apiGroups": ["logs.skyoperator.dev"], "resources": ["skyclusters/log", "skyclusters/result"], "verbs": ["get"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}
        kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(role))
        kubectl("create", "rolebinding", name, "-n", NAMESPACE, f"--role={name}", f"--serviceaccount={NAMESPACE}:{name}")
    return kubectl("create", "token", name, "-n", NAMESPACE).strip()


@pytest.fixture(scope="module")
def viewer() -> str:
    return account("viewer", may_read=True)


@pytest.fixture(scope="module")
def stranger() -> str:
    return account("stranger", may_read=False)


@contextmanager
def log_server() -> Iterator[str]:
    """The log server's own address, at the near end of a port-forward."""
    command = ["kubectl", "-n", RELEASE, "port-forward", f"svc/{LOGS}", ":443"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        said = forward.stdout.readline()
        yield f"https://localhost:{int(said.split()[2].rpartition(':')[2])}"
        forward.terminate()


def fetch(url: str, token: str | None) -> tuple[int, bytes]:
    """What the log server answers to the bearer of this token, once it has proved who it is."""
    authority = json.loads(kubectl("get", "configmap", f"{LOGS}-ca", "-n", RELEASE, "-o", "json"))["data"]["ca.crt"]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=authority), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def restart(*components: str) -> None:
    for component in components:
        kubectl("delete", "pod", "-n", RELEASE, "-l", f"app.kubernetes.io/component={component}", "--grace-period=1", timeout_seconds=120)
    for component in components:
        kubectl("rollout", "status", f"deployment/{RELEASE}-{component}", "-n", RELEASE, "--timeout=120s", timeout_seconds=130)


def counting_job() -> str:
    """Lines a second apart, with one of a returned value among them."""
    (frame,) = frames.encode(RESULT, "0123456789abcdef")
    return f"for i in $(seq {LINES}); do echo line $i of {LINES}; sleep 1; done; echo '{frame}'; echo the end"


def test_a_log_is_followed_live_and_is_the_same_for_ever_after(apply: Apply, viewer: str, stranger: str) -> None:
    this = apply("logged", task={"resources": SMALL, "run": counting_job()})
    with subprocess.Popen(
        ["kubectl", "--token", viewer, "get", "--raw", told(this.name, follow="true")], stdout=subprocess.PIPE
    ) as following:
        assert following.stdout is not None
        first = next(line for line in following.stdout if b"line 1 of" in line)
        assert this.status()["job"]["status"] == "RUNNING", "the first line is told while the job runs"
        followed = first + following.stdout.read()
    assert following.returncode == 0
    assert re.findall(rb"line (\d+) of", followed) == [b"%d" % number for number in range(1, LINES + 1)]
    assert b"the end" in followed
    assert b"skyoperator:result" not in followed

    reason, _ = this.until("Complete", seconds=120)
    assert reason == "JobSucceeded"
    nothing_left(this.cluster, seconds=90)
    kept = read(this.name, viewer)
    assert kept.endswith(followed)
    assert b"Waiting for task resources" in kept

    status = this.status()
    assert (status["log"]["state"], status["log"]["bytes"]) == ("Archived", len(read(this.name, viewer, ansi="true")))
    collected = {"state": "Collected", "bytes": len(RESULT), "sha256": hashlib.sha256(RESULT).hexdigest()}
    assert status["job"]["result"] == collected
    assert kubectl("--token", viewer, "get", "--raw", status["job"]["log"]).encode() == kept
    assert read(this.name, viewer, of="result") == RESULT
    assert b"Cluster" in read(this.name, viewer, provision="true")

    restart("logs", "controller")
    eventually("the log is served again", lambda: is_served(this.name, viewer), seconds=60)
    assert read(this.name, viewer) == kept, "byte for byte, after a restart of everything"

    for name in (this.name, "nobody-has-this-name"):
        with pytest.raises(KubectlError, match=r"(?i)forbidden"):
            read(name, stranger)
    with log_server() as url:
        assert fetch(url + told(this.name), viewer) == (200, kept)
        assert fetch(url + told(this.name), stranger)[0] == 403
        assert fetch(url + told(this.name), None)[0] == 401
        assert fetch(url + told("nobody-has-this-name"), viewer)[0] == 404

    this.delete()
    assert read(this.name, viewer) == kept, "the log outlives its object"
    Sky.apply(NAMESPACE, this.name, task={"resources": SMALL, "run": "echo another"}, suspend=True)
    with pytest.raises(KubectlError, match=r"NotFound|no job log"):
        read(this.name, viewer)


def is_served(name: str, token: str) -> bool:
    try:
        return bool(read(name, token))
    except KubectlError:
        return False


def test_kubectl_sky_follows_a_job_and_ends_as_it_does(apply: Apply) -> None:
    this = apply("red", task={"resources": SMALL, "run": "echo working; echo the disk is full >&2; exit 3"})
    done = subprocess.run(kubectl_sky("logs", "-f", this.name), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "working" in done.stdout
    assert "JobFailed" in done.stderr
    _, message = this.until("Failed", seconds=60)
    assert "the disk is full" in message, "kubectl describe shows the last lines"
    with without_api_service():
        by_token = subprocess.run(kubectl_sky("logs", this.name), capture_output=True, text=True, timeout=60, check=False)
    assert by_token.returncode == 0, by_token.stderr
    assert "working" in by_token.stdout
    assert this.name in subprocess.run(kubectl_sky("top"), capture_output=True, text=True, timeout=60, check=True).stdout
    assert "JobFailed" in subprocess.run(kubectl_sky("status", this.name), capture_output=True, text=True, timeout=60, check=True).stdout
    waiting = subprocess.run(kubectl_sky("wait", this.name, "--for=complete"), capture_output=True, text=True, timeout=60, check=False)
    assert waiting.returncode == 1
    down = subprocess.run(kubectl_sky("down", this.name), capture_output=True, text=True, timeout=180, check=False)
    assert (down.returncode, this.exists()) == (0, False), down.stderr


def kubectl_sky(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("kubectl-sky")), *words, "-n", NAMESPACE]


@contextmanager
def without_api_service() -> Iterator[None]:
    """As in an installation that serves its own namespaces only: the log server is reached by port-forward and token."""
    name = "v1alpha1.logs.skyoperator.dev"
    there = json.loads(kubectl("get", "apiservice", name, "-o", "json"))
    kubectl("delete", "apiservice", name)
    try:
        yield
    finally:
        meta = {key: there["metadata"][key] for key in ("name", "labels", "annotations")}
        again = {"apiVersion": there["apiVersion"], "kind": there["kind"], "metadata": meta, "spec": there["spec"]}
        kubectl("create", "-f", "-", stdin=json.dumps(again))
        kubectl("wait", "--for=condition=Available", f"apiservice/{name}", "--timeout=60s")


def test_discovery_is_whole() -> None:
    kubectl("wait", "--for=condition=Available", "apiservice/v1alpha1.logs.skyoperator.dev", "--timeout=60s")
    found = json.loads(kubectl("get", "--raw", ROOT))
    assert {resource["name"] for resource in found["resources"]} == {"skyclusters/log", "skyclusters/result"}
    kubectl("api-resources")  # ends with an error if any group can't be discovered
    name = f"short-lived-{uuid4().hex[:4]}"
    kubectl("create", "namespace", name)
    kubectl("delete", "namespace", name, "--timeout=60s")
