"""Invariants, the mutants that break them, and the tests that kill those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MACHINE: Final = "test_machine.py::test_every_life_keeps_the_invariants"

INVARIANTS: Final = {
    1: "At most one execution per attempt.",
    2: "Nothing leaks.",
    3: "Unreachable, empty or another server is never absent.",
    4: "UP is no proof that the job was submitted.",
    5: "Two objects never share a cluster, nor two attempts a job's name.",
    6: "What the user got wrong is final; what may pass is tried again, as often as was asked for.",
    7: "No green on red.",
    8: "An idle controller writes nothing.",
    9: "A lost cluster is confirmed gone before the next launch.",
    10: "Deleting, abandoning, suspending, deadline and time to live work in every state.",
    11: "No more launches are with SkyPilot than may be.",
}


@dataclass(frozen=True)
class Mutant:
    """One bug: `old` in `path` becomes `new`."""

    invariant: int
    name: str
    path: str
    """Below controller/skyoperator."""
    old: str
    new: str
    test: str
    """Below tests/unit."""


MUTANTS: Final = (
    Mutant(
        1,
        "send again before the settle time is over",
        "following.py",
        "not _shows_no_trace(world) or not is_settled(launch, world)",
        "not _shows_no_trace(world)",
        "test_decide.py::TestAdoption::test_it_is_not_sent_again",
    ),
    Mutant(
        1,
        "send again although the queue can't be read",
        "following.py",
        "world.attempt is ABSENT and (world.jobs is not None or not world.is_up)",
        "world.attempt is ABSENT",
        "test_decide.py::TestAdoption::test_it_is_not_sent_again",
    ),
    Mutant(
        1,
        "adopt by the cluster's name alone",
        "evidence.py",
        "        if name_in_task != attempt:\n            continue\n",
        "",
        "test_crashes.py::test_a_launch_of_another_task_on_our_cluster_is_not_ours",
    ),
    Mutant(
        1,
        "send again what may have run on a cluster that came and went",
        "following.py",
        "if launch.has_run and _may_have_run(status, launch, world):",
        "if False:",
        "test_decide.py::TestAdoption::test_a_cluster_that_was_up_unheard_may_have_run_its_job",
    ),
    Mutant(
        1,
        "send before it is written down",
        "reconcile.py",
        """        this = await self._store(this, decision.status)
        this = await self._act(this, decision.action, world, inputs)
""",
        """        await self._act(this.model_copy(update={"status": decision.status}), decision.action, world, inputs)
        this = await self._store(this, decision.status)
""",
        MACHINE,
    ),
    Mutant(1, "send without a lease", "reconcile.py", "if left < self._needed_lease_seconds:", "if left < 0:", MACHINE),
    Mutant(
        1,
        "write a status over a newer object",
        "kube.py",
        '"uid": this.uid, "resourceVersion": this.resource_version},',
        '"uid": this.uid},',
        "test_kube.py::test_a_status_is_never_written_over_a_newer_object",
    ),
    Mutant(
        1,
        "look at the lease before the credentials are fetched",
        "sky/http.py",
        """await self._headers()
        may_send()
""",
        """may_send() or await self._headers()
