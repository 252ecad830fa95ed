"""All the kopf there is: it watches SkyClusters and hands each event to the workers.

kopf brings the watch that survives dropped connections and expired versions, the log format and signal handling. It writes nothing:
finalizer and status are ours alone.
"""

from __future__ import annotations

from typing import Any

import kopf

from skyoperator.api.v1alpha1 import ABANDON, CONFIRM_LOST, FINALIZER, GROUP, PLURAL, VERSION
from skyoperator.kube import Key
from skyoperator.workers import Workers


def registry(workers: Workers) -> kopf.OperatorRegistry:
    """Return the handlers, bound to the workers."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's own signature
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def saw(namespace: str | None, name: str | None, uid: str | None, meta: kopf.Meta, **_: object) -> None:
        if namespace and name and uid:
            workers.saw(Key(namespace, name, uid), what_matters(meta))

    return handlers


def what_matters(meta: kopf.Meta) -> tuple[object, ...]:
    """Return what of the metadata calls for a pass; a status write of ours changes none of it."""
    annotations = meta.get("annotations", {})
    words = tuple(annotations.get(key) for key in (ABANDON, CONFIRM_LOST))
    return meta.get("generation"), meta.get("deletionTimestamp"), FINALIZER in meta.get("finalizers", ()), words


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no events, no peering, no cluster-wide scans."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.networking.connect_timeout = 10
    chosen.networking.request_timeout = 30
    return chosen
