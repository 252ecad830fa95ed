"""The rules and reconcile.py in a world that moves at random: SkyPilot, the network, the clock, the user, crashes. See tests/machine.

    HYPOTHESIS_PROFILE=thorough uv run --frozen pytest tests/unit/test_machine.py      many more and longer lives

A life that breaks an invariant is printed as the shortest series of moves that breaks it; so are the seed and how to replay it.
"""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from skyoperator.api.v1alpha1 import ConditionType, SkyCluster
from skyoperator.conditions import is_true
from skyoperator.records import is_clear, is_finished, is_on_its_way, is_plain, is_terminated

from tests.machine.door import at
from tests.machine.server import QueuedJob
from tests.machine.stage import ENOUGH_LEASE_SECONDS, Stage
from tests.unit.build import an_object

RUN: Final = {"resources": {"infra": "k8s"}, "run": "echo hi"}
PLAIN: Final = {"resources": {"infra": "k8s"}}
TASKS: Final[dict[str, dict[str, Any]]] = {
    "a job": RUN,
    "another job": {**RUN, "run": "echo other"},
    "a plain cluster": PLAIN,
    "a plain cluster with setup": {**PLAIN, "setup": "pip install x"},
    "a larger plain cluster": {"resources": {"infra": "k8s", "cpus": 8}},
    "a typo": {"runn": "x"},
}
FITTING: Final = [name for name in TASKS if name != "a typo"] * 2
RARELY: Final = st.sampled_from([False] * 7 + [True])
SECONDS: Final = st.sampled_from([1.0, 2.0, 5.0, 11.0, 11.0, 31.0, 61.0, 61.0, 130.0, 300.0, 610.0])
FAULTS: Final = st.sampled_from(["refused", "lost", "late", "never", "twice"])
CALM_TICKS: Final = 250

PROFILES: Final = {
    "default": settings(max_examples=250, stateful_step_count=40, derandomize=True),
    "thorough": settings(max_examples=5000, stateful_step_count=60),
    "mutants": settings(max_examples=600, stateful_step_count=40, derandomize=True, phases=[Phase.generate]),
}
SETTINGS: Final = settings(
    PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")],
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

specs = st.fixed_dictionaries(
    {},
    optional={
        "whenFinished": st.sampled_from(["Down", "Keep"]),
        "backoffLimit": st.integers(0, 3),
        "retryOn": st.sampled_from([["NoCapacity"], ["ClusterLost", "SkyPilotError", "NoCapacity"], ["JobFailed", "SetupFailed"]]),
        "activeDeadlineSeconds": st.sampled_from([30, 200, 1000]),
        "preRunningDeadlineSeconds": st.sampled_from([20, 100]),
        "ttlSecondsAfterFinished": st.sampled_from([0, 60]),
        "autostop": st.sampled_from([{"idleMinutes": 1}, {"idleMinutes": 5}]),
        "suspend": st.booleans(),
    },
)


class Machine(RuleBasedStateMachine):
    """Lives of one object."""

    stage: Stage

    @initialize(task=st.sampled_from(["a job", "a job", "a job", "a plain cluster", "a plain cluster with setup", "a typo"]), spec=specs)
    def create(self, task: str, spec: dict[str, Any]) -> None:
        self.stage = Stage(an_object(TASKS[task], finalizers=(), **{"backoffLimit": 2, **spec}))

    @rule(times=st.integers(1, 3))
    def passes(self, times: int) -> None:
        for _ in range(times):
            self.stage.run_pass()

    @rule(calls=st.integers(1, 8))
    def part_of_a_pass(self, calls: int) -> None:
        for _ in range(calls):
            self.stage.step()

    @rule()
    def crash(self) -> None:
        self.stage.crash()

    @rule(seconds=SECONDS)
    def time_goes_by(self, seconds: float) -> None:
        self.stage.advance(seconds)

    @rule(ticks=st.integers(1, 12))
    def all_goes_well_for_a_while(self, ticks: int) -> None:
        if not self.stage.server.is_away:
            self.stage.calm(ticks)

    @rule(ticks=st.integers(1, 12))
    def all_goes_well_for_a_while_again(self, ticks: int) -> None:
        self.all_goes_well_for_a_while(ticks)

    @rule(choices=st.lists(st.integers(0, 30), min_size=1, max_size=4))
    def workers_move(self, choices: list[int]) -> None:
        for choice in choices:
            moves = self.stage.server.moves()
            if moves:
                moves[choice % len(moves)][1]()

    @rule(choice=st.integers(0, 8), seconds=st.sampled_from([2.0, 31.0]))
    def something_fails_and_is_seen(self, choice: int, seconds: float) -> None:
        moves = [move for name, move in self.stage.server.moves() if name.startswith("bad")]
        if moves:
            moves[choice % len(moves)]()
            self.stage.advance(seconds)
            self.stage.run_pass()

    @rule(kind=FAULTS, is_restarted=st.booleans(), seconds=st.sampled_from([2.0, 31.0, 61.0]))
    def a_launch_goes_wrong(self, kind: str, is_restarted: bool, seconds: float) -> None:
        self.stage.door.fault = kind
        self.all_goes_well_for_a_while(5)
        if is_restarted:
            self.stage.server.restart()
        self.stage.advance(seconds)

    @rule(kind=FAULTS)
    def a_post_will_go_wrong(self, kind: str) -> None:
        self.stage.door.fault = kind

    @precondition(lambda self: self.stage.door.in_transit)
    @rule()
    def what_was_on_its_way_arrives(self) -> None:
        self.stage.door.arrive(self.stage.door.in_transit[0])

    @rule()
    def the_server_goes_or_comes_back(self) -> None:
        self.stage.server.is_away = not self.stage.server.is_away

    @rule()
    def the_server_is_restarted(self) -> None:
        self.stage.server.restart()

    @rule()
    def pods_are_deleted(self) -> None:
        self.stage.server.row = None

    @precondition(lambda self: self.stage.server.row is not None)
    @rule(facts=st.sampled_from([{"is_unhealthy": True}, {"is_unhealthy": False}, {"is_readable": False}, {"is_readable": True}]))
    def the_cluster_sickens_or_heals(self, facts: dict[str, bool]) -> None:
        for name, value in facts.items():
            setattr(self.stage.server.row, name, value)

    @precondition(lambda self: self.stage.server.row is not None and self.stage.server.row.is_up)
    @rule()
    def somebody_runs_a_job_on_the_cluster(self) -> None:
        row = self.stage.server.row
        assert row is not None
        row.jobs.append(QueuedJob(len(row.jobs) + 1, "theirs", -1))

    @rule()
    def slots_are_taken_or_free(self) -> None:
        self.stage.has_slot = not self.stage.has_slot

    @rule(seconds=st.sampled_from([3.0, 12.0, ENOUGH_LEASE_SECONDS]))
    def the_lease_runs_down_or_is_renewed(self, seconds: float) -> None:
        self.stage.lease_seconds = seconds

    @rule(task=st.sampled_from([*TASKS, *FITTING]))
    def edit_the_task(self, task: str) -> None:
        self.stage.edit(task=TASKS[task])

    @rule(spec=specs)
    def edit_the_rest(self, spec: dict[str, Any]) -> None:
        wanted = an_object(RUN, **spec).spec
        self.stage.edit(**{name: getattr(wanted, name) for name in wanted.model_fields_set - {"task"}})

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend: bool) -> None:
        self.stage.edit(suspend=suspend)

    @rule(policy=st.sampled_from(["Down", "Down", "Orphan"]), happens=RARELY)
    def delete(self, policy: str, happens: bool) -> None:
        if not happens:
            return
        if policy != self.stage.this.spec.deletion_policy:
            self.stage.edit(deletion_policy=policy)
        self.stage.delete()

    @rule(happens=RARELY)
    def abandon(self, happens: bool) -> None:
        if happens:
            self.stage.annotate(abandoned=True)

    @rule(happens=RARELY)
    def another_server_answers(self, happens: bool) -> None:
        if not happens:
            return
        self.stage.switch_server()

    @precondition(lambda self: self.stage.is_elsewhere)
    @rule()
    def the_other_server_is_no_more_and_somebody_says_so(self) -> None:
        self.stage.run_pass()
        for server in self.stage.servers:
            if server is not self.stage.server:
                self.stage.door.in_transit = [posted for posted in self.stage.door.in_transit if posted.server is not server]
                server.works.clear()
                server.row = None
        self.stage.annotate(confirmed_lost_at=at(self.stage.now))

    @precondition(lambda self: not self.stage.is_in_flight and not self.stage.is_gone and not self.stage.door.in_transit)
    @rule(happens=RARELY)
    def wipe_the_status(self, happens: bool) -> None:
        """A wiped status goes on from what SkyPilot shows; what that no longer shows, nobody can know."""
        is_known = all(server.is_empty() for server in self.stage.servers if server is not self.stage.server)
        if not happens or not is_known:
            return
        self.stage.wipe()

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            _all_is_well(self.stage)
            self.stage.calm(CALM_TICKS)
            assert_right_end(self.stage)


