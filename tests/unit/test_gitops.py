"""What Flux (kstatus) and Argo CD make of every state."""

from __future__ import annotations

import pytest
from skyoperator.api.v1alpha1 import Phase

from tests.unit.build import an_outage, decide, with_status
from tests.unit.kstatus import argocd_health, body_of, kstatus
from tests.unit.states import EVERY_STATE, is_seen, reached

TABLE = [
    ("new", None, "InProgress", "Progressing"),
    ("rejected", Phase.FAILED, "Failed", "Degraded"),
    ("secret not found", Phase.FAILED, "Failed", "Degraded"),
    ("name conflict", Phase.FAILED, "Failed", "Degraded"),
    ("queued", Phase.QUEUED, "InProgress", "Progressing"),
    ("unacknowledged", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("launching", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("init", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("running", Phase.RUNNING, "Current", "Healthy"),
    ("edited", Phase.RUNNING, "InProgress", "Progressing"),
    ("edit refused", Phase.RUNNING, "Failed", "Degraded"),
    ("on another server", Phase.RUNNING, "Current", "Healthy"),
    ("complete, stopping", Phase.STOPPING, "InProgress", "Progressing"),
    ("complete", Phase.SUCCEEDED, "Current", "Healthy"),
    ("complete, edited", Phase.SUCCEEDED, "Current", "Healthy"),
    ("failed, stopping", Phase.STOPPING, "Failed", "Degraded"),
    ("failed", Phase.FAILED, "Failed", "Degraded"),
    ("launch failed", Phase.STOPPING, "Failed", "Degraded"),
    ("running, to be kept", Phase.RUNNING, "Current", "Healthy"),
    ("kept", Phase.SUCCEEDED, "Current", "Healthy"),
    ("kept, idle", Phase.SUCCEEDED, "Current", "Healthy"),
    ("kept, stopping", Phase.STOPPING, "InProgress", "Progressing"),
    ("kept, stopped", Phase.SUCCEEDED, "Current", "Healthy"),
    ("kept, lost", Phase.SUCCEEDED, "Current", "Healthy"),
    ("retry, stopping", Phase.STOPPING, "InProgress", "Progressing"),
    ("backing off", Phase.PENDING, "InProgress", "Progressing"),
    ("retry, queued", Phase.QUEUED, "InProgress", "Progressing"),
    ("retry, launching", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("retry, running", Phase.RUNNING, "Current", "Healthy"),
    ("backoff limit exceeded, stopping", Phase.STOPPING, "Failed", "Degraded"),
    ("backoff limit exceeded", Phase.FAILED, "Failed", "Degraded"),
    ("suspended, never launched", Phase.SUSPENDED, "Current", "Suspended"),
    ("suspended, never seen", Phase.PENDING, "InProgress", "Progressing"),
    ("suspended, stopping", Phase.STOPPING, "InProgress", "Progressing"),
    ("suspended", Phase.SUSPENDED, "Current", "Suspended"),
    ("suspended, rejected", Phase.SUSPENDED, "Failed", "Degraded"),
    ("resumed", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("deadline exceeded, stopping", Phase.STOPPING, "Failed", "Degraded"),
    ("deadline exceeded", Phase.FAILED, "Failed", "Degraded"),
    ("deadline exceeded, kept", Phase.FAILED, "Failed", "Degraded"),
    ("deadline exceeded, kept, cancelled", Phase.FAILED, "Failed", "Degraded"),
    ("launch too slow, stopping", Phase.STOPPING, "Failed", "Degraded"),
    ("setup only", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("ready", Phase.READY, "Current", "Healthy"),
    ("ready, idle", Phase.READY, "Current", "Healthy"),
    ("autostopped, stopping", Phase.STOPPING, "InProgress", "Progressing"),
    ("autostopped", Phase.SUCCEEDED, "Current", "Healthy"),
    ("plain, deadline exceeded", Phase.STOPPING, "Failed", "Degraded"),
    ("plain, sick", Phase.READY, "InProgress", "Progressing"),
    ("plain, edited", Phase.READY, "InProgress", "Progressing"),
    ("plain, edited, queued", Phase.QUEUED, "InProgress", "Progressing"),
    ("plain, edited, server away", Phase.PENDING, "InProgress", "Progressing"),
    ("plain, edited, same cluster", Phase.LAUNCHING, "InProgress", "Progressing"),
    ("plain, edited, new cluster", Phase.STOPPING, "InProgress", "Progressing"),
    ("plain, edit refused", Phase.READY, "Failed", "Degraded"),
    ("autostopped, edited", Phase.PENDING, "InProgress", "Progressing"),
    ("abandoned", Phase.RUNNING, "Failed", "Degraded"),
    ("abandoned, complete", Phase.SUCCEEDED, "Failed", "Degraded"),
    ("deleting", Phase.DELETING, "Terminating", "Progressing"),
    ("deleting, launching", Phase.DELETING, "Terminating", "Progressing"),
    ("deleting, unacknowledged", Phase.DELETING, "Terminating", "Progressing"),
    ("deleting, stuck", Phase.DELETING, "Terminating", "Progressing"),
    ("deleting, on another server", Phase.DELETING, "Terminating", "Progressing"),
]
SAME = {
    "InProgress": {"Progressing"},
    "Failed": {"Degraded"},
    "Current": {"Healthy", "Suspended"},
    "Terminating": {"Progressing"},
}


def test_the_table_has_every_state() -> None:
    assert [name for name, *_ in TABLE] == list(EVERY_STATE)


@pytest.mark.parametrize(("name", "phase", "status", "health"), TABLE)
def test_every_state(name: str, phase: Phase | None, status: str, health: str) -> None:
    body = body_of(EVERY_STATE[name])
    assert (EVERY_STATE[name].status.phase, kstatus(body), argocd_health(body)["status"]) == (phase, status, health)
    assert health in SAME[status]


@pytest.mark.parametrize("name", [name for name, this in EVERY_STATE.items() if is_seen(this)])
def test_an_outage_changes_no_answer(name: str) -> None:
    this = EVERY_STATE[name]
    away = body_of(with_status(this, decide(this, an_outage(reached(this))).status))
    assert (kstatus(away), argocd_health(away)) == (kstatus(body_of(this)), argocd_health(body_of(this)))


def test_argo_cd_says_why() -> None:
    failed = argocd_health(body_of(EVERY_STATE["failed"]))
    assert failed["message"] == "JobFailed: Job 1 ended as FAILED."
    assert argocd_health({"metadata": {"generation": 1}})["message"] == "skyoperator has not looked at it yet"
