"""What a job returned, waited for as long as it may still come, and never mistaken for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, Protocol

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from skyoperator_provider.errors import ResultLostError, SkyClusterError, SkyRemoteError
from skyoperator_provider.hooks.skycluster import RemoteResult
from skyoperator_provider.ownership import Target
from skyoperator_provider.remote.values import RemoteError, UnreadableValueError, code_of, read
from skyoperator_provider.skycluster import attempt_of, log_is_coming, result_record

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
    deadline, attempt = clock() + WAIT_SECONDS, None
    while True:
        check()
        # Asked first: what comes between the two questions is not missed.
        body = _body(source, target)
        # Of the launch that came to this end: the log process may not have seen it yet, and has what an earlier one returned.
        attempt = attempt_of(body) or attempt
        found = source.result(target.namespace, target.name, uid=target.uid, attempt=attempt)
        if found.state == "present":
            return _value(target, found.body, result_record(body))
        if found.state == "lost" or (is_expected and not _may_come(body)):
            raise _lost(target, found.message)
        if not _may_come(body):
            _expect_none_returned(source, target, body)
            return None
        if clock() > deadline:
            raise _overdue(target, body)
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


def _may_come(body: Mapping[str, Any] | None) -> bool:
    """Tell whether to ask again. What was collected may be so once more: the cluster may be there still, and the log's volume new."""
    return body is not None and (log_is_coming(body) or result_record(body).get("state") == "Collected")


def _expect_none_returned(source: Source, target: Target, body: Mapping[str, Any] | None) -> None:
    """That there is no result means that none was returned only if nothing else is written of it, and while the object is there.

    With that goes what was kept of its log. Raises ResultLostError.
    """
    state = result_record(body).get("state")
    if state == "Lost":
        raise _lost(target, "not all of it was had")
    if state == "Unknown":
        raise _lost(target, "if it returned a value, that was in what is missing of its log")
    if _body(source, target) is None:
        raise _lost(target, "the object was deleted before its result was taken")


def _overdue(target: Target, body: Mapping[str, Any] | None) -> SkyClusterError:
    if result_record(body).get("state") == "Collected":
        return _lost(target, "it was collected, and is not there any more. Was the volume of skyoperator's log process lost?")
    return SkyClusterError(
        f"What the job of {target} returned has not come for {WAIT_SECONDS} s; the next try asks for it again. Does the "
        "skyoperator's log process run?",
        reason="ResultNotYet",
    )


def _body(source: Source, target: Target) -> dict[str, Any] | None:
    body = source.read(target.namespace, target.name)
    return body if body is not None and body["metadata"]["uid"] == target.uid else None


def _lost(target: Target, why: str) -> ResultLostError:
    return ResultLostError(f"What the job of {target} returned is lost: {why}", reason="ResultLost")


def _value(target: Target, body: bytes, record: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the job returned
    if record.get("sha256") not in (None, sha256(body).hexdigest()):
        raise _lost(target, "what is there in its place is another than was collected")
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
