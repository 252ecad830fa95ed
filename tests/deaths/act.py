"""What a test of a death does: start jobs, wait until they are at work, let something die, and say what became of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from skyoperator.task.names import cluster_name

from tests.deaths.table import Ending, Row
from tests.e2e.airflow import ENDED, Run
from tests.e2e.airflow_processes import Processes
from tests.e2e.seen import run_of
from tests.e2e.support import KubectlError, eventually, kubectl
from tests.integration.stage import Stage

LOOK_SECONDS = 0.5
WAIT_SECONDS = 120
OWNER_TRY = "airflow.skyoperator.dev/owner-try"

Body = dict[str, Any]


@dataclass
class Act:
    """Everything that takes part, and every object that was ever seen."""

    stage: Stage
    processes: Processes
    table: list[Row]
    there: dict[str, Body] = field(default_factory=dict)
    """The objects as they are now."""
    last: dict[str, Body] = field(default_factory=dict)
    """What was last seen of each object, by its cluster."""
    missed_at: dict[str, datetime] = field(default_factory=dict)
    """Since when each that is gone was not seen any more: one whose cluster is down already may go between two looks."""

    async def look(self) -> None:
        """Look at the objects until it is cancelled."""
        while True:
            # What can't be seen now is looked for again: an act waits for it, and says so in the end.
            with suppress(KubectlError, subprocess.TimeoutExpired):
                found = await asyncio.to_thread(kubectl, "get", "skyc", "-n", self.stage.namespace, "-o", "json")
                self.there = {body["metadata"]["name"]: body for body in json.loads(found)["items"]}
                seen = {cluster_name(name, body["metadata"]["uid"]): body for name, body in self.there.items()}
                self.missed_at |= {cluster: datetime.now(UTC) for cluster in self.last.keys() - seen.keys() - self.missed_at.keys()}
                self.last |= seen
            await asyncio.sleep(LOOK_SECONDS)

    async def start(self, dag_id: str) -> Job:
        """Start a run of a DAG."""
        run = await asyncio.to_thread(self.processes.airflow.run, dag_id, {"namespace": self.stage.namespace})
        return Job(self, run, dag_id.rpartition("_")[2])

    async def start_all(self, *dag_ids: str) -> list[Job]:
        """Start a run of each, and wait until their jobs are at work."""
        jobs = [await self.start(dag_id) for dag_id in dag_ids]
        await asyncio.gather(*(job.at_work() for job in jobs))
        return jobs


@dataclass
class Job:
    """One run of a DAG of one task, and its objects."""

    act: Act
    run: Run
    where: str

    def objects(self) -> list[Body]:
        return [body for body in self.act.there.values() if run_of(body) == self.run.run_id]

    def is_at_work(self) -> bool:
        statuses = [body.get("status", {}).get("job", {}).get("status") for body in self.objects()]
        return statuses == ["RUNNING"] and self.task_state() == self.where

    async def at_work(self) -> None:
        """Wait until the job runs, and the task waits where it is to wait."""
        await self.until("it is at work", self.is_at_work)

    async def until(self, what: str, probe: Callable[[], Any]) -> None:
        """Wait until the probe says so; fail with what has become of the task."""
        try:
            await asyncio.to_thread(eventually, f"{self.run.dag_id}: {what}", lambda: tried(probe), seconds=WAIT_SECONDS)
        except AssertionError as error:
            task = await asyncio.to_thread(tried, lambda: self.run.task("train"))
            told = {key: (task or {}).get(key) for key in ("state", "try_number", "max_tries")}
            names = [body["metadata"]["name"] for body in self.objects()]
            raise AssertionError(f"{error}; the task is {told}, its objects are {names}") from None

    def task_state(self) -> str:
        return str(self.run.task("train")["state"])

    async def owned_by(self, owner_try: int) -> None:
        """Wait until a try has taken the object over."""

        def is_owned() -> bool:
            return [body["metadata"]["annotations"].get(OWNER_TRY) for body in self.objects()] == [str(owner_try)]

        await self.until(f"try {owner_try} has the object", is_owned)

    async def anew(self, old_uid: str) -> None:
        """Wait until another object's job is at work."""

        def is_anew() -> bool:
            return self.is_at_work() and self.objects()[0]["metadata"]["uid"] != old_uid

        await self.until("another one is at work", is_anew)

    async def reaches(self, state: str) -> None:
        await self.until(f"the task is {state}", lambda: self.task_state() == state)

    async def mark(self, state: str) -> None:
        await self.until(f"it is marked {state}", lambda: self.run.mark("train", state))

    async def clear(self) -> None:
        await self.until("it is cleared", lambda: self.run.clear("train"))

    def finish(self) -> None:
        """Let the job come to its good end."""
        for body in self.objects():
            self.act.stage.skypilot.finish(body["status"]["cluster"]["name"])

    async def completes(self) -> None:
        """Wait until its object says that the job has come to its good end."""
        await self.until("its object is complete", lambda: [_has_completed(body) for body in self.objects()] == [True])

    async def ended(self) -> None:
        await self.until("the run has ended", lambda: self.run.state() in ENDED)

    async def vanished(self) -> None:
        """Wait until nothing of its objects is left, in Kubernetes or in SkyPilot."""
        await self.until("nothing is left", lambda: not (self.objects() or self._is_up()))

    def _clusters(self) -> list[str]:
        return [cluster for cluster, body in self.act.last.items() if run_of(body) == self.run.run_id]

    def _is_up(self) -> bool:
        return not self.act.stage.skypilot.state()["clusters"].keys().isdisjoint(self._clusters())

    async def comes_to(self, death: str, expected: Ending) -> None:
        """Wait for the end, and hold it to this; it becomes a row of the table."""
        await self.ended()
        await self.vanished()
        task, state = await asyncio.to_thread(self.run.task, "train"), await asyncio.to_thread(self.run.state)
        skypilot = self.act.stage.skypilot.state()
        launches = Counter(launch["cluster"] for launch in skypilot["launches"])
        counted = " + ".join(str(launches[cluster]) for cluster in self._clusters())
        fates = dict.fromkeys(fate(self.act.last[cluster], self.act.missed_at[cluster]) for cluster in self._clusters())
        came = Ending(task["state"], state, task["try_number"], counted, "; then ".join(fates))
        assert came == expected, f"it came to {came}"
        assert set(skypilot["executions"].values()) == {1}, "a job ran twice"
        self.act.table.append(Row(death, self.where, came))


def _has_completed(body: Body) -> bool:
    return any(found["type"] == "Complete" and found["status"] == "True" for found in body.get("status", {}).get("conditions", []))


def fate(body: Body, missed_at: datetime) -> str:
    """How an object went, by what was last seen of it, and since when it was not."""
    status, leaving_since = body.get("status", {}), body["metadata"].get("deletionTimestamp")
    left_at = missed_at if leaving_since is None else _time(leaving_since)
    failed = next((found for found in status.get("conditions", []) if found["type"] == "Failed"), {"reason": ""})
    ended = "ended by its deadline, " if failed["reason"] == "DeadlineExceeded" else ""
    done, ttl_seconds = status.get("completionTime"), body["spec"]["ttlSecondsAfterFinished"]
    # Kubernetes' times have no fractions.
    is_outlived = done is not None and (left_at - _time(done)).total_seconds() >= ttl_seconds - 1
    return ended + ("gone after its time to live" if is_outlived else "deleted")


def tried(probe: Callable[[], Any]) -> Any:
    """What the probe says; None while Airflow does not answer, or fails: its SQLite can be locked."""
    with suppress(OSError):
        return probe()
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
