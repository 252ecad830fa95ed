"""The operators that make an object, and what becomes of it when their task does not end well.

What kills a task, and what is done about the object then:

    fails, or runs out of time         the worker deletes it on its way out
    killed while a worker runs it      on_kill, in the worker: one DELETE
    killed while it is deferred        the trigger: see triggers/skycluster.py
    marked after the trigger's event   nobody: no worker has it yet, and no trigger any more; the object ends by its own deadline
    the trigger loses sight of it      the worker looks itself, and waits again
    the worker loses sight of it       the next try takes the object over; if there is none, it is deleted
    out of time while it is deferred   the trigger says so, or else Airflow resumes the task only to fail: resume_execution
    the worker or the machine dies     the next try finds the object by its name; if there is none, the object ends by its own deadline
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, Context, TaskDeferred

from skyoperator_provider import links, references
from skyoperator_provider.errors import ApiError, OutOfSightError, SkyClusterError, failure
from skyoperator_provider.following import Follower
from skyoperator_provider.identity import RESUMED
from skyoperator_provider.killing import Killer
from skyoperator_provider.operators.base import XCOM_KEY, Event, SkyClusterBaseOperator, default_deferrable, target_of
from skyoperator_provider.ownership import Owner, Target
from skyoperator_provider.references import Reference
from skyoperator_provider.skycluster import Outcome, Verdict, WaitFor, cluster_of

_GONE_SECONDS: Final = 1800
"""How long a predecessor under the same name may take to go, where no execution_timeout says."""

Body = dict[str, Any]


class SkyClusterOwningOperator(SkyClusterBaseOperator):
    """Makes an object, and answers for it.

    :param deferrable: wait in the triggerer; `[operators] default_deferrable` if it is not said.
    :param poll_seconds: how often a worker looks at the object, where it waits itself.
    :param on_kill_action: `delete` or `keep` the object when the task is killed, which includes marking it failed or success. What
        SkyClusterCreateOperator made is kept in any case if the task is marked success while it is deferred.
    """

    operator_extra_links = (links.SkyClusterLink(),)

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        poll_seconds: float = 3,
        on_kill_action: Literal["delete", "keep"] = "delete",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_kill_action not in ("delete", "keep"):
            raise ValueError(f"on_kill_action={on_kill_action!r}: it is delete or keep")
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.poll_seconds = poll_seconds
        self.on_kill_action = on_kill_action
        self._is_killed = False
        self._killer: Killer | None = None

    def on_kill(self) -> None:
        """Delete the object, with what execute() has laid ready. Nothing of Airflow is called here.

        It runs as a signal handler in the main thread, which may be inside SUPERVISOR_COMMS.send and hold its lock, so that a call of
        Airflow would wait for itself until SIGKILL. Nor is there an answer to why: a task that is marked success is killed like
        one that is marked failed. Where no object is known yet, the worker deletes what it makes as soon as it has it.
        """
        self._is_killed = True
        if self.on_kill_action == "delete" and self._killer is not None:
            self._killer()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after the trigger, as execute_complete does; where Airflow resumes the task only to fail it, delete the object first."""
        with self._letting_go(context):
            return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _letting_go(self, context: Context) -> Iterator[None]:
        """Delete the object on every way out that is a failure, unless it is kept. AirflowTaskTimeout is no Exception."""
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException as error:
            if self._settle(context, error) and not self._is_killed:
                # Airflow calls on_kill once more after an execution_timeout has come out of execute (task_runner.py,
                # _run_execute_callable), and what is kept here is not for it to delete.
                self._killer = None
            raise

    def _settle(self, context: Context, error: BaseException) -> bool:
        """Delete the object, or find that it is kept; tell whether that is settled.

        That Kubernetes did not answer is no sign that the job fares badly, and it may well answer a deletion.
        """
        if self._is_killed:
            return self.on_kill_action == "keep" or self._discard(context, error)
        if isinstance(error, (ApiError, OutOfSightError)) and _has_another_try(context):
            self.log.warning("What there is of the task's SkyCluster is left as it is: the next try takes it over")
            return True
        return not self._is_discarded_after(error) or self._discard(context, error)

    def _is_discarded_after(self, error: BaseException) -> bool:  # noqa: ARG002 - others decide by it
        """Tell whether the object is deleted, where no kill and no other try says otherwise."""
        return True

    def _spares_results_after(self, error: BaseException) -> bool:  # noqa: ARG002 - others decide by it
        """Tell whether an object is not deleted that came to a good end unseen."""
        return False

    def _discard(self, context: Context, cause: BaseException) -> bool:
        """Delete the object if it is this try's to delete; tell whether that is settled."""
        try:
            if self._owner(context).discard(spares_results=self._spares_results_after(cause)):
                self.log.info("The task does not succeed, so its SkyCluster is deleted")
        except (Exception, AirflowTaskTimeout) as error:  # noqa: BLE001 - the task's own failure is the one to be told of
            self.log.warning("The task failed, and its SkyCluster could not be deleted; it ends by its own deadline. %s", error)
            return False
        return True

    def _owner(self, context: Context) -> Owner:
        identity, owner_try = self._identity(context), context["ti"].try_number
        return Owner(self.hook, identity, self.get_namespace(), owner_try, log=self.log, is_killed=lambda: self._is_killed)

    def _bring_about(self, context: Context, manifest: Body) -> Body:
        limit_seconds = self._limit_seconds() or _GONE_SECONDS
        self._tell(context, Reference(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
        body = self._owner(context).bring_about(manifest, timeout_seconds=limit_seconds, poll_seconds=self.poll_seconds)
        self._hold(context, Target.of(body), body)
        return body

    def _resume(self, context: Context, target: Target) -> None:
        """Take the object from the trigger: a triggerer that was held for dead may yet come to kill."""
        resumed = {RESUMED: str(context["ti"].try_number)}
        try:
            body: Body | None = self.hook.annotate(target.namespace, target.name, resumed, uid=target.uid)
        except ApiError:
            body = self.hook.read(target.namespace, target.name)
        self._hold(context, target, body)

    def _end_or_wait_again(self, context: Context, event: Event, wait_for: WaitFor) -> Verdict:
        """Return how it ended; where no trigger sees what goes on, defer again. Raises SkyClusterError."""
        target = target_of(event)
        self._arm(context, target)
        end = self._end_after(event, wait_for)
        if end is None:
            self.log.warning("The trigger lost sight of %s, which goes on; waiting for it again. %s", target, event.get("message"))
            self._defer(context, target, wait_for, after=event)
        return end

    def _hold(self, context: Context, target: Target, body: Body | None) -> None:
        """Make ready for on_kill, and tell the other tasks and the page of this one."""
        self._arm(context, target, body)
        self._tell(context, target)
        links.persist(context, self.hook.dashboard_url, cluster_of(body))

    def _tell(self, context: Context, target: Target | Reference) -> None:
        """Tell the other tasks where the object is. First before it is made: a worker that dies then leaves one that they can find."""
        context["ti"].xcom_push(key=XCOM_KEY, value=references.tell(target, self.hook.deployment))

    def _arm(self, context: Context, target: Target, body: Body | None = None) -> None:
        """Make ready for on_kill. Raises SkyClusterError if the task was killed before that."""
        self.hook.prepare()
        self._killer = Killer(self.hook, target, context["ti"].try_number)
        self._killer.saw(body)
        if self._is_killed:
            raise SkyClusterError(f"The task was killed when it had just got {target}.", reason="Killed")

    def _follower(self, target: Target) -> Follower:
        saw = (lambda _: None) if self._killer is None else self._killer.saw
        return Follower(self.hook, target, log=self.log, poll_seconds=self.poll_seconds, saw=saw, is_killed=lambda: self._is_killed)

    def _defer(self, context: Context, target: Target, wait_for: WaitFor, *, after: Event | None = None) -> NoReturn:
        trigger = {**target.as_dict(), "on_kill_action": self.on_kill_action, **self._asked_of_trigger()}
        self._wait_in_triggerer(context, trigger, wait_for, self._limit_seconds(), after=after)

    def _asked_of_trigger(self) -> dict[str, Any]:
        """Return what SkyClusterTrigger is to do beside waiting."""
        return {}

    def _expect_reached(self, target: Target, end: Verdict) -> None:
        """Raise the error that this end is, with the last lines of the log, unless it is the one that was waited for."""
        if end.outcome is Outcome.REACHED:
            return
        lines = self._follower(target).last_lines() if end.outcome is Outcome.FAILED else []
        raise failure(target.namespace, target.name, end, lines)


def _has_another_try(context: Context) -> bool:
    ti = context["ti"]
    return bool(ti.try_number <= ti.max_tries)
