"""The CRD in a real kube-apiserver: what it refuses, prints and explains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.support import KubectlError, Sky, kubectl

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_accepted_strictly(namespace: str, example: Path) -> None:
    kubectl("apply", "-n", namespace, "--validate=strict", "--dry-run=server", "-f", str(example))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"task": {"run": "echo", "num_nodes": 0}}, "num_nodes"),
        ({"task": {"run": 3}}, "run"),
        ({"task": {"run": "echo"}, "whenFinished": "Maybe"}, "whenFinished"),
        ({"task": {"run": "echo"}, "deletionPolicy": "Perhaps"}, "deletionPolicy"),
        ({}, "task"),
        ({"task": {"run": "echo"}, "whenFinnished": "Down"}, "whenFinnished"),
    ],
)
def test_what_the_schema_can_tell_is_refused_at_once(namespace: str, spec: dict[str, Any], complaint: str) -> None:
    with pytest.raises(KubectlError, match=complaint):
        Sky.apply(namespace, "refused", **spec)


def test_a_name_that_is_too_long_for_a_label_is_refused(namespace: str) -> None:
    with pytest.raises(KubectlError, match="at most 63 characters"):
        Sky.apply(namespace, "a" * 64, task={"run": "echo"})


def test_an_object_that_nobody_has_seen_does_not_look_done(namespace: str) -> None:
    """kstatus takes an object without observedGeneration for current."""
    Sky.apply(namespace, "unseen", task={"run": "echo"})
    assert kubectl("get", "skyc/unseen", "-n", namespace, "-o", "jsonpath={.status}") == '{"observedGeneration":-1}'


def test_columns(namespace: str) -> None:
    Sky.apply(namespace, "shown", task={"run": "echo"})
    header = kubectl("get", "skyc", "-n", namespace, "-o", "wide").splitlines()[0].split()
    assert header == ["NAME", "READY", "STATUS", "REASON", "INFRA", "RESOURCES", "JOB", "AGE", "CLUSTER", "ATTEMPT", "MESSAGE"]
    assert "shown" in kubectl("get", "sky", "-n", namespace)


def test_every_field_is_explained(crd: None) -> None:
    schema = yaml.safe_load((ROOT / "crds/skyclusters.skyoperator.dev.yaml").read_text())["spec"]["versions"][0]["schema"][
        "openAPIV3Schema"
    ]
    mute = [path for path, field in _fields(schema) if not field.get("description") and path not in {"apiVersion", "kind", "metadata"}]
    assert mute == []
    assert "A SkyPilot task" in kubectl("explain", "skycluster.spec.task")


def _fields(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found += [(path, field), *_fields(field, f"{path}."), *_fields(field.get("items", {}), f"{path}[].")]
    return found
