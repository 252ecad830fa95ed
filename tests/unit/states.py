"""Every state an object can rest in, reached the way it is reached in life."""

from __future__ import annotations

from datetime import timedelta

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.sky.types import ClusterStatus, JobStatus, Launched, RequestError, RequestStatus

from tests.unit.build import NO_RUN, NOW, RUN, a_cluster, a_job, a_request, a_world, after, an_object, decide, stored


def _unacknowledged() -> SkyCluster:
    this = an_object()
    return this.model_copy(update={"status": stored(decide(this, a_world()).status)})


NEW = an_object()
REJECTED = after(an_object({"runn": "typo"}), a_world())
UNACKNOWLEDGED = _unacknowledged()
LAUNCHING = after(an_object(), a_world())
_LAUNCHED = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))
RUNNING = after(LAUNCHING, _LAUNCHED, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(),)))
READY = after(
    after(an_object(NO_RUN), a_world()), a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None))
)
COMPLETE_STOPPING = after(RUNNING, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(JobStatus.SUCCEEDED),)))
COMPLETE = after(COMPLETE_STOPPING, a_world(empty_seconds=10.0))
FAILED_STOPPING = after(RUNNING, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(JobStatus.FAILED),)))
FAILED = after(FAILED_STOPPING, a_world(empty_seconds=10.0))
LAUNCH_FAILED = after(
    LAUNCHING, a_world(launch=a_request(RequestStatus.FAILED), outcome=RequestError("ResourcesUnavailableError", "no GPU"))
)
KEPT = after(
    after(an_object(RUN, whenFinished="Keep"), a_world()),
    _LAUNCHED,
    a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(JobStatus.SUCCEEDED),)),
)
EDITED = RUNNING.model_copy(update={"spec": an_object({**RUN, "run": "echo other"}).spec, "generation": 2})
INIT = after(LAUNCHING, a_world(cluster=a_cluster(ClusterStatus.INIT), launch=a_request(), active=(a_request(),)))

SETUP_ONLY = after(
    after(an_object({**NO_RUN, "setup": "pip install x"}), a_world()),
    _LAUNCHED,
    a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(JobStatus.SETTING_UP),)),
)

EVERY_STATE = {
    "setup only": SETUP_ONLY,
    "new": NEW,
    "rejected": REJECTED,
    "unacknowledged": UNACKNOWLEDGED,
    "launching": LAUNCHING,
    "init": INIT,
    "running": RUNNING,
    "ready": READY,
    "complete, stopping": COMPLETE_STOPPING,
    "complete": COMPLETE,
    "failed, stopping": FAILED_STOPPING,
    "failed": FAILED,
    "launch failed": LAUNCH_FAILED,
    "kept": KEPT,
    "edited": EDITED,
}
A_MINUTE_LATER = NOW + timedelta(seconds=61)
