"""One SkyCluster, followed as it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from skyoperator.cli import pace
from skyoperator.cli.errors import DroppedError
from skyoperator.cli.http import Json, as_json
from skyoperator.cli.kube import Kube
from skyoperator.cli.pace import Deadline

WATCH_SECONDS: Final = 300.0
"""How long one watch may last: after that, or once it breaks, the object is listed anew, so that nothing is missed for good."""
RETRY_SECONDS: Final = 1.0


def states(kube: Kube, name: str, deadline: Deadline) -> Iterator[Json | None]:
    """Yield the object as it is, and again after each change, until the deadline; None while there is none of that name.

    Needs the rights to list and watch. Raises CliError; of a connection that breaks only the first time.
    """
    this, version = kube.list_one(name)
    yield this
    while deadline.remaining_seconds > 0:
        try:
            yield from _changes(kube, name, version, deadline)
            this, version = kube.list_one(name)
        except DroppedError:
            pace.pause(min(RETRY_SECONDS, deadline.remaining_seconds))
            continue
        yield this


def _changes(kube: Kube, name: str, version: str, deadline: Deadline) -> Iterator[Json | None]:
    """Yield what the watch tells until it ends: by itself, or because the version to watch from is too old (an ERROR with 410)."""
    answer = kube.watch(name, version, min(deadline.remaining_seconds, WATCH_SECONDS))
    for line in answer.lines():
        event = as_json(line)
        if event.get("type") == "ERROR":
            return
        if event.get("type") != "BOOKMARK":
            yield None if event.get("type") == "DELETED" else event["object"]
