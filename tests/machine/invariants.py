"""docs/design/invariants.md as assertions: over each launch that is sent, each decision, and each status that is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from skyoperator.api.v1alpha1 import FINALIZER, ConditionType, SkyCluster, SkyClusterStatus
from skyoperator.conditions import find, is_true
from skyoperator.decide import of_our_server
from skyoperator.decision import CancelJob, Decision, Launch, RemoveFinalizer, SetAutostop, TearDown
from skyoperator.sky.client import POST_TIMEOUT_SECONDS
from skyoperator.sky.types import JobStatus, Launched
from skyoperator.subject import Subject
from skyoperator.teardown import SETTLE_TIME
from skyoperator.transitions import transitions
from skyoperator.world import World

from tests.machine.door import Door
from tests.machine.server import Server
from tests.unit.build import decide, stored

ASKS_SKYPILOT = (Launch, TearDown, CancelJob, SetAutostop)
PASSES_TO_REST = 6


class Scene(Protocol):
    """What a launch is checked against."""

    now: float
    door: Door
    servers: list[Server]
    lease_seconds: float


@dataclass
class Ledger:
    """What happened, as nobody but the model knows it."""

    executions: dict[str, set[int]] = field(default_factory=dict)
    ends: dict[str, set[JobStatus]] = field(default_factory=dict)
    posts: list[tuple[float, str]] = field(default_factory=list)
    looked: tuple[Subject, World] | None = None

    def check_launch(self, this: SkyCluster, job_name: str, scene: Scene) -> None:
        """Check a POST /launch that is about to be sent."""
        launch = this.status.launch
        assert launch is not None, "I1: what is sent was written down"
        assert job_name.endswith(f"-a{launch.attempt}"), "I1: what is sent is what was written down"
        assert launch.request_id is None, "I1: an attempt that was taken is not sent again"
        assert scene.lease_seconds >= POST_TIMEOUT_SECONDS, "I1: nobody else may become active before the POST is over"
        assert FINALIZER in this.finalizers, "I2: no launch before the finalizer was seen"
        self._check_admitted()
        self._check_number(this, job_name, scene)
        self.posts.append((scene.now, job_name))

    def _check_admitted(self) -> None:
        assert self.looked is not None, "I2: no launch without a look"
        subject, world = self.looked
        assert subject.wants_launch, "I11: a slot was asked for"
        assert world.may_launch, "I11: a slot was given"

    def _check_number(self, this: SkyCluster, job_name: str, scene: Scene) -> None:
        number = number_of(job_name)
        last = max((number_of(name) for _, name in self.posts), default=0)
        assert number >= last, "I1: the number of an attempt only grows"
        if number == last:
            self._check_sent_again(job_name, scene)
        elif scene.door.server.row is not None:
            assert not this.status.launch or not this.status.launch.has_run, "I9: a job is launched on a new cluster"
            assert is_true(this.status.conditions, ConditionType.ACCEPTED), "I6"
        assert not scene.door.server.of("launch"), f"I1, I9: {job_name} is sent while another launch is at work"

    def _check_sent_again(self, job_name: str, scene: Scene) -> None:
        before = max(at for at, name in self.posts if name == job_name)
        assert scene.now - before >= SETTLE_TIME.total_seconds(), "I1: the settle time was over"
        assert job_name not in self.executions, "I1: what was executed is not sent again"
        assert all(posted.facts["job_name"] != job_name for posted in scene.door.in_transit), "I1: it is still on its way"

    def forget_all_but(self, names: set[str]) -> None:
        """Begin the record of executions anew, but for these jobs."""
        for name in self.executions.keys() - names:
            del self.executions[name]

    def check_executions(self) -> None:
        """Check that no attempt ran twice; the fence is out of play but for a POST that the network doubled."""
        twice = {name: posts for name, posts in self.executions.items() if len(posts) > 1}
        assert not twice, f"I1: executed twice: {twice}"


def number_of(job_name: str) -> int:
    """Return the number of the attempt."""
    return int(job_name.rsplit("-a", 1)[1])


def check_decision(this: SkyCluster, world: World) -> None:
    """Check what is decided about this object in this world."""
    first = decide(this, world)
    assert decide(this, world) == first, "I8: the same situation, the same decision"
    _check_what_is_not_known(this, of_our_server(this, world), first)
    _check_retry(this, first)
    _check_launched(this, world, first)
    if this.deleting and not isinstance(first.action, Launch):
        assert first.status.launch is None or this.status.launch is not None, "I10: nothing is begun for what is deleted"
    _check_rest(this, world)


def _check_what_is_not_known(this: SkyCluster, world: World, decision: Decision) -> None:
    if world.cluster is not None and world.active is not None:
        return
    assert not isinstance(decision.action, ASKS_SKYPILOT), "I3: nothing is asked of a server that is away"
    before, after = this.status, decision.status
    if world.is_elsewhere and this.confirmed_lost_at is not None:
        return
    assert (after.launch is None) == (before.launch is None), "I3: no attempt is begun or lost in an outage"
    if before.launch and after.launch:
        assert (after.launch.attempt, after.launch.request_id) == (before.launch.attempt, before.launch.request_id), "I3"
        assert after.launch.finished_at == before.launch.finished_at, "I3"
    assert _count(after) <= _count(before), "I3: no failure is counted in an outage"
    _check_ends_in_outage(this, decision)


def _check_ends_in_outage(this: SkyCluster, decision: Decision) -> None:
    before, after = this.status, decision.status
    newly = [type_ for type_ in (ConditionType.COMPLETE, ConditionType.FAILED) if _became(before, after, type_)]
    assert ConditionType.COMPLETE not in newly, "I3: nothing completes in an outage"
    for type_ in newly:
        found = find(after.conditions, type_)
        assert found is not None, "it was just found"
        assert found.reason == "DeadlineExceeded", "I3: nothing fails in an outage but by its deadline"
    was_gone = before.cluster is not None and before.cluster.status == "TERMINATED"
    is_gone = after.cluster is not None and after.cluster.status == "TERMINATED"
    assert was_gone or not is_gone, "I3: no cluster is gone because the server is away"
    if isinstance(decision.action, RemoveFinalizer):
        assert may_be_left(this) or was_gone or before.launch is None, "I2, I3: a server that is away lets go of nothing"


def may_be_left(this: SkyCluster) -> bool:
    """Return whether the object may go before its cluster: Orphan lets go of no attempt that is over."""
    is_over = this.status.launch is not None and this.status.launch.ended_at is not None
    return this.abandoned or (this.spec.deletion_policy == "Orphan" and not is_over)


def _check_retry(this: SkyCluster, decision: Decision) -> None:
    before, after = this.status.failures, decision.status.failures
    if after is None or after.next_retry_time is None or after == before:
        return
    assert after.reason in {reason.value for reason in this.spec.retry_on}, "I6: only what retryOn names is launched again"
    assert after.count <= this.spec.backoff_limit, "I6: no more launches than backoffLimit allows"
    assert after.reason != "InvalidTask", "I6: what the user got wrong is final"


def _check_launched(this: SkyCluster, world: World, decision: Decision) -> None:
    before, after = this.status.launch, decision.status.launch
    if after is None or after.finished_at is None or (before is not None and before.finished_at is not None):
        return
    name = f"-a{after.attempt}"
    in_queue = any(job.name.endswith(name) for job in world.jobs or ())
    assert isinstance(world.outcome, Launched) or in_queue, "I4: UP is no proof of a launch that succeeded"


def _check_rest(this: SkyCluster, world: World) -> None:
    """The same look again and again soon changes nothing any more."""
    for _ in range(PASSES_TO_REST):
        decision = decide(this, world)
        if isinstance(decision.action, (Launch, SetAutostop)):
            return
        before, this = this, this.model_copy(update={"status": stored(decision.status)})
        if before.status.as_json() == this.status.as_json():
            return
    raise AssertionError(f"I8: a world that stands still is written about for ever: {this.status}")


def check_stored(before: SkyCluster, this: SkyCluster, ledger: Ledger) -> None:
    """Check a status that was stored."""
    status = this.status
    if not status.conditions:
        return
    _check_conditions(status)
    transitions(before.status, status)
    if _became(before.status, status, ConditionType.COMPLETE):
        _check_complete(status, ledger)
    if _became(before.status, status, ConditionType.FAILED):
        _check_failed(status, ledger)


def _check_conditions(status: SkyClusterStatus) -> None:
    types = [condition.type for condition in status.conditions]
    assert types == [type_.value for type_ in ConditionType], "every condition is there, once"
    said = {type_: is_true(status.conditions, type_) for type_ in ConditionType}
    assert not (said[ConditionType.RECONCILING] and said[ConditionType.STALLED]), "kstatus: never both"
    assert not (said[ConditionType.COMPLETE] and said[ConditionType.FAILED]), "never both"
    assert not (said[ConditionType.READY] and said[ConditionType.STALLED]), "what is stuck is not ready"
    assert said[ConditionType.READY] or said[ConditionType.RECONCILING] or said[ConditionType.STALLED] or _may_be_silent(status), "kstatus"
    assert (status.completion_time is not None) == (said[ConditionType.COMPLETE] or said[ConditionType.FAILED]), "completionTime"
    ends = {ConditionType.COMPLETE, ConditionType.FAILED}
    new = [condition for condition in status.conditions if condition.type not in ends]
    assert all(condition.observed_generation == status.observed_generation for condition in new), "observedGeneration"


def _may_be_silent(status: SkyClusterStatus) -> bool:
    """A plain cluster that is not UP right now is neither on its way nor stuck."""
    return status.phase == "Ready"


def _check_complete(status: SkyClusterStatus, ledger: Ledger) -> None:
    found = find(status.conditions, ConditionType.COMPLETE)
    assert found is not None, "it was just found"
    if found.reason == "Autostopped":
        assert status.launch is not None, "I7: only what was launched is stopped"
        assert not status.launch.has_run, "I7: a job is not completed by being idle"
        return
    assert status.launch is not None, "I7: only what was launched completes"
    assert JobStatus.SUCCEEDED in _ends(status, ledger), "I7: no green on red"


def _check_failed(status: SkyClusterStatus, ledger: Ledger) -> None:
    found = find(status.conditions, ConditionType.FAILED)
    assert found is not None, "it was just found"
    if found.reason in {"JobFailed", "SetupFailed"}:
        assert _ends(status, ledger) & {JobStatus.FAILED, JobStatus.FAILED_SETUP}, "I7: no red on green"


def _ends(status: SkyClusterStatus, ledger: Ledger) -> set[JobStatus]:
    assert status.launch is not None, "only what was launched ends"
    name = f"-a{status.launch.attempt}"
    return {end for job_name, ends in ledger.ends.items() if job_name.endswith(name) for end in ends}


def _became(before: SkyClusterStatus, after: SkyClusterStatus, type_: ConditionType) -> bool:
    return is_true(after.conditions, type_) and not is_true(before.conditions, type_)


def _count(status: SkyClusterStatus) -> int:
    return status.failures.count if status.failures else 0
