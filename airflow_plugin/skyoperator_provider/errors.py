"""Why a task fails, in the words of the object that failed."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from skyoperator_provider.skycluster import Verdict


class SkyClusterError(AirflowException):
    """A SkyCluster came to no good end. Airflow may try again: the controller retries infrastructure, Airflow retries the job."""

    def __init__(self, message: str, *, reason: str = "", log_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.log_lines = tuple(log_lines)


class SkyClusterRejectedError(AirflowFailException):
    """The same task would be refused again, so Airflow does not try again."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ResultLostError(SkyClusterError):
    """The job returned a value, or was to, and it can't be had. Never None in its place."""


class SkyRemoteError(SkyClusterError):
    """The job sent back what went wrong: what the function of an @task.sky raised, or what a script exited with."""

    def __init__(self, message: str, *, remote_type: str, remote_traceback: str, exit_code: int | None = None) -> None:
        super().__init__(message, reason="JobFailed")
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback
        self.exit_code = exit_code
        """None if a function raised."""


class ApiError(SkyClusterError):
    """The Kubernetes API refused a request, or did not answer it. The next try may meet something else."""

    def __init__(self, message: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.status = status
        """The HTTP status; None if there was no answer."""


class OutOfSightError(SkyClusterError):
    """Nobody can tell how a job fares. It is no sign that it fares badly, so its object is left for the next try to take over."""


class ObjectExistsError(ApiError):
    """There is an object of that name. It may be our own, if the answer to its making was lost: read it."""


class ChangedError(ApiError):
    """The object is not what it was when it was read: changed, being deleted, gone, or another of the same name. Read it again."""


def failure(namespace: str, name: str, verdict: Verdict, log_lines: Sequence[str] = ()) -> SkyClusterError | SkyClusterRejectedError:
    """Return the error that this end is for Airflow."""
    text = f"SkyCluster {namespace}/{name}: {verdict.reason}: {verdict.message}"
    if verdict.is_permanent:
        return SkyClusterRejectedError(text, reason=verdict.reason)
    tail = "".join(f"\n  {line}" for line in log_lines)
    return SkyClusterError(f"{text}{tail and chr(10) + 'The last lines of its log:'}{tail}", reason=verdict.reason, log_lines=log_lines)
