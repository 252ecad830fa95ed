"""The control groups of the node: one of our own in each hierarchy, so that its memory can be told and nothing stays."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from deploy.local.commands import Failure

ROOT = Path("/sys/fs/cgroup")
GROUP = "skyoperator"  # the kubelet's cgroupRoot; pods live beneath it
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Return the mounted hierarchies: one with cgroup v2, one per controller with v1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted(path for path in root.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists())


def create(trees: Iterable[Path]) -> list[Path]:
    """Make our group and, in it, `node` for the node's own processes; return the latter. Raises Failure."""
    made = [tree / GROUP / "node" for tree in trees]
    try:
        _make(made)
    except OSError as error:
        remove(group.parents[1] for group in made)
        raise Failure(f"This machine does not let us make control groups: {error}.") from error
    return made


def _make(groups: Iterable[Path]) -> None:
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
        if (group / CPUSET_FILES[0]).exists() and not (group.parents[1] / "cgroup.controllers").exists():
            _inherit_cpuset(group.parent)
            _inherit_cpuset(group)


def _inherit_cpuset(group: Path) -> None:
    """A new cpuset of cgroup v1 is empty and takes no process until it is filled."""
    for name in CPUSET_FILES:
        if not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def remove(trees: Iterable[Path], deadline_seconds: float = 10) -> None:
    """Remove our groups. The kernel refuses while the last of their processes are still ending, hence the deadline."""
    end = time.monotonic() + deadline_seconds
    left = [tree / GROUP for tree in trees if (tree / GROUP).exists()]
    while left and time.monotonic() < end:
        for group in left:
            _remove_tree(group)
        left = [group for group in left if group.exists()]
        time.sleep(0.05 if left else 0)


def _remove_tree(group: Path) -> None:
    for folder, _, _ in sorted(((str(path), 0, 0) for path in [group, *group.rglob("*")] if path.is_dir()), reverse=True):
        with suppress(OSError):
            Path(folder).rmdir()


def memory_bytes(root: Path = ROOT) -> int | None:
    """Return what the node and its pods hold in memory, page cache left out, or None if the kernel doesn't tell."""
    for path, field in ((root / GROUP, "anon"), (root / "memory" / GROUP, "total_rss")):
        with suppress(OSError):
            fields = dict(line.split() for line in (path / "memory.stat").read_text().splitlines())
            return int(fields[field])
    return None
