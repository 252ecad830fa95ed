"""What an edit of a cluster without a job does: applied to the one that is up, or a new one; and what it must never do to a job."""

from __future__ import annotations

from typing import Any

import pytest
from skyoperator.api.v1alpha1 import TERMINATED, ConditionType, Phase, SkyCluster, SkyClusterStatus
from skyoperator.conditions import find
from skyoperator.decision import Launch, SetAutostop, TearDown
from skyoperator.inputs import spec_digest
from skyoperator.sky.types import JobStatus, Launched, RequestStatus
from skyoperator.subject import subject_of
from skyoperator.world import ABSENT

from tests.unit.build import NAME, NO_RUN, RUN, UID, a_cluster, a_job, a_request, a_world, after, an_object, condition, decide, edited
from tests.unit.states import AUTOSTOPPED, COMPLETE, EDITED, FAILED, KEPT, READY, RUNNING, SETUP_ONLY, UNACKNOWLEDGED

UP = a_world(cluster=a_cluster())
SETUP = {**NO_RUN, "setup": "pip install torch"}
BIGGER = {"resources": {"infra": "k8s", "cpus": 8}}


def edit(this: SkyCluster, **spec: Any) -> SkyCluster:
    return this.model_copy(update={"spec": an_object(**{"task_": NO_RUN, **spec}).spec, "generation": this.generation + 1})


@pytest.mark.parametrize("task", [SETUP, {**NO_RUN, "envs": {"A": "1"}}, {**NO_RUN, "name": "other"}], ids=["setup", "envs", "name"])
def test_what_the_live_cluster_can_take_is_launched_onto_it(task: dict[str, Any]) -> None:
    decision = decide(edit(READY, task_=task), UP)
    assert decision.action == Launch(NAME, f"{UID[:8]}-a2")
    assert decision.status.cluster is not None
    assert decision.status.cluster.status == "UP"
    assert decision.status.launch is not None
    assert decision.status.launch.finished_at is None
    assert condition(decision.status, ConditionType.ACCEPTED)[0] == "True"


@pytest.mark.parametrize("task", [BIGGER, {**NO_RUN, "num_nodes": 2}], ids=["resources", "nodes"])
def test_what_it_can_not_take_needs_a_new_one(task: dict[str, Any]) -> None:
    this = after(edit(READY, task_=task), UP)
    assert this.status.phase is Phase.STOPPING
    assert decide(this, UP).action == TearDown(NAME, (), down=True)
    gone = after(this, a_world(empty_seconds=10.0))
    assert gone.status.cluster is not None
    assert gone.status.cluster.status == TERMINATED
    assert decide(gone, a_world()).action == Launch(NAME, f"{UID[:8]}-a2")


def test_an_edit_that_is_applied_is_ready_again() -> None:
    this = after(edit(READY, task_=SETUP), UP)
    assert this.status.phase is Phase.LAUNCHING
    done = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(2))
    second = a_job(JobStatus.SUCCEEDED, id_=2, name=f"{UID[:8]}-a2")
    this = after(this, done, a_world(cluster=a_cluster(), queue_was_read=True, jobs=(second,)), UP)
    assert condition(this.status, ConditionType.READY) == ("True", "ClusterUp")
    assert decide(this, UP).action is None


def test_a_bad_edit_is_said_and_leaves_the_cluster_alone() -> None:
    decision = decide(edit(READY, task_={**NO_RUN, "setupp": "x"}), UP)
    assert decision.action is None
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "InvalidTask")
    assert condition(decision.status, ConditionType.CLUSTER_READY)[0] == "True"


def test_an_edit_waits_until_the_launch_before_it_is_done() -> None:
    launching = after(an_object(NO_RUN), a_world())
    assert decide(edit(launching, task_=SETUP), a_world(launch=a_request(), active=(a_request(),))).action is None


def test_an_edit_waits_for_its_turn() -> None:
    this = edit(READY, task_=SETUP)
    assert decide(this, a_world(cluster=a_cluster(), may_launch=False)).action is None
    subject = subject_of(this)
    assert subject is not None
    assert subject.wants_launch
    ready = subject_of(READY)
    assert ready is not None
    assert not ready.wants_launch


def test_a_run_is_not_added_to_a_cluster_that_was_launched_without() -> None:
    decision = decide(edit(READY, task_={**NO_RUN, "run": "echo hi"}), UP)
    assert decision.action is None
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "ImmutableTask")


@pytest.mark.parametrize("task", [{"run": "echo other"}, NO_RUN, {**BIGGER, "run": "echo hi"}], ids=["run", "no run", "resources"])
def test_no_edit_reruns_a_job(task: dict[str, Any]) -> None:
    this = RUNNING.model_copy(update={"spec": an_object(task).spec, "generation": 2})
    decision = decide(this, a_world(cluster=a_cluster(), jobs=(a_job(),)))
    assert decision.action is None
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "ImmutableTask")
    ended = after(this, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),)))
    assert condition(ended.status, ConditionType.COMPLETE)[0] == "True"
    assert not isinstance(decide(ended, a_world(empty_seconds=10)).action, Launch)


