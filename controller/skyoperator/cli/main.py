"""The command line. What a command needs is imported when it runs: the Kubernetes client takes longer to import than --help may take."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import FrameType
from typing import Any, Final, Literal, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from skyoperator.cli import say
from skyoperator.cli.errors import CliError, ExitCode
from skyoperator.cli.pace import seconds_of
from skyoperator.cli.target import Target

T = TypeVar("T")

PROGRAM: Final = "kubectl sky"
COMPLETE_VARIABLE: Final = "_KUBECTL_SKY_COMPLETE"
SORTS: Final = ("namespace", "name", "cluster", "status", "infra", "resources", "nodes", "age", "idle", "job")


class DurationType(click.ParamType[float]):
    """A duration as kubectl takes it, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; a command line that is wrong fails."""
        try:
            return value if isinstance(value, float) else seconds_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def complete_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of SkyClusters that go on like that; none if the cluster can't be asked."""
    from skyoperator.cli.completion import names  # noqa: PLC0415 - see the module's docstring

    target = _flags_of(ctx.params).under(_flags_of(ctx.parent.params if ctx.parent else {}))
    given = ctx.params.get("names") or ()
    return [CompletionItem(name) for name in names(target, incomplete) if name not in given]


def _flags_of(parameters: Mapping[str, Any]) -> Target:
    return Target(parameters.get("kubeconfig"), parameters.get("context"), parameters.get("namespace"))


def _flagged(command: Callable[..., T]) -> Callable[..., T]:
    """Give it the flags by which kubectl finds the cluster."""
    for option in (
        click.option("--kubeconfig", metavar="FILE", help="The kubeconfig to use."),
        click.option("--context", metavar="NAME", help="The kubeconfig's context to use."),
        click.option("-n", "--namespace", metavar="NAME", help="The namespace; by default the context's."),
    ):
        command = option(command)
    return command


def connects(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command those flags, as its first argument `target`."""

    @_flagged
    @click.pass_context
    @wraps(command)
    def with_target(ctx: click.Context, /, *, kubeconfig: str | None, context: str | None, namespace: str | None, **chosen: object) -> int:
        return command(Target(kubeconfig, context, namespace).under(ctx.find_object(Target) or Target()), **chosen)

    return with_target


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="skyoperator")
@_flagged
@click.pass_context
def cli(ctx: click.Context, /, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
    """SkyClusters from the command line: logs, status, what runs where, waiting, taking down."""
    ctx.obj = Target(kubeconfig, context, namespace)


@cli.command()
@click.argument("name", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; exit with 0 if it succeeded, 1 if it failed.")
@click.option("--tail", "tail_lines", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
@click.option("--job", type=click.IntRange(min=1), metavar="ID", help="The launch whose job has this number in SkyPilot's queue.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="An earlier launch; by default the latest.")
@click.option("--previous", is_flag=True, help="The launch before the latest.")
@click.option("--provision", is_flag=True, help="SkyPilot's log of the launch, not the job's.")
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="One node's lines only.")
@click.option("--color/--no-color", "--ansi/--no-ansi", "color", default=None, help="Keep terminal codes; by default on a terminal.")
@click.option("--uid", metavar="UID", help="Of an object that is gone: its uid.")
@click.option("--release-namespace", metavar="NAME", help="Where skyoperator is installed, if no APIService leads there.")
@click.option("--token", envvar="KUBECTL_SKY_TOKEN", metavar="TOKEN", help="For the log service, if the kubeconfig has none.")
@click.option("--ca-file", type=click.Path(), metavar="FILE", help="The log service's certificate authority, if you can't read it.")
@connects
def logs(
    target: Target,
    *,
    name: str,
    follow: bool,
    tail_lines: int | None,
    job: int | None,
    attempt: int | None,
    previous: bool,
    provision: bool,
    rank: int | None,
    color: bool | None,
    uid: str | None,
    release_namespace: str | None,
    token: str | None,
    ca_file: str | None,
) -> int:
    """Print the log of a SkyCluster's job."""
    from skyoperator.cli import logs as command  # noqa: PLC0415 - see the module's docstring
    from skyoperator.cli.door import DoorOptions  # noqa: PLC0415 - likewise
    from skyoperator.cli.sink import Sink  # noqa: PLC0415 - likewise

    if previous and (follow or attempt):
        raise click.UsageError("--previous is a launch that is over: it goes with neither --follow nor --attempt.")
    keeps_codes = sys.stdout.isatty() and "NO_COLOR" not in os.environ if color is None else color
    chosen = command.LogOptions(name, follow, tail_lines, job, attempt, previous, provision, rank, uid)
    sink = Sink(sys.stdout.buffer, keeps_codes=keeps_codes)
    return command.run(target, chosen, DoorOptions(release_namespace, token, ca_file), sink)


@cli.command()
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="The objects as they are.")
@connects
def status(target: Target, *, name: str | None, everywhere: bool, form: str | None) -> int:
    """Describe a SkyCluster, or list them all."""
    from skyoperator.cli import status as command  # noqa: PLC0415 - see the module's docstring

    if name and everywhere:
        raise click.UsageError("A name is one of a namespace: -A does not go with it.")
    return command.run(target, name, everywhere=everywhere, form=form)