def _all_is_well(stage: Stage) -> None:
    """Everything works again, and the endpoint is that of the server which has the cluster."""
    if stage.is_elsewhere:
        stage.switch_server()
    for server in stage.servers:
        server.is_away = False
        if server.row is not None:
            server.row.is_readable = True
    stage.door.fault = None
    stage.has_slot, stage.lease_seconds = True, ENOUGH_LEASE_SECONDS


def assert_right_end(stage: Stage) -> None:
    this = stage.this
    if stage.is_gone:
        return
    assert not this.deleting, f"I10: deleted, and still there: {this.status}"
    if this.abandoned:
        assert not this.finalizers, "I10: what was abandoned is held by nothing"
        return
    assert _is_at_rest(this), f"I10: not at its end: {this.spec} {this.status}"
    if is_terminated(this.status) or this.status.launch is None:
        assert stage.is_clean, f"I2: {stage.left_overs()}"
    _assert_silence(stage)


def _is_at_rest(this: SkyCluster) -> bool:
    if is_finished(this.status):
        is_kept = this.spec.when_finished == "Keep" and this.status.job is not None
        return is_terminated(this.status) or (is_kept and this.spec.autostop is None)
    if this.spec.suspend:
        return is_true(this.status.conditions, ConditionType.SUSPENDED) and is_clear(this.status)
    if not is_true(this.status.conditions, ConditionType.ACCEPTED):
        never_arrived = is_on_its_way(this.status) and this.status.launch is not None and this.status.launch.request_id is None
        return is_clear(this.status) or is_plain(this.status) or never_arrived
    return is_plain(this.status) and is_true(this.status.conditions, ConditionType.READY)


def _assert_silence(stage: Stage) -> None:
    """I8: all is done, and nothing is written or asked any more."""
    writes, posts = stage.kube.writes, len(stage.ledger.posts)
    for _ in range(5):
        stage.advance(10.0)
        stage.run_pass()
    assert (stage.kube.writes, len(stage.ledger.posts)) == (writes, posts), f"I8: {stage.this.status}"


def test_every_life_keeps_the_invariants() -> None:
    run_state_machine_as_test(Machine, settings=SETTINGS)
