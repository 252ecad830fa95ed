"""SkyCluster, skyoperator.dev/v1alpha1.

Every docstring under a field is what `kubectl explain` shows. `crd.py` turns these types into crds/*.yaml; a field is here only
if the controller honours it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP: Final = "skyoperator.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "SkyCluster"
PLURAL: Final = "skyclusters"
FINALIZER: Final = f"{GROUP}/teardown"

ABANDON: Final = f"{GROUP}/abandon"
"""Annotation, "true": nothing is asked of SkyPilot about this object any more, and nothing holds it. For a server that is gone for good."""
CONFIRM_LOST: Final = f"{GROUP}/confirm-lost"
"""Annotation, an RFC 3339 time: somebody has made sure that what this object's cluster was at that time is no more."""

TERMINATED: Final = "TERMINATED"
"""`status.cluster.status` of a cluster that was confirmed gone; the word SkyPilot's own cost report uses."""

ENDPOINT_LIMIT: Final = 128
"""How many endpoints a status shows: a range may name all ports there are, and a status with so many in it could not be stored."""

CONDITION_MESSAGE_LIMIT: Final = 32768
"""metav1.Condition's limit on `message`, in characters."""


def _rfc3339(moment: datetime) -> str:
    """Return the moment as metav1.Time writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str | None) -> datetime | None:
    """Return the time that the text names; None for anything else, since an annotation may hold anything."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


Time: TypeAlias = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})]


class Reason(StrEnum):
    """Why a condition is as it is. Closed: scripts and Airflow match on these words."""

    # Accepted
    TASK_ACCEPTED = "TaskAccepted"
    INVALID_TASK = "InvalidTask"
    POLICY_DENIED = "PolicyDenied"
    IMMUTABLE_TASK = "ImmutableTask"
    NAME_CONFLICT = "NameConflict"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no secret
    # on the way
    PENDING = "Pending"
    QUEUED = "Queued"
    LAUNCHING = "Launching"
    RUNNING = "Running"
    CLUSTER_UP = "ClusterUp"
    CLUSTER_NOT_UP = "ClusterNotUp"
    CLUSTER_ABSENT = "ClusterAbsent"
    DOWN_FAILED = "DownFailed"
    STOPPING = "Stopping"
    DELETING = "Deleting"
    SETTLED = "Settled"
    NOT_FINISHED = "NotFinished"
    SKYPILOT_UNREACHABLE = "SkyPilotUnreachable"
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    ABANDONED = "Abandoned"
    # the end
    JOB_SUCCEEDED = "JobSucceeded"
    JOB_FAILED = "JobFailed"
    JOB_CANCELLED = "JobCancelled"
    SETUP_FAILED = "SetupFailed"
    NO_CAPACITY = "NoCapacity"
    QUOTA_EXCEEDED = "QuotaExceeded"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    AUTH_FAILED = "AuthFailed"
    CLUSTER_LOST = "ClusterLost"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    SKYPILOT_ERROR = "SkyPilotError"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    AUTOSTOPPED = "Autostopped"


class RetryReason(StrEnum):
    """The failures that may be worth another launch. What a user got wrong is not among them, nor what may have come to a good end."""

    NO_CAPACITY = Reason.NO_CAPACITY.value
    QUOTA_EXCEEDED = Reason.QUOTA_EXCEEDED.value
    IMAGE_PULL_FAILED = Reason.IMAGE_PULL_FAILED.value
    AUTH_FAILED = Reason.AUTH_FAILED.value
    CLUSTER_LOST = Reason.CLUSTER_LOST.value
    SKYPILOT_ERROR = Reason.SKYPILOT_ERROR.value
    SETUP_FAILED = Reason.SETUP_FAILED.value
    JOB_FAILED = Reason.JOB_FAILED.value


class Phase(StrEnum):
    """One word for `kubectl get`; derived from the conditions and never read back."""

    PENDING = "Pending"
    QUEUED = "Queued"
    LAUNCHING = "Launching"
    RUNNING = "Running"
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    STOPPING = "Stopping"
    DELETING = "Deleting"


