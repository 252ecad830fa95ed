"""Words for the person at the terminal, beside the output."""

from __future__ import annotations

import click


def note(words: str) -> None:
    """Say what goes on."""
    click.secho(words, err=True, fg="yellow")


def complain(words: str) -> None:
    """Say why it ends here."""
    click.secho("Error: ", err=True, fg="red", nl=False)
    click.echo(words, err=True)
