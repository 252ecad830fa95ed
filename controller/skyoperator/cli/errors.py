"""How a command ends, and what it says when it can't do its work."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes that docs/kubectl-sky.md promises. 2 is click's, for a command line that is none."""

    OK = 0
    FAILED = 1
    """The job failed, or what was waited for can't come any more."""
    ERROR = 3
    """The command could not do its work."""
    TIMED_OUT = 124
    """As timeout(1) has it."""
    INTERRUPTED = 130
    """128 and SIGINT, as a shell has it."""
    BROKEN_PIPE = 141
    """128 and SIGPIPE."""
    TERMINATED = 143
    """128 and SIGTERM."""


class CliError(Exception):
    """The command can't go on; says why, with which object, and what to do."""

    exit_code = ExitCode.ERROR


class EndedError(CliError):
    """What was waited for can't come any more, or the job failed."""

    exit_code = ExitCode.FAILED


class TimedOutError(CliError):
    """It did not come in time."""

    exit_code = ExitCode.TIMED_OUT


class DroppedError(CliError):
    """The server was not reached, or the connection to it broke."""


class StatusError(CliError):
    """The server refused, with a metav1.Status or words of its own."""

    def __init__(self, message: str, code: int, *, names_object: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.names_object = names_object
        """Whether a 404 is about an object, not about a path that nobody serves."""
