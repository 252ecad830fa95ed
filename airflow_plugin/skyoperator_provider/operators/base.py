"""What all tasks about SkyClusters have in common: a connection, a namespace, and templates that leave shell alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, cast

from airflow.providers.cncf.kubernetes.operators.resource import KubernetesResourceBaseOperator
from airflow.providers.common.compat.sdk import Context, conf

from skyoperator_provider import references, templating
from skyoperator_provider.errors import ApiError, OutOfSightError, SkyClusterError
from skyoperator_provider.hooks.skycluster import SkyClusterHook
from skyoperator_provider.identity import Identity
from skyoperator_provider.ownership import Target, identity_of
from skyoperator_provider.references import Maker
from skyoperator_provider.skycluster import Outcome, Verdict, WaitFor, verdict
from skyoperator_provider.triggers.skycluster import SkyClusterTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

XCOM_KEY: Final = "skycluster"
"""Where a task says which object is its own: {name, namespace, deployment} before it makes one, and uid as soon as there is one."""

PAD_SECONDS: Final = 60
"""How much later Airflow gives up a deferred task than its trigger does: only who still runs can delete."""

LOST_LIMIT: Final = 3
"""How often a trigger may lose sight of one object. Each time it has tried for eight minutes, unless a right is missing."""

LOGGING_INTERVAL_SECONDS: Final = 10.0
"""How often a trigger prints what a log has got, unless the author says it."""

_WAITED_FOR: Final = "waited_for"
"""Airflow keeps for a deferred task which object it waits for, until it goes on or is cleared."""

Event = Mapping[str, Any]


def default_deferrable() -> bool:
    """Return `[operators] default_deferrable`."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def checked_interval(seconds: float) -> float:
    """Return the logging_interval_seconds of an operator. Raises ValueError for less than the log API is to be asked."""
    if seconds < 1:
        raise ValueError(f"logging_interval_seconds={seconds!r}: it is at least 1")
    return seconds