""",
        "test_crashes.py::test_what_is_left_of_the_lease_counts_once_the_credentials_are_there",
    ),
    Mutant(
        1,
        "record a request for whichever attempt is there",
        "reconcile.py",
        " or records.attempt_name(this, launch) != action.job_name:",
        ":",
        "test_crashes.py::test_a_request_is_recorded_for_the_attempt_that_was_sent_and_for_no_other",
    ),
    Mutant(
        1,
        "count the settle time from the decision",
        "teardown.py",
        ", world.acted_at or launch.requested_at)",
        ")",
        "test_decide.py::TestAdoption::test_the_settle_time_begins_with_the_post_not_with_the_decision",
    ),
    Mutant(
        1,
        "count the settle time through an outage",
        "teardown.py",
        "launch.requested_at, world.reachable_since, ",
        "launch.requested_at, ",
        "test_decide.py::TestAdoption::test_it_is_not_sent_again",
    ),
    Mutant(
        2,
        "launch before the finalizer is there",
        "decide.py",
        "    starting.guard,\n",
        "",
        "test_decide.py::TestLaunch::test_nothing_happens_before_the_finalizer_is_seen",
    ),
    Mutant(
        2,
        "one empty look is enough",
        "teardown.py",
        "CONFIRM_SECONDS: Final = 10.0",
        "CONFIRM_SECONDS: Final = 0.0",
        "test_decide.py::TestTearDown::test_one_empty_look_proves_nothing",
    ),
    Mutant(
        2,
        "let go while a launch may still arrive",
        "teardown.py",
        "if is_gone(world) and _is_answered(this.status.launch, world):",
        "if is_gone(world):",
        "test_decide.py::TestTearDown::test_a_launch_that_may_still_arrive_holds_the_object",
    ),
    Mutant(
        2,
        "down without cancelling",
        "teardown.py",
        "TearDown(records.cluster_name(this), others, wants_down_now)",
        "TearDown(records.cluster_name(this), (), wants_down_now)",
        "test_decide.py::TestTearDown::test_cancel_goes_with_down_while_the_launch_is_queued",
    ),
    Mutant(
        2,
        "a wiped status was never launched",
        "teardown.py",
        "return world.cluster.uid_label != this.uid",
        "return True",
        "test_decide.py::TestTearDown::test_a_wiped_status_does_not_leak_the_cluster",
    ),
    Mutant(
        2,
        "a status that is empty was not wiped",
        "teardown.py",
        "return records.is_known_absent(this.status)",
        "return bool(this.status.conditions)",
        "test_decide.py::TestTearDown::test_a_wiped_status_holds_the_object_until_skypilot_was_seen_to_have_nothing",
    ),
    Mutant(
        2,
        "orphan a cluster that is half down",
        "ending.py",
        ' == "Orphan" and not _is_to_go(this, world, order):',
        ' == "Orphan":',
        "test_decide.py::TestTearDown::test_orphan_comes_too_late_for_what_was_to_go",
    ),
    Mutant(
        2,
        "forget that a deleted cluster is being taken down",
        "ending.py",
        "return replace(step, status=records.given_up(step.status, world.now)) if isinstance(step.action, TearDown) else step",
        "return step",
        "test_decide.py::TestTearDown::test_orphan_after_the_delete_counts_until_skypilot_was_asked",
    ),
    Mutant(
        3,
        "not known is absent",
        "decide.py",
        "    following.unreachable,\n",
        "",
        "test_decide.py::TestQuiet::test_an_outage_changes_nothing_but_cluster_ready",
    ),
    Mutant(
        3,
        "a look that failed is empty",
        "followed.py",
        """snapshot.active is None or snapshot.taken_at < self.not_before:
            return
        if snapshot.requests_of(name) or snapshot.cluster(name) is not ABSENT:""",
        """snapshot.taken_at < self.not_before:
            return
        if snapshot.requests_of(name) or snapshot.cluster(name) not in (ABSENT, None):""",
        "test_observe.py::test_a_look_that_failed_is_not_empty",
    ),
    Mutant(
        3,
        "whichever server answers is ours",
        "decide.py",
        "    world = of_our_server(this, world)\n",
        "",
        "test_decide.py::TestFollowing::test_another_server_is_an_outage",
    ),
    Mutant(
        3,
        "all that vanishes at once is lost",
        "hold.py",
        "return missing >= SEVERAL or (known >= FEW_KNOWN and missing > known * 0.2)",
        "return False",
        "test_hold.py::test_several_that_vanish_are_held_until_they_are_back",
    ),
    Mutant(
        3,
        "a word on an earlier loss confirms every later one",
        "ending.py",
        "max(launch.requested_at, records.unknown_since(this.status) or world.now)",
        "launch.requested_at",
        "test_letting_go.py::TestConfirmLost::test_a_word_on_an_earlier_loss_says_nothing_about_a_later_one",
    ),
    Mutant(
        4,
        "UP is a launch that succeeded",
        "following.py",
        """    if isinstance(world.outcome, Launched):
        return Decision(records.launched(this, status, launch, world.outcome.job_id, world.now), None, 0)
""",
        """    if world.is_up:
        return Decision(records.launched(this, status, launch, None, world.now), None, 0)
