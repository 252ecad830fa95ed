"""Which job of a queue is ours."""

from __future__ import annotations

from skyoperator.sky.types import Job


def called(job_id: int | None) -> str:
    """Return what to call a job in a sentence: SkyPilot may not have told its number."""
    return "the job" if job_id is None else f"job {job_id}"


def own_job(jobs: tuple[Job, ...], name: str) -> Job | None:
    """Return our job: the lowest id of that name, since a duplicate that slipped through stops at the attempt fence."""
    return min((job for job in jobs if job.name == name), key=lambda job: job.id, default=None)
