"""The way to the log service where no APIService leads there: its Service, its authority, the user's token, kubectl's forwarding."""

from __future__ import annotations

import io
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from skyoperator.cli.errors import CliError, DroppedError
from skyoperator.cli.forward import Service, announced_port, command, port_forward
from skyoperator.cli.target import Target

from tests.unit.fake_api import TOKEN, Act, FakeApi, FakeLog, complete, serving, sky_cluster
from tests.unit.sky_command import Sky, pauses, sky, write_kubeconfig

__all__ = ["pauses", "sky"]


class Forwarding:
    """Forwards to the log service, and counts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.begun: list[Service] = []
        self.ended = 0

    @contextmanager
    def __call__(self, service: Service, target: Target) -> Iterator[int]:
        self.begun.append(service)
        try:
            yield self.port
        finally:
            self.ended += 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def service(sky: Sky, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeApi, Forwarding]]:
    """Yield a log service of its own, and the forwarding to it; the Kubernetes API knows the Service and its authority."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    sky.api.is_aggregated = False
    with serving(FakeApi(objects=sky.api.objects), tls) as logs:
        logs.logs["uid-of-train", "1", False] = FakeLog(b"hello\n")
        forwarding = Forwarding(logs.port)
        monkeypatch.setattr("skyoperator.cli.forward.port_forward", forwarding)
        publish(sky, "sky-system", authority.cert_pem.bytes().decode())
        sky.api.put(complete(sky_cluster()))
        yield logs, forwarding


def publish(sky: Sky, namespace: str, pem: str | None) -> None:
    """Install a release's log Service and the ConfigMap with its authority."""
    ports = [{"name": "metrics", "port": 8080}, {"name": "https", "port": 8443}]
    named = {"metadata": {"namespace": namespace, "name": "sky-logs"}, "spec": {"ports": ports}}
    sky.api.core["services", namespace, "sky-logs"] = named
    held = {} if pem is None else {"data": {"ca.crt": pem}}
    sky.api.core["configmaps", namespace, "sky-logs-ca"] = {"metadata": {"namespace": namespace, "name": "sky-logs-ca"}, **held}


Installed = tuple[FakeApi, Forwarding]


@pytest.mark.parametrize("discovery", [404, 503])
def test_without_an_api_service_the_port_is_forwarded_and_ended(sky: Sky, service: Installed, discovery: int) -> None:
    """503: there is one, but it is not reached."""
    sky.api.discovery = discovery

    ran = sky.run("logs", "train")

    assert (ran.code, ran.out, ran.err) == (0, b"hello\n", "")
    assert service[1].begun == [Service("sky-system", "sky-logs", 8443)]
    assert service[1].ended == 1


def test_a_forwarding_that_breaks_is_begun_anew(sky: Sky, service: Installed) -> None:
    logs, forwarding = service
    logs.logs["uid-of-train", "1", False] = FakeLog(b"1\n", state="live", acts=[Act(b"2\n", cut_after=1), Act(b"3\n", then="complete")])

    ran = sky.run("logs", "train", "-f")

    assert (ran.code, ran.out) == (0, b"1\n2\n3\n")
    assert len(forwarding.begun) == forwarding.ended == 2


def test_an_impostor_is_not_read(sky: Sky, service: Installed) -> None:
    publish(sky, "sky-system", trustme.CA().cert_pem.bytes().decode())

    ran = sky.run("logs", "train")

    assert (ran.code, ran.out) == (3, b"")
    assert not service[0].asked
    assert service[1].ended == 1


@pytest.mark.parametrize("lacks", ["right", "data"])
def test_an_authority_that_can_t_be_read_is_explained_and_can_be_given(
    sky: Sky, service: Installed, authority: trustme.CA, tmp_path: Path, lacks: str
) -> None:
    if lacks == "right":
        sky.api.forbidden.add(("get", "configmaps"))
    else:
        publish(sky, "sky-system", None)

    ran = sky.run("logs", "train")

    assert ran.code == 3
    assert "kubectl get configmap sky-logs-ca -n sky-system" in ran.err
    assert not service[1].begun

    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    assert sky.run("logs", "train", "--ca-file", str(tmp_path / "ca.crt")).out == b"hello\n"


