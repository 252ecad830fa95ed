"""Labels that a task may put on its nodes, and the ones that are not for it to set."""

import re
from collections.abc import Iterator, Mapping

from skyoperator.task.fields import of
from skyoperator.task.problems import JSON, Field, Problem, show

OUR_PREFIXES = ("skyoperator.dev/", "skyoperator-")

_PREFIX = r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?"
_KEY = re.compile(rf"{_PREFIX}[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

# SkyPilot finds pods, and Services find their backends, by labels that stand in the template before the user's own and
# that the user's own would overwrite (sky/templates/kubernetes-ray.yml.j2:290-310).
_SKYPILOT = re.compile(r"(?:skypilot|ray)-.*|(?:skypilot|ray)|parent|component")
_RESERVED_DOMAIN = re.compile(r"[^/]*(?:kubernetes\.io|k8s\.io|skypilot\.co)/.*")


def _key(path: str, value: JSON) -> Iterator[Problem]:
    key = str(value)
    if not _KEY.fullmatch(key):
        yield Problem(path, f"the key {show(key)} is no label key of Kubernetes: letters, digits and ._- after an optional prefix/")
    elif key.startswith(OUR_PREFIXES):
        yield Problem(path, "labels of this prefix are set by skyoperator; remove it", "PolicyDenied")
    elif _SKYPILOT.fullmatch(key) or _RESERVED_DOMAIN.fullmatch(key):
        yield Problem(path, "this label belongs to SkyPilot or Kubernetes; choose another key", "PolicyDenied")


def _value(path: str, value: JSON) -> Iterator[Problem]:
    if not _VALUE.fullmatch(str(value)):
        yield Problem(path, f"{show(value)} is no label value: at most 63 letters, digits and ._-")


LABEL_KEY: Field = _key
LABEL_VALUE: Field = of("text", {"string": _value})


def refuse_foreign(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every label has our prefix and a form that Kubernetes takes: it would be a bug of ours."""
    for key, value in labels.items():
        if not (key.startswith(OUR_PREFIXES) and _KEY.fullmatch(key) and _VALUE.fullmatch(value)):
            raise ValueError(f"label {key}={value} is not one that skyoperator may set")
