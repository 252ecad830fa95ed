"""From a checked task to the YAML that SkyPilot is sent."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from skyoperator.task.allowed import Policy
from skyoperator.task.fence import fenced
from skyoperator.task.git import environment
from skyoperator.task.infra import clouds
from skyoperator.task.labels import refuse_foreign
from skyoperator.task.policy import check, check_values, normal
from skyoperator.task.problems import JSON
from skyoperator.task.resources import candidates
from skyoperator.task.variables import env_values, filled

# Clouds without AUTODOWN, as in sky/clouds/verda.py:56.
NEVER_ENDED_FROM_WITHIN = frozenset({"hyperbolic", "primeintellect", "verda", "yotta"})
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
_JOB_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def has_run(task: Mapping[str, JSON]) -> bool:
    """Return whether the task has a job to run, rather than a cluster to keep."""
    run = task.get("run")
    return isinstance(run, str) and bool(run.strip())


def has_ports(task: Mapping[str, JSON]) -> bool:
    """Return whether the task opens ports, on one at least of the machines that it may get."""
    return any(wanted.get("ports") for _, wanted in candidates("", normal(task).get("resources")))


def render(
    task: Mapping[str, JSON],
    *,
    job_name: str,
    labels: Mapping[str, str],
    policy: Policy | None = None,
    secrets: Mapping[str, str] = NO_SECRETS,
    autostop_minutes: int | None = None,
) -> str:
    """Return the task as the one YAML document that POST /launch takes.

    Args:
        task: What the user wrote; its `name` gives way to `job_name`.
        job_name: The job of this attempt, as `names.job_name` makes it.
        labels: Labels of ours for the nodes, with a prefix of ours.
        policy: The one that `check` was called with.
        secrets: The values of the object's secrets by name, in the object's order. They are in what is returned, never in what is raised.
        autostop_minutes: After how many idle minutes SkyPilot itself ends the cluster, should nobody else.

    Raises:
        TaskRejected: The task does not pass `check`, a secret's value can't be an environment variable, or all of it is too long.
        ValueError: `job_name`, `labels` or `autostop_minutes` are not of our making.
    """
    check(task, policy=policy, secret_names=secrets)
    check_values(task, secrets)
    refuse_foreign(labels)
    if autostop_minutes is not None and autostop_minutes < 1:
        raise ValueError(f"autostop after {autostop_minutes} minutes would end a cluster that has just come up")
    if not _JOB_NAME.fullmatch(job_name):
        raise ValueError(f"job name {job_name!r} is not one that skyoperator makes")
    wanted = filled(normal(task))
    rendered = {"name": job_name} | {
        **wanted,
        "name": job_name,
        "resources": {**_labelled(wanted.get("resources"), labels), **_autostop(wanted, autostop_minutes)},
        "envs": _environment(wanted),
        **({"secrets": dict(secrets)} if secrets else {}),
        **_scripts(wanted, job_name),
    }
    return yaml.dump(rendered, Dumper=_Dumper, sort_keys=False)


def _labelled(resources: JSON, labels: Mapping[str, str]) -> dict[str, JSON]:
    base = dict(resources) if isinstance(resources, Mapping) else {}
    own = base.get("labels")
    return {**base, "labels": {**(own if isinstance(own, Mapping) else {}), **labels}}


def _autostop(task: Mapping[str, JSON], minutes: int | None) -> dict[str, JSON]:
    """Return what each alternative inherits: SkyPilot wants the same for all, and takes it from the task (sky/execution.py:465-479).

    A cloud whose machines can't end themselves would refuse the launch for it, so there it is left out.
    """
    if minutes is None or clouds(task) & NEVER_ENDED_FROM_WITHIN:
        return {}
    return {"autostop": {"idle_minutes": minutes, "down": True}}


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


class _Dumper(yaml.SafeDumper):
    """Writes plain YAML: no aliases for values that appear twice, and text that looks like another type in quotes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002
        return True
