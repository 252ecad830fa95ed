"""kubectl sky top: the clusters that are there, on what, since when, and whether they do anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import click

from skyoperator.api.v1alpha1 import TERMINATED
from skyoperator.cli.errors import ExitCode
from skyoperator.cli.fields import at, now, since, text
from skyoperator.cli.http import Json
from skyoperator.cli.kube import connected
from skyoperator.cli.table import document, table
from skyoperator.cli.target import Target

PATHS: Final = {
    "namespace": "metadata.namespace",
    "name": "metadata.name",
    "cluster": "status.cluster.name",
    "status": "status.cluster.status",
    "infra": "status.cluster.infra",
    "resources": "status.cluster.resources",
    "nodes": "status.cluster.nodes",
    "age": "status.cluster.launchedAt",
    "idle": "status.cluster.idleSince",
    "job": "status.job.status",
}
"""The columns, and where each is found."""
TIMES: Final = {"age": "launchedAt", "idle": "idleSince"}
"""Columns that a table shows as a duration, and what the moment is called in a document."""
NEVER: Final = "~"
"""Behind every RFC 3339 time."""


def run(target: Target, *, everywhere: bool, sort_by: str | None, form: str | None) -> int:
    """Print them, and return 0. Raises CliError."""
    with connected(target) as kube:
        found = in_order([this for this in kube.list(everywhere=everywhere) if has_cluster(this)], sort_by)
        namespace = kube.namespace
    if form:
        click.echo(document([_record(this) for this in found], form))
    elif found:
        click.echo("\n".join(overview(found, now(), everywhere=everywhere)))
    else:
        click.echo("There are no clusters." if everywhere else f"There are no clusters in namespace {namespace}.", err=True)
    return ExitCode.OK


def has_cluster(this: Json) -> bool:
    """Return whether SkyPilot has a cluster of it, as far as was seen."""
    return at(this, "status.cluster.status") not in {None, TERMINATED}


def in_order(found: Sequence[Json], sort_by: str | None) -> list[Json]:
    """Return them sorted: the oldest, the longest idle and the most nodes first, words by the alphabet."""
    by_name = sorted(found, key=lambda this: (text(this, PATHS["namespace"]), text(this, PATHS["name"])))
    return by_name if sort_by is None else sorted(by_name, key=_key(sort_by))


def _key(sort_by: str) -> Callable[[Json], Any]:
    if sort_by == "nodes":
        return lambda this: -(at(this, PATHS["nodes"]) or 0)
    if sort_by in TIMES:
        return lambda this: text(this, PATHS[sort_by]) or NEVER
    return lambda this: text(this, PATHS[sort_by])


def overview(found: Sequence[Json], at_time: datetime, *, everywhere: bool) -> list[str]:
    """Return a table with a line for each cluster."""
    columns = [column for column in PATHS if everywhere or column != "namespace"]
    rows = [[_cell(this, column, at_time) for column in columns] for this in found]
    return table([column.upper() for column in columns], rows)


def _cell(this: Json, column: str, at_time: datetime) -> str:
    return since(at(this, PATHS[column]), at_time) if column in TIMES else text(this, PATHS[column])


def _record(this: Json) -> Json:
    return {TIMES.get(column, column): at(this, path) for column, path in PATHS.items()}
