"""What a shell is told on TAB, be it through kubectl or directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class, shell_complete

from skyoperator.cli.target import Target

EXECUTABLE: Final = "kubectl-sky"
VARIABLE: Final = "_KUBECTL_SKY_COMPLETE"
NO_FILES: Final = 4
"""Cobra's ShellCompDirectiveNoFileComp: the file names that a shell would offer instead are not wanted."""


def script(command: click.Command, shell: str) -> str:
    """Return the shell's script that completes kubectl-sky."""
    return _of(command, shell).source()


def answer_shell(command: click.Command, instruction: str) -> int:
    """Answer the script's question, which is in the environment, and return the exit code."""
    return shell_complete(command, {}, EXECUTABLE, VARIABLE, instruction)


def answer_kubectl(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Return the lines that kubectl wants from kubectl_complete-sky: `word<TAB>description`, at the end a directive.

    The last argument is the word that is being typed, and may be empty (kubernetes/kubernetes#105867).
    """
    *before, incomplete = arguments or [""]
    items = ShellComplete(command, {}, EXECUTABLE, VARIABLE).get_completions(list(before), incomplete)
    return [*(f"{item.value}\t{item.help}" if item.help else str(item.value) for item in items if item.type == "plain"), f":{NO_FILES}"]


def names(target: Target, incomplete: str) -> list[str]:
    """Return the names of SkyClusters that go on like that; none if the cluster can't be asked: a TAB is no place for errors."""
    from skyoperator.cli.errors import CliError  # noqa: PLC0415 - only where names are completed is the Kubernetes client needed
    from skyoperator.cli.kube import connected  # noqa: PLC0415 - likewise

    try:
        with connected(target) as kube:
            found = [item["metadata"]["name"] for item in kube.list()]
    except CliError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def _of(command: click.Command, shell: str) -> ShellComplete:
    class_ = get_completion_class(shell)
    assert class_ is not None
    return class_(command, {}, EXECUTABLE, VARIABLE)
