"""From the installer's `policy` values to the Policy. A word that means nothing is an error: it would silently allow less, or more."""

from collections.abc import Iterator, Mapping

from skyoperator.task.allowed import Policy
from skyoperator.task.fields import items, of, one_of, table, text, whole
from skyoperator.task.mounts import bucket
from skyoperator.task.policy import PASSED_ON_REQUEST
from skyoperator.task.problems import JSON, Problem, show
from skyoperator.task.resources import infra

ROOT = "policy"


class PolicyError(ValueError):
    """Values that are no policy; says which and what they must be."""


def read_policy(values: JSON) -> Policy:
    """Return the policy that these values of the chart mean. Raises PolicyError."""
    found = [str(problem) for problem in _POLICY(ROOT, values)]
    if found or not isinstance(values, Mapping):
        raise PolicyError("; ".join(found))
    return Policy(
        allowed_buckets=_words(values, "allowedBuckets"),
        allowed_volumes=_words(values, "allowedVolumes"),
        allowed_infra=_words(values, "allowedInfra"),
        allow_task_keys=_words(values, "allowTaskKeys"),
        **({"default_autostop_minutes": int(minutes)} if isinstance(minutes := values.get("defaultAutostopMinutes"), int) else {}),
    )


def _words(values: Mapping[str, JSON], key: str) -> tuple[str, ...]:
    listed = values.get(key)
    return tuple(str(word) for word in listed) if isinstance(listed, list) else ()


def _one_infra(path: str, value: JSON) -> Iterator[Problem]:
    yield from infra(path, value)
    if "*" in str(value):
        yield Problem(path, f"{show(value)} must name one cloud, and a region and zone without *")


_POLICY = table(
    {
        "allowTaskKeys": items(one_of(*PASSED_ON_REQUEST, any_case=False), may_be_empty=True),
        "allowedInfra": items(_one_infra, may_be_empty=True),
        "allowedBuckets": items(of("a bucket URI", {"string": bucket}), may_be_empty=True),
        "allowedVolumes": items(text(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a SkyPilot volume"), may_be_empty=True),
        "defaultAutostopMinutes": whole(1),
    }
)
