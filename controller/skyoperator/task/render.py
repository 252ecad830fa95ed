"""From a checked task to the YAML that SkyPilot is sent, and to the digest that tells two tasks apart."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from skyoperator.task.fence import fenced
from skyoperator.task.git import environment
from skyoperator.task.labels import refuse_foreign
from skyoperator.task.mounts import Policy
from skyoperator.task.policy import check, normal
from skyoperator.task.problems import JSON
from skyoperator.task.variables import env_values, filled

DIGEST_CHARACTERS = 16

_JOB_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def has_run(task: Mapping[str, JSON]) -> bool:
    """Return whether the task has a job to run, rather than a cluster to keep."""
    run = task.get("run")
    return isinstance(run, str) and bool(run.strip())


def digest(task: Mapping[str, JSON]) -> str:
    """Return 16 hex digits that are the same for tasks which mean the same, whatever the order of their keys.

    Raises:
        TypeError, ValueError: The task is no JSON; one that passed `check` always is.
    """
    canonical = json.dumps(_numbers_alike(normal(task)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARACTERS]


def render(task: Mapping[str, JSON], *, job_name: str, labels: Mapping[str, str], policy: Policy | None = None) -> str:
    """Return the task as the one YAML document that POST /launch takes.

    Args:
        task: What the user wrote; its `name` gives way to `job_name`.
        job_name: The job of this attempt, as `names.job_name` makes it.
        labels: Labels of ours for the nodes, with a prefix of ours.
        policy: The one that `check` was called with.

    Raises:
        TaskRejected: The task does not pass `check`.
        ValueError: `job_name` or `labels` are not of our making.
    """
    check(task, policy=policy)
    refuse_foreign(labels)
    if not _JOB_NAME.fullmatch(job_name):
        raise ValueError(f"job name {job_name!r} is not one that skyoperator makes")
    wanted = filled(normal(task))
    rendered = {"name": job_name} | {
        **wanted,
        "name": job_name,
        "resources": _labelled(wanted.get("resources"), labels),
        "envs": _environment(wanted),
        **_scripts(wanted, job_name),
    }
    return yaml.dump(rendered, Dumper=_Dumper, sort_keys=False)


def _labelled(resources: JSON, labels: Mapping[str, str]) -> dict[str, JSON]:
    base = dict(resources) if isinstance(resources, Mapping) else {}
    own = base.get("labels")
    return {**base, "labels": {**(own if isinstance(own, Mapping) else {}), **labels}}


def _environment(task: Mapping[str, JSON]) -> dict[str, JSON]:
    repository = task.get("workdir")
    return {**env_values(task), **(environment(repository) if isinstance(repository, Mapping) else {})}


def _scripts(task: Mapping[str, JSON], job: str) -> dict[str, JSON]:
    """Return setup and run with their fences. Without run there is no job to guard, and setup must be free to repeat."""
    if not has_run(task):
        return {}
    scripts: dict[str, JSON] = {"run": fenced(str(task["run"]), "run", job)}
    if isinstance(setup := task.get("setup"), str):
        scripts["setup"] = fenced(setup, "setup", job)
    return scripts


def _numbers_alike(value: JSON) -> JSON:
    """Return the value with 2.0 written as 2, as the API server of Kubernetes hands it back."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _numbers_alike(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(inner) for inner in value]
    return value


class _Dumper(yaml.SafeDumper):
    """Writes plain YAML: no aliases for values that appear twice, and text that looks like another type in quotes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002
        return True
