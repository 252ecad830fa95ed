"""Which job of a queue is ours."""

from __future__ import annotations

from skyoperator.sky.types import Job


def own_job(jobs: tuple[Job, ...], name: str) -> Job | None:
    """Return our job: the lowest id of that name, since a duplicate that slipped through stops at the attempt fence."""
    return min((job for job in jobs if job.name == name), key=lambda job: job.id, default=None)
