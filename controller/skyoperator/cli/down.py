"""kubectl sky down: delete objects, and wait until their clusters are confirmed gone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import click

from skyoperator.api.v1alpha1 import ConditionType
from skyoperator.cli import say
from skyoperator.cli.errors import CliError, ExitCode, TimedOutError
from skyoperator.cli.fields import at, name_of, text, word
from skyoperator.cli.http import Json
from skyoperator.cli.kube import Kube, connected
from skyoperator.cli.pace import Deadline
from skyoperator.cli.target import Target
from skyoperator.cli.watching import states

ORPHAN: Final = {"spec": {"deletionPolicy": "Orphan"}}


@dataclass(frozen=True, slots=True)
class DownOptions:
    """What is deleted, and how."""

    names: Sequence[str]
    everything: bool = False
    is_agreed: bool = False
    waits: bool = True
    orphans: bool = False
    timeout_seconds: float = 0.0


def run(target: Target, options: DownOptions) -> int:
    """Delete, wait if asked to, and return 0. Raises CliError, TimedOutError."""
    with connected(target) as kube:
        doomed = kube.list() if options.everything else [kube.get(name) for name in dict.fromkeys(options.names)]
        if not doomed:
            say.note(f"There are no SkyClusters in namespace {kube.namespace}.")
            return ExitCode.OK
        if options.everything and not options.is_agreed:
            _ask(kube, doomed, options)
        for this in doomed:
            _delete(kube, this, options)
        deadline = Deadline.after(options.timeout_seconds)
        for this in doomed if options.waits else ():
            _await_gone(kube, this, deadline)
        return ExitCode.OK


def _ask(kube: Kube, doomed: Sequence[Json], options: DownOptions) -> None:
    """Raises click.Abort unless a person agrees."""
    if not sys.stdin.isatty():
        raise CliError("--all asks before it deletes, and there is no terminal to ask at. Add --yes.")
    names = ", ".join(text(this, "metadata.name") for this in doomed)
    fate = "leave their clusters running without an owner" if options.orphans else "take their clusters down"
    click.confirm(f"Delete {len(doomed)} SkyClusters in namespace {kube.namespace} ({names}) and {fate}?", abort=True, err=True)


def _delete(kube: Kube, this: Json, options: DownOptions) -> None:
    """The policy goes first: a deletion that has begun under the old one might be quicker."""
    name = text(this, "metadata.name")
    if options.orphans:
        kube.patch(name, {**ORPHAN, "metadata": {"uid": text(this, "metadata.uid")}})
    kube.delete(name, text(this, "metadata.uid"))
    click.echo(f"{name_of(this)} {'is being deleted; its cluster stays' if options.orphans else 'is being deleted'}.")


def _await_gone(kube: Kube, this: Json, deadline: Deadline) -> None:
    """Return once the object is gone, or another one has its name; say on the way what holds it."""
    said = ""
    for now in states(kube, text(this, "metadata.name"), deadline):
        if now is None or at(now, "metadata.uid") != at(this, "metadata.uid"):
            click.echo(f"{name_of(this)} is gone.")
            return
        ready = word(now, ConditionType.READY)
        if ready is not None and ready.reason == "Deleting" and ready.message != said:
            said = ready.message
            say.note(f"{name_of(this)}: {said}")
    raise TimedOutError(f"{name_of(this)} is not gone yet. {said} Its deletion goes on; it need not be asked for again.")
