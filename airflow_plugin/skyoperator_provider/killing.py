"""One deletion in the last seconds of a worker that is being killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skyoperator_provider.errors import ApiError, ChangedError
from skyoperator_provider.ownership import Objects, Target, is_leaving, owner_try

DELETE_SECONDS: Final = 3
"""A killed task has 5 s between SIGTERM and SIGKILL (airflow/sdk/execution_time/supervisor.py, kill)."""
_LOOK_SECONDS: Final = 1
_ATTEMPTS: Final = 3


class Killer:
    """Deletes an object from within a signal handler, where time is short and Airflow must not be called.

    The hook has spoken to kube-apiserver before, so it has its connection's settings, and asks Airflow for nothing any more.
    """

    def __init__(self, objects: Objects, target: Target, owner_try: int) -> None:
        self._objects = objects
        self._target = target
        self._owner_try = str(owner_try)
        self._version: str | None = None

    def saw(self, body: Mapping[str, Any] | None) -> None:
        """Remember the object as it is while it is this try's, for a kill that can't look."""
        if body is not None and self._is_own(body):
            self._version = body["metadata"].get("resourceVersion")

    def __call__(self) -> bool:
        """Delete the object if it is this try's still; tell whether that is settled. Raises nothing: nobody could do anything about it."""
        try:
            return any(self._attempt() for _ in range(_ATTEMPTS))
        except Exception:  # noqa: BLE001 - whatever it is, the process ends now
            return False

    def _attempt(self) -> bool:
        """A worker that was cut off for a while may come to kill what the next try has taken over; so it looks first."""
        target = self._target
        try:
            body = self._objects.read(target.namespace, target.name, request_timeout_seconds=_LOOK_SECONDS)
            if body is None or not self._is_own(body) or is_leaving(body):
                return True
            self.saw(body)
        except ApiError:
            # As it was seen last it was this try's, and who takes it over writes to it. What can't be told at all is left to its deadline:
            # a job too long is a lesser evil than one that the next try waits for, and that is gone.
            if self._version is None:
                return False
        try:
            self._objects.delete(
                target.namespace, target.name, uid=target.uid, resource_version=self._version, request_timeout_seconds=DELETE_SECONDS
            )
        except ChangedError:
            return False
        return True

    def _is_own(self, body: Mapping[str, Any]) -> bool:
        return bool(body["metadata"]["uid"] == self._target.uid and owner_try(body) == self._owner_try)
