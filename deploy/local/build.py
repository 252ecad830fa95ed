"""The programs: Debian packages, and what Go builds. Each is a step."""

import os
import shutil
from pathlib import Path

from deploy.local.commands import Failure, Shell
from deploy.local.layout import KUBERNETES_VERSION, Layout
from deploy.local.steps import Step, content_key

KUBENODE = Path(__file__).with_name("kubenode")
HELM = "helm.sh/helm/v4/cmd/helm@v4.3.1"

PACKAGES = {  # program that tells that it is there: Debian package
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/ipset": "ipset",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/bin/socat": "socat",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/sysctl": "procps",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/buildah": "buildah",
    "/usr/bin/openssl": "openssl",
}


def missing_packages(root: Path = Path("/")) -> list[str]:
    """Return the Debian packages that are not installed."""
    return [package for program, package in PACKAGES.items() if not (root / program.lstrip("/")).exists()]


def install_packages(shell: Shell) -> None:
    """Install what is missing. Raises Failure if apt-get can't."""
    packages = missing_packages()
    if not shutil.which("apt-get"):
        raise Failure(f"These Debian packages are missing and there is no apt-get to install them: {' '.join(packages)}.")
    try:
        shell.run("apt-get", "update")
        shell.run("apt-get", "install", "--yes", "--no-install-recommends", *packages, env={"DEBIAN_FRONTEND": "noninteractive"})
    except Failure as error:
        raise Failure(f"These Debian packages can't be installed: {' '.join(packages)}. {error}") from error


def go(shell: Shell, *words: str | Path, cwd: Path, env: dict[str, str]) -> None:
    """Run go. Raises Failure with a sentence of its own if there is none."""
    if not shutil.which("go"):
        raise Failure("Go is not installed, or not on PATH; the local cluster's Kubernetes is built with it.")
    shell.run("go", *words, cwd=cwd, env={"CGO_ENABLED": "0", **env})


def version_flags() -> str:
    """Return the linker flags: no debug tables, and the version that Kubernetes says of itself."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    package = "k8s.io/component-base/version"
    values = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in values.items())])


def build_kubenode(layout: Layout, shell: Shell) -> None:
    """Build kubenode, kubectl and pause."""
    target = layout.bin / ".new"
    target.mkdir(parents=True, exist_ok=True)
    options = ("-trimpath", "-buildvcs=false", "-ldflags", version_flags(), "-o", target)
    go(shell, "build", *options, ".", "./kubectl", "./pause", cwd=KUBENODE, env={})
    for program in target.iterdir():
        program.rename(layout.bin / program.name)  # a running node keeps the file it has open
    target.rmdir()


def build_helm(layout: Layout, shell: Shell) -> None:
    """Build helm out of its released module."""
    layout.bin.mkdir(parents=True, exist_ok=True)
    go(shell, "install", "-trimpath", "-ldflags", "-s -w", HELM, cwd=layout.bin, env={"GOBIN": str(layout.bin)})


def kubenode_key() -> str:
    """Return the key of the programs in kubenode/."""
    return content_key(KUBENODE, version_flags(), root=KUBENODE)


def kubectl_key() -> str:
    """Return the key of kubectl alone, so that images with it are not made anew for the others' sake."""
    return content_key(*(KUBENODE / name for name in ("kubectl", "go.mod", "go.sum")), version_flags(), root=KUBENODE)


def packages() -> Step:
    """Return the step that installs Debian packages."""
    return Step("Debian packages", install_packages, done=lambda: not missing_packages())


def kubernetes(layout: Layout) -> Step:
    """Return the step that builds Kubernetes."""
    programs = [layout.bin / name for name in ("kubenode", "kubectl", "pause")]
    return Step(
        "Kubernetes",
        lambda shell: build_kubenode(layout, shell),
        key=kubenode_key(),
        marker=layout.bin / ".kubenode.key",
        done=lambda: all(os.access(program, os.X_OK) for program in programs),
    )


def helm(layout: Layout) -> Step:
    """Return the step that builds helm: after Kubernetes, which everything else waits for."""
    return Step(
        "helm",
        lambda shell: build_helm(layout, shell),
        after=frozenset({"Kubernetes"}),
        key=content_key(HELM),
        marker=layout.bin / ".helm.key",
        done=lambda: os.access(layout.bin / "helm", os.X_OK),
    )
