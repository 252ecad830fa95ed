"""A task instance's one object: brought about, taken over, let go. Whatever may die in between is found again by its name.

    read ──► nothing ──create──► ours            finished ──delete──► leaving ──wait──► nothing
      ▲         │  409: somebody was faster                              │
      └─────────┴──────── read again, until the deadline ────────────────┘

What to do about what was read is `reattach`'s to say; here it is done, one call of the Kubernetes API after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from skyoperator_provider.errors import ApiError, ChangedError, ObjectExistsError, SkyClusterError, SkyClusterRejectedError
from skyoperator_provider.identity import COLLECTED, OWNER_TRY, PREFIX, TASK_LABEL, Identity, said
from skyoperator_provider.manifest import specs_differ
from skyoperator_provider.reattach import Step, next_step

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

_PAUSE_SECONDS: Final = 0.5

Body = dict[str, Any]
T = TypeVar("T")


class Log(Protocol):
    """A logger, Airflow's or another."""

    def info(self, event: str, *args: object) -> object:
        """Say what happens."""

    def warning(self, event: str, *args: object) -> object:
        """Say what somebody should look at."""


class Objects(Protocol):
    """What is asked of kube-apiserver: SkyClusterHook's part that this module needs."""

    def create(self, manifest: Mapping[str, Any]) -> Body:
        """As SkyClusterHook.create."""
        ...

    def read(self, namespace: str, name: str, *, request_timeout_seconds: float | None = None) -> Body | None:
        """As SkyClusterHook.read."""
        ...

    def list_by_label(self, namespace: str, selector: str) -> list[Body]:
        """As SkyClusterHook.list_by_label."""
        ...

    def annotate(
        self, namespace: str, name: str, annotations: Mapping[str, str], *, uid: str | None = None, resource_version: str | None = None
    ) -> Body:
        """As SkyClusterHook.annotate."""
        ...

    def delete(
        self,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        request_timeout_seconds: float | None = None,
    ) -> bool:
        """As SkyClusterHook.delete."""
        ...

    def wait_gone(self, namespace: str, name: str, uid: str, *, timeout_seconds: float, poll_seconds: float) -> bool:
        """As SkyClusterHook.wait_gone."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One object, and no other that may come to have its name."""

    name: str
    namespace: str
    uid: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Target:
        """Return the object that a body of the Kubernetes API is."""
        metadata = body["metadata"]
        return cls(metadata["name"], metadata["namespace"], metadata["uid"])

    def as_dict(self) -> dict[str, str]:
        """Return what goes through XCom."""
        return {"name": self.name, "namespace": self.namespace, "uid": self.uid}

    def __str__(self) -> str:
        return f"SkyCluster {self.namespace}/{self.name}"


def identity_of(context: Mapping[str, Any], task: BaseOperator, deployment: str) -> Identity:
    """Return who a running task instance is.

    `max_tries` begins as the task's retries and grows when, and only when, a finished or deferred instance is cleared
    (airflow/models/taskinstance.py, clear_task_instances).
    """
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    series = ti.max_tries - (task.retries or 0)
    run_started = getattr(context.get("dag_run"), "start_date", None)
    return Identity(deployment, ti.dag_id, ti.run_id, ti.task_id, map_index=map_index, series=series, run_started=run_started)


