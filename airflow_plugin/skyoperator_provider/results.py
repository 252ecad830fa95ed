"""What a job returned, waited for as long as it may still come, and never mistaken for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from skyoperator_provider.errors import ResultLostError, SkyClusterError, SkyRemoteError
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.ownership import Target
from skyoperator_provider.remote.values import RemoteError, UnreadableValueError, code_of, read
from skyoperator_provider.skycluster import log_is_coming

WAIT_SECONDS: Final = 120
"""The log process has `logs.waitSeconds` (60) to take it from the cluster (docs/lifecycle.md, whenFinished), and some more to say so."""
_POLL_SECONDS: Final = 2


class Source(Protocol):
    """What is asked of kube-apiserver: SkyClusterHook's part that this module needs."""

    def read(self, namespace: str, name: str) -> dict[str, Any] | None:
        """As SkyClusterHook.read."""
        ...

    def result(self, namespace: str, name: str, *, uid: str, attempt: int | None = None) -> RemoteResult:
        """As SkyClusterHook.result."""
        ...


def await_value(
    source: Source,
    target: Target,
    *,
    is_expected: bool,
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:  # noqa: ANN401 - what the job returned
    """Return the value; None if the job returned none and need not have.

    Raises ResultLostError if there was one, or had to be, and it can't be had; SkyClusterError if it can't be had now; what the function
    raised, if it raised.
    """
    deadline = clock() + WAIT_SECONDS
    while True:
        check()
        # Asked first: what comes between the two questions is not missed.
        is_coming = _is_coming(source, target)
        found = source.result(target.namespace, target.name, uid=target.uid)
        if found.state == "present":
            return _value(target, found.body)
        if found.state == "lost" or (is_expected and not is_coming):
            raise _lost(target, found.message)
        if not is_coming:
            _expect_there(source, target)
            return None
        if clock() > deadline:
            raise SkyClusterError(
                f"What the job of {target} returned has not come for {WAIT_SECONDS} s; the next try asks for it again. Does the "
                "skyoperator's log process run?",
                reason="ResultNotYet",
            )
        sleep(_POLL_SECONDS)


def raise_remote(source: Source, target: Target, *, check: Callable[[], None] = lambda: None) -> None:
    """Raise what the function of a job that failed has raised, if that can be had; otherwise the job's own failure has to do."""
    try:
        await_value(source, target, is_expected=False, check=check)
    except SkyRemoteError:
        raise
    except SkyClusterError:
        return


def exit_code(source: Source, target: Target, *, check: Callable[[], None] = lambda: None) -> int | None:
    """Return what the script of a job that failed exited with; None if it does not tell, or that can't be had."""
    try:
        raise_remote(source, target, check=check)
    except SkyRemoteError as error:
        return error.exit_code
    return None


def _is_coming(source: Source, target: Target) -> bool:
    body = _body(source, target)
    return body is not None and log_is_coming(body)


def _expect_there(source: Source, target: Target) -> None:
    """That there is no result means that none was returned only while the object is there: with it goes what was kept of its log."""
    if _body(source, target) is None:
        raise _lost(target, "the object was deleted before its result was taken")


def _body(source: Source, target: Target) -> dict[str, Any] | None:
    body = source.read(target.namespace, target.name)
    return body if body is not None and body["metadata"]["uid"] == target.uid else None


def _lost(target: Target, why: str) -> ResultLostError:
    return ResultLostError(f"What the job of {target} returned is lost: {why}", reason="ResultLost")


def _value(target: Target, body: bytes) -> Any:  # noqa: ANN401 - what the job returned
    try:
        found = read(body)
    except UnreadableValueError as error:
        raise ResultLostError(f"{target}: {error}", reason="ResultLost") from error
    if isinstance(found, RemoteError):
        raise _raised(target, found)
    return found.value


def _raised(target: Target, found: RemoteError) -> Exception:
    """Return what the function raised, for Airflow. Where it ran there is no Airflow, so the name of the class has to do."""
    text = f"{target}: {found.type}: {found.message}"
    if found.is_a("AirflowSkipException"):
        return AirflowSkipException(text)
    text = f"{text}\n{found.traceback}"
    if found.is_a("AirflowFailException"):
        return AirflowFailException(text)
    return SkyRemoteError(text, remote_type=found.type, remote_traceback=found.traceback, exit_code=code_of(found))
