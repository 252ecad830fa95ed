"""Secrets of the object, which reach the job as environment variables: which names they may have, what a value may hold.

SkyPilot keeps them apart from `envs`: it shows `<redacted>` for them (sky/task.py:2047-2052). No value is ever repeated here.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from skyoperator.task.git import ENVS_OF_CREDENTIALS, ENVS_OF_REPOSITORY
from skyoperator.task.problems import JSON, Problem, under
from skyoperator.task.variables import env_values

ROOT = "spec.secrets"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

REGISTRY_LOGIN = ("SKYPILOT_DOCKER_USERNAME", "SKYPILOT_DOCKER_PASSWORD", "SKYPILOT_DOCKER_SERVER")  # sky/skylet/constants.py:255
OF_SKYPILOT = (*REGISTRY_LOGIN, *ENVS_OF_CREDENTIALS)
"""Names that SkyPilot gives a meaning: a login for the image of the task, and one for the repository in its workdir."""

# An environment variable ends at NUL; half a surrogate pair can't be written as UTF-8.
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")


def secret_path(index: int) -> str:
    """Return how messages name the object's secret of this index."""
    return under(ROOT, index)


def ill_named(task: Mapping[str, JSON], names: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the names of the secrets of an object with this task."""
    envs = env_values(task)
    for index, name in enumerate(names):
        if message := _fault(name, envs, has_workdir="workdir" in task):
            yield Problem(f"{secret_path(index)}.name", message)
    missing = [name for name in REGISTRY_LOGIN if name not in names]
    if 0 < len(missing) < len(REGISTRY_LOGIN):
        yield Problem(ROOT, f"a login for a registry takes all of {', '.join(REGISTRY_LOGIN)}; add {', '.join(missing)}")


def _fault(name: str, envs: Collection[str], *, has_workdir: bool) -> str | None:
    if not ENV_NAME.fullmatch(name):
        return "is no name of an environment variable: letters, digits and _"
    if name.startswith("_"):
        return "names that begin with _ are SkyPilot's own; choose another name"
    if name.startswith("SKYPILOT_") and name not in OF_SKYPILOT:
        return "SkyPilot sets the variables that begin with SKYPILOT_; choose another name"
    if name in envs:
        return f"{name} is in the envs of the task too; keep one of them"
    if name in ENVS_OF_REPOSITORY and has_workdir:
        return f"{name} is set from workdir; choose another name"
    return None


def unfit(secrets: Mapping[str, str]) -> Iterator[Problem]:
    """Yield each secret whose value no environment variable can hold, without showing it."""
    for index, (name, value) in enumerate(secrets.items()):
        if _UNFIT.search(value):
            yield Problem(secret_path(index), f"the value of {name} holds a NUL or is no Unicode text; encode it, for instance as base64")
