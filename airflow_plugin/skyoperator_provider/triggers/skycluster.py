"""Waits for a SkyCluster without a worker, shows its job's log meanwhile, and deletes it if the task is killed.

What ends the waiting, and who then deletes the object:

    the object's end, the trigger's deadline, an API that stays away  ──► one event; the task goes on in a worker, and decides there
    mark failed, mark success, clear                                  ──► on_kill() (Airflow 3.3), else cleanup() ──► deleted here,
                                                                          but for mark success where keep_on_success
    a triggerer that restarts, and Airflow's own deferral time-out    ──► nothing is deleted here

on_kill() is no proof of a kill. A triggerer that was held for dead, and wakes up, cancels what another one took over with the same message
(airflow/jobs/triggerer_job_runner.py, update_triggers): the task may still be deferred there, or go on in a worker, or have ended well. So
Airflow is asked for the task's state, and the object for whether a worker has gone on with it: see `LEFT`, and identity.RESUMED.

The deadline is the trigger's own because Airflow's time-out cancels a trigger without a word, and calls no on_kill
(airflow/jobs/triggerer_job_runner.py, run_trigger): the operator defers with a longer one.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from skyoperator_provider.errors import ApiError, ChangedError
from skyoperator_provider.feed import SkyClusterApi, Subscription
from skyoperator_provider.identity import OWNER_TRY, RESUMED
from skyoperator_provider.skycluster import Outcome, WaitFor, verdict
from skyoperator_provider.tail import Tail, log_of
from skyoperator_provider.watches import Source, watches

Json = dict[str, Any]

FIRST_LOOK_SECONDS: Final = 10.0
"""What a trigger takes for its first look even if its deadline is past: a triggerer that was away must not hide how the job ended."""
KILL_SECONDS: Final = 25.0
"""Airflow gives on_kill 30 s unless `[triggerer] on_kill_timeout` says otherwise."""
KILL_PAUSE_SECONDS: Final = 0.5
GONE_SECONDS: Final = 5.0
"""How long it is kept back that the object is gone. After a clear the next try deletes it, while this trigger is about to be cancelled: an
event then could come to that try (see SkyClusterTask.resume_execution), at once after it was deferred, which Airflow's scheduler may take
for its failure (jobs/scheduler_job_runner.py, process_executor_events)."""
STATE_ATTEMPTS: Final = 3
LEFT: Final = frozenset({None, "failed", "upstream_failed", "success", "skipped", "removed"})
"""Airflow's states of a task that nobody goes on with."""
IS_TOLD_OF_KILLS: Final = hasattr(BaseTrigger, "on_kill")
"""Whether this Airflow tells a trigger that its task was killed: 3.3 and later."""


