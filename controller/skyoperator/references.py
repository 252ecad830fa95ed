"""Reads what a SkyCluster refers to: the ConfigMap of its task, the Secrets of its variables. Only when something may be launched."""

from __future__ import annotations

from collections.abc import Mapping

from skyoperator import failures, records, task
from skyoperator.api.v1alpha1 import Reason, SkyCluster, TaskRef
from skyoperator.inputs import Fault, Inputs, inline, is_edited
from skyoperator.kube import Kube, KubeError
from skyoperator.sky.masking import without
from skyoperator.task import JSON


class Unresolved(Exception):  # noqa: N818
    """A reference leads nowhere."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(reason, message)


async def read(kube: Kube, this: SkyCluster, policy: task.Policy) -> Inputs:
    """Return what would be launched now; what can't be found or read is its fault.

    Raises nothing: what must end an object, delete, suspend, a deadline, must not wait for a Secret that can't be read.
    """
    if not is_wanted(this) or not (this.spec.task_ref or this.spec.secrets):
        return inline(this, policy)
    try:
        wanted, secrets = await _task(kube, this), await _secrets(kube, this)
        _fit(wanted, secrets)
        return Inputs(policy, wanted, secrets)
    except Unresolved as error:
        return Inputs(policy, fault=error.fault)
    except KubeError as error:
        return Inputs(policy, fault=Fault(Reason.SECRET_NOT_FOUND if this.spec.secrets else Reason.INVALID_TASK, str(error)))


async def discreet(kube: Kube, this: SkyCluster, words: str) -> str:
    """Return a job's last words without the values of the object's Secrets: who may read the object may not read those.

    Where the Secrets can't be read now, none of what the job printed is told.
    """
    if not this.spec.secrets or not words:
        return words
    try:
        return without(words, (await _secrets(kube, this)).values())
    except (Unresolved, KubeError):
        return failures.verdict(words)


def is_wanted(this: SkyCluster) -> bool:
    """Return whether anything may be launched, or judged, in this pass."""
    if this.deleting or this.abandoned or (records.is_finished(this.status) and not is_edited(this)):
        return False
    launch = this.status.launch
    if launch is None or records.is_over(this.status):
        return True
    is_plain_edit = not launch.has_run and is_edited(this)
    return is_plain_edit or (launch.request_id is None and launch.finished_at is None)


async def _task(kube: Kube, this: SkyCluster) -> Mapping[str, JSON]:
    reference = this.spec.task_ref
    if reference is None:
        return this.spec.task or {}
    data = await kube.config_map(this.namespace, reference.name)
    if data is None:
        raise Unresolved(Reason.INVALID_TASK, f"spec.taskRef: there is no ConfigMap {reference.name} in namespace {this.namespace}")
    if reference.key not in data:
        raise Unresolved(Reason.INVALID_TASK, _no_key("spec.taskRef", "ConfigMap", reference, data))
    try:
        return task.parse(data[reference.key])
    except task.TaskRejected as rejection:
        raise Unresolved(Reason(rejection.reason), str(rejection)) from rejection


async def _secrets(kube: Kube, this: SkyCluster) -> dict[str, str]:
    found: dict[str, Mapping[str, bytes] | None] = {}
    values: dict[str, str] = {}
    for index, variable in enumerate(this.spec.secrets):
        name, key = variable.secret_key_ref.name, variable.secret_key_ref.key
        path = task.secret_path(index)
        if name not in found:
            found[name] = await kube.secret(this.namespace, name)
        data = found[name]
        if data is None:
            raise Unresolved(Reason.SECRET_NOT_FOUND, f"{path}: there is no Secret {name} in namespace {this.namespace}")
        if key not in data:
            raise Unresolved(Reason.SECRET_NOT_FOUND, f"{path}: Secret {name} has no key {key}")
        values[variable.name] = _text(path, name, key, data[key])
    return values


def _fit(wanted: Mapping[str, JSON], secrets: Mapping[str, str]) -> None:
    """Only here, not with the task's own faults: an edit of the Secret heals it."""
    try:
        task.check_values(wanted, secrets)
    except task.TaskRejected as rejection:
        raise Unresolved(Reason(rejection.reason), str(rejection)) from rejection


def _text(path: str, name: str, key: str, value: bytes) -> str:
    """Return the value as text. Its bytes must not get into the error: that is shown to everybody who may read the object."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Unresolved(Reason.INVALID_TASK, f"{path}: key {key} of Secret {name} is not text, and can't be an environment variable")
    return text


def _no_key(path: str, kind: str, reference: TaskRef, data: Mapping[str, str]) -> str:
    keys = ", ".join(sorted(data)) or "none"
    return f"{path}: {kind} {reference.name} has no key {reference.key}; it has: {keys}"