class ConditionType(StrEnum):
    """The conditions of a SkyCluster; all of them are there from the first status write on."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ACCEPTED = "Accepted"
    CLUSTER_READY = "ClusterReady"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class ConditionStatus(StrEnum):
    """metav1.ConditionStatus."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        frozen=True,
        extra="ignore",
    )


class TaskRef(_Model):
    """A task kept in a ConfigMap."""

    name: str = Field(min_length=1, max_length=253)
    """The ConfigMap, in this object's namespace."""
    key: str = Field(default="task.yaml", min_length=1, max_length=253)
    """The key whose value is the task's YAML."""


class SecretKeyRef(_Model):
    """One value of a Secret."""

    name: str = Field(min_length=1, max_length=253)
    """The Secret, in this object's namespace."""
    key: str = Field(min_length=1, max_length=253)
    """The key of the value."""


class SecretVariable(_Model):
    """An environment variable whose value comes from a Secret."""

    name: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The variable, as setup and run see it."""
    secret_key_ref: SecretKeyRef
    """Where its value is; read when the cluster is launched."""


class Autostop(_Model):
    """When an idle cluster ends."""

    idle_minutes: int = Field(ge=1, le=525600)
    """For how long no job has run on the cluster. Only jobs count: a shell on the cluster keeps nothing alive."""


class SkyClusterSpec(_Model):
    """What to launch, and what becomes of it afterwards."""

    task: dict[str, Any] | None = Field(
        default=None,
        json_schema_extra={
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "name": {"type": "string", "maxLength": 253, "description": "A name for people; shown as status.job.displayName."},
                "run": {"type": "string", "maxLength": 98304, "description": "The job. Without it the cluster is just brought up."},
                "setup": {"type": "string", "maxLength": 98304, "description": "Commands to prepare each node, run before the job."},
                "num_nodes": {"type": "integer", "minimum": 1, "maximum": 10000, "description": "How many nodes; 1 if unset."},
            },
        },
    )
    """A SkyPilot task, as in the task.yaml of `sky launch`. Which keys are taken, and why some are refused, is in docs/task.md.
    With run it can't be changed once it was handed to SkyPilot, unless the object is suspended. Without run, a change of resources or
    num_nodes brings up a new cluster, and any other change is applied to the one that is up."""

    task_ref: TaskRef | None = None
    """The task's YAML in a ConfigMap, instead of task. It is read when the cluster is launched; later changes of the ConfigMap do
    nothing."""

    secrets: list[SecretVariable] = Field(
        default_factory=list,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Environment variables for setup and run whose values come from Secrets, read when the cluster is launched."""

    when_finished: Literal["Down", "Keep"] | None = None
    """What happens to the cluster when its job has ended: Down takes it down, Keep leaves it up until autostop or until this object
    is deleted. Unset means Down."""

    autostop: Autostop | None = None
    """Takes the cluster down once it is idle. Unset, it is the installer's policy.defaultAutostopMinutes for a cluster without
    task.run, and never for one that is kept after its job."""

    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """How many times to launch again after failures that retryOn names."""

    retry_on: list[RetryReason] = Field(
        default_factory=lambda: [RetryReason.NO_CAPACITY, RetryReason.CLUSTER_LOST, RetryReason.SKYPILOT_ERROR],
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "default": [RetryReason.NO_CAPACITY.value, RetryReason.CLUSTER_LOST.value, RetryReason.SKYPILOT_ERROR.value],
        },
    )
    """Which failures are launched again, on a new cluster and with a pause that doubles each time. Add JobFailed to rerun a job that
    fails."""

    pre_running_deadline_seconds: int | None = Field(default=None, ge=1)
    """How long a launch may take, from when SkyPilot took it until the job runs or, without run, the cluster is ready. Then the object
    fails for good."""

    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """How long all launches together may take, from when SkyPilot took the first one. Then the job is cancelled and the object fails for
    good; without run the cluster ends."""

    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Deletes this object so long after it is Complete or Failed, and with it its cluster. Unset keeps it. Not for objects that a GitOps
    tool applies: it would make them again."""

    suspend: bool = False
    """True takes the cluster down and keeps the object; false again launches anew. A finished object is not affected."""

    deletion_policy: Literal["Down", "Orphan"] = "Down"
    """What happens to the cluster when this object is deleted: Down takes it down and waits until it is confirmed gone,
    Orphan leaves it running in SkyPilot, without an owner."""


class Condition(_Model):
    """metav1.Condition."""

    type: str = Field(max_length=316)
    """Ready, Reconciling, Stalled, Accepted, ClusterReady, Complete, Failed or Suspended."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the spec that this condition speaks of."""
    last_transition_time: Time
    """When status last changed."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """One word for programs."""
    message: str = Field(max_length=CONDITION_MESSAGE_LIMIT)
    """A sentence for people."""


class Endpoint(_Model):
    """Where one open port is reached."""

    port: str
    """The port on the cluster's head node."""
    url: str
    """Where it is reached, in SkyPilot's words: host:port, or an http URL where an ingress leads there."""