class SkyClusterTrigger(BaseTrigger):
    """Fires one event, of what the SkyCluster came to.

    Its `status` is one of
    - reached, failed, rejected, gone: what the object says (skycluster.verdict), with its own reason and message
    - missing: nothing of that name was there for `missing_grace_seconds`; only if no uid is given
    - timeout: `deadline_epoch_seconds` is past
    - error: nobody can tell, for Kubernetes does not answer, or refuses to.

    It carries reason, message, name, namespace, uid, and for a trigger that goes on after this one: log_offset_bytes and log_attempt, where
    the log goes on, deadline_epoch_seconds, and times_lost, how many triggers before this one ended in an error.
    """

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        wait_for: str,
        kubernetes_conn_id: str,
        uid: str | None = None,
        config_file: str | None = None,
        deadline_epoch_seconds: float | None = None,
        owner_try: str = "",
        on_kill_action: str = "delete",
        missing_grace_seconds: float = 0.0,
        logs: bool = False,
        log_offset_bytes: int = 0,
        log_attempt: int | None = None,
        logging_interval_seconds: float = 10.0,
        times_lost: int = 0,
        keep_on_success: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if on_kill_action not in {"delete", "keep"}:
            raise ValueError(f"on_kill_action must be delete or keep, not {on_kill_action!r}")
        self.name = name
        self.namespace = namespace
        self.uid = uid
        self.wait_for = str(WaitFor(wait_for))
        self.kubernetes_conn_id = kubernetes_conn_id
        self.config_file = config_file
        self.deadline_epoch_seconds = deadline_epoch_seconds
        self.owner_try = owner_try
        self.on_kill_action = on_kill_action
        self.missing_grace_seconds = missing_grace_seconds
        self.logs = logs
        self.log_offset_bytes = log_offset_bytes
        self.log_attempt = log_attempt
        self.logging_interval_seconds = logging_interval_seconds
        self.times_lost = times_lost
        self.keep_on_success = keep_on_success
        self._found_uid = uid
        self._missing_at = 0.0
        self._tail: Tail | None = None
        self._has_fired = False

    def serialize(self) -> tuple[str, Json]:
        """Return the class and the arguments that make this trigger again, in a triggerer."""
        arguments = (
            "name namespace uid wait_for kubernetes_conn_id config_file deadline_epoch_seconds owner_try on_kill_action "
            "missing_grace_seconds logs log_offset_bytes log_attempt logging_interval_seconds times_lost "
            "keep_on_success"
        )
        return f"{type(self).__module__}.{type(self).__qualname__}", {key: getattr(self, key) for key in arguments.split()}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event, after everything that was open for it is closed."""
        event = await self._event()
        self._has_fired = True
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _event(self) -> Json:
        loop = asyncio.get_running_loop()
        self._missing_at = loop.time() + self.missing_grace_seconds
        if self.logs:
            self._tail = Tail(
                lambda line: self.log.info("%s", line),
                lambda words: self.log.warning("%s", words),
                offset_bytes=self.log_offset_bytes,
                attempt=self.log_attempt,
                interval_seconds=self.logging_interval_seconds,
            )
        try:
            return await self._end()
        except ApiError as error:
            return self._said("error", error.reason or "ApiError", str(error))
        except Exception as error:
            self.log.exception("Can't wait for SkyCluster %s/%s", self.namespace, self.name)
            return self._said("error", type(error).__name__, str(error))

    async def _end(self) -> Json:
        """Raises ApiError, and whatever reading the connection raises."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_finite(max(self._seconds_left(), FIRST_LOOK_SECONDS))) as deadline:
                    subscription = await stack.enter_async_context(self._subscribed())
                    body = await subscription.next()
            except TimeoutError:
                if deadline.expired():
                    return self._timed_out()
                raise
            return await self._followed(subscription, body)

    async def _followed(self, subscription: Subscription, body: Json | None) -> Json:
        """Return the end, of whatever the object says from now on. Raises ApiError."""
        while True:
            event = self._judged(body)
            if event is not None:
                if event["status"] == Outcome.GONE:
                    await asyncio.sleep(GONE_SECONDS)
                return event
            if self._seconds_left() <= 0:
                return self._timed_out()
            if self._tail is not None and body is not None and self._tail.seconds_left <= 0:
                await self._tail.look(log_of(body), subscription.api, at_most_seconds=self._seconds_left())
            try:
                async with asyncio.timeout(self._pause_seconds(body)):
                    body = await subscription.next()
            except TimeoutError:
                continue

    def _judged(self, body: Json | None) -> Json | None:
        """Return the end if this is one. An object that was not named by its uid is the first one that is seen, and stays that."""
        if body is None and self._found_uid is None:
            if asyncio.get_running_loop().time() < self._missing_at:
                return None
            waited = f" within {self.missing_grace_seconds:.0f} s" if self.missing_grace_seconds else ""
            return self._said("missing", "NotFound", f"there was no SkyCluster {self.namespace}/{self.name}{waited}")
        if body is not None and self._found_uid is None:
            self._found_uid = body["metadata"]["uid"]
        end = verdict(body, WaitFor(self.wait_for), uid=self._found_uid)
        return None if end is None else self._said(str(end.outcome), end.reason, end.message)

    def _pause_seconds(self, body: Json | None) -> float | None:
        """Return when there is something to do even if the object does not change; None for never."""
        waits = [self._seconds_left()]
        if body is None:
            waits.append(self._missing_at - asyncio.get_running_loop().time())
        elif self._tail is not None:
            waits.append(self._tail.seconds_left)
        return _finite(max(min(waits), 0.0))

    def _seconds_left(self) -> float:
        return float("inf") if self.deadline_epoch_seconds is None else self.deadline_epoch_seconds - time.time()

    def _timed_out(self) -> Json:
        assert self.deadline_epoch_seconds is not None
        until = datetime.fromtimestamp(self.deadline_epoch_seconds, UTC).isoformat(timespec="seconds")
        return self._said("timeout", "DeadlineExceeded", f"it was not {self.wait_for} by {until}, when the task's time was over")

    def _said(self, status: str, reason: str, message: str) -> Json:
        tail = self._tail
        return {
            "status": status,
            "reason": reason,
            "message": message,
            "name": self.name,
            "namespace": self.namespace,
            "uid": self._found_uid,
            "log_offset_bytes": self.log_offset_bytes if tail is None else tail.offset_bytes,
            "log_attempt": self.log_attempt if tail is None else tail.attempt,
            "deadline_epoch_seconds": self.deadline_epoch_seconds,
            "times_lost": self.times_lost,
        }

    async def _source(self) -> Source:
        """Return how the API is reached. Tasks of one DAG share it; a connection of another team's may have the same name."""
        who = (getattr(self.task_instance, "dag_id", None), self.kubernetes_conn_id, self.config_file, self.namespace)
        return await watches().source(who, self._find_source)

    async def _find_source(self) -> Source:
        """Raises what reading the connection raises."""
        await asyncio.to_thread(_load_kubernetes)
        from skyoperator_provider.async_api import connected, key_of  # noqa: PLC0415 - see _load_kubernetes
        from skyoperator_provider.hooks.skycluster import AsyncSkyClusterHook  # noqa: PLC0415 - likewise

        def new_hook() -> AsyncSkyClusterHook:
            """A hook keeps what it has read, and a client that is made because of a 401 is to have what the connection says by now."""
            return AsyncSkyClusterHook(conn_id=self.kubernetes_conn_id, config_file=self.config_file)

        hook = new_hook()
        async with hook.get_conn() as client:
            # cncf's hook asks a program of the kubeconfig (aws, gke) for a new token whenever it makes a client.
            is_renewed = getattr(hook, "_is_exec_auth", None)
            renewed_by = f"{self.kubernetes_conn_id}\n{self.config_file}" if is_renewed else ""
            key = key_of(client.configuration, self.namespace, renewed_by=renewed_by)
        return Source(key, lambda: connected(new_hook().get_conn()))

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[Subscription]:
        async with watches().subscribe(await self._source(), self.name) as subscription:
            yield subscription

    async def on_kill(self) -> None:
        """Delete the object if the task was marked or cleared. Airflow 3.3 and later call this then, and sometimes without a reason.

        If Airflow can't be asked, nothing is deleted. What that leaves ends by its own deadline; a deletion would be for good, and a
        triggerer that can't ask is most likely one that was cut off, whose tasks another one has taken over.
        """
        if self._is_to_delete and self.uid is not None:
            await _to_its_end(self._delete_if_killed(self.uid))

    async def _delete_if_killed(self, uid: str) -> None:
        try:
            async with asyncio.timeout(KILL_SECONDS):
                if await self._is_killed():
                    async with watches().client(await self._source()) as api, watches().deletions:
                        await self._delete(api, uid)
        except Exception:
            self.log.exception("Could not delete SkyCluster %s/%s: its own deadline ends it", self.namespace, self.name)

    async def cleanup(self) -> None:
        """Delete the object if the task was killed, on an Airflow that calls no on_kill."""
        if not IS_TOLD_OF_KILLS and not self._is_timed_out():
            await self.on_kill()

    async def _is_killed(self) -> bool:
        failure: Exception | None = None
        for _ in range(STATE_ATTEMPTS):
            try:
                return await self.safe_to_cancel()
            except Exception as error:  # noqa: BLE001 - what asking Airflow raises differs by its version
                failure = error
            await asyncio.sleep(KILL_PAUSE_SECONDS)
        self.log.warning(
            "Can't tell whether the task was killed (%r). SkyCluster %s/%s is left alone: its own deadline ends it, if nobody waits for it",
            *(failure, self.namespace, self.name),
        )
        return False

    @property
    def _is_to_delete(self) -> bool:
        """After the event the object is the worker's to delete; without a uid it is not known whose it is."""
        return self.on_kill_action == "delete" and self.uid is not None and not self._has_fired

    async def safe_to_cancel(self) -> bool:
        """Tell whether nobody goes on with the task: it was marked, cleared, or deleted with its run.

        With keep_on_success a task that was marked success is one that others go on with: they are to have what it made.
        It is deferred as long as a trigger waits for it, here or elsewhere. From scheduled to running, and until a retry, it is a worker's:
        one that goes on after the event, or the next try after a clear, whose first act is to delete or to take over what was left.
        Raises whatever asking Airflow raises.
        """
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415 - Airflow 3 only
        from asgiref.sync import sync_to_async  # noqa: PLC0415 - as cncf's triggers do (triggers/pod.py, get_task_state)

        task = self.task_instance
        assert task is not None
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=task.map_index
        )
        key = f"{task.task_id}_{task.map_index}" if task.map_index >= 0 else task.task_id
        kept = {"success"} if self.keep_on_success else set()
        return states.get(task.run_id, {}).get(key) in LEFT - kept

    def _is_timed_out(self) -> bool:
        """Tell whether it was Airflow's own time-out: that leaves the task no more deferred than a kill does."""
        timeout_after: datetime | None = getattr(self, "timeout_after", None)
        if timeout_after is None:
            return False
        now = datetime.now(UTC)
        return timeout_after <= (now if timeout_after.tzinfo else now.replace(tzinfo=None))

    async def _delete(self, api: SkyClusterApi, uid: str) -> None:
        """Delete the object, or find that it is not this try's to delete. Raises ApiError if that is forbidden."""
        while True:
            try:
                return await self._delete_unchanged(api, uid)
            except ChangedError:
                pass
            except ApiError as error:
                if error.status == HTTPStatus.FORBIDDEN:
                    raise
                self.log.info("%s. Trying again.", error)
            await asyncio.sleep(KILL_PAUSE_SECONDS)

    async def _delete_unchanged(self, api: SkyClusterApi, uid: str) -> None:
        """Raises ChangedError if somebody wrote the object since it was read here: after a clear, the next try may be taking it over."""
        body = await api.get(self.namespace, self.name)
        kept = _why_kept(body, uid, self.owner_try)
        if body is None or kept:
            self.log.info("SkyCluster %s/%s is left alone: %s", self.namespace, self.name, kept)
            return
        await api.delete(self.namespace, self.name, uid=uid, resource_version=body["metadata"]["resourceVersion"])
        self.log.info("Deleted SkyCluster %s/%s: its task was killed", self.namespace, self.name)