class SkyClusterTask:
    """Mixed into operators and the sensor, which have no other ancestor in common."""

    namespace: str | None
    kubernetes_conn_id: str | None
    config_file: str | None

    @cached_property
    def hook(self) -> SkyClusterHook:
        """The way to the Kubernetes API."""
        return SkyClusterHook(conn_id=self.kubernetes_conn_id, config_file=self.config_file)

    def get_namespace(self) -> str:
        """Return the task's namespace, else the connection's."""
        return self.namespace or self.hook.get_namespace() or "default"

    def render_template(self, content: Any, context: Any, jinja_env: Any = None, seen_oids: set[int] | None = None) -> Any:
        """Render as Airflow does, but for comments: see `templating`. Overridden here, since mapped tasks pass by anything else."""
        env = templating.for_shell(jinja_env or self.get_template_env())  # type: ignore[attr-defined]
        return super().render_template(content, context, env, seen_oids)  # type: ignore[misc]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Go on after the trigger, as execute_complete does. What is said of another object than was waited for is not taken for its end.

        SQLite gives the number of a trigger that is gone to the next one. So what a trigger says that a clear has ended, of the object that
        the next try has deleted, may come to that next try, or to another task (airflow/models/trigger.py: the id is no AUTOINCREMENT).
        """
        arguments = dict(next_kwargs or {})
        waited_for = arguments.pop(_WAITED_FOR, None)
        if waited_for and "event" in arguments:
            arguments["event"] = _heard(arguments["event"], waited_for)
        return super().resume_execution(next_method, arguments, context)  # type: ignore[misc]

    def _wait_in_triggerer(
        self,
        context: Context,
        trigger: Mapping[str, Any],
        wait_for: WaitFor,
        limit_seconds: float | None,
        *,
        after: Event | None = None,
    ) -> NoReturn:
        """Defer until execute_complete. `trigger` says which object, and what else this task asks of SkyClusterTrigger.

        `after` an event of a trigger that lost sight, its deadline and its place in the log go on.
        """
        seconds_left = _seconds_left(limit_seconds, after)
        until = None if seconds_left is None else time.time() + seconds_left
        waited_for = {**{key: trigger[key] for key in ("name", "namespace", "uid")}, "deadline_epoch_seconds": until}
        self.defer(  # type: ignore[attr-defined]
            trigger=SkyClusterTrigger(
                wait_for=wait_for.value,
                kubernetes_conn_id=self.kubernetes_conn_id or "",
                config_file=self.config_file,
                deadline_epoch_seconds=until,
                owner_try=str(context["ti"].try_number),
                **trigger,
                **_carried_on(after),
            ),
            method_name="execute_complete",
            kwargs={_WAITED_FOR: waited_for},
            timeout=None if seconds_left is None else timedelta(seconds=seconds_left + PAD_SECONDS),
        )
        raise AssertionError("defer raises TaskDeferred")

    def _end_after(self, event: Event, wait_for: WaitFor) -> Verdict | None:
        """Return how it ended: as the trigger saw it, else as the object says now. None while that goes on, and is to be waited for again.

        Raises OutOfSightError if nobody can tell, SkyClusterError if the trigger saw no end for another reason.
        """
        if event["status"] != "error":
            return verdict_of(event)
        try:
            body = self.hook.read(event["namespace"], event["name"])
        except ApiError as error:
            raise _out_of_sight(event) from error
        is_still_to_come = body is None and event["uid"] is None
        end = None if is_still_to_come else verdict(body, wait_for, uid=event["uid"])
        if end is None and event.get("times_lost", 0) >= LOST_LIMIT:
            raise _out_of_sight(event)
        return end

    def _maker(self, context: Context, task_id: str) -> Maker:
        """Return another task of this DAG run, with what it told: that of the own map index, or else of all."""
        own, ti = self._identity(context), context["ti"]
        which: dict[str, Any] = {"map_indexes": [own.map_index, -1]} if own.map_index >= 0 else {}
        pulled = ti.xcom_pull(task_ids=task_id, key=XCOM_KEY, **which)
        return Maker(references.upstream(own, task_id), self.get_namespace(), references.told(pulled, self.get_namespace()))

    def _identity(self, context: Context) -> Identity:
        return identity_of(context, cast("BaseOperator", self), self.hook.deployment)


class SkyClusterBaseOperator(SkyClusterTask, KubernetesResourceBaseOperator):
    """An operator on SkyClusters.

    :param namespace: where the object is; the connection's namespace if it is not said.
    :param kubernetes_conn_id: any connection of type `kubernetes` or `skyoperator`.
    :param config_file: a kubeconfig, instead of the connection's.
    """

    template_fields: Sequence[str] = ("namespace", "kubernetes_conn_id", "config_file")
    template_fields_renderers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubernetes_conn_id: str | None = SkyClusterHook.default_conn_name,
        config_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(kubernetes_conn_id=kubernetes_conn_id, config_file=config_file, custom_resource_definition=True, **kwargs)
        self.namespace = namespace

    def _limit_seconds(self) -> float | None:
        return self.execution_timeout.total_seconds() if self.execution_timeout else None


def target_of(event: Event) -> Target:
    """Return the object that a trigger's event speaks of."""
    return Target(event["name"], event["namespace"], event["uid"] or "")


def verdict_of(event: Event) -> Verdict:
    """Return how the trigger saw it end. Raises SkyClusterError if it saw no end: out of time, never there, or not to be seen."""
    status, reason, message = event["status"], event.get("reason") or "", event.get("message") or ""
    if status in {outcome.value for outcome in Outcome}:
        return Verdict(Outcome(status), reason, message)
    raise SkyClusterError(_words(event), reason=reason or str(status).capitalize())


def _heard(event: Event, waited_for: Mapping[str, Any]) -> Event:
    """Return the event; if it is of another object, that nobody saw an end of the one that was waited for."""
    if all(waited_for[key] in (None, event[key]) for key in ("name", "namespace", "uid")):
        return event
    message = f"the trigger spoke of SkyCluster {event['namespace']}/{event['name']}, which is another one"
    return {"status": "error", "reason": "AnotherObject", "message": message, **waited_for}


def _seconds_left(limit_seconds: float | None, after: Event | None) -> float | None:
    until = (after or {}).get("deadline_epoch_seconds")
    return limit_seconds if until is None else max(until - time.time(), 0.0)


def _carried_on(after: Event | None) -> dict[str, Any]:
    if after is None:
        return {}
    place = {"log_offset_bytes": after.get("log_offset_bytes") or 0, "log_attempt": after.get("log_attempt")}
    return {**place, "times_lost": after.get("times_lost", 0) + 1}


def _out_of_sight(event: Event) -> OutOfSightError:
    return OutOfSightError(f"{_words(event)}. So nobody can tell how it fares.", reason=event.get("reason") or "Error")


def _words(event: Event) -> str:
    return f"SkyCluster {event['namespace']}/{event['name']}: {event.get('message') or event['status']}"
