"""Every SkyCluster that there was, however briefly: kubectl writes each change down as it happens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_ID = "airflow.skyoperator.dev/run-id"
Event = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The changes so far."""

    path: Path

    def events(self) -> list[Event]:
        """Return them in order. The last line may be on its way still."""
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def names(self) -> set[str]:
        return {event["object"]["metadata"]["name"] for event in self.events()}


@contextmanager
def watching(namespace: str, path: Path) -> Iterator[Seen]:
    """Yield what is seen from now on."""
    command = ["kubectl", "get", "skyc", "-n", namespace, "--watch", "--output-watch-events", "-o", "json"]
    with path.open("wb") as out, subprocess.Popen(command, stdout=out) as kubectl:
        try:
            yield Seen(path)
            assert kubectl.poll() is None, "kubectl stopped watching before the end"
        finally:
            kubectl.terminate()


def of_run(events: Iterable[Event], run_id: str) -> list[Event]:
    return [event for event in events if run_of(event["object"]) == run_id]


def run_of(item: dict[str, Any]) -> str | None:
    """The run of a DAG that an object was made for, if ours made it: stock operators leave no mark."""
    found: str | None = item["metadata"].get("annotations", {}).get(RUN_ID)
    return found


def most_at_once(events: Iterable[Event]) -> int:
    """Return how many objects there were at most that nobody had asked to be deleted."""
    held, most = set[str](), 0
    for event in events:
        about = event["object"]["metadata"]
        is_held = event["type"] != "DELETED" and "deletionTimestamp" not in about
        held = held | {about["uid"]} if is_held else held - {about["uid"]}
        most = max(most, len(held))
    return most