@cache
def _load_kubernetes() -> None:
    """Load what `_find_source` needs. That takes a second or more: parsing a DAG must not wait for it, nor may a triggerer's loop.

    What was loaded is then a quarter of a million objects, and each full collection goes through all of them while everything stands
    still, for 0.2 s and more; Airflow warns from 0.2 on. They live as long as the process does, so collections are to leave them out: those
    while it loads, too. Not for each trigger, for what is garbage at that moment is never freed.
    """
    gc.freeze()
    import skyoperator_provider.async_api  # noqa: PLC0415
    import skyoperator_provider.hooks.skycluster  # noqa: F401, PLC0415

    gc.freeze()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await the work, however often who awaits it is cancelled meanwhile.

    A triggerer cancels what is to go once a second until it has gone, also while it awaits its on_kill (airflow 3.3,
    jobs/triggerer_job_runner.py, update_triggers and cancel_triggers).
    """
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


def _finite(seconds: float) -> float | None:
    """Return it as asyncio.timeout takes it: not each event loop can wait for infinity."""
    return None if seconds == float("inf") else seconds


def _why_kept(body: Json | None, uid: str, owner_try: str) -> str:
    """Return why a try that was killed does not delete what it finds; nothing if it does."""
    if body is None:
        return "it is gone"
    metadata = body["metadata"]
    if metadata["uid"] != uid:
        return f"it is another one, with uid {metadata['uid']}"
    if metadata.get("deletionTimestamp"):
        return "it is being deleted already"
    annotations = metadata.get("annotations") or {}
    owner = annotations.get(OWNER_TRY, owner_try)
    if owner != owner_try:
        return f"it belongs to try {owner} now"
    return "a worker has gone on with it" if annotations.get(RESUMED) == owner_try else ""
