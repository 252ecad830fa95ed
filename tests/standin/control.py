"""The hand on the stand-in: what happens to the server itself, and to clusters behind its back.

Tests in the same process call `Control`; a test of a controller process drives it over HTTP under /_control.
"""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Any

from tests.standin.script import Error, Fault, Job, Launch, Script
from tests.standin.users import Users
from tests.standin.workers import Workers
from tests.standin.world import World


class Control:
    """One stand-in server."""

    def __init__(self, *, long_workers: int = 4) -> None:
        self.world = World()
        self.script = Script()
        self.workers = Workers(self.world, self.script, long_workers=long_workers)
        self.unreachable = False
        self.users = Users()

    def launches(self, match: str = "*", *, error: dict[str, str] | None = None, **launch: Any) -> None:
        """From now on launches of clusters of this name pattern go so; see script.Launch."""
        self.script.launches.append((match, Launch(error=Error(**error) if error else None, **launch)))

    def jobs(self, match: str = "*", **job: Any) -> None:
        """From now on jobs on clusters of this name pattern go so; see script.Job."""
        self.script.jobs.append((match, Job(**job)))

    def fault(self, op: str, kind: Any, **fault: Any) -> None:
        """Strike the next POST of this operation; see script.Fault."""
        self.script.faults.append(Fault(op, kind, **fault))

    def set(self, *, long_workers: int | None = None, unreachable: bool | None = None, fence: bool | None = None, **seconds: float) -> None:
        """Set the number of long workers, whether the server drops every connection, whether fences work, and the script's *_seconds."""
        if long_workers is not None:
            self.workers.long.resize(long_workers)
        if unreachable is not None:
            self.unreachable = unreachable
        if fence is not None:
            self.script.fence = fence
        for name, value in seconds.items():
            if name not in {"down_seconds", "queue_seconds", "address_seconds", "cancel_lag_seconds"}:
                raise ValueError(f"The script has no {name}.")
            setattr(self.script, name, value)

    def require(self, *, token: str = "", username: str = "", password: str = "") -> None:
        """Ask for these credentials from now on; for none if all are empty. See users.Users."""
        self.users.require(token=token, username=username, password=password)

    async def restart(self, *, down_seconds: float = 0.0) -> None:
        """Kill and start the server: requests are forgotten, workers die, clusters and their jobs live on.

        A row that was INIT turns UP although no job was submitted: the status daemon finds its nodes healthy.
        """
        self.unreachable = True
        self._forget_requests()
        await asyncio.sleep(down_seconds)
        for cluster in self.world.clusters.values():
            if cluster.status == "INIT" and not cluster.unhealthy:
                cluster.status = "UP"
        self.unreachable = False

    def wipe(self) -> None:
        """Lose the database: no cluster, request or token is known any more, but the user of the server's environment is made again.

        What runs on the clusters runs on.
        """
        self._forget_requests()
        self.world.forgotten += self.world.clusters.values()
        self.world.clusters.clear()
        self.users = self.users.of_a_new_database()

    def finish(self, match: str = "*") -> None:
        """Let what runs on clusters of this name pattern come to its end now."""
        for cluster in self.world.clusters.values():
            if fnmatchcase(cluster.name, match):
                for job in cluster.jobs:
                    job.finish.set()

    def delete_pods(self, cluster_name: str) -> None:
        """Delete a cluster's pods behind SkyPilot's back: its row vanishes at the next refresh, here at once."""
        self.world.remove(cluster_name)

    def break_cluster(self, cluster_name: str, reason: str = "Cluster is abnormal: 1 of 2 nodes are not running.") -> None:
        """Let SkyPilot find a cluster unhealthy: its row turns INIT, its queue can't be read."""
        cluster = self.world.clusters[cluster_name]
        cluster.status, cluster.unhealthy, cluster.reason = "INIT", True, reason

    def state(self) -> dict[str, Any]:
        """Return all that happened, as JSON."""
        world = self.world
        return {
            "launches": [
                {"at": p.at, "cluster": p.cluster_name, "job": p.job_name, "request": p.request_id, "task": p.task} for p in world.launches
            ],
            "executions": dict(world.executions),
            "calls": dict(world.calls),
            "clusters": {row.name: row.status for row in world.clusters.values()},
            "forgotten": [row.name for row in world.forgotten],
            "users": list(self.users.imported),
            "jobs": {row.name: [{"name": job.name, "status": job.status} for job in row.jobs] for row in world.clusters.values()},
            "active": [{"name": r.name, "cluster": r.cluster_name} for r in world.requests.values() if r.active],
        }

    def close(self) -> None:
        """Stop every worker and every job."""
        self._forget_requests()
        for name in list(self.world.clusters):
            self.world.remove(name)
        for cluster in self.world.forgotten:
            cluster.cancel()

    def _forget_requests(self) -> None:
        forgotten = list(self.world.requests.values())
        self.world.requests.clear()
        for request in forgotten:
            if request.worker is not None:
                request.worker.cancel()
            request.done.set()
