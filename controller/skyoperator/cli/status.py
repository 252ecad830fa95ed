"""kubectl sky status: all of one object that a person needs, or a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli.errors import ExitCode
from skyoperator.cli.fields import at, now, since, text, word
from skyoperator.cli.http import Json
from skyoperator.cli.kube import connected
from skyoperator.cli.table import document, paint, table
from skyoperator.cli.target import Target

HEADS = ("NAME", "READY", "STATUS", "REASON", "ATTEMPT", "JOB", "INFRA", "AGE")


def run(target: Target, name: str | None, *, everywhere: bool, form: str | None) -> int:
    """Print it, and return 0. Raises CliError."""
    with connected(target) as kube:
        found: list[Json] = [kube.get(name)] if name else kube.list(everywhere=everywhere)
        namespace = kube.namespace
    if form:
        click.echo(document(found[0] if name else {"apiVersion": "v1", "kind": "List", "items": found}, form))
    elif name:
        click.echo("\n".join(description(found[0], now())))
    elif found:
        click.echo("\n".join(overview(found, now(), everywhere=everywhere)))
    else:
        click.echo("There are no SkyClusters." if everywhere else f"There are no SkyClusters in namespace {namespace}.", err=True)
    return ExitCode.OK


def overview(found: list[Json], at_time: datetime, *, everywhere: bool) -> list[str]:
    """Return a table with a line for each object."""
    heads = ("NAMESPACE", *HEADS) if everywhere else HEADS
    rows = [_row(this, at_time) for this in found]
    if everywhere:
        rows = [(text(this, "metadata.namespace"), *row) for this, row in zip(found, rows, strict=True)]
    return table(heads, rows, coloured=heads.index("STATUS"))


def _row(this: Json, at_time: datetime) -> tuple[str, ...]:
    ready = word(this, ConditionType.READY)
    return (
        text(this, "metadata.name"),
        ready.status if ready else "",
        text(this, "status.phase"),
        ready.reason if ready else "",
        text(this, "status.launch.attempt"),
        text(this, "status.job.status"),
        text(this, "status.cluster.infra"),
        since(at(this, "metadata.creationTimestamp"), at_time),
    )


def description(this: Json, at_time: datetime) -> list[str]:
    """Return all of one object that a person needs."""
    sections = (_head, _cluster, _job, _launch, _failures, _conditions, _log)
    return [line for section in sections for line in section(this, at_time)]


def _fields(title: str, pairs: list[tuple[str, str]]) -> Iterator[str]:
    """Yield a section of what is there; nothing if nothing is."""
    present = [(label, value) for label, value in pairs if value]
    if present:
        yield f"{title}:"
        yield from (f"  {label + ':':<14}{value}" for label, value in present)


def _head(this: Json, at_time: datetime) -> Iterator[str]:
    age = since(at(this, "metadata.creationTimestamp"), at_time)
    pairs = [
        ("Name", text(this, "metadata.name")),
        ("Namespace", text(this, "metadata.namespace")),
        ("Status", paint(text(this, "status.phase") or "Pending")),
        ("Age", age),
        ("Suspend", "true" if at(this, "spec.suspend") else ""),
        ("Deleting", f"for {since(at(this, 'metadata.deletionTimestamp'), at_time)}" if at(this, "metadata.deletionTimestamp") else ""),
        ("Finished", _ago(this, "status.completionTime", at_time)),
    ]
    yield from (f"{label + ':':<16}{value}" for label, value in pairs if value)
    if at(this, "status.observedGeneration") != at(this, "metadata.generation"):
        yield f"{'Note:':<16}The controller has not seen the latest edit yet."


def _ago(this: Json, path: str, at_time: datetime) -> str:
    moment = text(this, path)
    return f"{moment} ({since(moment, at_time)} ago)" if moment else ""


def _cluster(this: Json, at_time: datetime) -> Iterator[str]:
    endpoints = at(this, "status.cluster.endpoints") or []
    yield from _fields(
        "Cluster",
        [
            ("Name", text(this, "status.cluster.name")),
            ("Status", text(this, "status.cluster.status")),
            ("Infra", text(this, "status.cluster.infra")),
            ("Resources", text(this, "status.cluster.resources")),
            ("Nodes", text(this, "status.cluster.nodes")),
            ("Launched", _ago(this, "status.cluster.launchedAt", at_time)),
            ("Up", _ago(this, "status.cluster.upAt", at_time)),
            ("Idle", since(at(this, "status.cluster.idleSince"), at_time)),
            ("Unhealthy", since(at(this, "status.cluster.unhealthySince"), at_time)),
            *((f"Port {endpoint.get('port')}", str(endpoint.get("url"))) for endpoint in endpoints),
        ],
    )


def _job(this: Json, at_time: datetime) -> Iterator[str]:
    yield from _fields(
        "Job",
        [
            ("ID", text(this, "status.job.id")),
            ("Name", text(this, "status.job.displayName") or text(this, "status.job.name")),
            ("Status", text(this, "status.job.status")),
            ("Submitted", _ago(this, "status.job.submittedAt", at_time)),
            ("Started", _ago(this, "status.job.startedAt", at_time)),
            ("Ended", _ago(this, "status.job.finishedAt", at_time)),
        ],
    )


def _launch(this: Json, at_time: datetime) -> Iterator[str]:
    yield from _fields(
        "Launch",
        [
            ("Attempt", text(this, "status.launch.attempt")),
            ("Request", text(this, "status.launch.requestID")),
            ("Asked for", _ago(this, "status.launch.requestedAt", at_time)),
            ("Came up", _ago(this, "status.launch.finishedAt", at_time)),
            ("Given up", _ago(this, "status.launch.endedAt", at_time)),
        ],
    )


def _failures(this: Json, at_time: datetime) -> Iterator[str]:  # noqa: ARG001 - one of the sections
    if not at(this, "status.failures.count"):
        return
    limit = at(this, "spec.backoffLimit")
    count = text(this, "status.failures.count")
    yield from _fields(
        "Failures",
        [
            ("Count", f"{count} (backoffLimit {limit})" if limit is not None else count),
            ("Last", text(this, "status.failures.reason")),
            ("Message", text(this, "status.failures.message")),
            ("Next launch", text(this, "status.failures.nextRetryTime")),
        ],
    )


def _conditions(this: Json, at_time: datetime) -> Iterator[str]:
    conditions = at(this, "status.conditions") or []
    if not conditions:
        return
    rows = [
        (
            condition.get("type", ""),
            condition.get("status", ""),
            condition.get("reason", ""),
            since(condition.get("lastTransitionTime"), at_time),
            " ".join(condition.get("message", "").split()),
        )
        for condition in conditions
    ]
    yield "Conditions:"
    yield from (f"  {line}" for line in table(("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows))


def _log(this: Json, at_time: datetime) -> Iterator[str]:  # noqa: ARG001 - one of the sections
    if at(this, "status.launch") is None:
        return
    where = f"{text(this, 'metadata.name')} -n {text(this, 'metadata.namespace')}"
    has_job = at(this, "status.job") is not None
    yield from _fields(
        "Log", [("Job", f"kubectl sky logs {where}" if has_job else ""), ("Launch", f"kubectl sky logs {where} --provision")]
    )
