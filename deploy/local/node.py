"""The node's processes: starting them in private namespaces, knowing them again, and ending them all by one kill.

`unshare` makes the namespaces and waits; its child is process 1 in there (kubenode init). When either is killed the kernel
ends every process inside, and with the last of them go the mounts and the network.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local import cgroups
from deploy.local.commands import Failure, Shell, tail
from deploy.local.layout import HOST_ADDRESS, HOST_LINK, LINK, RECORD, Layout
from deploy.local.plan import CABLE, plan

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FRESH = ("etcd", "kubelet", "volumes", "var-log", "root")  # a cluster begins empty; only images stay
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can't be mistaken for another: a number is given out again, but not in the same tick of one boot."""

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return what runs under this number now, or None. A zombie no longer runs."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name before may hold anything
        return None if fields[0] == "Z" else cls(pid, int(fields[19]), BOOT_ID.read_text().strip())

    def is_alive(self) -> bool:
        """Tell whether it still runs: it, not another one of the same number."""
        return Process.of(self.pid) == self

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Node:
    """The running node of this machine and whose it is."""

    process: Process
    state: Path

    @property
    def socket(self) -> str:
        """The socket of containerd, as seen from the machine."""
        return f"/proc/{self.process.pid}/root/run/containerd/containerd.sock"


def running(record: Path = RECORD) -> Node | None:
    """Return the node that runs on this machine, whoever started it, or None."""
    try:
        fields = json.loads(record.read_text())
        node = Node(process=Process(**fields["process"]), state=Path(fields["state"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return node if node.process.is_alive() else None


def own(layout: Layout, record: Path = RECORD) -> Node | None:
    """Return the running node if it is that of our state folder, None if there is none. Raises Failure if another's runs."""
    node = running(record)
    if node and node.state != layout.state:
        raise Failure(
            f"Another local cluster runs on this machine, with its state in {node.state}, and there can be only one. "
            f"End it first: SKYOPERATOR_STATE={node.state} python -m deploy.local cluster-down"
        )
    return node


def start(layout: Layout, shell: Shell) -> Node:
    """Start the node and plug it in. Raises Failure; then nothing of it is left."""
    _check_network(shell)
    shell.run("rm", "-rf", layout.node_logs)  # kept so far, for whoever asks why the last one ended
    for folder in (*(layout.state / name for name in FRESH), layout.node_logs):
        folder.mkdir()
    (layout.state / "status.json").unlink(missing_ok=True)
    groups = cgroups.create(cgroups.hierarchies())
    (layout.state / "plan.json").write_text(json.dumps(plan(layout, groups), indent=1))
    node = None
    try:
        node = Node(_spawn(layout), layout.state)
        RECORD.write_text(json.dumps({"process": asdict(node.process), "state": str(node.state)}))
        _plug_in(node, shell)
    except BaseException:
        stop(node, shell)
        raise
    return node


def _check_network(shell: Shell) -> None:
    addresses = json.loads(shell.run("ip", "-json", "address", "show", "to", LINK) or "[]")
    names = [entry["ifname"] for entry in addresses if entry.get("ifname")]
    if names:
        raise Failure(f"{LINK}, the range between this machine and the node, is taken by {names[0]}. Change it in deploy/local/layout.py.")


def _spawn(layout: Layout) -> Process:
    """setsid: the node outlives this program and its terminal. unshare ignores SIGTERM, --kill-child passes SIGKILL on."""
    namespaces = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
    with (layout.node_logs / "node.log").open("wb") as log:
        unshare = subprocess.Popen(
            ["unshare", *namespaces, str(layout.bin / "kubenode"), "init", "plan.json"],
            cwd=layout.state,
            env={"PATH": PATH, "HOME": "/root"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    own_network = Path("/proc/self/ns/net").readlink()
    wait_for(lambda: unshare.poll() is not None or Path(f"/proc/{unshare.pid}/ns/net").readlink() != own_network, 5)
    if unshare.poll() is not None or Path(f"/proc/{unshare.pid}/ns/net").readlink() == own_network:
        unshare.kill()
        raise Failure(f"This machine does not let us make Linux namespaces. unshare said:\n{tail(layout.node_logs / 'node.log')}")
    process = Process.of(unshare.pid)
    if process is None:
        raise Failure(f"The node ended at once:\n{tail(layout.node_logs / 'node.log')}")
    return process


def _plug_in(node: Node, shell: Shell) -> None:
    shell.run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", CABLE)
    shell.run("ip", "link", "set", CABLE, "netns", str(node.process.pid))
    shell.run("ip", "address", "add", f"{HOST_ADDRESS}/{LINK.split('/')[1]}", "dev", HOST_LINK)
    shell.run("ip", "link", "set", HOST_LINK, "up")


def stop(node: Node | None, shell: Shell) -> None:
    """End the node and whatever a crashed one left. Returns when nothing is there. Raises Failure if something stays."""
    if node:
        node.process.kill()
        wait_for(lambda: not node.process.is_alive(), 20)
    if not wait_for(lambda: not _cable_exists(), 5):  # it goes with the last process of the network namespace
        with suppress(Failure):
            shell.run("ip", "link", "delete", HOST_LINK)
    trees = cgroups.hierarchies()
    cgroups.remove(trees)
    RECORD.unlink(missing_ok=True)
    left = [str(tree / cgroups.GROUP) for tree in trees if (tree / cgroups.GROUP).exists()]
    if _cable_exists() or left:
        raise Failure(f"The node is ended, but this is left of it: {', '.join(left) or HOST_LINK}.")


def _cable_exists() -> bool:
    return HOST_LINK in (name for _, name in socket.if_nameindex())


def wait_for(condition: Callable[[], bool], deadline_seconds: float, interval_seconds: float = 0.05) -> bool:
    """Return True as soon as the condition holds, False if it doesn't by the deadline."""
    end = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval_seconds)
    return True
