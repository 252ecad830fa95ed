"""The committed manifests are what the types say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from skyoperator.crd import as_yaml, manifest, structural

ROOT = Path(__file__).resolve().parents[2]
NAME = "skyclusters.skyoperator.dev.yaml"


@pytest.mark.parametrize("path", [f"crds/{NAME}", f"deploy/helm/skyoperator/files/{NAME}"])
def test_it_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == as_yaml(), "run `make generate`"


def test_it_is_structural() -> None:
    """KEP-1693: every value has one type; no $ref, no anyOf, no null."""
    for path, schema in _walk(manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
        assert isinstance(schema.get("type"), str), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "nullable", "const"} & schema.keys(), path


def test_a_union_is_our_error() -> None:
    with pytest.raises(ValueError, match="union"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]})


def _walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    below = [(f"{path}.{name}", field) for name, field in schema.get("properties", {}).items()]
    below += [(f"{path}[]", schema["items"])] if "items" in schema else []
    return [(path, schema), *(found for name, field in below for found in _walk(field, name))]
