"""One deletion in the last seconds of a worker that is being killed."""

from __future__ import annotations

from typing import Final

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
            if body is None or body["metadata"]["uid"] != target.uid or owner_try(body) != self._owner_try or is_leaving(body):
                return True
            version = body["metadata"].get("resourceVersion")
        except ApiError:
            # Better deleted unseen than left to run until its deadline.
            version = None
        try:
            self._objects.delete(
                target.namespace, target.name, uid=target.uid, resource_version=version, request_timeout_seconds=DELETE_SECONDS
            )
        except ChangedError:
            return False
        return True
