"""docs/lifecycle.md has every field, and its commands and the examples say nothing that the API does not know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator import task
from skyoperator.api.v1alpha1 import ABANDON, CONFIRM_LOST, RetryReason, SkyClusterSpec
from skyoperator.crd import manifest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/lifecycle.md").read_text(encoding="utf-8")
SPEC: dict[str, Any] = manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
PATCHES = re.findall(r"-p '(\{.*\})'", PAGE)


def test_every_field_has_its_section() -> None:
    headings = " ".join(re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE))
    assert [field for field in SPEC if not re.search(rf"\b{field}\b", headings)] == []


@pytest.mark.parametrize("patch", PATCHES)
def test_every_patch_is_one_of_known_fields(patch: str) -> None:
    spec = json.loads(patch)["spec"]
    assert spec.keys() <= SPEC.keys()
    SkyClusterSpec.model_validate(spec)


def test_annotations_and_reasons_are_those_of_the_api() -> None:
    assert {*re.findall(r"skyoperator\.dev/[a-z-]+", PAGE)} == {ABANDON, CONFIRM_LOST}
    section = PAGE.split("## backoffLimit and retryOn\n")[1].split("\n## ")[0]
    assert {reason.value for reason in RetryReason} <= set(re.findall(r"\w+", section))


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_accepted_by_the_default_policy(example: Path) -> None:
    found = {document["kind"]: document for document in yaml.safe_load_all(example.read_text(encoding="utf-8"))}
    spec = SkyClusterSpec.model_validate(found["SkyCluster"]["spec"])
    content = spec.task if spec.task_ref is None else task.parse(found["ConfigMap"]["data"][spec.task_ref.key])
    task.check(content or {}, policy=task.Policy(), secret_names=[secret.name for secret in spec.secrets])
    assert all(secret.secret_key_ref.key in found["Secret"]["stringData"] for secret in spec.secrets)
