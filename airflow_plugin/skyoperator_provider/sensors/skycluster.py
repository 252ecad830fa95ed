"""Waits for a SkyCluster that another task made, or kubectl, or a stock operator. It deletes nothing, whatever becomes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, Final, Literal, NoReturn, cast

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, Context

from skyoperator_provider import references
from skyoperator_provider.errors import ApiError, SkyClusterError, SkyClusterRejectedError, failure
from skyoperator_provider.following import Patience
from skyoperator_provider.hooks.skycluster import SkyClusterHook
from skyoperator_provider.operators.base import Event, SkyClusterTask, default_deferrable
from skyoperator_provider.ownership import Target
from skyoperator_provider.references import Reference
from skyoperator_provider.skycluster import Outcome, Verdict, WaitFor, verdict, words

_GRACE_SECONDS: Final = 60


class SkyClusterSensor(SkyClusterTask, BaseSensorOperator):
    """Waits until a SkyCluster is accepted, ready or complete, and fails as soon as it can't become that any more.

    That is when it is Failed, refused by the controller, deleted, or was not there at all for `missing_grace_seconds`.

    :param cluster: a name, or what SkyClusterCreateOperator returned. Templated.
    :param cluster_task_id: the task of this DAG run that made it, instead.
    :param wait_for: `accepted`, `ready` or `complete`.
    With mode="reschedule" each poke is a process of its own, which knows of the ones before only when the first one was, and not which
    object they saw. So by a name alone it waits for whatever has that name by then; a uid, as in what a create task returned, tells more.

    :param missing_grace_seconds: how long it may take until there is an object of that name.
    :param deferrable: wait in the triggerer; `[operators] default_deferrable` if it is not said.
    """

    template_fields: Sequence[str] = ("cluster", "cluster_task_id", "namespace", "kubernetes_conn_id", "config_file")

    def __init__(
        self,
        *,
        cluster: Any = None,
        cluster_task_id: str | None = None,
        wait_for: Literal["accepted", "ready", "complete"] = "complete",
        missing_grace_seconds: float = _GRACE_SECONDS,
        namespace: str | None = None,
        kubernetes_conn_id: str | None = SkyClusterHook.default_conn_name,
        config_file: str | None = None,
        deferrable: bool | None = None,
        poke_interval: timedelta | float = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        if cluster is None and cluster_task_id is None:
            raise ValueError("Say which SkyCluster: cluster= (a name, or what a create task returned) or cluster_task_id=")
        self.cluster = cluster
        self.cluster_task_id = cluster_task_id
        self.wait_for = WaitFor(wait_for)
        self.missing_grace_seconds = missing_grace_seconds
        self.namespace = namespace
        self.kubernetes_conn_id = kubernetes_conn_id
        self.config_file = config_file
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self._seen_uid: str | None = None
        self._began_at = time.time()
        self._patience = Patience()

    def execute(self, context: Context) -> Any:
        """Wait. Raises SkyClusterError, SkyClusterRejectedError, AirflowSensorTimeout."""
        self._began_at = time.time()
        if self.deferrable:
            self._defer(context, self._reference(context))
        return super().execute(context)

    def poke(self, context: Context) -> bool:
        """Tell whether it is there. Raises SkyClusterError or SkyClusterRejectedError if it never will be.

        An API server that is away is borne as long as a worker that follows a job bears it; with mode="reschedule", where each poke is a
        process of its own, until the sensor's timeout.
        """
        try:
            is_there = self._look(context)
        except ApiError as error:
            self._patience.bear(error)
            self.log.warning("It can't be looked at now, and is waited for all the same. %s", error)
            return False
        self._patience.renew()
        return is_there

    def _look(self, context: Context) -> bool:
        reference = self._reference(context)
        uid = reference.uid or self._seen_uid
        body = self.hook.read(reference.namespace, reference.name)
        if body is None and uid is None:
            self._expect_soon(context, reference)
            return False
        if body is not None:
            self._seen_uid = uid or body["metadata"]["uid"]
            self.log.info("%s: %s", reference, words(body))
        return self._is_reached(reference, verdict(body, self.wait_for, uid=uid))

    def execute_complete(self, context: Context, event: Event) -> None:
        """Go on after the trigger, or wait again. Raises SkyClusterError, SkyClusterRejectedError, AirflowSensorTimeout."""
        reference = Reference(event["namespace"], event["name"], event["uid"])
        if event["status"] == "timeout":
            raise AirflowSensorTimeout(f"{reference}: {event.get('message') or 'the time is over'}")
        end = self._end_after(event, self.wait_for)
        if end is None:
            self._defer(context, reference, after=event)
        self._is_reached(reference, end)

    def _is_reached(self, reference: Reference, end: Verdict | None) -> bool:
        if end is None or end.outcome is Outcome.REACHED:
            return end is not None
        raise failure(reference.namespace, reference.name, end)

    def _reference(self, context: Context) -> Reference:
        try:
            named = references.parse(self.cluster, self.get_namespace())
            made = None if named is not None else self._made_upstream(context)
        except ValueError as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error
        if named is not None:
            return named
        if made is None:
            raise SkyClusterError(f"Task {self.cluster_task_id or self.task_id} has left no SkyCluster.", reason="Deleted")
        return Reference(made.namespace, made.name, made.uid)

    def _made_upstream(self, context: Context) -> Target | None:
        if self.cluster_task_id is None:
            return None
        return references.one_made_by(self.hook, self._maker(context, self.cluster_task_id))

    def _expect_soon(self, context: Context, reference: Reference) -> None:
        waited_seconds = time.time() - self._waiting_since(context)
        if waited_seconds >= self.missing_grace_seconds:
            raise SkyClusterError(f"{reference} was not there within {self.missing_grace_seconds:.0f} s.", reason="NotFound")
        self.log.info("%s is not there yet", reference)

    def _waiting_since(self, context: Context) -> float:
        """A sensor that reschedules itself is a new process at each poke."""
        began = _first_poke(context) if self.reschedule else None
        return began.timestamp() if began else self._began_at

    def _defer(self, context: Context, reference: Reference, *, after: Event | None = None) -> NoReturn:
        trigger = {
            "name": reference.name,
            "namespace": reference.namespace,
            "uid": reference.uid,
            "on_kill_action": "keep",
            "missing_grace_seconds": self.missing_grace_seconds,
        }
        self._wait_in_triggerer(context, trigger, self.wait_for, self.timeout, after=after)


def _first_poke(context: Context) -> datetime | None:
    """Return when this try of a sensor that reschedules itself looked first; None if that is now. Airflow 2 keeps that in its database."""
    ti: Any = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):
        found = ti.get_first_reschedule_date(context)
    else:
        known = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
        sensors = import_module("airflow.sensors.base")
        found = sensors._orig_start_date(**known, try_number=ti.try_number)  # noqa: SLF001 - 2.11 is the last Airflow 2
    return cast("datetime | None", found)