class ClusterRecord(_Model):
    """SkyPilot's cluster."""

    name: str
    """Its name in SkyPilot (`sky status`), derived from this object's name and uid."""
    server: str | None = None
    """The SkyPilot API server that has it: a name for its database, whatever its address."""
    status: str | None = None
    """SkyPilot's word: INIT, UP, STOPPED, AUTOSTOPPING; TERMINATED once it was confirmed gone."""
    infra: str | None = None
    """Where it runs."""
    resources: str | None = None
    """What it runs on, in SkyPilot's words."""
    nodes: int | None = None
    """How many nodes it has."""
    launched_at: Time | None = None
    """When SkyPilot launched it."""
    endpoints: list[Endpoint] | None = Field(
        default=None,
        max_length=ENDPOINT_LIMIT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"]},
    )
    """Where the ports of task.resources.ports are reached while the cluster is UP; at most the first 128. A load balancer may get its
    address minutes after that."""
    up_at: Time | None = None
    """When it was first seen up."""
    unhealthy_since: Time | None = None
    """Since when SkyPilot has found it broken: a node gone, or its runtime dead; or has left it half launched, nobody at work on it."""
    idle_since: Time | None = None
    """Since when no job has run on it; kept while autostop waits for it to be idle long enough. None runs on one that is stopped."""


class LaunchRecord(_Model):
    """The write-ahead record of a launch: stored before SkyPilot is asked, so that no crash can make it ask twice."""

    attempt: int = Field(ge=1)
    """The number of the launch; it only ever grows, so that no two launches of an object share a name."""
    task_digest: str
    """Of the task, as the spec has it: by it an edit is told."""
    cluster_digest: str | None = None
    """Of what only a new cluster can change: resources and the number of nodes."""
    has_run: bool
    """Whether that task had something to run."""
    has_ports: bool = False
    """Whether that task opens ports."""
    requested_at: Time
    """When the launch was last handed to SkyPilot."""
    request_id: str | None = Field(default=None, alias="requestID")
    """SkyPilot's request; unset while its answer has not been seen."""
    started_at: Time | None = None
    """When SkyPilot took it."""
    finished_at: Time | None = None
    """When the launch was seen to have succeeded."""
    ended_at: Time | None = None
    """When it was given up: it failed, or was suspended, or an edit asks for a new cluster. What it left is taken down before the next."""
    autostop_minutes: int | None = None
    """After how many idle minutes SkyPilot ends the cluster by itself, should this controller be gone: far behind spec.autostop."""


class JobRecord(_Model):
    """The job that task.run became."""

    id: int | None = None
    """Its number in the cluster's queue."""
    name: str
    """Its name in the queue: one name per attempt."""
    display_name: str | None = None
    """The task's own name."""
    status: str | None = None
    """SkyPilot's word: INIT, PENDING, SETTING_UP, RUNNING, SUCCEEDED, FAILED, FAILED_SETUP, FAILED_DRIVER or CANCELLED."""
    submitted_at: Time | None = None
    """When it entered the queue."""
    started_at: Time | None = None
    """When it began to run."""
    finished_at: Time | None = None
    """When it ended."""
    unknown_since: Time | None = None
    """Since when SkyPilot has not been able to tell how it fares."""
    log: str | None = None
    """Where its log is read, live and afterwards: a path of the log service, and of the Kubernetes API where it has an APIService."""
    result: ResultRecord | None = None
    """What it returned, if it returned a value."""