@cli.command()
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("--sort-by", type=click.Choice(SORTS), help="By default by name.")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="For programs.")
@connects
def top(target: Target, *, everywhere: bool, sort_by: str | None, form: str | None) -> int:
    """List the clusters that are there."""
    from skyoperator.cli import top as command  # noqa: PLC0415 - see the module's docstring

    return command.run(target, everywhere=everywhere, sort_by=sort_by, form=form)


@cli.command()
@click.argument("name", shell_complete=complete_names)
@click.option("--for", "goal", type=click.Choice(["complete", "ready", "accepted", "deleted"]), required=True, help="What to wait for.")
@click.option("--timeout", "timeout_seconds", type=DurationType(), default="30m", show_default=True, help="How long to wait.")
@connects
def wait(target: Target, *, name: str, goal: Literal["complete", "ready", "accepted", "deleted"], timeout_seconds: float) -> int:
    """Wait for a SkyCluster: 0 reached, 1 it can't be any more, 124 not in time."""
    from skyoperator.cli import waiting as command  # noqa: PLC0415 - see the module's docstring

    return command.run(target, name, goal, timeout_seconds)


@cli.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=complete_names)
@click.option("--all", "everything", is_flag=True, help="All of the namespace.")
@click.option("-y", "--yes", "is_agreed", is_flag=True, help="Do not ask about --all.")
@click.option("--wait/--no-wait", "waits", default=True, show_default=True, help="Until the clusters are confirmed gone.")
@click.option("--orphan", "orphans", is_flag=True, help="Leave the clusters running in SkyPilot, without an owner.")
@click.option("--timeout", "timeout_seconds", type=DurationType(), default="30m", show_default=True, help="How long to wait.")
@connects
def down(
    target: Target, *, names: Sequence[str], everything: bool, is_agreed: bool, waits: bool, orphans: bool, timeout_seconds: float
) -> int:
    """Delete SkyClusters and take their clusters down."""
    from skyoperator.cli import down as command  # noqa: PLC0415 - see the module's docstring

    if bool(names) == everything:
        raise click.UsageError("Name the SkyClusters to delete, or say --all.")
    return command.run(target, command.DownOptions(names, everything, is_agreed, waits, orphans, timeout_seconds))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what makes a shell complete kubectl-sky; `kubectl sky` needs only kubectl's own completion."""
    from skyoperator.cli import completion as command  # noqa: PLC0415 - see the module's docstring

    click.echo(command.script(cli, shell))
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; docs/kubectl-sky.md lists them."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CliError as error:
        say.complain(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE


def _run(argv: list[str]) -> int:
    with cli.make_context(PROGRAM, argv) as ctx:
        if "NO_COLOR" in os.environ:
            ctx.color = False
        code = cli.invoke(ctx)
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.OK


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End as by an exception, so that a forwarded port ends too."""
    raise SystemExit(ExitCode.TERMINATED)


def run() -> NoReturn:
    """The executable kubectl-sky."""
    signal.signal(signal.SIGTERM, _terminated)
    if COMPLETE_VARIABLE in os.environ:
        from skyoperator.cli import completion as command  # noqa: PLC0415 - see the module's docstring

        sys.exit(command.answer_shell(cli, os.environ[COMPLETE_VARIABLE]))
    code = main()
    if code == ExitCode.BROKEN_PIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run_completion() -> NoReturn:
    """The executable kubectl_complete-sky, which kubectl asks on TAB."""
    from skyoperator.cli import completion as command  # noqa: PLC0415 - see the module's docstring

    click.echo("\n".join(command.answer_kubectl(cli, sys.argv[1:])))
    sys.exit(ExitCode.OK)
