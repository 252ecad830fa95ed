"""Whatever dies: the task's state is true, its object goes, its cluster goes, and its job was launched once.

Each test is an act: one thing dies or is done, and whatever jobs were at work then come to their ends.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from signal import SIGKILL

import pytest

from tests.deaths.act import Act, Job
from tests.deaths.table import Ending
from tests.e2e.airflow_processes import NAMES

GREEN = Ending("success", "success")
RED = Ending("failed", "failed")
LEFT = replace(RED, object="ended by its deadline, gone after its time to live")
OUTLIVED = replace(RED, object="gone after its time to live")
AGAIN = replace(GREEN, tries=2)
ANEW = replace(GREEN, tries=2, launches="1 + 1")


async def finish(jobs: list[Job], death: str, expected: Ending) -> None:
    for job in jobs:
        job.finish()
        await job.comes_to(death, expected)


# What a user does


@pytest.mark.parametrize("state", ["failed", "success"])
async def test_marked(act: Act, state: str) -> None:
    jobs = await act.start_all("plain_running", "plain_deferred")
    for job in jobs:
        await job.mark(state)
    for job in jobs:
        await job.comes_to(f"marked {state}", Ending(state, state))


async def test_cleared(act: Act) -> None:
    """The next try may begin before the one that is cleared has ended."""
    jobs = await act.start_all("plain_running", "plain_deferred")
    first = [job.objects()[0]["metadata"]["uid"] for job in jobs]
    for job in jobs:
        await job.clear()
    for job, uid in zip(jobs, first, strict=True):
        await job.anew(uid)
    await finish(jobs, "cleared", ANEW)


async def test_out_of_time(act: Act) -> None:
    jobs = await act.start_all("timed_running", "timed_deferred")
    for job in jobs:
        await job.comes_to("out of time (`execution_timeout`)", RED)


# What becomes of the triggerer


async def test_triggerer_is_killed(act: Act) -> None:
    jobs = await act.start_all("plain_deferred")
    act.processes.parts["triggerer"].die()
    await asyncio.to_thread(act.processes.restart, "triggerer")
    await finish(jobs, "triggerer killed, and started again", GREEN)


async def test_triggerer_is_rolled(act: Act) -> None:
    """SIGTERM, as in an update of Airflow: its triggers are cancelled, as they are when a task is killed."""
    jobs = await act.start_all("plain_deferred")
    await asyncio.to_thread(act.processes.parts["triggerer"].end)
    await asyncio.to_thread(act.processes.restart, "triggerer")
    await finish(jobs, "triggerer ended by SIGTERM, and started again", GREEN)


async def test_nobody_hears_the_kill(act: Act) -> None:
    """With the triggerer down, nothing of Airflow runs that could delete the object."""
    jobs = await act.start_all("brief_deferred")
    act.processes.parts["triggerer"].die()
    for job in jobs:
        await job.mark("failed")
        await job.comes_to("triggerer down, marked failed", LEFT)
    await asyncio.to_thread(act.processes.restart, "triggerer")


async def test_nobody_sees_the_time_out(act: Act) -> None:
    """Airflow's scheduler then resumes the task only to fail it, a minute after its trigger would have."""
    jobs = await act.start_all("timed_deferred")
    act.processes.parts["triggerer"].die()
    for job in jobs:
        await job.comes_to("triggerer down, out of time", RED)
    await asyncio.to_thread(act.processes.restart, "triggerer")


# What becomes of the scheduler and its workers


async def test_scheduler_and_workers_are_killed(act: Act) -> None:
    jobs = await act.start_all("retried_running", "retried_deferred")
    act.processes.parts["scheduler"].die()
    await asyncio.to_thread(act.processes.restart, "scheduler")
    running, deferred = jobs
    await running.owned_by(2)
    await finish([running], "scheduler killed with its workers, and started again", AGAIN)
    await finish([deferred], "scheduler killed with its workers, and started again", GREEN)