class Owner:
    """One try of one task instance, towards the object that is its own."""

    def __init__(
        self,
        objects: Objects,
        identity: Identity,
        namespace: str,
        owner_try: int,
        *,
        log: Log,
        is_killed: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.identity = identity
        self._objects = objects
        self._namespace = namespace
        self._owner_try = str(owner_try)
        self._log = log
        self._is_killed = is_killed
        self._clock = clock
        self._sleep = sleep

    def bring_about(self, manifest: Mapping[str, Any], *, timeout_seconds: float, poll_seconds: float = 2) -> Body:
        """Return the object of this task instance, which belongs to this try from now on.

        Raises SkyClusterRejectedError if the name is somebody else's, SkyClusterError if there is none in time, or the task was killed.
        """
        deadline = self._clock() + timeout_seconds
        self._repeat(deadline, self.delete_other_series)
        return self._repeat(deadline, lambda: self._take_step(manifest, deadline, poll_seconds))

    def delete_other_series(self) -> bool:
        """Delete what another series of this very task instance left: it was cleared, and nobody waits for that any more. Return True.

        Not only older ones: who edits a task's retries while it runs moves its series too, in either direction. Which try is the later
        one is told by its number, which grows over clears. Raises SkyClusterError if there is something of a later try, ChangedError.
        """
        found = self._objects.list_by_label(self._namespace, f"{TASK_LABEL}={self.identity.task}")
        others = [body for body in found if self._is_of_other_series(body)]
        for body in others:
            self._expect_not_overtaken(body)
        for body in others:
            if not is_leaving(body):
                self._log.info("Deleting %s, of an earlier run of this task instance", Target.of(body))
                self._delete(body)
        return True

    def find(self) -> Body | None:
        """Return the object of this task instance, if it belongs to this very try."""
        body = self._objects.read(self._namespace, self.identity.name)
        if body is None or not self.identity.owns(body) or self.identity.is_earlier_than(body) or owner_try(body) != self._owner_try:
            return None
        return body

    def discard(self, *, spares_results: bool = False) -> bool:
        """Delete the object, unless a later try has it. Tell whether there was something to delete.

        An older try's counts as well: its worker may have died, and this try have failed before it took it over. With spares_results one
        stays that came to a good end and whose result nobody has taken: the next try takes it.
        """
        while (body := self._unclaimed()) is not None and not (spares_results and next_step(body, self.identity) is Step.COLLECT):
            try:
                return self._delete(body)
            except ChangedError:
                self._sleep(_PAUSE_SECONDS)
        return False

    def mark_collected(self, target: Target) -> bool:
        """Write down that the result was taken or is lost, so that no later try asks for it. Tell whether it is this try's still."""
        while (body := self.find()) is not None and body["metadata"]["uid"] == target.uid:
            try:
                self._annotate(body, {COLLECTED: "true"})
            except ChangedError:
                self._sleep(_PAUSE_SECONDS)
            else:
                return True
        return False

    def _unclaimed(self) -> Body | None:
        """Return the object of this series, unless it is a later try's, or leaving."""
        body = self._objects.read(self._namespace, self.identity.name)
        if body is None or not self.identity.owns(body) or self.identity.is_earlier_than(body) or is_leaving(body):
            return None
        holder = owner_try(body) or ""
        is_older = holder.isdecimal() and int(holder) <= int(self._owner_try)
        return body if is_older or self.identity.is_later_than(body) else None

    def _repeat(self, deadline: float, step: Callable[[], T | None]) -> T:
        """Return what the step returns, once it returns something. What changed between two calls of it is read again."""
        while True:
            self._check(deadline)
            try:
                done = step()
            except (ObjectExistsError, ChangedError) as changed:
                self._log.info("Somebody else was faster, so it is read again: %s", changed)
                self._sleep(_PAUSE_SECONDS)
                continue
            if done is not None:
                return done

    def _take_step(self, manifest: Mapping[str, Any], deadline: float, poll_seconds: float) -> Body | None:
        found = self._objects.read(self._namespace, self.identity.name)
        step = next_step(found, self.identity)
        if found is None:
            return self._create(manifest)
        if step is Step.CONFLICT:
            raise self._conflict(found)
        self._expect_not_overtaken(found)
        if step is Step.AWAIT_GONE:
            self._await_gone(found, deadline, poll_seconds)
            return None
        if step is Step.REPLACE:
            self._log.info("%s is over; it is deleted, and made anew", Target.of(found))
            self._delete(found)
            return None
        return self._adopt(found, manifest)

    def _create(self, manifest: Mapping[str, Any]) -> Body:
        try:
            body = self._objects.create(manifest)
        except ObjectExistsError:
            raise
        except ApiError:
            # The answer may have been lost on its way, and the object be there all the same.
            found = self.find()
            if found is None or is_leaving(found):
                raise
            body = found
        self._log.info("Created %s", Target.of(body))
        return body

    def _adopt(self, found: Body, manifest: Mapping[str, Any]) -> Body | None:
        """Return the object as this try's own; None if it began to leave meanwhile."""
        target = Target.of(found)
        if owner_try(found) != self._owner_try:
            self._log.info("Taking over %s from try %s", target, owner_try(found))
        if differing := specs_differ(found, manifest):
            self._log.warning("%s differs in %s from what this try would make. It is left as it is.", target, ", ".join(differing))
        body = self._annotate(found, {OWNER_TRY: self._owner_try})
        return None if is_leaving(body) else body

    def _annotate(self, body: Body, annotations: Mapping[str, str]) -> Body:
        """Annotate the object as it was read: whose it is may have changed since. Raises ChangedError."""
        target, version = Target.of(body), body["metadata"].get("resourceVersion")
        return self._objects.annotate(target.namespace, target.name, annotations, uid=target.uid, resource_version=version)

    def _await_gone(self, found: Body, deadline: float, poll_seconds: float) -> None:
        target = Target.of(found)
        self._log.info("%s is being deleted; waiting until it is gone", target)
        remaining = max(deadline - self._clock(), 0)
        # In slices, so that a kill is noticed between them.
        self._objects.wait_gone(
            target.namespace, target.name, target.uid, timeout_seconds=min(remaining, 10 * poll_seconds), poll_seconds=poll_seconds
        )

    def _delete(self, body: Body) -> bool:
        target = Target.of(body)
        return self._objects.delete(target.namespace, target.name, uid=target.uid, resource_version=body["metadata"].get("resourceVersion"))

    def _check(self, deadline: float) -> None:
        if self._is_killed():
            raise SkyClusterError(f"The task was killed before it had SkyCluster {self._namespace}/{self.identity.name}.", reason="Killed")
        if self._clock() > deadline:
            raise SkyClusterError(
                f"SkyCluster {self._namespace}/{self.identity.name} could not be made in time: what stood under its name is not gone yet. "
                f"See what it waits for: kubectl describe skyc -n {self._namespace} {self.identity.name}",
                reason="NotGone",
            )

    def _expect_not_overtaken(self, found: Body) -> None:
        """A worker that was cut off, declared dead and came back must not take the object from the try after it.

        The tries of two DAG runs of one id are numbered alike, and tell nothing of each other.
        """
        if self.identity.is_later_than(found):
            return
        if self.identity.is_earlier_than(found):
            raise SkyClusterError(f"{Target.of(found)} is of a later DAG run of that id, since this one was deleted.", reason="Overtaken")
        holder = owner_try(found) or ""
        if holder.isdecimal() and int(holder) > int(self._owner_try):
            raise SkyClusterError(f"{Target.of(found)} belongs to try {holder} by now; this is try {self._owner_try}.", reason="Overtaken")

    def _conflict(self, found: Body) -> SkyClusterRejectedError:
        wanted = said({"metadata": {"annotations": self.identity.annotations}})
        return SkyClusterRejectedError(
            f"{Target.of(found)} is not this task's. It belongs to: {said(found)}. This task is: {wanted}. "
            "Delete it, or give this Airflow a deployment name of its own in its connection.",
            reason="NameConflict",
        )

    def _is_of_other_series(self, body: Mapping[str, Any]) -> bool:
        """By the annotations: anybody may write a label."""
        if body["metadata"]["name"] == self.identity.name:
            return False
        found = body["metadata"].get("annotations") or {}
        return all(found.get(key) == value for key, value in self.identity.annotations.items() if key != f"{PREFIX}/series")


def owner_try(body: Mapping[str, Any]) -> str | None:
    """Return the try that an object belongs to."""
    found: str | None = (body["metadata"].get("annotations") or {}).get(OWNER_TRY)
    return found


def is_leaving(body: Mapping[str, Any]) -> bool:
    """Tell whether somebody has deleted it."""
    return bool(body["metadata"].get("deletionTimestamp"))
