"""`python -m tests.bench [clusters]`: the figures of the poller and the queue, one row each."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from skyoperator.kube import api_client
from skyoperator.lanes import QUICK_READERS

from tests.bench.figures import cpu_seconds, memory_mib, quantiles, report
from tests.bench.stage import Objects, controller, seconds_until, watched
from tests.e2e.support import KubectlError, kubectl
from tests.standin.control import Control
from tests.standin.server import serving

QUEUES_PER_SECOND = 6.0
"""The real server's, by gRPC on 2 cores: 5-8."""
MAX_IN_FLIGHT = 64
"""More than a real server takes: the bench is about what comes after the launches."""
IDLE_SECONDS = 60.0
SAMPLES = 40
SPACED_SECONDS = 12.0
"""Clusters that break together would be held."""


def scripted() -> Control:
    """Return a SkyPilot that launches at once and reads queues at the real one's pace; jobs run until they are ended."""
    control = Control(long_workers=MAX_IN_FLIGHT)
    control.launches(seconds=0.5, row_after=0.1)
    control.jobs(seconds=1e6)
    control.set(queue_seconds=QUICK_READERS / QUEUES_PER_SECOND)
    return control


async def applied_at_once(objects: Objects, count: int) -> None:
    """All recorded, then all launched."""
    began_at = time.monotonic()
    await objects.create(*(f"n{number}" for number in range(count)))
    created_after = time.monotonic() - began_at
    await objects.until(lambda status: len(status) == count and all(one.get("phase") for one in status.values()), seconds=1800)
    recorded_after = time.monotonic() - began_at
    rates = f"{count / recorded_after:.0f}/s (created {count / created_after:.0f}/s)"
    report(f"{count} applied at once: recorded in status", rates, "> 10/s")
    await objects.until(lambda status: all(one.get("phase") == "Running" for one in status.values()), seconds=3600)
    took = time.monotonic() - began_at
    report(f"{count} launched, {MAX_IN_FLIGHT} in flight", f"{took:.0f} s, {objects.writes / count:.1f} writes each")


async def idle(objects: Objects, pid: int) -> None:
    """Nothing happens, and nothing is done, once each job was seen at work."""
    await objects.until(lambda status: all(one.get("job", {}).get("status") == "RUNNING" for one in status.values()), seconds=3600)
    await asyncio.sleep(IDLE_SECONDS / 2)
    cpu, writes = cpu_seconds(pid), objects.writes
    await asyncio.sleep(IDLE_SECONDS)
    share = (cpu_seconds(pid) - cpu) / IDLE_SECONDS
    report("idle: processor", f"{share:.1%} of a core", "< 5 %")
    report("idle: writes", f"{objects.writes - writes} in {IDLE_SECONDS:.0f} s", "0")
    report("memory", f"{memory_mib(pid):.0f} MiB", "< 256 MiB")


async def jobs_end(objects: Objects, control: Control, count: int) -> None:
    """From a job's end to the object's."""

    async def ends(name: str) -> float:
        await asyncio.sleep(random.uniform(0, 20))
        job = control.world.clusters[_cluster_of(objects, name)].jobs[0]
        if job.work is not None:
            job.work.cancel()
        job.status, job.end_at = "SUCCEEDED", time.time()
        return await seconds_until(objects, name, lambda one: bool(one.get("completionTime")), at_most=1800)

    names = random.sample(sorted(objects.status), min(SAMPLES, count // 2))
    latencies = await asyncio.gather(*(ends(name) for name in names))
    report(f"a job's end -> status ({len(names)} ends)", quantiles(list(latencies)), f"p50 < {max(5.0, count / QUEUES_PER_SECOND):.0f} s")


async def rows_change(objects: Objects, control: Control) -> None:
    """From a change in SkyPilot's table to the object's status."""
    running = [name for name, one in sorted(objects.status.items()) if one.get("phase") == "Running"]
    latencies = []
    for name in random.sample(running, min(8, len(running))):
        control.break_cluster(_cluster_of(objects, name))
        latencies.append(await seconds_until(objects, name, lambda one: one.get("cluster", {}).get("status") != "UP", at_most=120))
        await asyncio.sleep(random.uniform(0, SPACED_SECONDS))
    report("a row's change -> status", quantiles(latencies), "p50 < 5 s")


def _cluster_of(objects: Objects, name: str) -> str:
    found: Any = objects.status[name]["cluster"]["name"]
    return str(found)


async def bench(count: int) -> None:
    """Measure it all, in a namespace that is gone afterwards."""
    namespace, control = f"bench-{uuid4().hex[:6]}", scripted()
    kubectl("create", "namespace", namespace)
    with TemporaryDirectory() as directory:
        try:
            async with (
                api_client() as client,
                watched(client, namespace) as objects,
                serving(control) as endpoint,
                controller(namespace, endpoint, Path(directory), max_in_flight=MAX_IN_FLIGHT) as pid,
            ):
                await applied_at_once(objects, count)
                await idle(objects, pid)
                await jobs_end(objects, control, count)
                await rows_change(objects, control)
        finally:
            _clean(namespace)


def _clean(namespace: str) -> None:
    """Let the objects go without their controller; those that it let go meanwhile are not there any more."""
    left = kubectl("get", "skyc", "-n", namespace, "-o", "name").split()
    kubectl("delete", "namespace", namespace, "--wait=false")
    for start in range(0, len(left), 100):
        with suppress(KubectlError):
            some = left[start : start + 100]
            kubectl("patch", *some, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', timeout_seconds=600)


if __name__ == "__main__":
    asyncio.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
