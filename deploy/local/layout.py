"""Where everything lives, and the numbers that several modules share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

LINK = "10.87.0.0/30"  # host <-> node
HOST_ADDRESS = "10.87.0.1"
NODE_ADDRESS = "10.87.0.2"
POD_RANGE = "10.88.0.0/16"
BRIDGE_ADDRESS = "10.88.0.1"  # of the node, as pods see it
FIRST_POD_ADDRESS = "10.88.1.0"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
API_SERVER = f"https://{NODE_ADDRESS}:6443"

HOST_LINK = "skyop-host"  # the machine's end of the cable into the node
NODE_NAME = "node1"
KUBERNETES_VERSION = "1.34.4"
PAUSE_IMAGE = "localhost/pause:1"
PROVISIONER = "skyoperator.dev/local"  # of volumes; kubenode/volumes.go has the same

INSIDE = "/run/node"  # the state folder, as the node's processes see it
INSIDE_BIN = "/opt/bin"
SOCKET = "/run/containerd/containerd.sock"  # likewise
RECORD = Path("/run/skyoperator-local.json")  # one node per machine: it says which one runs


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders. `cache` holds what can be made again, `state` what belongs to one cluster."""

    cache: Path
    state: Path

    @property
    def bin(self) -> Path:
        """Binaries: kubenode, kubectl, helm."""
        return self.cache / "bin"

    @property
    def storage(self) -> Path:
        """The image store of buildah."""
        return self.cache / "images"

    @property
    def logs(self) -> Path:
        """One log per step."""
        return self.cache / "log"

    @property
    def node_logs(self) -> Path:
        """One log per part of the node."""
        return self.state / "log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's way in, readable by its owner only."""
        return self.state / "kubeconfig"


def layout(environment: Mapping[str, str] = os.environ) -> Layout:
    """Return the folders: ~/.cache/skyoperator (XDG_CACHE_HOME is heeded), and local in it unless SKYOPERATOR_STATE says."""
    home = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/root"), ".cache")
    cache = Path(home, "skyoperator").resolve()
    return Layout(cache=cache, state=Path(environment.get("SKYOPERATOR_STATE") or cache / "local").resolve())
