"""The rules of decide, each from the state in which it matters."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from skyoperator import records
from skyoperator.api.v1alpha1 import FINALIZER, TERMINATED, ConditionType, Phase, SkyCluster, SkyClusterStatus
from skyoperator.decision import CALM_SECONDS, LATER_SECONDS, AddFinalizer, Decision, Launch, RemoveFinalizer, TearDown
from skyoperator.sky.types import ClusterStatus, JobStatus, Launched, RequestError, RequestStatus
from skyoperator.world import ABSENT, World

from tests.unit.build import (
    JOB,
    NAME,
    NOW,
    RUN,
    a_cluster,
    a_job,
    a_request,
    a_world,
    after,
    an_object,
    an_outage,
    condition,
    decide,
    edited,
    is_silent,
)
from tests.unit.states import (
    A_MINUTE_LATER,
    COMPLETE,
    COMPLETE_STOPPING,
    EDITED,
    EVERY_STATE,
    FAILED,
    INIT,
    KEPT,
    LAUNCH_FAILED,
    LAUNCHING,
    NEW,
    QUEUED,
    READY,
    REJECTED,
    RUNNING,
    SETUP_ONLY,
    UNACKNOWLEDGED,
    deleted,
    is_seen,
    reached,
)

HELD = {name: this for name, this in EVERY_STATE.items() if this.finalizers}
"""Without our finalizer a deleted object is gone at once; nothing is left to decide."""

UNHEALTHY = replace(a_cluster(ClusterStatus.INIT), init_kind="unhealthy")
every_state = pytest.mark.parametrize("this", EVERY_STATE.values(), ids=EVERY_STATE)
every_held_state = pytest.mark.parametrize("this", HELD.values(), ids=HELD)


class TestLaunch:
    def test_nothing_happens_before_the_finalizer_is_seen(self) -> None:
        decision = decide(an_object(finalizers=()), a_world())
        assert decision.action == AddFinalizer()
        assert decision.status.launch is None

    def test_the_attempt_is_written_down_with_the_launch(self) -> None:
        decision = decide(NEW, a_world())
        assert decision.action == Launch(NAME, JOB)
        assert decision.status.launch is not None
        assert (decision.status.launch.attempt, decision.status.launch.request_id) == (1, None)

    def test_a_status_that_was_wiped_is_adopted_not_launched_again(self) -> None:
        decision = decide(NEW, a_world(cluster=a_cluster()))
        assert decision.action is None
        assert decision.status.launch is not None
        assert decision.status.launch.request_id is None

    def test_a_name_that_another_has_is_not_launched_upon(self) -> None:
        decision = decide(NEW, a_world(cluster=a_cluster(uid="another")))
        assert decision.action is None
        assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "NameConflict")

    def test_a_rejected_task_waits_for_an_edit_and_is_launched_then(self) -> None:
        assert decide(REJECTED, a_world()).after_seconds is None
        healed = REJECTED.model_copy(update={"spec": NEW.spec, "generation": 2})
        assert isinstance(decide(healed, a_world()).action, Launch)


class TestAdoption:
    def test_by_the_exact_name_of_a_request(self) -> None:
        status = decide(UNACKNOWLEDGED, a_world(attempt=a_request(id_="r9"), active=(a_request(id_="r9"),))).status
        assert status.launch is not None
        assert status.launch.request_id == "r9"

    def test_by_the_lowest_job_of_that_name(self) -> None:
        jobs = (a_job(id_=4, name="stranger"), a_job(id_=7), a_job(id_=6))
        status = decide(UNACKNOWLEDGED, a_world(cluster=a_cluster(), jobs=jobs, attempt=ABSENT)).status
        assert status.job is not None
        assert status.job.id == 6

    def test_a_stranger_of_the_same_cluster_is_not_adopted(self) -> None:
        world = a_world(now=A_MINUTE_LATER, cluster=a_cluster(), jobs=(a_job(name="stranger"),), active=(a_request(),), attempt=ABSENT)
        decision = decide(UNACKNOWLEDGED, world)
        assert decision.action is None
        assert decision.status.job is None
        assert decision.status.launch is not None
        assert decision.status.launch.request_id is None

    def test_it_is_sent_again_under_the_same_name_once_settled(self) -> None:
        decision = decide(UNACKNOWLEDGED, a_world(now=A_MINUTE_LATER, attempt=ABSENT))
        assert decision.action == Launch(NAME, JOB)

    @pytest.mark.parametrize(
        "seen",
        [
            {"now": NOW + timedelta(seconds=59), "attempt": ABSENT},
            {"now": A_MINUTE_LATER, "attempt": None},
            {"now": A_MINUTE_LATER, "attempt": ABSENT, "reachable_since": NOW + timedelta(seconds=5)},
            {"now": A_MINUTE_LATER, "attempt": ABSENT, "cluster": a_cluster(), "jobs": None},
            {"now": A_MINUTE_LATER, "attempt": ABSENT, "active": (a_request(id_="other"),)},
            {"now": A_MINUTE_LATER, "attempt": ABSENT, "may_launch": False},
        ],
        ids=["too early", "requests unknown", "the server was away", "queue unreadable", "another request is at work", "no slot"],
    )
    def test_it_is_not_sent_again(self, seen: dict[str, Any]) -> None:
        assert decide(UNACKNOWLEDGED, a_world(**seen)).action is None

    @pytest.mark.parametrize(
        ("seen", "now"),
        [
            ({"empty_seconds": 30.0}, A_MINUTE_LATER),
            ({"cluster": UNHEALTHY}, A_MINUTE_LATER),
            ({"cluster": a_cluster(ClusterStatus.STOPPED)}, A_MINUTE_LATER),
        ],
        ids=["gone", "unhealthy", "stopped"],
    )
    def test_a_cluster_that_was_up_unheard_may_have_run_its_job(self, seen: dict[str, Any], now: datetime) -> None:
        """The server forgot the request of a launch whose cluster was up: its job may have run, and must not be sent again."""
        forgotten = after(INIT, a_world(cluster=a_cluster(), launch=a_request()), a_world(cluster=a_cluster(), launch=ABSENT))
        status = decide(forgotten, a_world(now, attempt=ABSENT, **seen)).status
        assert condition(status, ConditionType.FAILED) == ("True", "OutcomeUnknown")

    def test_a_cluster_that_was_never_up_has_run_nothing(self) -> None:
        forgotten = after(INIT, a_world(cluster=a_cluster(ClusterStatus.INIT), launch=ABSENT))
        for seen in ({"empty_seconds": 30.0}, {"cluster": a_cluster(ClusterStatus.INIT)}):
            assert isinstance(decide(forgotten, a_world(A_MINUTE_LATER, attempt=ABSENT, **seen)).action, Launch)

    def test_what_skypilot_may_have_forgotten_long_ago_is_not_sent_again(self) -> None:
        much_later = NOW + timedelta(hours=30)
        back = after(LAUNCHING, a_world(much_later, launch=ABSENT))
        world = a_world(much_later + timedelta(minutes=2), attempt=ABSENT, empty_seconds=30.0)
        assert condition(decide(back, world).status, ConditionType.FAILED) == ("True", "OutcomeUnknown")

    def test_a_launch_that_failed_after_it_had_submitted_the_job_has_one(self) -> None:
        failed: dict[str, Any] = {"launch": a_request(RequestStatus.FAILED), "outcome": RequestError("CommandError", "timed out")}
        assert decide(LAUNCHING, a_world(cluster=a_cluster(), **failed)).status.failures is None, "the queue is read first"
        this = after(LAUNCHING, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(),), **failed))
        assert this.status.phase is Phase.RUNNING
        none_there = decide(LAUNCHING, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(), **failed)).status
        assert condition(none_there, ConditionType.FAILED) == ("True", "SkyPilotError")

    def test_an_edit_of_what_never_arrived_is_written_down_and_settles_anew(self) -> None:
        other = edited(UNACKNOWLEDGED, task={**RUN, "run": "echo other"})
        assert decide(other, a_world(attempt=ABSENT)).action is None
        this = after(other, a_world(now=A_MINUTE_LATER, attempt=ABSENT))
        assert condition(decide(this, a_world(now=A_MINUTE_LATER, attempt=ABSENT)).status, ConditionType.ACCEPTED)[0] == "True"
        assert decide(this, a_world(now=A_MINUTE_LATER, attempt=ABSENT)).action is None
        assert decide(this, a_world(now=A_MINUTE_LATER + timedelta(minutes=1), attempt=ABSENT)).action == Launch(NAME, JOB)

    def test_the_settle_time_begins_with_the_post_not_with_the_decision(self) -> None:
        just_posted = a_world(now=A_MINUTE_LATER, attempt=ABSENT, acted_at=NOW + timedelta(seconds=30))
        assert decide(UNACKNOWLEDGED, just_posted).action is None

    def test_a_request_the_server_forgot_is_the_same_attempt_and_settles_anew(self) -> None:
        this = after(INIT, a_world(now=A_MINUTE_LATER, cluster=a_cluster(), launch=ABSENT))
        assert this.status.launch is not None
        assert (this.status.launch.attempt, this.status.launch.request_id) == (1, None)
        assert this.status.failures is None
        soon = A_MINUTE_LATER + timedelta(seconds=59)
        assert decide(this, a_world(now=soon, cluster=a_cluster(), jobs=(), attempt=ABSENT)).action is None

    @pytest.mark.parametrize("type_", ["RequestInterruptedError", "ServerTemporarilyUnavailableError"])
    def test_a_request_the_server_dropped_is_no_failure(self, type_: str) -> None:
        world = a_world(launch=a_request(RequestStatus.CANCELLED), outcome=RequestError(type_, "will not be resumed"))
        status = decide(LAUNCHING, world).status
        assert status.failures is None
        assert status.launch is not None
        assert status.launch.request_id is None


class TestFollowing:
    def test_a_running_job_on_a_cluster_that_is_up_is_left_alone(self) -> None:
        """Whatever happens to either wakes it."""
        this = after(RUNNING, a_world(cluster=a_cluster(), jobs=(a_job(),)))
        assert decide(this, a_world(cluster=a_cluster(), jobs=(a_job(),))) == Decision(this.status, None, CALM_SECONDS)

    @pytest.mark.parametrize(
        "seen",
        [
            {"cluster": a_cluster(), "jobs": ()},
            {"cluster": a_cluster(), "jobs": None},
            {"cluster": a_cluster(), "jobs": (a_job(JobStatus.UNKNOWN),)},
            {"cluster": a_cluster(), "jobs": (a_job(JobStatus.PENDING),)},
            {"cluster": a_cluster(ClusterStatus.INIT), "jobs": (a_job(),)},
            {"cluster": ABSENT, "jobs": (a_job(),)},
            {"cluster": None, "active": None},
        ],
    )
    def test_anything_less_is_looked_at_soon(self, seen: dict[str, Any]) -> None:
        """What waits for time to pass is not told of it by anybody."""
        after_seconds = decide(RUNNING, a_world(**seen)).after_seconds
        assert after_seconds is not None
        assert after_seconds <= LATER_SECONDS

    def test_up_is_no_proof_of_a_job(self) -> None:
        status = decide(LAUNCHING, a_world(cluster=a_cluster(), launch=a_request(), active=(a_request(),))).status
        assert status.phase is Phase.LAUNCHING
        assert status.job is None

    def test_a_job_whose_id_skypilot_did_not_tell_is_found_by_its_name(self) -> None:
        this = after(LAUNCHING, a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None)))
        assert this.status.phase is Phase.RUNNING
        status = decide(this, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(a_job(id_=4),))).status
        assert status.job is not None
        assert status.job.id == 4

    def test_a_job_that_is_missing_from_the_queue_for_long_has_an_unknown_outcome(self) -> None:
        this = after(LAUNCHING, a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(None)))
        empty: dict[str, Any] = {"cluster": a_cluster(), "queue_was_read": True, "jobs": ()}
        this = after(this, a_world(**empty))
        assert decide(this, a_world(NOW + timedelta(seconds=599), **empty)).status.phase is Phase.RUNNING
        lost = decide(this, a_world(NOW + timedelta(seconds=600), **empty)).status
        assert condition(lost, ConditionType.FAILED) == ("True", "OutcomeUnknown")

    def test_a_queue_that_was_not_read_yet_says_nothing(self) -> None:
        assert is_silent(RUNNING, decide(RUNNING, a_world(A_MINUTE_LATER, cluster=a_cluster())))

    def test_the_first_look_after_an_outage_loses_no_cluster(self) -> None:
        sick: dict[str, Any] = {"cluster": a_cluster(ClusterStatus.INIT), "jobs": None}
        this = after(RUNNING, a_world(**sick))
        back = NOW + timedelta(hours=2)
        assert decide(this, a_world(back, reachable_since=back, **sick)).status.phase is Phase.RUNNING

    @every_held_state
    def test_another_server_is_an_outage(self, this: SkyCluster) -> None:
        if this.status.cluster is None or this.status.cluster.status == TERMINATED:
            return
        moved = a_world(reached(this), server="http://another", empty_seconds=100.0, attempt=ABSENT)
        assert decide(deleted(this), moved).action is None
        this = this if is_seen(this) else after(this, moved)
        status = decide(this, moved).status
        assert condition(status, ConditionType.CLUSTER_READY) == ("Unknown", "SkyPilotUnreachable")
        assert status.phase == this.status.phase

    @pytest.mark.parametrize("run", [None, "echo other"])
    def test_an_edit_does_not_change_what_the_live_job_means(self, run: str | None) -> None:
        """A plain cluster that is given a `run`, a job whose `run` is taken away: neither runs, completes nor ends anything by that."""
        plain = after(SETUP_ONLY, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
        launched = plain if run else RUNNING
        other = edited(launched, task={"resources": {"infra": "k8s"}, **({"run": run} if run else {})})
        status = decide(other, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),))).status
        assert condition(status, ConditionType.COMPLETE)[0] == ("False" if run else "True")

    @pytest.mark.parametrize(
        ("job", "condition_type", "reason"),
        [
            (JobStatus.SUCCEEDED, ConditionType.COMPLETE, "JobSucceeded"),
            (JobStatus.FAILED, ConditionType.FAILED, "JobFailed"),
            (JobStatus.FAILED_SETUP, ConditionType.FAILED, "SetupFailed"),
            (JobStatus.FAILED_DRIVER, ConditionType.FAILED, "SkyPilotError"),
            (JobStatus.CANCELLED, ConditionType.FAILED, "JobCancelled"),
        ],
    )
    def test_the_job_ends_the_object(self, job: JobStatus, condition_type: ConditionType, reason: str) -> None:
        status = decide(RUNNING, a_world(cluster=a_cluster(), jobs=(a_job(job),))).status
        assert condition(status, condition_type) == ("True", reason)
        others = {ConditionType.COMPLETE, ConditionType.FAILED} - {condition_type}
        assert all(condition(status, other)[0] == "False" for other in others)

    @pytest.mark.parametrize("job", [status for status in JobStatus if not status.terminal])
    def test_nothing_else_does(self, job: JobStatus) -> None:
        status = decide(RUNNING, a_world(cluster=a_cluster(), jobs=(a_job(job),))).status
        assert status.phase is Phase.RUNNING

    def test_the_lowest_job_of_our_name_counts_not_a_duplicate_that_the_fence_stopped(self) -> None:
        assert RUNNING.status.job is not None
        second = RUNNING.status.job.model_copy(update={"id": 2})
        this = RUNNING.model_copy(update={"status": RUNNING.status.model_copy(update={"job": second})})
        status = decide(this, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED, id_=2), a_job(id_=1)))).status
        assert status.phase is Phase.RUNNING
        assert status.job is not None
        assert status.job.id == 1

    def test_a_failed_job_speaks_in_its_own_words(self) -> None:
        world = a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.FAILED),), job_words="Job 1 failed with return code list: [3]")
        status = decide(RUNNING, world).status
        assert status.failures is not None
        assert status.failures.message == "Job 1 failed with return code list: [3]"

    def test_a_cluster_that_is_gone_once_may_be_a_slip(self) -> None:
        assert decide(RUNNING, a_world(empty_seconds=9.9)).status.phase is Phase.RUNNING

    def test_a_cluster_that_stays_away_is_lost(self) -> None:
        status = decide(RUNNING, a_world(empty_seconds=10.0)).status
        assert condition(status, ConditionType.FAILED) == ("True", "ClusterLost")

    def test_a_job_nobody_ever_saw_has_an_unknown_outcome(self) -> None:
        never_seen = after(LAUNCHING, a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1)))
        assert condition(decide(never_seen, a_world(empty_seconds=10.0)).status, ConditionType.FAILED) == ("True", "OutcomeUnknown")

    def test_a_job_that_stays_unknown_on_a_sick_cluster_is_lost(self) -> None:
        sick: dict[str, Any] = {"cluster": a_cluster(ClusterStatus.INIT), "jobs": None}
        this = after(RUNNING, a_world(**sick))
        assert decide(this, a_world(NOW + timedelta(seconds=599), **sick)).status.phase is Phase.RUNNING
        assert decide(this, a_world(NOW + timedelta(seconds=600), **{**sick, "cluster": a_cluster()})).status.phase is Phase.RUNNING
        lost = decide(this, a_world(NOW + timedelta(seconds=600), **sick)).status
        assert condition(lost, ConditionType.FAILED) == ("True", "ClusterLost")

    def test_a_plain_cluster_is_ready_while_it_is_up_and_failed_when_it_is_lost(self) -> None:
        assert condition(READY.status, ConditionType.READY) == ("True", "ClusterUp")
        assert condition(decide(READY, a_world(cluster=a_cluster(ClusterStatus.INIT))).status, ConditionType.READY)[0] == "False"
        assert condition(decide(READY, a_world(empty_seconds=10.0)).status, ConditionType.FAILED) == ("True", "ClusterLost")

    def test_setup_alone_is_a_job_whose_end_makes_the_cluster_ready_and_ends_nothing(self) -> None:
        assert SETUP_ONLY.status.phase is Phase.LAUNCHING
        done = after(SETUP_ONLY, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
        assert condition(done.status, ConditionType.READY) == ("True", "ClusterUp")
        assert condition(done.status, ConditionType.COMPLETE)[0] == "False"
        assert is_silent(done, decide(done, a_world(A_MINUTE_LATER, cluster=a_cluster())))
        failed = decide(SETUP_ONLY, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.FAILED_SETUP),))).status
        assert condition(failed, ConditionType.FAILED) == ("True", "SetupFailed")

    def test_an_edit_of_the_task_is_said_and_changes_nothing_else(self) -> None:
        status = decide(EDITED, a_world(cluster=a_cluster(), jobs=(a_job(),))).status
        assert condition(status, ConditionType.ACCEPTED) == ("False", "ImmutableTask")
        assert (status.phase, status.launch, status.job) == (Phase.RUNNING, RUNNING.status.launch, RUNNING.status.job)


GOING = [
    "complete, stopping",
    "failed, stopping",
    "launch failed",
    "kept, stopping",
    "retry, stopping",
    "backoff limit exceeded, stopping",
    "suspended, stopping",
    "deadline exceeded, stopping",
    "launch too slow, stopping",
    "autostopped, stopping",
    "plain, deadline exceeded",
    "plain, edited, new cluster",
    "deleting",
    "deleting, launching",
    "deleting, stuck",
]
"""States whose cluster was to go, and is not confirmed gone."""
STAYING = {
    name: this
    for name, this in EVERY_STATE.items()
    if FINALIZER in this.finalizers and name not in GOING and not records.is_terminated(this.status)
}


def orphaned(this: SkyCluster) -> SkyCluster:
    return deleted(this.model_copy(update={"spec": this.spec.model_copy(update={"deletion_policy": "Orphan"})}))


class TestTearDown:
    def test_cancel_goes_with_down_while_the_launch_is_queued(self) -> None:
        decision = decide(deleted(LAUNCHING), a_world(active=(a_request(RequestStatus.PENDING),)))
        assert decision.action == TearDown(NAME, cancel=("r1",), down=True)

    def test_one_down_at_a_time(self) -> None:
        world = a_world(cluster=a_cluster(), active=(a_request(id_="d1", name="down"),))
        assert decide(deleted(RUNNING), world).action is None

    @pytest.mark.parametrize("empty_seconds", [0.0, 9.9])
    def test_one_empty_look_proves_nothing(self, empty_seconds: float) -> None:
        assert decide(deleted(RUNNING), a_world(empty_seconds=empty_seconds)).action is None
        assert decide(COMPLETE_STOPPING, a_world(empty_seconds=empty_seconds)).status.phase is Phase.STOPPING

    def test_two_empty_looks_let_the_object_go(self) -> None:
        assert decide(deleted(RUNNING), a_world(empty_seconds=10.0)).action == RemoveFinalizer()

    def test_a_launch_that_may_still_arrive_holds_the_object(self) -> None:
        this = deleted(UNACKNOWLEDGED)
        assert decide(this, a_world(empty_seconds=30.0)).action is None
        assert decide(this, a_world(A_MINUTE_LATER, empty_seconds=30.0)).action == RemoveFinalizer()

    @every_held_state
    def test_a_server_that_is_away_never_lets_go_of_what_was_launched(self, this: SkyCluster) -> None:
        was_seen = any(found.type == ConditionType.CLUSTER_READY and found.reason == "ClusterAbsent" for found in this.status.conditions)
        known_not_to_be = records.is_terminated(this.status) or (was_seen and this.status.launch is None)
        decision = decide(deleted(this), an_outage())
        assert (decision.action == RemoveFinalizer()) == known_not_to_be
        again = deleted(this).model_copy(update={"status": decision.status})
        assert (decide(again, an_outage()).action == RemoveFinalizer()) == known_not_to_be

    @pytest.mark.parametrize("this", STAYING.values(), ids=STAYING)
    def test_orphan_lets_go_at_once_of_what_was_to_stay_and_touches_nothing(self, this: SkyCluster) -> None:
        for world in (a_world(cluster=a_cluster()), an_outage()):
            assert decide(orphaned(this), world).action == RemoveFinalizer(leaves_cluster=True)

    @pytest.mark.parametrize("name", GOING)
    def test_orphan_comes_too_late_for_what_was_to_go(self, name: str) -> None:
        this = orphaned(EVERY_STATE[name])
        now = reached(this)
        assert decide(this, an_outage(now)).action is None
        assert decide(this, a_world(now, cluster=a_cluster())).action == TearDown(NAME, (), down=True)
        assert decide(this, a_world(now, empty_seconds=10.0)).action == RemoveFinalizer()

    def test_orphan_comes_too_late_for_one_whose_suspension_was_not_taken_notice_of(self) -> None:
        this = orphaned(edited(RUNNING, suspend=True))
        assert decide(this, a_world(cluster=a_cluster())).action == TearDown(NAME, (), down=True)

    @pytest.mark.parametrize("this", [RUNNING, READY, KEPT, INIT], ids=["running", "ready", "kept", "launching"])
    def test_orphan_after_the_delete_counts_until_skypilot_was_asked(self, this: SkyCluster) -> None:
        waiting = after(deleted(this), an_outage())
        assert decide(orphaned(waiting), an_outage()).action == RemoveFinalizer(leaves_cluster=True)
        asked = after(waiting, a_world(cluster=a_cluster()))
        for world in (an_outage(), a_world(cluster=a_cluster(), active=(a_request(id_="d1", name="down"),))):
            assert decide(orphaned(asked), world).action is None

    @every_held_state
    def test_a_delete_outranks_everything(self, this: SkyCluster) -> None:
        world = a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),), attempt=a_request())
        assert not isinstance(decide(deleted(this), world).action, Launch | AddFinalizer)
        if this.status.conditions:
            assert decide(deleted(this), world).status.phase is Phase.DELETING

    def test_keep_keeps_the_cluster_of_a_job_and_not_that_of_a_launch_that_failed(self) -> None:
        assert decide(KEPT, a_world(cluster=a_cluster())).action is None
        failed = LAUNCH_FAILED.model_copy(update={"spec": KEPT.spec})
        assert decide(failed, a_world(cluster=a_cluster())).action == TearDown(NAME, cancel=(), down=True)

    def test_a_wiped_status_does_not_leak_the_cluster(self) -> None:
        wiped = deleted(RUNNING).model_copy(update={"status": SkyClusterStatus()})
        assert decide(wiped, a_world(cluster=a_cluster())).action == TearDown(NAME, cancel=(), down=True)

    def test_a_wiped_status_holds_the_object_while_the_server_is_away(self) -> None:
        wiped = deleted(RUNNING).model_copy(update={"status": SkyClusterStatus()})
        assert decide(wiped, an_outage()).action is None

    @pytest.mark.parametrize("suspend", [False, True])
    @pytest.mark.parametrize(
        "seen",
        [[], [a_world(active=(a_request(),))], [a_world(cluster=a_cluster())]],
        ids=["never seen", "a launch seen that had no row", "a cluster seen that may not be adopted"],
    )
    def test_a_wiped_status_holds_the_object_until_skypilot_was_seen_to_have_nothing(self, seen: list[World], suspend: bool) -> None:
        wiped = after(edited(REJECTED, suspend=suspend).model_copy(update={"status": SkyClusterStatus()}), an_outage(), *seen, an_outage())
        assert decide(deleted(wiped), an_outage()).action is None
        assert decide(deleted(wiped), a_world(cluster=a_cluster())).action == TearDown(NAME, cancel=(), down=True)
        assert decide(deleted(wiped), a_world()).action == RemoveFinalizer()

    def test_what_was_seen_to_have_nothing_needs_no_server_to_go(self) -> None:
        seen = after(QUEUED, a_world(may_launch=False), an_outage())
        assert condition(seen.status, ConditionType.CLUSTER_READY) == ("False", "ClusterAbsent")
        assert decide(deleted(seen), an_outage()).action == RemoveFinalizer()

    def test_a_down_that_fails_is_said_and_not_hammered(self) -> None:
        world = a_world(cluster=a_cluster(), down_error="credentials revoked", may_down=False)
        decision = decide(deleted(RUNNING), world)
        assert decision.action is None
        assert "credentials revoked" in next(found.message for found in decision.status.conditions if found.type == "Ready")
        assert decide(deleted(RUNNING), a_world(cluster=a_cluster(), may_down=True)).action == TearDown(NAME, (), down=True)

    def test_another_owners_cluster_is_left_alone_also_while_it_works(self) -> None:
        world = a_world(cluster=a_cluster(uid="another"), active=(a_request(id_="theirs"),))
        assert decide(deleted(after(NEW, world)), world).action == RemoveFinalizer()

    def test_a_down_that_fails_is_said_also_of_a_job_that_is_done(self) -> None:
        for row in (a_cluster(), a_cluster(ClusterStatus.INIT)):
            status = decide(COMPLETE_STOPPING, a_world(cluster=row, down_error="credentials revoked", may_down=False)).status
            assert condition(status, ConditionType.CLUSTER_READY)[1] == "DownFailed"
            assert "credentials revoked" in next(found.message for found in status.conditions if found.type == "ClusterReady")

    def test_another_owners_cluster_is_left_alone(self) -> None:
        assert decide(deleted(NEW), a_world(cluster=a_cluster(uid="another"))).action == RemoveFinalizer()


class TestQuiet:
    @every_state
    def test_an_outage_changes_nothing_but_cluster_ready(self, this: SkyCluster) -> None:
        outage = an_outage(reached(this))
        this = this if is_seen(this) else after(this, outage)
        before, decision = this.status, decide(this, outage)
        assert decision.action is None
        assert _without_cluster_ready(decision.status) == _without_cluster_ready(before)

    @pytest.mark.parametrize("this", [COMPLETE, FAILED], ids=["complete", "failed"])
    def test_a_finished_object_is_silent_whatever_happens(self, this: SkyCluster) -> None:
        for world in (an_outage(A_MINUTE_LATER), a_world(A_MINUTE_LATER), a_world(A_MINUTE_LATER, cluster=a_cluster())):
            assert is_silent(this, decide(this, world))
            assert decide(this, world).after_seconds is None

    @pytest.mark.parametrize(
        ("this", "seen"),
        [
            (RUNNING, {"cluster": a_cluster(), "jobs": (a_job(),)}),
            (READY, {"cluster": a_cluster()}),
            (INIT, {"cluster": a_cluster(ClusterStatus.INIT), "launch": a_request(), "active": (a_request(),)}),
            (KEPT, {"cluster": a_cluster()}),
        ],
        ids=["running", "ready", "launching", "kept"],
    )
    def test_the_same_look_twice_writes_nothing(self, this: SkyCluster, seen: dict[str, Any]) -> None:
        this = after(this, a_world(**seen))
        assert is_silent(this, decide(this, a_world(A_MINUTE_LATER, **seen)))


def _without_cluster_ready(status: SkyClusterStatus) -> dict[str, Any]:
    content = status.as_json()
    content["conditions"] = [condition for condition in content["conditions"] if condition["type"] != "ClusterReady"]
    return content
