"""The operators: create, logs and delete for DAGs whose tasks share a cluster, and all in one for the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout, Context

from skyoperator_provider.errors import ApiError, ResultLostError, SkyClusterError, SkyClusterRejectedError, SkyRemoteError
from skyoperator_provider.following import LogStream, resumed
from skyoperator_provider.manifest import has_run
from skyoperator_provider.operators.base import LOGGING_INTERVAL_SECONDS, Event, checked_interval, target_of
from skyoperator_provider.operators.creating import SkyClusterMakingOperator
from skyoperator_provider.operators.referring import SkyClusterDeleteOperator, SkyClusterLogsOperator
from skyoperator_provider.ownership import Target
from skyoperator_provider.remote import carrier
from skyoperator_provider.results import await_value, exit_code, raise_remote
from skyoperator_provider.skycluster import Outcome, Verdict, WaitFor, verdict

__all__ = ["SkyClusterCreateOperator", "SkyClusterDeleteOperator", "SkyClusterLogsOperator", "SkyClusterOperator"]

_SETTLED: Final = (ResultLostError, SkyRemoteError, AirflowSkipException, AirflowFailException)
"""After these it is known what became of the result: asked again, it could only be the same."""


class SkyClusterCreateOperator(SkyClusterMakingOperator):
    """Brings a SkyCluster up for the tasks that follow, and returns {name, namespace, uid}.

    A retry takes over what the try before left running. When the task fails, the object is deleted. If the task is marked
    success while it is deferred, the object stays for the tasks that follow. One that is marked success while a worker runs it is killed
    like any other, and nothing tells a worker that it was success: `on_kill_action="keep"` is for DAGs whose later tasks are to have the
    cluster even then.

    :param wait_for: `accepted` by the controller, `ready` to be used (or its job running), or `complete`.
    """

    def __init__(self, *, wait_for: Literal["accepted", "ready", "complete"] = "ready", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_for = WaitFor(wait_for)
        self._waits_for_the_end = self.wait_for is WaitFor.COMPLETE

    def execute(self, context: Context) -> dict[str, str]:
        """Bring the object about, and wait for it. Raises SkyClusterError, SkyClusterRejectedError."""
        with self._letting_go(context):
            body = self._bring_about(context, self._build(context))
            target, end = Target.of(body), verdict(body, self.wait_for)
            if end is None and self.deferrable:
                self._defer(context, target, self.wait_for)
            return self._ended(target, end or self._follower(target).wait(self.wait_for))

    def execute_complete(self, context: Context, event: Event) -> dict[str, str]:
        """Go on after the trigger. Raises SkyClusterError, SkyClusterRejectedError."""
        target, end = target_of(event), self._end_or_wait_again(context, event, self.wait_for)
        self._resume(context, target)
        return self._ended(target, end)

    def _asked_of_trigger(self) -> dict[str, Any]:
        return {"keep_on_success": True}

    def _ended(self, target: Target, end: Verdict) -> dict[str, str]:
        self._expect_reached(target, end)
        return target.as_dict()


class SkyClusterOperator(SkyClusterMakingOperator):
    """Runs one job on a cluster of its own: creates the object, prints the log, returns what the job returned, and cleans up.

    :param on_finish_action: `delete` the object at the end, `delete_on_success` only then, or `keep` it until its time to live is over.
    :param result_path: the file in which the job may leave JSON, to be returned; None leaves run as it is written, and returns nothing.
    :param logs: whether the job's log is printed.
    :param logging_interval_seconds: how long a trigger waits before it prints what the log has got meanwhile; longer while nothing comes.
    :param skip_on_exit_code: the task is skipped if run exits with this, or one of these, on the first node. It is told by the way of
        the result, so it wants result_path.
    """

    _waits_for_the_end = True
    _wants_value = False
    """Whether a job that has come to a good end must have returned something."""

    def __init__(
        self,
        *,
        on_finish_action: Literal["delete", "delete_on_success", "keep"] = "delete",
        result_path: str | None = carrier.RESULT_PATH,
        logs: bool = True,
        logging_interval_seconds: float = LOGGING_INTERVAL_SECONDS,
        skip_on_exit_code: int | Collection[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if skip_on_exit_code is not None and (result_path is None or not self.do_xcom_push):
            raise ValueError("skip_on_exit_code: an exit code comes by the way of a result, so it wants result_path and do_xcom_push")
        if skip_on_exit_code == 0:
            raise ValueError("skip_on_exit_code=0: a job that exits with 0 is a success")
        if on_finish_action not in ("delete", "delete_on_success", "keep"):
            raise ValueError(f"on_finish_action={on_finish_action!r}: it is delete, delete_on_success or keep")
        self.on_finish_action = on_finish_action
        self.result_path = result_path
        self._streams_log = logs
        self.logging_interval_seconds = checked_interval(logging_interval_seconds)
        self.skip_on_exit_code = [skip_on_exit_code] if isinstance(skip_on_exit_code, int) else list(skip_on_exit_code or ())
        self._is_complete = False

    def execute(self, context: Context) -> Any:
        """Run the job and return its value. Raises SkyClusterError, SkyClusterRejectedError, SkyRemoteError, ResultLostError."""
        with self._letting_go(context):
            body = self._bring_about(context, self._returning(self._build(context)))
            target, end = Target.of(body), verdict(body, WaitFor.COMPLETE)
            if end is None and self.deferrable:
                self._defer(context, target, WaitFor.COMPLETE)
            stream = LogStream(self.hook, target, log=self.log) if self._streams_log else None
            return self._ended(context, target, end or self._follower(target).wait(WaitFor.COMPLETE, stream), stream)

    def execute_complete(self, context: Context, event: Event) -> Any:
        """Go on after the trigger: print the rest of the log, and return the job's value. Raises as execute does."""
        target, end = target_of(event), self._end_or_wait_again(context, event, WaitFor.COMPLETE)
        self._is_complete = end.outcome is Outcome.REACHED
        self._resume(context, target)
        stream = resumed(self.hook, target, event, log=self.log) if self._streams_log else None
        return self._ended(context, target, end, stream)

    def _asked_of_trigger(self) -> dict[str, Any]:
        return {"logs": self._streams_log, "logging_interval_seconds": self.logging_interval_seconds}

    def _returning(self, built: dict[str, Any]) -> dict[str, Any]:
        """Return the object with a job that returns what it leaves in result_path. A task in a ConfigMap is beyond our reach."""
        if has_run(built) is False:
            raise SkyClusterRejectedError(
                f"Task {self.task_id}: its task has no run, so it never ends. A cluster for other tasks is SkyClusterCreateOperator's.",
                reason="InvalidTask",
            )
        if has_run(built) is None and self.skip_on_exit_code:
            raise SkyClusterRejectedError(
                f"Task {self.task_id}: skip_on_exit_code, but its task is in a ConfigMap, where nothing can be added that tells the code.",
                reason="InvalidTask",
            )
        if has_run(built) is None or self._result_path is None:
            return built
        task = built["spec"]["task"]
        try:
            run = carrier.shell_run(
                task["run"],
                result_path=self._result_path,
                tells_exit_code=bool(self.skip_on_exit_code),
                limit_bytes=room_for_run(task),
            )
        except carrier.TooLargeError as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error
        return {**built, "spec": {**built["spec"], "task": {**task, "run": run}}}

    @property
    def _result_path(self) -> str | None:
        return self.result_path if self.do_xcom_push else None

    def _ended(self, context: Context, target: Target, end: Verdict, stream: LogStream | None) -> Any:
        self._is_complete = end.outcome is Outcome.REACHED
        if stream is not None and end.outcome in {Outcome.REACHED, Outcome.FAILED}:
            self._follower(target).drain(stream)
        if end.outcome is Outcome.FAILED and self._wants_value:
            raise_remote(self.hook, target, check=self._check)
        if end.outcome is Outcome.FAILED and self.skip_on_exit_code:
            self._skip_if_told(target)
        self._expect_reached(target, end)
        value = self._value(context, target)
        self._clean_up(context, target)
        return value

    def _skip_if_told(self, target: Target) -> None:
        code = exit_code(self.hook, target, check=self._check)
        if code in self.skip_on_exit_code:
            raise AirflowSkipException(f"The job of {target} exited with {code}. Skipping.")

    def _clean_up(self, context: Context, target: Target) -> None:
        """Put away what has done its work, unless a later try has it.

        Raises nothing, not even that the task is out of time: its result was had, and the object has a time to live. A next try would find
        the mark that it was taken, and run the job again.
        """
        owner = self._owner(context)
        try:
            if owner.mark_collected(target) and self.on_finish_action != "keep":
                owner.discard()
        except (Exception, AirflowTaskTimeout) as error:  # noqa: BLE001 - whatever it is, the result was had
            self.log.warning("%s could not be deleted; it goes when its ttlSecondsAfterFinished is over. %r", target, error)

    def _value(self, context: Context, target: Target) -> Any:
        """Return what the job returned; None if it returned nothing. Raises ResultLostError; SkyClusterError if it can't be had now."""
        if self._result_path is None and not self._wants_value:
            return None
        try:
            return await_value(self.hook, target, is_expected=self._wants_value, check=self._check)
        except _SETTLED:
            self._note_settled(context, target)
            raise

    def _note_settled(self, context: Context, target: Target) -> None:
        """Write down that there is nothing to take: where the object is kept, each later try would find the same, and run nothing."""
        try:
            self._owner(context).mark_collected(target)
        except ApiError as error:
            self.log.warning("It could not be written down that the result of %s is settled; the next try asks again. %s", target, error)

    def _is_discarded_after(self, error: BaseException) -> bool:
        """What is complete is kept for the next try to take its value, which runs nothing again; unless that can only be the same."""
        if self._is_complete and self._spares_results_after(error):
            return False
        is_success = isinstance(error, AirflowSkipException)
        return self.on_finish_action == "delete" or (self.on_finish_action == "delete_on_success" and is_success)

    def _spares_results_after(self, error: BaseException) -> bool:
        """Tell whether the next try may have a value that this one could not get."""
        return not self._is_killed and not isinstance(error, _SETTLED)

    def _check(self) -> None:
        if self._is_killed:
            raise SkyClusterError(f"Task {self.task_id} was killed while it waited for what its job returned.", reason="Killed")


def room_for_run(task: Mapping[str, Any]) -> int:
    """Return how many bytes setup and envs leave for run (controller/skyoperator/task/policy.py, MAX_SCRIPT_BYTES)."""
    taken = [str(task.get("setup") or ""), *(f"{key}{value}" for key, value in (task.get("envs") or {}).items())]
    return carrier.RUN_BYTES - sum(len(text.encode()) for text in taken)
