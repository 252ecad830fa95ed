"""Operators on an object that another task made. None of them deletes it when it is killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

from skyoperator_provider import references
from skyoperator_provider.errors import ChangedError, SkyClusterError, SkyClusterRejectedError, failure
from skyoperator_provider.following import Follower, LogStream, resumed
from skyoperator_provider.operators.base import (
    LOGGING_INTERVAL_SECONDS,
    Event,
    SkyClusterBaseOperator,
    checked_interval,
    default_deferrable,
    target_of,
)
from skyoperator_provider.ownership import Target
from skyoperator_provider.references import Reference
from skyoperator_provider.skycluster import Outcome, Verdict, WaitFor, verdict, words

_GONE_PERIOD_SECONDS: Final = 30


class SkyClusterReferringOperator(SkyClusterBaseOperator):
    """Speaks of an object by what a create task returned, by its name, or by the task that made it.

    :param cluster: what SkyClusterCreateOperator returned, or a name. Templated.
    :param cluster_task_id: the task of this DAG run that made the object, which is found by its labels and by what the task told as soon
        as it had it; also after a failure, when the task has returned nothing. For a mapped task it is that of the same map index.
    """

    template_fields: Sequence[str] = (*SkyClusterBaseOperator.template_fields, "cluster", "cluster_task_id")

    def __init__(self, *, cluster: Any = None, cluster_task_id: str | None = None, poll_seconds: float = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if cluster is None and cluster_task_id is None:
            raise ValueError("Say which SkyCluster: cluster= (what a create task returned, or a name) or cluster_task_id=")
        self.cluster = cluster
        self.cluster_task_id = cluster_task_id
        self.poll_seconds = poll_seconds

    def _named(self) -> Reference | None:
        try:
            return references.parse(self.cluster, self.get_namespace())
        except ValueError as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error

    def _made_upstream(self, context: Context) -> list[Target]:
        if self.cluster_task_id is None:
            return []
        return references.made_by(self.hook, self._maker(context, self.cluster_task_id))

    def _one(self, context: Context) -> Target:
        """Return the one object that is meant. Raises SkyClusterError if it is not there: who was to make it is done."""
        named = self._named()
        if named is not None:
            body = self.hook.read(named.namespace, named.name)
            if body is None or not named.is_to(body):
                raise SkyClusterError(f"{named} is not there: it was deleted, or never made.", reason="Deleted")
            return Target.of(body)
        found = self._one_made_upstream(context)
        if found is None:
            by = f"that task {self.cluster_task_id} made" if self.cluster_task_id else "since cluster= is empty"
            raise SkyClusterError(f"There is no SkyCluster in namespace {self.get_namespace()} {by}.", reason="Deleted")
        return found

    def _one_made_upstream(self, context: Context) -> Target | None:
        if self.cluster_task_id is None:
            return None
        try:
            return references.one_made_by(self.hook, self._maker(context, self.cluster_task_id))
        except references.AmbiguousError as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error


class SkyClusterLogsOperator(SkyClusterReferringOperator):
    """Prints the log of a SkyCluster's job until it ends, and fails if the job failed.

    :param log_path: where the whole log is copied to at the end: a path or an ObjectStoragePath. Templated. A log that can't be had to its
        end fails no task: the copy's last line and a warning say so.
    :param deferrable: wait in the triggerer, which prints the log too; `[operators] default_deferrable` if it is not said.
    :param logging_interval_seconds: how long a trigger waits before it prints what the log has got meanwhile; longer while nothing comes.
    """

    template_fields: Sequence[str] = (*SkyClusterReferringOperator.template_fields, "log_path")

    def __init__(
        self,
        *,
        log_path: Any = None,
        deferrable: bool | None = None,
        logging_interval_seconds: float = LOGGING_INTERVAL_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.log_path = log_path
        self.logging_interval_seconds = checked_interval(logging_interval_seconds)
        self.deferrable = default_deferrable() if deferrable is None else deferrable

    def execute(self, context: Context) -> dict[str, str]:
        """Print the log to its end; return {name, namespace, uid}. Raises SkyClusterError, SkyClusterRejectedError."""
        target = self._one(context)
        body = self.hook.read(target.namespace, target.name)
        end = verdict(body, WaitFor.COMPLETE, uid=target.uid)
        if end is None and self.deferrable:
            self._defer(context, target)
        stream = LogStream(self.hook, target, log=self.log)
        return self._ended(target, end or self._follower(target).wait(WaitFor.COMPLETE, stream), stream)

    def execute_complete(self, context: Context, event: Event) -> dict[str, str]:
        """Print the rest of the log; where the trigger has lost sight of what goes on, defer again. Raises as execute does."""
        target, end = target_of(event), self._end_after(event, WaitFor.COMPLETE)
        if end is None:
            self._defer(context, target, after=event)
        return self._ended(target, end, resumed(self.hook, target, event, log=self.log))

    def _defer(self, context: Context, target: Target, *, after: Event | None = None) -> NoReturn:
        asked = {"on_kill_action": "keep", "logs": True, "logging_interval_seconds": self.logging_interval_seconds}
        trigger = {**target.as_dict(), **asked}
        self._wait_in_triggerer(context, trigger, WaitFor.COMPLETE, self._limit_seconds(), after=after)

    def _ended(self, target: Target, end: Verdict, stream: LogStream) -> dict[str, str]:
        follower = self._follower(target)
        follower.drain(stream)
        if self.log_path:
            self._copy(follower, target)
        if end.outcome is Outcome.REACHED:
            return target.as_dict()
        raise failure(target.namespace, target.name, end, follower.last_lines())

    def _copy(self, follower: Follower, target: Target) -> None:
        path = ObjectStoragePath(self.log_path)
        if path.parent != path:
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # type: ignore[no-untyped-call]
            missing = follower.copy_log(file)
        if missing:
            self.log.warning("The log of %s is not whole: %s", target, missing)
        self.log.info("The log of %s is in %s", target, path)

    def _follower(self, target: Target) -> Follower:
        return Follower(self.hook, target, log=self.log, poll_seconds=self.poll_seconds)


class SkyClusterDeleteOperator(SkyClusterReferringOperator):
    """Deletes a SkyCluster, and with it its cluster. That it is not there is success.

    With both `cluster` and `cluster_task_id` what either of them finds is deleted. An unmapped task deletes all that a mapped one made.

    :param wait_until_gone: wait until SkyPilot has confirmed that nothing is left; bounded by execution_timeout.
    """

    def __init__(self, *, wait_until_gone: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_until_gone = wait_until_gone

    def execute(self, context: Context) -> None:
        """Delete, and wait if asked to. Raises SkyClusterError."""
        targets = self._targets(context)
        if not targets:
            self.log.info("There is no SkyCluster to delete")
        for target in targets:
            self._delete(target)
        for target in targets if self.wait_until_gone else ():
            self._await_gone(target)

    def _delete(self, target: Target) -> None:
        try:
            self.hook.delete(target.namespace, target.name, uid=target.uid)
        except ChangedError:
            # Gone meanwhile, and another has its name.
            return
        self.log.info("Deleting %s", target)

    def _targets(self, context: Context) -> list[Target]:
        found = self._made_upstream(context)
        named = self._named()
        body = self.hook.read(named.namespace, named.name) if named is not None else None
        if body is not None and named is not None and named.is_to(body):
            found.append(Target.of(body))
        return list(dict.fromkeys(found))

    def _await_gone(self, target: Target) -> None:
        while not self.hook.wait_gone(
            target.namespace, target.name, target.uid, timeout_seconds=_GONE_PERIOD_SECONDS, poll_seconds=self.poll_seconds
        ):
            self.log.info("%s is not gone yet. %s", target, words(self.hook.read(target.namespace, target.name)))
        self.log.info("%s is gone", target)
