"""What a GitOps tool reads off an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lupa.lua51 import LuaRuntime
from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.crd import UNSEEN

HEALTH: Final = Path(__file__).resolve().parents[2] / "deploy/argocd/health.lua"
UNKNOWN_TO_ARGOCD: Final = ("string", "math", "io", "debug", "coroutine")
"""Libraries that Argo CD does not give to a script of argocd-cm (util/lua/lua.go, runLua)."""


def kstatus(body: dict[str, Any]) -> str:
    """kstatus' rules, as they are in cli-utils (pkg/kstatus/status/generic.go, and checkReadyCondition in core.go)."""
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = body.get("status", {})
    if status.get("observedGeneration", body["metadata"]["generation"]) != body["metadata"]["generation"]:
        return "InProgress"
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def argocd_health(body: dict[str, Any]) -> dict[str, str]:
    """What deploy/argocd/health.lua answers, run as Argo CD does it: Lua 5.1, `obj` as a global."""
    lua: Any = LuaRuntime(unpack_returned_tuples=False)
    for name in UNKNOWN_TO_ARGOCD:
        lua.globals()[name] = None
    lua.globals().obj = lua.table_from(body, recursive=True)
    return dict(lua.execute(HEALTH.read_text(encoding="utf-8")))


def body_of(this: SkyCluster) -> dict[str, Any]:
    """The object as the Kubernetes API shows it. A status that was never written has its default in the CRD."""
    deletion = {"deletionTimestamp": "2026-01-01T12:00:00Z"} if this.deleting else {}
    return {
        "metadata": {"name": this.name, "namespace": this.namespace, "generation": this.generation, **deletion},
        "spec": this.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "status": {**UNSEEN, **this.status.as_json()},
    }
