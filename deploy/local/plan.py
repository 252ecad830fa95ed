"""What process 1 of the node does, in order, as data: `kubenode init` carries it out (kubenode/init.go).

machine ──► private namespaces ──► a root folder of its own ──► network ──► containerd, etcd, API server ──► the rest
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from deploy.local.layout import (
    BRIDGE_ADDRESS,
    INSIDE,
    INSIDE_BIN,
    LINK,
    NODE_ADDRESS,
    NODE_NAME,
    POD_RANGE,
    SERVICE_RANGE,
    SOCKET,
    Layout,
)

CABLE = "skyop-node"  # the node's end of the cable
KUBENODE = f"{INSIDE_BIN}/kubenode"
ETCD = "http://127.0.0.1:2379"


class Action(TypedDict, total=False):
    """One of: make `root` the root folder, `run` to its end, `start` and leave running, repeat `until` it succeeds."""

    name: str
    root: str
    cwd: str
    run: list[str]
    start: list[str]
    until: list[str]
    seconds: float


def plan(layout: Layout, groups: Iterable[Path]) -> dict[str, object]:
    """Return the whole plan, for json.dumps."""
    actions = [*root(layout, groups), *network(), *control_plane(), *workers()]
    return {"status": "status.json", "logs": "log", "actions": actions}


def run(name: str, *commands: str) -> list[Action]:
    """Return one action per command line; no word in them holds a space."""
    return [{"name": name, "run": command.split()} for command in commands]


def part(name: str, *argv: str) -> Action:
    """Return the action that starts one part of Kubernetes out of kubenode."""
    return {"name": name, "start": [KUBENODE, name, *argv]}


def until(name: str, *argv: str, seconds: float = 60) -> Action:
    """Return the action that waits until a command succeeds."""
    return {"name": name, "until": list(argv), "seconds": seconds}


def root(layout: Layout, groups: Iterable[Path]) -> list[Action]:
    """Return the making of the node's root: the machine's programs and settings read-only, everything else its own."""
    top = layout.state / "root"
    folders = "dev etc proc sys usr tmp opt/bin root run/node run/lock var/lib var/log"
    enter = " ".join(str(group / "cgroup.procs") for group in groups)
    return [
        {"name": "cgroup", "run": ["sh", "-ec", f"for file in {enter}; do echo 1 > $file; done"]},
        {"name": "root", "run": ["mount", "-t", "tmpfs", "-o", "mode=755", "node", str(top)]},
        {"name": "root", "run": ["sh", "-ec", f'cd "$1"; mkdir -p {folders}; ln -s usr/bin usr/sbin usr/lib usr/lib64 .', "sh", str(top)]},
        _bind(Path("/dev"), top / "dev", "--rbind"),
        *(action for folder in ("etc", "usr") for action in _read_only(Path("/", folder), top / folder)),
        _bind(layout.state, top / INSIDE.lstrip("/")),
        _bind(layout.bin, top / INSIDE_BIN.lstrip("/")),
        _bind(layout.state / "var-log", top / "var/log"),  # pods' logs: on disk, not in memory
        {"name": "root", "run": ["mount", "-t", "proc", "proc", str(top / "proc")]},
        {"name": "root", "run": ["mount", "-t", "sysfs", "sysfs", str(top / "sys")]},
        _bind(Path("/sys/fs/cgroup"), top / "sys/fs/cgroup", "--rbind"),  # a fresh sysfs hides it
        {"name": "root", "root": str(top), "cwd": INSIDE},
        *run("root", "mount --make-rshared /"),  # volumes may be mounted into running pods
    ]


def _bind(source: Path, target: Path, how: str = "--bind") -> Action:
    return {"name": "root", "run": ["mount", how, str(source), str(target)]}


def _read_only(source: Path, target: Path) -> list[Action]:
    return [_bind(source, target), {"name": "root", "run": ["mount", "-o", "remount,bind,ro", str(target)]}]


def network() -> list[Action]:
    """Return the making of the node's network. It has no default route: nothing in it reaches beyond this machine.

    Services get a bridge as well, so that a packet to one that doesn't exist ends here; and what pods send to the
    machine's end of the cable is dropped, because the answer would be routed by the machine, outwards.
    """
    prefix = LINK.split("/")[1]
    return [
        *run("network", "ip link set lo up"),
        until("cable", "ip", "link", "show", CABLE, seconds=10),
        *run(
            "network",
            f"ip addr add {NODE_ADDRESS}/{prefix} dev {CABLE}",
            f"ip link set {CABLE} up",
            "ip link add cni0 type bridge",
            f"ip addr add {BRIDGE_ADDRESS}/{POD_RANGE.split('/')[1]} dev cni0",
            "ip link set cni0 up",
            "ip link add svc0 type bridge",
            "ip link set svc0 up",
            f"ip route add {SERVICE_RANGE} dev svc0 src {BRIDGE_ADDRESS}",
            "sysctl -qw net.ipv4.ip_forward=1",
            "sysctl -qw net.bridge.bridge-nf-call-iptables=1",
            f"iptables -A FORWARD -i cni0 -o {CABLE} -j DROP",
        ),
    ]


def control_plane() -> list[Action]:
    """Return what must answer before the rest may start."""
    kubectl = [f"{INSIDE_BIN}/kubectl", "--kubeconfig", f"{INSIDE}/etc/admin.kubeconfig", "--request-timeout=2s"]
    return [
        {"name": "containerd", "start": ["containerd", "-c", f"{INSIDE}/etc/containerd.toml"]},
        part(
            "etcd",
            f"--data-dir={INSIDE}/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # it begins empty at each start
        ),
        part("kube-apiserver", *api_server_flags()),
        until("api-server", *kubectl, "get", "--raw", "/readyz"),
        until("runtime", "ctr", "-a", SOCKET, "version", seconds=30),
    ]


def api_server_flags() -> list[str]:
    """Return the API server's flags; those of `requestheader` and `proxy` are what aggregated APIs need."""
    pki = f"{INSIDE}/pki"
    flags = {
        "etcd-servers": ETCD,
        "advertise-address": BRIDGE_ADDRESS,
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
        "client-ca-file": f"{pki}/ca.crt",
        "token-auth-file": f"{INSIDE}/etc/tokens.csv",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": f"{pki}/sa.pub",
        "service-account-signing-key-file": f"{pki}/sa.key",
        "service-cluster-ip-range": SERVICE_RANGE,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "kubelet-client-certificate": f"{pki}/kubelet-client.crt",
        "kubelet-client-key": f"{pki}/kubelet-client.key",
        "kubelet-certificate-authority": f"{pki}/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": f"{pki}/ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": f"{pki}/front-proxy.crt",
        "proxy-client-key-file": f"{pki}/front-proxy.key",
        "enable-aggregator-routing": "true",
    }
    return [f"--{flag}={value}" for flag, value in flags.items()]


def workers() -> list[Action]:
    """Return the parts that talk to the API server."""
    etc = f"{INSIDE}/etc"
    return [
        part(
            "kube-controller-manager",
            f"--kubeconfig={etc}/controller-manager.kubeconfig",
            f"--service-account-private-key-file={INSIDE}/pki/sa.key",
            f"--root-ca-file={INSIDE}/pki/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
        ),
        part("kube-scheduler", f"--kubeconfig={etc}/scheduler.kubeconfig", "--leader-elect=false"),
        part("kube-proxy", f"--config={etc}/proxy.yaml"),
        part(
            "kubelet",
            f"--kubeconfig={etc}/kubelet.kubeconfig",
            f"--config={etc}/kubelet.yaml",
            f"--root-dir={INSIDE}/kubelet",
            f"--cert-dir={INSIDE}/kubelet/pki",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={BRIDGE_ADDRESS}",
        ),
        part("coredns", "-conf", f"{etc}/Corefile"),
        part("volumes", f"{etc}/admin.kubeconfig", f"{INSIDE}/volumes"),
        part("policies", f"{etc}/admin.kubeconfig", NODE_NAME, SERVICE_RANGE),
    ]