""",
        "test_decide.py::TestFollowing::test_up_is_no_proof_of_a_job",
    ),
    Mutant(
        4,
        "an attempt whose cluster is UP has arrived",
        "following.py",
        "    if job is not None:\n        return Decision(records.launched(this, status, launch, job.id,",
        "    if job is not None or world.is_up:\n        return Decision(records.launched(this, status, launch, job.id if job else 1,",
        MACHINE,
    ),
    Mutant(
        5,
        "a cluster's name without the uid in it",
        "task/names.py",
        "hashlib.sha256(uid.encode())",
        "hashlib.sha256(name.encode())",
        "test_task_names.py::test_two_objects_never_share_a_cluster",
    ),
    Mutant(5, "an attempt that takes the number of the last", "records.py", "before.attempt + 1", "before.attempt", MACHINE),
    Mutant(
        6,
        "run a job that failed again unasked",
        "retries.py",
        "return reason.value in {retried.value for retried in this.spec.retry_on} and this.spec.backoff_limit > 0",
        "return this.spec.backoff_limit > 0",
        "test_retries.py::test_the_users_own_failures_are_not_retried_unless_asked",
    ),
    Mutant(
        6,
        "retry for ever",
        "retries.py",
        " or failures > this.spec.backoff_limit:",
        ":",
        "test_retries.py::test_after_the_last_retry_it_fails_and_says_so",
    ),
    Mutant(
        7,
        "any end of a job is a good end",
        "following.py",
        "    if job.status is JobStatus.SUCCEEDED:\n        return Decision(outcomes.completed",
        "    if job.status.terminal:\n        return Decision(outcomes.completed",
        "test_decide.py::TestFollowing::test_the_job_ends_the_object",
    ),
    Mutant(
        7,
        "a duplicate's end is the job's",
        "jobs.py",
        "return min((",
        "return max((",
        "test_decide.py::TestFollowing::test_the_lowest_job_of_our_name_counts_not_a_duplicate_that_the_fence_stopped",
    ),
    Mutant(
        8,
        "write in every pass",
        "reconcile.py",
        "if status.as_json() == this.status.as_json():",
        "if status is this.status:",
        MACHINE,
    ),
    Mutant(
        8,
        "a condition's time moves with every look",
        "conditions.py",
        "last_transition_time=now if flipped or before is None else before.last_transition_time,",
        "last_transition_time=now,",
        "test_summary.py::test_a_transition_time_moves_only_with_the_status",
    ),
    Mutant(9, "launch again at once", "decide.py", "    ending.clear_away,\n", "", MACHINE),
    Mutant(
        9,
        "one look without a row is a lost cluster",
        "following.py",
        "if is_gone(world) or _is_broken(status, world) or _is_given_up(record, world):",
        "if world.cluster is ABSENT or _is_broken(status, world) or _is_given_up(record, world):",
        "test_decide.py::TestFollowing::test_a_cluster_that_is_gone_once_may_be_a_slip",
    ),
    Mutant(
        10,
        "an end outranks the delete",
        "decide.py",
        "    ending.deleting,\n    ending.expired,\n    ending.reopened,\n    ending.finished,\n",
        "    ending.expired,\n    ending.reopened,\n    ending.finished,\n    ending.deleting,\n",
        MACHINE,
    ),
    Mutant(
        10,
        "suspend is forgotten",
        "decide.py",
        "    ending.suspended,\n    ending.past_deadline,\n",
        "    ending.past_deadline,\n",
        "test_suspend.py::test_what_runs_is_taken_down_first",
    ),
    Mutant(
        10,
        "an outage outranks the deadline",
        "decide.py",
        "    ending.past_deadline,\n    following.unreachable,\n",
        "    following.unreachable,\n    ending.past_deadline,\n",
        "test_deadlines.py::TestActiveDeadline::test_it_is_recorded_in_an_outage_and_torn_down_after_it",
    ),
    Mutant(10, "the guard outranks who gave up", "decide.py", "    ending.abandoned,\n", "", MACHINE),
    Mutant(
        10,
        "time to live is forgotten",
        "decide.py",
        "    ending.expired,\n",
        "",
        "test_crashes_of_long_lives.py::test_no_life_outlasts_the_crashes",
    ),
    Mutant(11, "launch without a slot", "decide.py", "    starting.queued,\n", "", MACHINE),
    Mutant(
        11,
        "send again without a slot",
        "following.py",
        "if not judge_inputs(this, order.inputs).ok or not world.may_launch:",
        "if not judge_inputs(this, order.inputs).ok:",
        "test_decide.py::TestAdoption::test_it_is_not_sent_again",
    ),
    Mutant(
        11,
        "ask for no slot",
        "subject.py",
        "return Subject(name, wants_launch=records.is_clear(status), is_urgent=not _is_waiting(this))",
        "return Subject(name, is_urgent=not _is_waiting(this))",
        MACHINE,
    ),
)
