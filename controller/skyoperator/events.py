"""What a watch event of an object says to its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from skyoperator.api.v1alpha1 import ABANDON, CONFIRM_LOST, FINALIZER
from skyoperator.kube import Key
from skyoperator.workers import Workers

Event: TypeAlias = Mapping[str, Any]


def waking(workers: Workers) -> Callable[[Event], None]:
    """Return what wakes the worker of an event's object."""

    def saw(event: Event) -> None:
        meta = event["object"]["metadata"]
        workers.saw(Key(meta["namespace"], meta["name"], meta["uid"]), what_matters(event["object"]))

    return saw


def what_matters(body: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what of the object calls for a pass: nothing that the controller writes into the status itself."""
    meta, status = body["metadata"], body.get("status") or {}
    annotations = meta.get("annotations") or {}
    words = tuple(annotations.get(key) for key in (ABANDON, CONFIRM_LOST))
    log = (status.get("log") or {}).get("archivedAt")
    return meta.get("generation"), meta.get("deletionTimestamp"), FINALIZER in meta.get("finalizers", ()), words, log