class ResultRecord(_Model):
    """The value that a job returned. The value itself is not here: see docs/logs.md."""

    state: Literal["Collected", "Lost"]
    """Collected: it can be read. Lost: the job returned one, and not all of it was had."""
    bytes: int | None = Field(default=None, ge=0)
    """How long its JSON text is."""
    sha256: str | None = None
    """Of its JSON text."""


class LogRecord(_Model):
    """What was kept of the last attempt's log; written by the log process once the log has ended, and not again."""

    attempt: int = Field(ge=1)
    """Which launch it is of."""
    state: Literal["Archived", "Incomplete"]
    """Archived: it was had to its end. Incomplete: message says what is missing."""
    bytes: int = Field(default=0, ge=0)
    """How long it is; what the bound cut from its middle is counted."""
    message: str | None = Field(default=None, max_length=1024)
    """What is missing, and why."""
    archived_at: Time | None = None
    """When that was written."""
    result: ResultRecord | None = None
    """What the job returned, if it returned a value."""


class FailuresRecord(_Model):
    """What went wrong."""

    count: int = Field(default=0, ge=0)
    """How many attempts failed."""
    reason: str | None = None
    """The last failure, in one word."""
    message: str | None = None
    """The last failure, in SkyPilot's words."""
    next_retry_time: Time | None = None
    """When the next launch is due, if there is to be one."""


class SkyClusterStatus(_Model):
    """What the controller knows; written by it alone, but for `log`."""

    observed_generation: int | None = Field(default=None, ge=-1)
    """The generation of the spec that this status speaks of; -1 until the controller has seen the object."""
    phase: Phase | None = None
    """A summary for people; programs read the conditions."""
    conditions: list[Condition] = Field(
        default_factory=list, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )
    """The state, in the words of Kubernetes."""
    cluster: ClusterRecord | None = None
    """SkyPilot's cluster."""
    launch: LaunchRecord | None = None
    """The launch that was last handed to SkyPilot."""
    job: JobRecord | None = None
    """The job, once there is one."""
    log: LogRecord | None = None
    """What was kept of its log when that had ended. Its bytes may have gone since, to make room: who reads the log is told."""
    failures: FailuresRecord | None = None
    """What went wrong, if anything did."""
    start_time: Time | None = None
    """When SkyPilot first took a launch; suspend clears it."""
    completion_time: Time | None = None
    """When Complete or Failed became True."""

    def as_json(self) -> dict[str, Any]:
        """Return the status as the Kubernetes API takes it: camel case, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SkyCluster(BaseModel):
    """One object, as read from the Kubernetes API."""

    model_config = ConfigDict(frozen=True)

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    finalizers: tuple[str, ...] = ()
    deleted_at: datetime | None = None
    """When it was deleted, if it was."""
    abandoned: bool = False
    """Whether it is annotated with ABANDON."""
    confirmed_lost_at: datetime | None = None
    """The time in its annotation CONFIRM_LOST."""
    spec: SkyClusterSpec
    status: SkyClusterStatus

    @property
    def deleting(self) -> bool:
        """Whether it was deleted, and waits for its finalizers."""
        return self.deleted_at is not None

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> SkyCluster:
        """Return the object of an API answer. Raises pydantic.ValidationError if it is not one that our CRD would let in."""
        meta = body["metadata"]
        annotations = meta.get("annotations") or {}
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta["generation"],
            resource_version=meta["resourceVersion"],
            finalizers=tuple(meta.get("finalizers", ())),
            deleted_at=_moment(meta.get("deletionTimestamp")),
            abandoned=annotations.get(ABANDON) == "true",
            confirmed_lost_at=_moment(annotations.get(CONFIRM_LOST)),
            spec=SkyClusterSpec.model_validate(body["spec"]),
            status=SkyClusterStatus.model_validate(body.get("status") or {}),
        )
