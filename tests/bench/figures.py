"""What a process takes, as the kernel counts it, and rows of figures. The standard library only: Airflow's environment uses it, too."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, kind: str = "Rss") -> float:
    """Return a process's resident memory; as `Pss`, with what it shares with others counted by its share of it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))


def report(what: str, measured: str, wanted: str = "") -> None:
    """Print one row."""
    print(f"{what:<66} {measured:<34} {wanted}", flush=True)


def quantiles(seconds: list[float]) -> str:
    """Return the middle and the worst of them, for people."""
    ordered = sorted(seconds)
    return f"p50 {ordered[len(ordered) // 2]:.1f} s, p99 {ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]:.1f} s"
