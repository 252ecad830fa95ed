"""The controller as a process, between a real kube-apiserver and a stand-in for SkyPilot that the test holds in its hand."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.support import RELEASE, Sky, free_port, kubectl
from tests.integration.apiserver import ApiServer, kubeconfig, proxied
from tests.standin.control import Control
from tests.standin.server import serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def crd() -> None:
    """The CRD as the checkout has it, marked as the release's, so that the chart can be installed on top."""
    crd, manager = "crd/skyclusters.skyoperator.dev", "--field-manager=helm"
    kubectl("apply", "--server-side", "--force-conflicts", manager, "-f", str(ROOT / "crds"))
    owner = [f"meta.helm.sh/release-name={RELEASE}", f"meta.helm.sh/release-namespace={RELEASE}"]
    kubectl("annotate", crd, manager, "--overwrite", *owner)
    kubectl("label", crd, manager, "--overwrite", "app.kubernetes.io/managed-by=Helm")
    kubectl("wait", "--for=condition=Established", "crd/skyclusters.skyoperator.dev", "--timeout=30s")


@pytest.fixture
def namespace(crd: None) -> Iterator[str]:
    """A namespace of its own; what a failed test leaves in it is let go without its controller."""
    name = f"integration-{uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    yield name
    for left in kubectl("get", "skyc", "-n", name, "-o", "name").split():
        kubectl("patch", left, "-n", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def standin() -> AsyncIterator[tuple[Control, str]]:
    control = Control()
    control.launches(seconds=1.0, row_after=0.3)
    control.jobs(seconds=0.5)
    control.require(username="operator", password="secret")
    async with serving(control) as address:
        yield control, address


@dataclass
class Process:
    """One controller process."""

    environment: dict[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "skyoperator", env={**os.environ, **self.environment}, stdout=log, stderr=log
            )

    def is_alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def send(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(how)

    async def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.send(how)
        async with asyncio.timeout(30):
            return await self.process.wait()

    @property
    def port(self) -> str:
        return self.environment["SKYOPERATOR_HTTP_PORT"]


@dataclass
class Controllers:
    """Makes controller processes for one namespace and one stand-in."""

    namespace: str
    endpoint: str
    directory: Path
    extra: dict[str, str] = field(default_factory=dict)
    made: list[Process] = field(default_factory=list)

    async def start(self, holder: str = "first") -> Process:
        number = len(self.made)
        environment = {
            "SKYOPERATOR_SKYPILOT_ENDPOINT": self.endpoint,
            "SKYOPERATOR_CREDENTIALS_DIR": str(self.directory),
            "SKYOPERATOR_NAMESPACES": self.namespace,
            "SKYOPERATOR_INSTANCE": f"{self.namespace}/test",
            "SKYOPERATOR_LEASE_NAMESPACE": self.namespace,
            "SKYOPERATOR_LEASE_NAME": "controller",
            "SKYOPERATOR_POD_NAME": holder,
            "SKYOPERATOR_HTTP_PORT": str(free_port()),
            **self.extra,
        }
        self.made.append(Process(environment, self.directory / f"controller-{number}.log"))
        await self.made[-1].start()
        return self.made[-1]


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """The way to kube-apiserver on which things go wrong."""
    async with proxied() as api:
        yield api


@pytest.fixture
def rights(namespace: str) -> str:
    """What the chart grants the controller, granted in the test's namespace; returns the manifest."""
    return grant("controller-rbac", namespace)


def grant(template: str, namespace: str, *settings: str) -> str:
    """Apply a template of the chart as an installation that watches this namespace has it; return the manifest."""
    values = [word for setting in (f"watchNamespaces={{{namespace}}}", *settings) for word in ("--set", setting)]
    command = ["helm", "template", RELEASE, "deploy/helm/skyoperator", "--namespace", namespace, *values]
    command += ["--show-only", f"templates/{template}.yaml"]
    manifest = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    return manifest


@pytest.fixture
def behind(api: ApiServer, controllers: Controllers, rights: str, tmp_path: Path) -> Controllers:
    """Controllers that reach kube-apiserver through the proxy, with the chart's rights and no more."""
    token = kubectl("create", "token", f"{RELEASE}-controller", "-n", controllers.namespace, "--duration=1h").strip()
    path = kubeconfig(api.address, token, tmp_path / "kubeconfig")
    controllers.extra = {"KUBECONFIG": str(path), "SKYOPERATOR_LEASE_NAME": f"{RELEASE}-controller"}
    return controllers


@pytest.fixture
async def controllers(namespace: str, standin: tuple[Control, str], tmp_path: Path) -> AsyncIterator[Controllers]:
    (tmp_path / "username").write_text("operator")
    (tmp_path / "password").write_text("secret")
    controllers = Controllers(namespace, standin[1], tmp_path)
    async with AsyncExitStack() as ends:
        yield controllers
        for process in controllers.made:
            process.send(signal.SIGCONT)
            ends.push_async_callback(process.end, signal.SIGTERM)
    for process in controllers.made:
        print(process.log.read_text()[-4000:])


async def reached(this: Sky, phase: str, *, seconds: float = 40) -> dict[str, object]:
    """Wait until the object is in the phase; return its status."""
    status: dict[str, object] = {}
    try:
        async with asyncio.timeout(seconds):
            while status.get("phase") != phase:
                await asyncio.sleep(0.2)
                status = await asyncio.to_thread(this.status)
    except TimeoutError:
        raise AssertionError(f"{this.name} is not {phase} after {seconds:.0f} s: {status}") from None
    return status


async def gone(this: Sky, *, seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while await asyncio.to_thread(this.exists):
            await asyncio.sleep(0.2)
