"""May what the spec asks for be launched? And once it was: is it still the same?"""

from __future__ import annotations

from skyoperator import records, task
from skyoperator.api.v1alpha1 import ConditionType, LaunchRecord, Reason, SkyCluster
from skyoperator.conditions import find
from skyoperator.inputs import Accepted, Inputs, is_edited
from skyoperator.sky.types import Cluster
from skyoperator.world import World

ACCEPTED = Accepted(Reason.TASK_ACCEPTED)


def judge(this: SkyCluster, world: World, inputs: Inputs) -> Accepted:
    """Return whether the spec may be acted on. A job that was handed over is not judged again: only an edit of it is.

    What may never have arrived is judged as it stands: unless it did arrive, an edit takes its place. Nothing is launched any more for an
    object that is deleted or abandoned: its task is not even read.
    """
    if this.deleting or this.abandoned or (records.is_finished(this.status) and not is_edited(this)):
        return ACCEPTED
    launch = this.status.launch
    if launch is None or records.is_over(this.status):
        return _judge_name(this, world) or judge_inputs(this, inputs)
    if launch.request_id is None and launch.finished_at is None and not records.is_finished(this.status):
        return judge_inputs(this, inputs)
    return _judge_edit(this, launch, inputs) if is_edited(this) else ACCEPTED


def judge_inputs(this: SkyCluster, inputs: Inputs) -> Accepted:
    """Return whether the task, as its references read now, may be launched."""
    if inputs.fault is not None:
        return Accepted(inputs.fault.reason, inputs.fault.message)
    if inputs.task is None:
        raise AssertionError("what is to be judged has been read")
    try:
        task.check(inputs.task, policy=inputs.policy, secret_names=[secret.name for secret in this.spec.secrets])
    except task.TaskRejected as rejection:
        return Accepted(Reason(rejection.reason), str(rejection))
    return ACCEPTED


def _judge_name(this: SkyCluster, world: World) -> Accepted | None:
    """In an outage what was said before stays."""
    before = find(this.status.conditions, ConditionType.ACCEPTED)
    if world.cluster is None and before is not None and before.reason == Reason.NAME_CONFLICT:
        return Accepted(Reason.NAME_CONFLICT, before.message)
    if not isinstance(world.cluster, Cluster) or world.cluster.uid_label == this.uid:
        return None
    name = world.cluster.name
    return Accepted(Reason.NAME_CONFLICT, f"SkyPilot has a cluster {name} that is not ours. Take it down: sky down {name}")


def _judge_edit(this: SkyCluster, launch: LaunchRecord, inputs: Inputs) -> Accepted:
    """With `run`, batch/v1's rule: an edit must never rerun a paid job. Without it the edit is applied, if it is sound."""
    if launch.has_run:
        deed, effect = f"the task was changed after attempt {launch.attempt} had been handed to SkyPilot", "what was launched goes on"
    elif inputs.has_run:
        deed, effect = "task.run was added to a cluster that was launched without", "the cluster stays as it is"
    else:
        return judge_inputs(this, inputs)
    if records.is_finished(this.status):
        return Accepted(Reason.IMMUTABLE_TASK, f"{deed}, and after the object had come to its end. Undo the edit, or make another object.")
    return Accepted(Reason.IMMUTABLE_TASK, f"{deed}; {effect}. Undo the edit, or suspend the object before you edit it.")