def test_credentials_that_are_no_token_are_explained_and_one_can_be_given(sky: Sky, service: Installed) -> None:
    sky.api.token = None
    write_kubeconfig(sky.kubeconfig, sky.api.port, user={})

    ran = sky.run("logs", "train")

    assert ran.code == 3
    assert "kubectl create token" in ran.err
    assert sky.run("logs", "train", "--token", TOKEN).out == b"hello\n"


def test_who_may_not_list_services_everywhere_finds_it_in_the_usual_namespace(sky: Sky, service: Installed, authority: trustme.CA) -> None:
    sky.api.forbidden.add(("list everywhere", "services"))
    assert "--release-namespace" in sky.run("logs", "train").err

    publish(sky, "skyoperator", authority.cert_pem.bytes().decode())
    assert sky.run("logs", "train").out == b"hello\n"
    assert service[1].begun[-1].namespace == "skyoperator"


def test_of_several_releases_one_must_be_named(sky: Sky, service: Installed, authority: trustme.CA) -> None:
    publish(sky, "other", authority.cert_pem.bytes().decode())

    ran = sky.run("logs", "train")
    assert ran.code == 3
    assert "other" in ran.err
    assert "sky-system" in ran.err

    assert sky.run("logs", "train", "--release-namespace", "sky-system").out == b"hello\n"


def test_no_release_at_all_is_explained(sky: Sky) -> None:
    sky.api.is_aggregated = False

    ran = sky.run("logs", "train")

    assert ran.code == 3
    assert "Is skyoperator installed with logs?" in ran.err


def test_the_command_forwards_to_the_cluster_that_is_meant() -> None:
    line = command(Service("ns", "logs", 8443), Target(kubeconfig="/k", context="c"))

    assert line[:4] == ["kubectl", "port-forward", "service/logs", ":8443"]
    assert {"--address=127.0.0.1", "--namespace=ns", "--kubeconfig=/k", "--context=c"} <= set(line)
    assert not [flag for flag in command(Service("ns", "logs", 8443), Target()) if flag.startswith(("--context", "--kubeconfig"))]


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("Forwarding from 127.0.0.1:43211 -> 8443\n", 43211),
        ("Forwarding from [::1]:43211 -> 8443\n", None),
        ("Handling connection for 1\n", None),
    ],
)
def test_kubectl_says_the_port(line: str, port: int | None) -> None:
    assert announced_port(line) == port


class FakeChild:
    """A kubectl that says some lines."""

    def __init__(self, lines: str, *, is_stubborn: bool = False) -> None:
        self.stdout = io.StringIO(lines)
        self.is_stubborn = is_stubborn
        self.did: list[str] = []

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")

    def wait(self, timeout: float | None = None) -> int:
        if self.is_stubborn and "kill" not in self.did and timeout is not None:
            raise subprocess.TimeoutExpired("kubectl", timeout)
        self.did.append("wait")
        return 1


def spawns(monkeypatch: pytest.MonkeyPatch, child: FakeChild, complaint: str = "") -> None:
    def popen(*_: object, stderr: Any, **__: object) -> FakeChild:
        stderr.write(complaint)
        stderr.flush()
        return child

    monkeypatch.setattr("skyoperator.cli.forward.subprocess.Popen", popen)


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_kubectl_is_always_ended(monkeypatch: pytest.MonkeyPatch, *, is_stubborn: bool) -> None:
    child = FakeChild("Forwarding from 127.0.0.1:7 -> 8443\nHandling connection for 7\n", is_stubborn=is_stubborn)
    spawns(monkeypatch, child)

    def interrupted() -> None:
        with port_forward(Service("ns", "logs", 8443), Target()) as port:
            assert port == 7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert child.did == (["terminate", "kill", "wait"] if is_stubborn else ["terminate", "wait"])


def test_kubectl_s_complaint_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    child = FakeChild("")
    spawns(monkeypatch, child, 'error: pods "x" is forbidden: cannot create resource "pods/portforward"')

    with pytest.raises(DroppedError, match="pods/portforward"), port_forward(Service("ns", "logs", 8443), Target()):
        pass

    assert child.did[-1] == "wait"


def test_a_machine_without_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("skyoperator.cli.forward.subprocess.Popen", popen)
    with pytest.raises(CliError, match="no kubectl"), port_forward(Service("ns", "logs", 8443), Target()):
        pass
