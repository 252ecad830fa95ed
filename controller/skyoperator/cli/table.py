"""Tables and documents on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import click
import yaml

from skyoperator.cli.http import Json

GAP: Final = "   "
COLOURS: Final = {
    "Running": "green",
    "Ready": "green",
    "Succeeded": "green",
    "Failed": "red",
    "Launching": "yellow",
    "Queued": "yellow",
    "Pending": "yellow",
    "Stopping": "yellow",
    "Deleting": "yellow",
}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], coloured: int | None = None) -> list[str]:
    """Return the lines, each column as wide as its widest cell; one column may have the colours of phases."""
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (heads, *rows)]
    for line, row in zip(lines[1:], rows, strict=True):
        if coloured is not None:
            line[coloured] = paint(row[coloured]) + line[coloured][len(row[coloured]) :]
    return [GAP.join(line).rstrip() for line in lines]


def paint(phase: str) -> str:
    """Return the phase in its colour; click takes it off where there is no terminal."""
    return click.style(phase, fg=COLOURS[phase]) if phase in COLOURS else phase


def document(found: Json | Sequence[Json], form: str) -> str:
    """Return it as JSON or YAML."""
    if form == "json":
        return json.dumps(found, indent=2, ensure_ascii=False)
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip()
