"""What the server's workers do to the world: launch, down, cancel, queue, and the jobs on the clusters.

The order of things is SkyPilot's, for it is the order that leaks clusters and loses jobs:
/down of a name without a row fails before it cancels anything (core.py:922); a cancellation writes CANCELLED while the
worker is only being signalled (requests.py:1742), and /down does not wait for that worker, but takes its lock away
(cloud_vm_ray_backend.py:4785); a launch submits its job last, so a row can be UP without one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import yaml

from tests.standin import recorded
from tests.standin.script import Error, Script
from tests.standin.slots import Slots
from tests.standin.world import Cluster, Job, Request, World, fence, ports_of, task_of

SHORT_WORKER_SECONDS = 0.01


class Workers:
    """Runs requests, each in a task of its own, on one world."""

    def __init__(self, world: World, script: Script, *, long_workers: int) -> None:
        self._world = world
        self._script = script
        self.long = Slots(long_workers)
        self._works: dict[str, Callable[[Request], Coroutine[Any, Any, object]]] = {
            "launch": self._launch,
            "down": self._down,
            "api_cancel": self._api_cancel,
            "status": self._status,
            "queue": self._queue,
            "logs": self._logs,
            "cancel": self._cancel,
            "autostop": self._autostop,
            "endpoints": self._endpoints,
        }

    def start(self, request: Request) -> None:
        """Take in a request and set it going."""
        self._world.requests[request.id] = request
        request.worker = asyncio.create_task(self._run(request, self._works[request.name](request)))

    def cancel(self, request: Request) -> None:
        """Write CANCELLED, and stop the worker: at once while it is queued, else after the scripted lag."""
        started = request.status != "PENDING"
        request.finish("CANCELLED")
        lag = self._script.cancel_lag_seconds if started else 0.0
        if request.worker is not None:
            asyncio.get_running_loop().call_later(lag, request.worker.cancel)

    async def _run(self, request: Request, work: Coroutine[Any, Any, object]) -> None:
        try:
            request.finish("SUCCEEDED", value=await work)
        except Failure as failure:
            request.finish("FAILED", error=failure.error)

    async def _launch(self, request: Request) -> dict[str, Any]:
        name = str(request.cluster_name)
        while True:
            async with self.long.one():
                if not self._world.lock(name).locked():
                    async with self._world.lock(name):
                        request.status = "RUNNING"
                        return await self._provision(request, name)
            request.status = "WAITING"
            await self._unlocked(name)

    async def _unlocked(self, name: str) -> None:
        async with self._world.lock(name):
            return

    async def _provision(self, request: Request, name: str) -> dict[str, Any]:
        script = self._script.launch(name)
        task = _parsed(request.body["task"])
        if script.error is None or script.error_leaves_row:
            await asyncio.sleep(script.row_after)
            self._provisioning(name, task)
        await asyncio.sleep(max(0.0, script.seconds - script.row_after))
        if script.error is not None:
            raise Failure(script.error)
        cluster = self._world.clusters.get(name)
        if cluster is None:
            raise Failure(recorded.error("pods-deleted-while-launching"))
        cluster.status, cluster.unhealthy, cluster.reason, cluster.set_up = "UP", False, None, True
        cluster.up_at = asyncio.get_running_loop().time()
        return {"job_id": self._submit(cluster, task), "handle": recorded.HANDLE}

    def _provisioning(self, name: str, task: dict[str, Any]) -> None:
        cluster = self._world.clusters.setdefault(name, Cluster(name))
        cluster.status, cluster.reason = "INIT", "Launching"
        cluster.launched_at = int(time.time())
        cluster.nodes = int(task.get("num_nodes", 1))
        resources = task.get("resources") or {}
        cluster.labels = dict(resources.get("labels") or {})
        cluster.ports = ports_of(resources)

    def _submit(self, cluster: Cluster, task: dict[str, Any]) -> int | None:
        if not task.get("run"):
            return None
        job = Job(id=len(cluster.jobs) + 1, name=str(task.get("name") or "sky-cmd"))
        cluster.jobs.append(job)
        job.work = asyncio.create_task(self._execute(cluster, job, str(task["run"])))
        return job.id

    async def _execute(self, cluster: Cluster, job: Job, run: str) -> None:
        script = self._script.job(cluster.name)
        job.status = "PENDING"
        await asyncio.sleep(script.pending)
        if script.setup or script.outcome == "FAILED_SETUP":
            job.status = "SETTING_UP"
            await asyncio.sleep(script.setup)
        if script.outcome == "FAILED_SETUP":
            return _ended(job, "FAILED_SETUP", script.log)
        job.status, job.start_at = "RUNNING", time.time()
        marker = fence(run) if self._script.fence else None
        owner = job.id if marker is None else cluster.markers.setdefault(marker, job.id)
        if owner != job.id:
            return _ended(job, "SUCCEEDED" if owner < job.id else "FAILED", "the fence of another job\n")
        job.executed = True
        self._world.executions[job.name] += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(script.seconds):
                await job.finish.wait()
        return _ended(job, script.outcome, script.log)

    async def _down(self, request: Request) -> None:
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        name = str(request.cluster_name)
        request.status = "RUNNING"
        if name not in self._world.clusters:
            raise Failure(recorded.no_cluster_to_down(name))
        for other in list(self._world.requests.values()):
            if other.active and other.cluster_name == name and other.name != "down":
                self.cancel(other)
        async with self._world.forced_lock(name):
            await asyncio.sleep(self._script.down_seconds)
            self._world.remove(name)

    async def _status(self, request: Request) -> list[dict[str, Any]]:
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        wanted = request.body.get("cluster_names")
        rows = [row for row in self._world.clusters.values() if wanted is None or row.name in wanted]
        return [recorded.cluster_row(row) for row in rows]

    async def _queue(self, request: Request) -> list[dict[str, Any]]:
        await asyncio.sleep(SHORT_WORKER_SECONDS + self._script.queue_seconds)
        return [recorded.job_row(job) for job in self._up(request, "getting the job queue").jobs]

    async def _logs(self, request: Request) -> tuple[int, str]:
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        jobs = self._up(request, "tailing logs").jobs
        return recorded.log(jobs, int(request.body["job_id"]), int(request.body.get("tail") or 0))

    async def _cancel(self, request: Request) -> None:
        """Cancel jobs by id; null means the latest one that is running, whosoever it is (sky/skylet/job_lib.py:1097)."""
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        jobs, ids = self._up(request, "cancelling jobs").jobs, request.body["job_ids"]
        running = [job.id for job in jobs if job.status == "RUNNING"]
        wanted = [job.id for job in jobs] if request.body.get("all") else running[-1:] if ids is None else ids
        for job in jobs:
            if job.id in wanted and job.active and job.work is not None:
                job.work.cancel()
                _ended(job, "CANCELLED", "")

    async def _autostop(self, request: Request) -> None:
        """Write down when the cluster ends itself. It never does: nothing here lives for minutes."""
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        self._up(request, "scheduling autodown").autostop = int(request.body["idle_minutes"])

    async def _endpoints(self, request: Request) -> dict[str, str]:
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        name = str(request.cluster_name)
        cluster = self._world.clusters.get(name)
        if cluster is None or cluster.status not in {"UP", "AUTOSTOPPING"}:
            raise Failure(recorded.no_endpoints(name, cluster.status if cluster else None))
        if asyncio.get_running_loop().time() < cluster.up_at + self._script.address_seconds:
            return {}
        return {str(port): f"203.0.113.7:{port}" for port in cluster.ports}

    async def _api_cancel(self, request: Request) -> list[str]:
        await asyncio.sleep(SHORT_WORKER_SECONDS)
        request.status = "RUNNING"
        wanted = [self._world.requests.get(request_id) for request_id in request.body["request_ids"]]
        killed = [found for found in wanted if found is not None and found.active]
        for found in killed:
            self.cancel(found)
        return [found.id for found in killed]

    def _up(self, request: Request, operation: str) -> Cluster:
        """Return the cluster if it is up. Raises Failure as check_cluster_available does (backend_utils.py:3539)."""
        name = str(request.cluster_name)
        cluster = self._world.clusters.get(name)
        if cluster is None:
            raise Failure(recorded.no_cluster(name))
        if cluster.status not in {"UP", "AUTOSTOPPING"}:
            raise Failure(recorded.cluster_not_up(name, cluster.status, operation))
        if not cluster.set_up:
            raise Failure(recorded.never_set_up(name))
        return cluster


class Failure(Exception):  # noqa: N818
    """An exception inside SkyPilot, to be written into its request."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


def _parsed(text: str) -> dict[str, Any]:
    try:
        return task_of(text)
    except (yaml.YAMLError, TypeError) as error:
        raise Failure(Error(type(error).__name__, str(error))) from error


def _ended(job: Job, status: str, log: str) -> None:
    job.status, job.end_at = status, time.time()
    job.log += log
