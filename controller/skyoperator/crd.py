"""The CRD manifest, made from the types in api.v1alpha1: structural schema, CEL, columns, status subresource.

`python -m skyoperator.crd FILE...` writes it (make generate). Structural schemas (KEP-1693) know neither `$ref` nor a type that may
be null, so what pydantic emits is inlined and folded here; a union that is left over is an error of ours and raises.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from skyoperator.api.v1alpha1 import GROUP, KIND, PLURAL, VERSION, SkyClusterSpec, SkyClusterStatus

Schema = dict[str, Any]

NAME_RULE: Final = {
    "rule": "size(self.metadata.name) <= 63",
    "message": "metadata.name must be at most 63 characters: it becomes a label value",
}

SPEC_RULES: Final[tuple[Mapping[str, str], ...]] = (
    {
        "rule": "has(self.task) != has(self.taskRef)",
        "message": "exactly one of task and taskRef must be set",
    },
    {
        "rule": "!has(self.ttlSecondsAfterFinished) || self.deletionPolicy != 'Orphan'",
        "message": "ttlSecondsAfterFinished with deletionPolicy Orphan would leave a cluster that nobody owns; remove one of them",
    },
)

COLUMNS: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Status", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
    {"name": "Infra", "type": "string", "jsonPath": ".status.cluster.infra"},
    {"name": "Resources", "type": "string", "jsonPath": ".status.cluster.resources"},
    {"name": "Job", "type": "string", "jsonPath": ".status.job.status"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Cluster", "type": "string", "jsonPath": ".status.cluster.name", "priority": 1},
    {"name": "Attempt", "type": "integer", "jsonPath": ".status.launch.attempt", "priority": 1},
    {
        "name": "Message",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].message',
        "priority": 1,
    },
)

UNSEEN: Final[Mapping[str, int]] = {"observedGeneration": -1}
"""The status of an object that the controller has not seen yet. kstatus takes one without any status for done."""

_DROPPED: Final = frozenset({"title", "additionalProperties", "$defs"})


def structural(schema: Schema, definitions: Mapping[str, Schema] | None = None) -> Schema:
    """Return the JSON schema of pydantic as Kubernetes takes it. Raises ValueError at a union of types."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    schema = _folded(schema, definitions)
    kept = {key: value for key, value in schema.items() if key not in _DROPPED and not (key == "default" and value is None)}
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if "properties" in kept:
        kept["properties"] = {name: structural(field, definitions) for name, field in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = structural(kept["items"], definitions)
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    return kept


def _folded(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema with its $ref inlined and `X | None` folded to X; what stands beside them wins (a field's own docstring)."""
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"Kubernetes has no union types, and this field is one: {schema}")
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return _folded({**options[0], **rest}, definitions)
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _folded({**target, **rest}, definitions)
    return schema


def manifest() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["skyc"],
                "categories": ["sky"],
            },
            "scope": "Namespaced",
            "versions": [_version()],
        },
    }


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object_schema()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [dict(column) for column in COLUMNS],
    }


def _object_schema() -> Schema:
    return {
        "type": "object",
        "description": "A SkyPilot cluster, and the one job it is launched for, if any.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**structural(SkyClusterSpec.model_json_schema(by_alias=True)), "x-kubernetes-validations": [*SPEC_RULES]},
            "status": {**structural(SkyClusterStatus.model_json_schema(by_alias=True, mode="serialization")), "default": {**UNSEEN}},
        },
        "x-kubernetes-validations": [NAME_RULE],
    }


def as_yaml() -> str:
    """Return the manifest as the text of crds/*.yaml."""
    head = "# Made by `make generate` from controller/skyoperator/api; edit the types, not this file.\n"
    return head + yaml.safe_dump(manifest(), sort_keys=False, width=120)


if __name__ == "__main__":
    for target in sys.argv[1:]:
        Path(target).write_text(as_yaml(), encoding="utf-8")
