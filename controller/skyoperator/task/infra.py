"""Which infra a task names, in whichever of SkyPilot's spellings, and whether the installer allows it.

Without a name SkyPilot chooses among all the clouds that it has credentials for, so where the installer allows only some, a
task has to say which it wants.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from skyoperator.task.allowed import Policy
from skyoperator.task.problems import JSON, Problem, show, under
from skyoperator.task.resources import candidates

Place: TypeAlias = tuple[str, ...]
"""Cloud, region and zone as far as they are named; `*` stands for one that is not, before one that is."""

_SSH_PREFIX = "ssh-"  # of the context that a pool of machines becomes (sky/utils/infra_utils.py:11)


def place(infra: str) -> Place:
    """Return the place that an `infra` names, which is at most a cloud, region and zone (sky/utils/infra_utils.py:72)."""
    cloud, _, rest = infra.partition("/")
    if cloud.lower() in ("k8s", "kubernetes"):
        return _context("kubernetes", rest)
    if cloud.lower() == "ssh":
        return ("ssh", rest) if rest else ("ssh",)
    return _without_stars(cloud.lower(), *rest.split("/"))


def outside(path: str, task: Mapping[str, JSON], policy: Policy) -> Iterator[Problem]:
    """Yield each choice of resources that names no infra which the policy allows."""
    if not policy.allowed_infra:
        return
    allowed = tuple(place(entry) for entry in policy.allowed_infra)
    told = ", ".join(policy.allowed_infra)
    for where, wanted in candidates(under(path, "resources"), task.get("resources") or {}):
        named = _named(wanted)
        if not named or named[0] == "*":
            yield Problem(where, f"names no infra; allowed are {told}: add infra", "PolicyDenied")
        elif not any(named[: len(entry)] == entry for entry in allowed):
            yield Problem(where, f"{show('/'.join(named))} is not among the allowed infra ({told}); ask the installer", "PolicyDenied")


def clouds(task: Mapping[str, JSON]) -> set[str]:
    """Return the clouds that the task names."""
    return {_named(wanted)[0] for _, wanted in candidates("", task.get("resources") or {}) if _named(wanted)}


def _named(resources: Mapping[str, JSON]) -> Place:
    if "infra" in resources:
        return place(str(resources["infra"]))
    cloud, region, zone = (str(resources.get(key, "")) for key in ("cloud", "region", "zone"))
    if cloud.lower() in ("kubernetes", "ssh"):
        return _context(cloud.lower(), region)
    return _without_stars(cloud.lower(), region, zone)


def _context(cloud: str, region: str) -> Place:
    """A context may hold slashes, and one that begins with ssh- belongs to the cloud `ssh`."""
    if region.startswith(_SSH_PREFIX):
        return ("ssh", region.removeprefix(_SSH_PREFIX))
    return (cloud, region) if region and region != "*" else (cloud,)


def _without_stars(*parts: str) -> Place:
    """Return the parts with a star for each that is missing, and none at the end."""
    named = [part or "*" for part in parts]
    while named and named[-1] == "*":
        named.pop()
    return tuple(named)