async def test_job_ends_while_no_worker_runs(act: Act) -> None:
    """The next try takes what the job has come to, and runs nothing again."""
    death = "scheduler and its workers down while the job ends"
    jobs = await act.start_all("retried_running", "retried_deferred")
    act.processes.parts["scheduler"].die()
    for job in jobs:
        job.finish()
        await job.completes()
    await asyncio.to_thread(act.processes.restart, "scheduler")
    running, deferred = jobs
    await running.comes_to(death, AGAIN)
    await deferred.comes_to(death, GREEN)


@pytest.mark.parametrize(("who", "with_supervisor"), [("worker", True), ("task's process", False)])
async def test_worker_is_killed(act: Act, who: str, with_supervisor: bool) -> None:
    """With the process that looks after it, whose missing heartbeat tells Airflow; or alone, as the kernel does when memory is short."""
    jobs = await act.start_all("retried_running")
    for job in jobs:
        act.processes.kill_worker(job.run.task("train")["id"], with_supervisor=with_supervisor)
        await job.owned_by(2)
    await finish(jobs, f"{who} killed, `retries` left", AGAIN)


async def test_worker_is_killed_and_nobody_tries_again(act: Act) -> None:
    jobs = await act.start_all("brief_running")
    for job in jobs:
        act.processes.kill_worker(job.run.task("train")["id"], with_supervisor=True)
        await job.comes_to("worker killed, no `retries` left", LEFT)


async def test_marked_when_no_worker_has_it(act: Act) -> None:
    """The trigger has seen the end, and no worker goes on yet: nobody of Airflow's is there to delete anything."""
    jobs = await act.start_all("brief_deferred")
    for job in jobs:
        with act.processes.parts["scheduler"].paused():
            job.finish()
            await job.reaches("scheduled")
            await job.mark("failed")
        await job.comes_to("marked failed after the trigger's event, before a worker goes on", OUTLIVED)


# What becomes of the others


async def test_api_server_is_killed(act: Act) -> None:
    jobs = await act.start_all("retried_running", "retried_deferred")
    act.processes.parts["api-server"].die()
    await asyncio.to_thread(act.processes.restart, "api-server")
    await finish(jobs, "API server killed, and started again", GREEN)


async def test_dag_processor_is_killed(act: Act) -> None:
    jobs = await act.start_all("plain_running", "plain_deferred")
    act.processes.parts["dag-processor"].die()
    await finish(jobs, "DAG processor killed", GREEN)
    await asyncio.to_thread(act.processes.restart, "dag-processor")


async def test_all_of_airflow_dies(act: Act) -> None:
    """A scheduler that starts sends a task whose worker is gone again, `retries` or not (adopt_or_reset_orphaned_tasks)."""
    death = "all of Airflow killed; started again when the object is gone"
    jobs = await act.start_all("brief_running", "brief_deferred")
    for part in act.processes.parts.values():
        part.die()
    for job in jobs:
        await job.vanished()
    await asyncio.to_thread(act.processes.restart, *NAMES)
    running, deferred = jobs
    await running.at_work()
    await finish([running], death, replace(ANEW, object=f"{LEFT.object}; then deleted"))
    await deferred.comes_to(death, LEFT)


async def test_controller_is_killed(act: Act) -> None:
    jobs = await act.start_all("plain_running", "plain_deferred")
    await act.stage.process.end(SIGKILL)
    for job in jobs:
        job.finish()
    act.stage.process = await act.stage.controllers.start("second")
    await finish(jobs, "controller killed, and started again", GREEN)


async def test_marked_while_no_controller_runs(act: Act) -> None:
    """The object is deleted, and goes when a controller has taken its cluster down."""
    jobs = await act.start_all("plain_running", "plain_deferred")
    await act.stage.process.end(SIGKILL)
    for job in jobs:
        await job.mark("failed")
        await job.ended()
    act.stage.process = await act.stage.controllers.start("second")
    for job in jobs:
        await job.comes_to("controller down, marked failed", RED)