def accepted(status: SkyClusterStatus) -> tuple[str, str]:
    found = find(status.conditions, ConditionType.ACCEPTED)
    assert found is not None
    return found.reason, found.message


@pytest.mark.parametrize(
    ("this", "ends"),
    [
        (COMPLETE, {ConditionType.READY: ("True", "JobSucceeded"), ConditionType.STALLED: ("False", "Settled")}),
        (FAILED, {ConditionType.READY: ("False", "JobFailed"), ConditionType.STALLED: ("True", "JobFailed")}),
        (KEPT, {ConditionType.READY: ("True", "JobSucceeded"), ConditionType.STALLED: ("False", "Settled")}),
    ],
    ids=["complete", "failed", "kept"],
)
def test_a_job_that_has_ended_stays_as_it_ended_whatever_is_edited(this: SkyCluster, ends: dict[ConditionType, tuple[str, str]]) -> None:
    status = decide(edited(this, task={**RUN, "run": "echo other"}), UP).status
    assert {type_: condition(status, type_) for type_ in ends} == ends
    assert condition(status, ConditionType.ACCEPTED) == ("False", "ImmutableTask")
    for words in ("goes on", "suspend"):
        assert words not in accepted(status)[1]


def test_a_plain_cluster_that_has_ended_and_waits_for_a_better_edit_says_so() -> None:
    """As it is wanted again by an edit, it is not as wanted while that is refused."""
    for task, reason in (({"runn": "typo"}, "InvalidTask"), (RUN, "ImmutableTask")):
        status = decide(edited(AUTOSTOPPED, task=task), a_world()).status
        assert condition(status, ConditionType.READY) == ("False", reason)
        assert condition(status, ConditionType.STALLED) == ("True", reason)
        for words in ("stays as it is", "suspend"):
            assert words not in accepted(status)[1]


@pytest.mark.parametrize(
    ("task", "reason"),
    [({"runn": "typo"}, "InvalidTask"), ({**RUN, "file_mounts": {"/x": "/etc"}}, "PolicyDenied"), ({**RUN, "run": "x"}, "TaskAccepted")],
    ids=["invalid", "denied", "fine"],
)
def test_an_edit_of_what_may_never_have_arrived_is_judged_as_any_task_until_that_is_known(task: dict[str, Any], reason: str) -> None:
    this = edited(UNACKNOWLEDGED, task=task)
    assert accepted(decide(this, a_world(attempt=ABSENT)).status)[0] == reason
    arrived = after(this, a_world(attempt=a_request()))
    assert accepted(decide(arrived, a_world(launch=a_request(), active=(a_request(),))).status)[0] == "ImmutableTask"


def test_an_edit_that_is_undone_is_accepted_again() -> None:
    rejected = after(EDITED, a_world(cluster=a_cluster(), jobs=(a_job(),)))
    undone = rejected.model_copy(update={"spec": RUNNING.spec, "generation": 3})
    assert condition(decide(undone, a_world(cluster=a_cluster(), jobs=(a_job(),))).status, ConditionType.ACCEPTED)[0] == "True"


def test_a_secret_that_is_named_otherwise_is_an_edit_and_one_that_changes_is_none() -> None:
    def secret(key: str) -> list[dict[str, Any]]:
        return [{"name": "TOKEN", "secretKeyRef": {"name": "hf", "key": key}}]

    one, other, bare = (spec_digest(an_object(secrets=found).spec) for found in (secret("a"), secret("b"), []))
    assert len({one, other, bare}) == 3
    assert one == spec_digest(an_object(secrets=secret("a")).spec)


def test_a_failed_cluster_that_is_edited_is_wanted_again() -> None:
    failed = after(SETUP_ONLY, a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.FAILED_SETUP),)))
    assert condition(failed.status, ConditionType.FAILED)[0] == "True"
    this = after(edit(failed, task_=SETUP), a_world(cluster=a_cluster()), a_world(cluster=a_cluster()), a_world(empty_seconds=10.0))
    decision = decide(this, a_world())
    assert decision.action == Launch(NAME, f"{UID[:8]}-a2")
    assert condition(decision.status, ConditionType.FAILED) == ("False", "NotFinished")
    assert decision.status.completion_time is None


class TestAutostopEdit:
    def test_skypilots_backstop_is_moved_along(self) -> None:
        assert READY.status.launch is not None
        assert READY.status.launch.autostop_minutes == 60 + 24 * 60
        decision = decide(edit(READY, autostop={"idleMinutes": 600}), UP)
        assert decision.action == SetAutostop(NAME, 600 + 24 * 60)
        assert decision.status.launch is not None
        assert decision.status.launch.autostop_minutes == 60 + 24 * 60, "written down once SkyPilot was told"
        assert condition(decision.status, ConditionType.ACCEPTED)[0] == "True"

    def test_not_while_the_cluster_is_not_up(self) -> None:
        assert decide(edit(READY, autostop={"idleMinutes": 600}), a_world()).action is None
