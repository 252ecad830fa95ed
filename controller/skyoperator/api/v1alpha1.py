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

TERMINATED: Final = "TERMINATED"
"""`status.cluster.status` of a cluster that was confirmed gone; the word SkyPilot's own cost report uses."""

CONDITION_MESSAGE_LIMIT: Final = 32768
"""metav1.Condition's limit on `message`, in characters."""


def _rfc3339(moment: datetime) -> str:
    """Return the moment as metav1.Time writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time: TypeAlias = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})]


class Reason(StrEnum):
    """Why a condition is as it is. Closed: scripts and Airflow match on these words."""

    # Accepted
    TASK_ACCEPTED = "TaskAccepted"
    INVALID_TASK = "InvalidTask"
    POLICY_DENIED = "PolicyDenied"
    IMMUTABLE_TASK = "ImmutableTask"
    NAME_CONFLICT = "NameConflict"
    # on the way
    PENDING = "Pending"
    LAUNCHING = "Launching"
    RUNNING = "Running"
    CLUSTER_UP = "ClusterUp"
    CLUSTER_NOT_UP = "ClusterNotUp"
    CLUSTER_ABSENT = "ClusterAbsent"
    STOPPING = "Stopping"
    DELETING = "Deleting"
    SETTLED = "Settled"
    NOT_FINISHED = "NotFinished"
    SKYPILOT_UNREACHABLE = "SkyPilotUnreachable"
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


class Phase(StrEnum):
    """One word for `kubectl get`; derived from the conditions and never read back."""

    PENDING = "Pending"
    LAUNCHING = "Launching"
    RUNNING = "Running"
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
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


class SkyClusterSpec(_Model):
    """What to launch, and what becomes of it afterwards."""

    task: dict[str, Any] = Field(
        json_schema_extra={
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "name": {"type": "string", "maxLength": 253, "description": "A name for people; shown as status.job.displayName."},
                "run": {"type": "string", "maxLength": 98304, "description": "The job. Without it the cluster is just brought up."},
                "setup": {"type": "string", "maxLength": 98304, "description": "Commands to prepare each node, run before the job."},
                "num_nodes": {"type": "integer", "minimum": 1, "maximum": 10000, "description": "How many nodes; 1 if unset."},
            },
        }
    )
    """A SkyPilot task, as in the task.yaml of `sky launch`. Which keys are taken, and why some are refused, is in docs/task.md."""

    when_finished: Literal["Down", "Keep"] = "Down"
    """What happens to the cluster when its job has ended: Down takes it down, Keep leaves it up until this object is deleted.
    Without task.run nothing ends, and the cluster stays until this object is deleted."""

    deletion_policy: Literal["Down", "Orphan"] = "Down"
    """What happens to the cluster when this object is deleted: Down takes it down and waits until it is confirmed gone,
    Orphan leaves it running in SkyPilot, without an owner."""


class Condition(_Model):
    """metav1.Condition."""

    type: str = Field(max_length=316)
    """Ready, Reconciling, Stalled, Accepted, ClusterReady, Complete or Failed."""
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


class ClusterRecord(_Model):
    """SkyPilot's cluster."""

    name: str
    """Its name in SkyPilot (`sky status`), derived from this object's name and uid."""
    server: str | None = None
    """The SkyPilot API server that has it."""
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


class LaunchRecord(_Model):
    """The write-ahead record of a launch: stored before SkyPilot is asked, so that no crash can make it ask twice."""

    attempt: int = Field(ge=1)
    """The number of the launch."""
    task_digest: str
    """Of the task that was launched."""
    has_run: bool
    """Whether that task had something to run."""
    requested_at: Time
    """When the launch was last handed to SkyPilot."""
    request_id: str | None = Field(default=None, alias="requestID")
    """SkyPilot's request; unset while its answer has not been seen."""
    finished_at: Time | None = None
    """When the launch was seen to have succeeded."""


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


class FailuresRecord(_Model):
    """What went wrong."""

    count: int = Field(default=0, ge=0)
    """How many attempts failed."""
    reason: str | None = None
    """The last failure, in one word."""
    message: str | None = None
    """The last failure, in SkyPilot's words."""


class SkyClusterStatus(_Model):
    """What the controller knows; written by it alone."""

    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the spec that this status speaks of."""
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
    failures: FailuresRecord | None = None
    """What went wrong, if anything did."""
    start_time: Time | None = None
    """When SkyPilot first took the launch."""
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
    deleting: bool = False
    spec: SkyClusterSpec
    status: SkyClusterStatus

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> SkyCluster:
        """Return the object of an API answer. Raises pydantic.ValidationError if it is not one that our CRD would let in."""
        meta = body["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta["generation"],
            resource_version=meta["resourceVersion"],
            finalizers=tuple(meta.get("finalizers", ())),
            deleting=meta.get("deletionTimestamp") is not None,
            spec=SkyClusterSpec.model_validate(body["spec"]),
            status=SkyClusterStatus.model_validate(body.get("status") or {}),
        )
