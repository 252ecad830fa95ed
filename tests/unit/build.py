"""Objects and worlds for tests, each in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from skyoperator import records, task
from skyoperator.api.v1alpha1 import FINALIZER, Reason, SkyCluster, SkyClusterSpec, SkyClusterStatus
from skyoperator.conditions import find
from skyoperator.decide import decide as decide_with
from skyoperator.decision import Decision, Launch, SetAutostop
from skyoperator.inputs import Fault, Inputs, Order, inline
from skyoperator.judge import judge
from skyoperator.sky.types import UID_LABEL, Cluster, ClusterStatus, Job, JobStatus, Request, RequestStatus
from skyoperator.summary import summarized
from skyoperator.world import ABSENT, World

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
UID = "0123abcd-0000-4000-8000-000000000000"
JOB = task.job_name(UID, 1)
RUN = {"resources": {"infra": "k8s"}, "run": "echo hi"}
NO_RUN = {"resources": {"infra": "k8s"}}


def an_object(
    task_: dict[str, Any] | None = None,
    *,
    status: SkyClusterStatus | None = None,
    deleting: bool = False,
    finalizers: tuple[str, ...] = (FINALIZER,),
    generation: int = 1,
    **spec: Any,
) -> SkyCluster:
    """An object with this task, and no retries unless it asks for them."""
    return SkyCluster(
        name="train",
        namespace="ml",
        uid=UID,
        generation=generation,
        resource_version="1",
        finalizers=finalizers,
        deleted_at=NOW if deleting else None,
        spec=SkyClusterSpec.model_validate({"task": RUN if task_ is None else task_, "backoffLimit": 0, **spec}),
        status=status or SkyClusterStatus(),
    )


NAME = task.cluster_name("train", UID)
POLICY = task.Policy()


MISSING = "missing"
"""The one Secret that is not there."""


def inputs_of(this: SkyCluster) -> Inputs:
    """What is read of an object whose task stands in its spec, and whose Secrets are all there, but for MISSING."""
    if any(secret.secret_key_ref.name == MISSING for secret in this.spec.secrets):
        return Inputs(POLICY, fault=Fault(Reason.SECRET_NOT_FOUND, f"there is no Secret {MISSING}"))
    return inline(this, POLICY)


def decide(this: SkyCluster, world: World, inputs: Inputs | None = None) -> Decision:
    """What decide says of an object, with the inputs that are read of it."""
    return decide_with(this, world, inputs or inputs_of(this))


def a_cluster(status: ClusterStatus = ClusterStatus.UP, *, uid: str = UID) -> Cluster:
    return Cluster(NAME, status, infra="Kubernetes", resources="1x(cpus=1)", nodes=1, launched_at=LONG_AGO, labels={UID_LABEL: uid})


def a_request(status: RequestStatus = RequestStatus.RUNNING, *, id_: str = "r1", name: str = "launch") -> Request:
    return Request(id_, name, status, NAME, None)


def a_job(status: JobStatus = JobStatus.RUNNING, *, id_: int = 1, name: str = JOB) -> Job:
    return Job(id_, name, status)


def a_world(now: datetime = NOW, **seen: Any) -> World:
    """A server that answers and has nothing of ours, but for what is said."""
    return World(**{"now": now, "server": "http://sky", "reachable_since": LONG_AGO, "cluster": ABSENT, "active": (), **seen})


def an_outage(now: datetime = NOW) -> World:
    return World(now=now, server="http://sky", complaint="connection refused")


def after(this: SkyCluster, *worlds: World) -> SkyCluster:
    """The object once each of the worlds was decided upon, the decision's status stored, and what its action wrote as well.

    What is launched is acknowledged: as r1, the second attempt as r2.
    """
    for world in worlds:
        decision = decide(this, world)
        this = with_status(this, decision.status)
        if isinstance(decision.action, Launch) and this.status.launch is not None:
            status = records.acknowledged(this.status, this.status.launch, f"r{this.status.launch.attempt}", world.now)
            order = Order(inputs_of(this), judge(this, world, inputs_of(this)))
            this = with_status(this, summarized(this, status, world, order))
        if isinstance(decision.action, SetAutostop):
            this = with_status(this, records.backstopped(this.status, decision.action.idle_minutes))
    return this


def with_status(this: SkyCluster, status: SkyClusterStatus) -> SkyCluster:
    return this.model_copy(update={"status": stored(status)})


def edited(this: SkyCluster, **spec: Any) -> SkyCluster:
    """The object once a user has changed these fields of its spec, named as in YAML."""
    before = this.spec.model_dump(by_alias=True, exclude_none=True)
    return this.model_copy(update={"spec": SkyClusterSpec.model_validate({**before, **spec}), "generation": this.generation + 1})


def stored(status: SkyClusterStatus) -> SkyClusterStatus:
    """The status as it comes back from the Kubernetes API."""
    return SkyClusterStatus.model_validate(status.as_json())


def condition(status: SkyClusterStatus, type_: Any) -> tuple[str, str]:
    found = find(status.conditions, type_)
    assert found is not None, type_
    return found.status.value, found.reason


def is_silent(this: SkyCluster, decision: Decision) -> bool:
    return decision.action is None and decision.status.as_json() == this.status.as_json()
