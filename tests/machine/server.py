"""One SkyPilot API server and the cluster of one object on it. Whatever may happen next is in `moves`; who draws one makes it happen.

The order of things is SkyPilot's, as in tests/standin/workers.py: a row is UP before there is a job; CANCELLED is written while the
worker goes on for a while; /down of a name without a row cancels nothing; a restart forgets requests and kills workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skyoperator.sky.types import JobStatus, RequestStatus

LAG_SECONDS = 6.0
"""For how long a worker may go on after its request reads CANCELLED."""
QUEUED, WITHOUT_ROW, INIT, UP, SUBMITTED = range(5)

Move = Callable[[], None]


@dataclass
class Work:
    """A request, and how far its worker has come."""

    id: str
    name: str
    now: float
    group: int = 0
    """Launches of one group are duplicates of one POST: the attempt fence stops all but one."""
    job_name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    has_job: bool = False
    targets: tuple[str, ...] = ()
    status: RequestStatus = RequestStatus.PENDING
    error: tuple[str, str] | None = None
    job_id: int | None = None
    stage: int = QUEUED
    is_alive: bool = True
    dies_at: float | None = None

    def end(self, status: RequestStatus, error: tuple[str, str] | None = None) -> None:
        """Write how it ended, also over a CANCELLED."""
        self.status, self.error, self.is_alive = status, error, False


@dataclass
class QueuedJob:
    """A job on the cluster. One that the fence stopped has executed nothing."""

    id: int
    name: str
    group: int
    status: JobStatus = JobStatus.PENDING
    executed: bool = True
    started_at: float | None = None
    finished_at: float | None = None


@dataclass
class Row:
    """The cluster."""

    labels: dict[str, str]
    is_up: bool = False
    is_unhealthy: bool = False
    is_readable: bool = True
    jobs: list[QueuedJob] = field(default_factory=list)


@dataclass
class Server:
    """All there is on one server, and the record of what ran there."""

    identity: str
    executions: dict[str, set[int]]
    """Per job name the POSTs that led to an execution; one record for all servers."""
    ends: dict[str, set[JobStatus]]
    """Per job name how its executions ended."""
    now: float = 0.0
    is_away: bool = False
    works: dict[str, Work] = field(default_factory=dict)
    row: Row | None = None
    count: int = 0

    def take_in(self, name: str, **facts: Any) -> Work:
        """Accept a request."""
        self.count += 1
        work = Work(f"{self.identity}-{self.count}", name, self.now, **facts)
        self.works[work.id] = work
        return work

    def of(self, *names: str) -> list[Work]:
        """Return the requests of these kinds whose worker may still act."""
        return [work for work in self.works.values() if work.is_alive and work.name in names]

    def end(self, job: QueuedJob, status: JobStatus) -> None:
        """Write how a job ended."""
        job.status, job.finished_at = status, self.now
        if job.executed:
            self.ends.setdefault(job.name, set()).add(status)

    def is_empty(self) -> bool:
        """Return whether nothing is left of the cluster, and nothing can make it again."""
        return self.row is None and not self.of("launch")

    def moves(self) -> list[tuple[str, Move]]:
        """Return what the workers and jobs may do next."""
        found: list[tuple[str, Move]] = []
        for work in self.of("launch"):
            found += self._moves_of_launch(work)
        for work in self.of("down"):
            found += self._moves_of_down(work)
        found += [(f"cancel {work.targets}", lambda work=work: self._cancel(work)) for work in self.of("api_cancel")]  # type: ignore[misc]
        return found + self._moves_of_jobs()

    def calm_moves(self) -> list[tuple[str, Move]]:
        """Return those that bring things to a good end."""
        return [(name, move) for name, move in self.moves() if not name.startswith("bad")]

    def pass_time(self, now: float) -> None:
        """Let workers that were signalled die at the latest when their time is over."""
        self.now = now
        for work in self.works.values():
            if work.is_alive and work.dies_at is not None and work.dies_at <= now:
                work.is_alive = False

    def restart(self) -> None:
        """Forget all requests, kill all workers. A row that was INIT turns UP although no job was submitted."""
        self.works.clear()
        if self.row is not None and not self.row.is_unhealthy:
            self.row.is_up = True

    def _moves_of_launch(self, work: Work) -> list[tuple[str, Move]]:
        holder = next((other for other in self.of("launch", "down") if other.stage > QUEUED), None)
        if work.stage == QUEUED and holder is not None:
            return []
        failures = [
            ("bad: no capacity", "ResourcesUnavailableError", False),
            ("bad: no capacity, the row stays", "ResourcesUnavailableError", True),
            ("bad: the user's fault", "ValueError", False),
            ("bad: dropped", "RequestInterruptedError", True),
        ]
        found: list[tuple[str, Move]] = [(f"launch {work.id} goes on from {work.stage}", lambda: self._go_on(work))]
        if work.stage > QUEUED:
            found += [(name, lambda t=type_, s=stays: self._fail(work, t, row_stays=s)) for name, type_, stays in failures]  # type: ignore[misc]
        return found

    def _go_on(self, work: Work) -> None:
        if work.stage in {INIT, UP} and self.row is None:
            return work.end(RequestStatus.FAILED, ("ResourcesUnavailableError", "the pods were deleted"))
        if work.stage == QUEUED and work.status.active:
            work.status = RequestStatus.RUNNING
        if work.stage == WITHOUT_ROW:
            self.row = self.row or Row(work.labels)
            self.row.labels, self.row.is_up, self.row.is_unhealthy = work.labels, False, False
        elif work.stage == INIT and self.row is not None:
            self.row.is_up = True
        elif work.stage == UP and self.row is not None:
            work.job_id = self._submit(work, self.row) if work.has_job else None
        elif work.stage == SUBMITTED:
            return work.end(RequestStatus.SUCCEEDED)
        work.stage += 1
        return None

    def _submit(self, work: Work, row: Row) -> int:
        job = QueuedJob(len(row.jobs) + 1, work.job_name, work.group)
        if any(other.group == work.group for other in row.jobs):
            job.executed = False
            self.end(job, JobStatus.SUCCEEDED)
        else:
            self.executions.setdefault(work.job_name, set()).add(work.group)
        row.jobs.append(job)
        return job.id

    def _fail(self, work: Work, type_: str, *, row_stays: bool) -> None:
        if not row_stays and work.stage < SUBMITTED:
            self.row = None
        work.end(RequestStatus.FAILED, (type_, "as drawn"))

    def _moves_of_down(self, work: Work) -> list[tuple[str, Move]]:
        if work.stage == QUEUED:
            return [("down begins", lambda: self._begin_down(work))]
        return [
            ("down ends", lambda: self._end_down(work)),
            ("bad: down fails", lambda: work.end(RequestStatus.FAILED, ("RuntimeError", "no"))),
        ]

    def _begin_down(self, work: Work) -> None:
        if self.row is None:
            return work.end(RequestStatus.FAILED, ("ClusterDoesNotExist", "no such cluster"))
        work.status, work.stage = RequestStatus.RUNNING, WITHOUT_ROW
        for other in self.of("launch"):
            self._signal(other)
        return None

    def _end_down(self, work: Work) -> None:
        self.row = None
        work.end(RequestStatus.SUCCEEDED)

    def _cancel(self, work: Work) -> None:
        for other in self.of("launch"):
            if other.id in work.targets:
                self._signal(other)
        work.end(RequestStatus.SUCCEEDED)

    def _signal(self, work: Work) -> None:
        """Write CANCELLED; one that is still queued dies at once, any other goes on for a while, without its lock."""
        if not work.status.active:
            return
        work.status, work.error = RequestStatus.CANCELLED, ("RequestCancelled", "cancelled")
        work.is_alive = work.stage > QUEUED
        work.dies_at = self.now + LAG_SECONDS

    def _moves_of_jobs(self) -> list[tuple[str, Move]]:
        jobs = [job for job in (self.row.jobs if self.row is not None else ()) if not job.status.terminal]
        found: list[tuple[str, Move]] = []
        for job in jobs:
            found.append((f"job {job.id} goes on", lambda job=job: self._go_on_with(job)))  # type: ignore[misc]
            bad = (JobStatus.FAILED, JobStatus.FAILED_SETUP)
            found += [(f"bad: job {job.id} {end}", lambda job=job, end=end: self.end(job, end)) for end in bad]  # type: ignore[misc]
        return found

    def _go_on_with(self, job: QueuedJob) -> None:
        if job.status is JobStatus.PENDING:
            job.status, job.started_at = JobStatus.RUNNING, self.now
        else:
            self.end(job, JobStatus.SUCCEEDED)
