"""Every state in every world: what the tables of docs/design/states.md are checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, Final

from skyoperator import task
from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.sky.types import ClusterStatus, JobStatus, RequestError, RequestStatus
from skyoperator.world import ABSENT, World

from tests.unit.build import NO_RUN, NOW, RUN, UID, a_cluster, a_request, a_world, an_outage, edited
from tests.unit.states import EVERY_STATE, RETRIES, deleted, going_up, gone, idle, launched, reached, with_job

Change = Callable[[SkyCluster], SkyCluster]

PAUSES: Final = (timedelta(seconds=1), timedelta(hours=3))
NO_CAPACITY: Final = RequestError("ResourcesUnavailableError", "no GPU")


def edited_task(this: SkyCluster) -> SkyCluster:
    """Another task, that is applied without new machines where it is applied at all."""
    return edited(this, task={**NO_RUN, "setup": "echo other"} if _is_plain(this) else {**RUN, "run": "echo other"})


def _is_plain(this: SkyCluster) -> bool:
    return this.spec.task is not None and "run" not in this.spec.task and "runn" not in this.spec.task


CHANGES: Final[dict[str, Change]] = {
    "nothing": lambda this: this,
    "deleted": deleted,
    "abandoned": lambda this: this.model_copy(update={"abandoned": True}),
    "no finalizer": lambda this: this.model_copy(update={"finalizers": ()}),
    "confirmed lost": lambda this: this.model_copy(update={"confirmed_lost_at": NOW + timedelta(days=1)}),
    "suspended": lambda this: edited(this, suspend=True),
    "resumed": lambda this: edited(this, suspend=False),
    "over its deadline": lambda this: edited(this, activeDeadlineSeconds=1),
    "over its time to live": lambda this: edited(this, ttlSecondsAfterFinished=0),
    "edited": edited_task,
    "new machines": lambda this: edited(this, task={**this.spec.model_dump()["task"], "resources": {"infra": "k8s", "cpus": 9}}),
    "misspelt": lambda this: edited(this, task={"runn": "typo"}),
    "not kept": lambda this: edited(this, whenFinished="Down"),
    "retried": lambda this: edited(this, **{**RETRIES, "retryOn": ["JobFailed", "ClusterLost", "NoCapacity"], "backoffLimit": 3}),
    "no secret": lambda this: edited(this, secrets=[]),
}


def _worlds(this: SkyCluster) -> Iterator[World]:
    """What SkyPilot may look like from this state, soon and long after."""
    for pause in PAUSES:
        yield from _at(this, reached(this) + pause)


def _at(this: SkyCluster, now: datetime) -> Iterator[World]:
    number = this.status.launch.attempt if this.status.launch else 1
    request_id, job_name = f"r{number}", task.job_name(UID, number)
    nothing: dict[str, Any] = {"attempt": ABSENT}
    yield an_outage(now)
    yield a_world(now, server="http://another")
    yield a_world(now, **nothing)
    yield a_world(now, may_launch=False, **nothing)
    yield a_world(now, may_launch=False, cluster=a_cluster(), jobs=(), **nothing)
    yield gone(now)
    yield idle(now)
    yield a_world(now, cluster=a_cluster(ClusterStatus.INIT))
    yield going_up(now=now, id_=request_id)
    yield launched(1, now, id_=request_id)
    yield launched(None, now, id_=request_id)
    yield a_world(now, launch=a_request(RequestStatus.FAILED, id_=request_id), outcome=NO_CAPACITY)
    yield a_world(now, launch=ABSENT)
    for status in (JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED):
        yield with_job(status, now, name=job_name)


WORLDS: Final = {name: tuple(_worlds(this)) for name, this in EVERY_STATE.items()}


def situations(*changes: Change) -> Iterator[tuple[str, SkyCluster, World]]:
    """Return every state with these changes on top of it, in each world, under the state's name."""
    for name, this in EVERY_STATE.items():
        changed = reduce(lambda changed, change: change(changed), changes, this)
        for world in WORLDS[name]:
            yield name, changed, world
