"""One task instance, one object: whatever dies, whenever, and whoever comes back."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from skyoperator_provider.errors import ApiError, ObjectExistsError, SkyClusterError, SkyClusterRejectedError
from skyoperator_provider.identity import COLLECTED, OWNER_TRY, PREFIX, RUN_STARTED, Identity
from skyoperator_provider.killing import Killer
from skyoperator_provider.manifest import build
from skyoperator_provider.ownership import Owner, Target, identity_of

from tests.provider.airflows import DagRunOfWorker
from tests.provider.contexts import context_of
from tests.provider.memory import NAMESPACE, Call, Clock, Died, Fault, MemoryApi, died, lost, refused

IDENTITY = Identity("prod", "train", "manual__1", "fit", series=0)
TASK = {"run": "python fit.py"}
LOG = logging.getLogger("ownership")


def manifest_of(identity: Identity = IDENTITY, owner_try: int = 1, task: dict[str, Any] | None = None) -> dict[str, Any]:
    return build(identity, NAMESPACE, owner_try, task=task or TASK)


def owner_of(api: MemoryApi, identity: Identity = IDENTITY, owner_try: int = 1, **given: Any) -> Owner:
    clock = Clock()
    return Owner(api, identity, NAMESPACE, owner_try, log=LOG, clock=clock, sleep=clock.sleep, **given)


def run_try(api: MemoryApi, identity: Identity = IDENTITY, owner_try: int = 1, **given: Any) -> dict[str, Any]:
    return owner_of(api, identity, owner_try, **given).bring_about(manifest_of(identity, owner_try), timeout_seconds=600)


def controller(api: MemoryApi) -> None:
    """From now on what was deleted goes as soon as somebody waits for it."""
    api.on_call = lambda call: api.finish_deletions() if call.verb == "wait_gone" else None


@pytest.fixture
def api() -> MemoryApi:
    memory = MemoryApi()
    controller(memory)
    return memory


def owner_try(body: dict[str, Any]) -> str:
    return str(body["metadata"]["annotations"][OWNER_TRY])


def test_the_first_try_creates(api: MemoryApi) -> None:
    body = run_try(api)
    assert body["metadata"]["name"] == IDENTITY.name
    assert owner_try(body) == "1"
    assert len(api.creations) == 1


def test_a_retry_adopts_what_runs_and_never_touches_its_spec(api: MemoryApi, caplog: pytest.LogCaptureFixture) -> None:
    first = run_try(api)
    api.set_conditions(IDENTITY.name, Accepted="True", Ready="False")
    second = owner_of(api, owner_try=2).bring_about(manifest_of(owner_try=2, task={"run": "other"}), timeout_seconds=600)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["spec"] == first["spec"]
    assert owner_try(second) == "2"
    assert "differs in task" in caplog.text
    assert len(api.creations) == 1


def test_a_retry_of_the_same_task_warns_of_nothing(api: MemoryApi, caplog: pytest.LogCaptureFixture) -> None:
    run_try(api)
    run_try(api, owner_try=2)
    assert "differs" not in caplog.text


def test_what_is_complete_and_not_collected_is_taken(api: MemoryApi) -> None:
    first = run_try(api)
    api.set_conditions(IDENTITY.name, Complete="True")
    second = run_try(api, owner_try=2)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert owner_try(second) == "2"
    assert not api.deletions


@pytest.mark.parametrize("ending", [{"Failed": "True"}, {"Accepted": "False"}])
def test_what_failed_is_deleted_and_made_anew_only_when_it_is_gone(api: MemoryApi, ending: dict[str, str]) -> None:
    first = run_try(api)
    api.set_conditions(IDENTITY.name, **ending)
    second = run_try(api, owner_try=2)
    assert api.deletions == [first["metadata"]["uid"]]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    verbs = [call.verb for call in api.calls]
    assert verbs.index("wait_gone") < len(verbs) - 1 - verbs[::-1].index("create")


def test_what_was_collected_is_made_anew(api: MemoryApi) -> None:
    first = run_try(api)
    api.set_conditions(IDENTITY.name, Complete="True")
    owner_of(api).mark_collected(Target.of(first))
    assert api.objects[NAMESPACE, IDENTITY.name]["metadata"]["annotations"][COLLECTED] == "true"
    assert run_try(api, owner_try=2)["metadata"]["uid"] != first["metadata"]["uid"]


def test_the_replaced_object_is_deleted_as_it_was_read(api: MemoryApi) -> None:
    """It changed in between: perhaps it is no failure any more, so it has to be looked at again."""
    first = run_try(api)
    api.set_conditions(IDENTITY.name, Failed="True")
    seen: list[Call] = []

    def turns_out_well(call: Call) -> None:
        if call.verb == "delete" and not seen:
            seen.append(call)
            api.set_conditions(IDENTITY.name, Failed="False", Complete="True")
        if call.verb == "wait_gone":
            api.finish_deletions()

    api.on_call = turns_out_well
    assert run_try(api, owner_try=2)["metadata"]["uid"] == first["metadata"]["uid"]
    assert not api.deletions


def test_another_identity_under_the_name_fails_naming_both(api: MemoryApi) -> None:
    other = replace(IDENTITY, deployment="dev")
    body = manifest_of(other)
    body["metadata"]["name"] = IDENTITY.name
    api.create(body)
    with pytest.raises(SkyClusterRejectedError, match=r"deployment 'dev'.*deployment 'prod'") as caught:
        run_try(api)
    assert caught.value.reason == "NameConflict"
    assert not api.deletions


def test_what_is_never_gone_fails_in_the_end(api: MemoryApi) -> None:
    body = run_try(api)
    api.delete(NAMESPACE, IDENTITY.name)
    clock = Clock()
    owner = Owner(api, IDENTITY, NAMESPACE, 2, log=LOG, clock=clock, sleep=clock.sleep)

    def waits(call: Call) -> None:
        clock.now += 20 if call.verb == "wait_gone" else 0

    api.on_call = waits
    with pytest.raises(SkyClusterError, match="not gone yet") as caught:
        owner.bring_about(manifest_of(owner_try=2), timeout_seconds=100)
    assert caught.value.reason == "NotGone"
    assert api.objects[NAMESPACE, IDENTITY.name]["metadata"]["uid"] == body["metadata"]["uid"]


def test_a_clear_deletes_the_older_series_and_nobody_elses(api: MemoryApi) -> None:
    strangers = [replace(IDENTITY, task_id="other"), replace(IDENTITY, run_id="manual__2"), replace(IDENTITY, map_index=1)]
    for stranger in strangers:
        api.create(manifest_of(stranger))
    old = run_try(api)
    impostor = manifest_of(replace(IDENTITY, deployment="dev"))
    impostor["metadata"]["labels"] = dict(IDENTITY.labels)
    api.create(impostor)
    run_try(api, replace(IDENTITY, series=1), 2)
    assert api.deletions == [old["metadata"]["uid"]]


@pytest.mark.parametrize("is_leaving", [False, True])
def test_a_worker_that_wakes_after_a_clear_leaves_the_new_run_alone(api: MemoryApi, is_leaving: bool) -> None:
    """It was cut off before its first call, declared dead, and the task was cleared: the series under its own name is empty."""
    new = run_try(api, replace(IDENTITY, series=1), 2)
    if is_leaving:
        api.delete(NAMESPACE, new["metadata"]["name"])
        api.deletions.clear()
    with pytest.raises(SkyClusterError, match="belongs to try 2 by now; this is try 1") as caught:
        run_try(api)
    assert caught.value.reason == "Overtaken"
    assert not api.deletions
    assert len(api.creations) == 1


def test_what_an_older_series_left_is_deleted_as_it_was_read(api: MemoryApi) -> None:
    """A later try takes it over between the list and the deletion."""
    run_try(api)

    def adopts(call: Call) -> None:
        if call.verb == "delete":
            api.on_call = lambda _: None
            api.annotate(NAMESPACE, IDENTITY.name, {OWNER_TRY: "3"})

    api.on_call = adopts
    with pytest.raises(SkyClusterError, match="belongs to try 3 by now"):
        run_try(api, replace(IDENTITY, series=1), 2)
    assert not api.deletions
    assert len(api.creations) == 1


def test_an_older_series_that_the_controller_writes_to_is_deleted_all_the_same(api: MemoryApi) -> None:
    old = run_try(api)

    def writes(call: Call) -> None:
        if call.verb == "delete":
            api.on_call = lambda _: None
            api.set_conditions(IDENTITY.name, Ready="True")

    api.on_call = writes
    run_try(api, replace(IDENTITY, series=1), 2)
    assert api.deletions == [old["metadata"]["uid"]]


def test_retries_that_were_edited_move_the_series_down_and_leave_no_second_object(api: MemoryApi) -> None:
    run_try(api, replace(IDENTITY, series=0))
    run_try(api, replace(IDENTITY, series=-1), 2)
    assert len(api.live()) == 1


# A DAG run that was deleted and made again: the same id, the same name, and tries that begin at 1 again.

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER = replace(IDENTITY, run_started=STARTED)
LATER = replace(IDENTITY, run_started=STARTED + timedelta(microseconds=1))


@pytest.mark.parametrize("tries", [1, 4])
@pytest.mark.parametrize("ending", [{}, {"Ready": "True"}, {"Complete": "True"}, {"Failed": "True"}])
def test_what_a_deleted_dag_run_left_is_deleted_and_never_taken(api: MemoryApi, tries: int, ending: dict[str, str]) -> None:
    """Bug: green with nothing launched; or no try could begin until there had been as many as before."""
    old = run_try(api, EARLIER, tries)
    api.set_conditions(IDENTITY.name, **ending)
    new = run_try(api, LATER)
    assert api.deletions == [old["metadata"]["uid"]]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert run_try(api, LATER, 2)["metadata"]["uid"] == new["metadata"]["uid"]


def test_what_other_series_of_a_deleted_dag_run_left_is_deleted_too(api: MemoryApi) -> None:
    old = run_try(api, replace(EARLIER, series=3), 4)
    run_try(api, LATER)
    assert api.deletions == [old["metadata"]["uid"]]


@pytest.mark.parametrize("series", [0, 1])
def test_a_worker_of_a_deleted_dag_run_leaves_the_new_one_alone(api: MemoryApi, series: int) -> None:
    """Its number may be the greater one."""
    new = run_try(api, LATER)
    old = replace(EARLIER, series=series)
    with pytest.raises(SkyClusterError, match="of a later DAG run of that id") as caught:
        run_try(api, old, 7)
    assert caught.value.reason == "Overtaken"
    assert not owner_of(api, old, 7).discard()
    assert not owner_of(api, old).mark_collected(Target.of(new))
    assert not api.deletions
    assert len(api.creations) == 1


def test_the_result_of_a_deleted_dag_run_is_not_spared(api: MemoryApi) -> None:
    old = run_try(api, EARLIER, 4)
    api.set_conditions(IDENTITY.name, Complete="True")
    assert owner_of(api, LATER).discard(spares_results=True)
    assert api.deletions == [old["metadata"]["uid"]]


@pytest.mark.parametrize("started", [None, "", "yesterday", "2026-01-01T00:00:00"])
def test_an_object_that_does_not_tell_its_dag_run_is_taken_over(api: MemoryApi, started: str | None) -> None:
    """One that an older version of this made, and is running."""
    body = manifest_of(EARLIER)
    del body["metadata"]["annotations"][RUN_STARTED]
    if started is not None:
        body["metadata"]["annotations"][RUN_STARTED] = started
    made = api.create(body)
    assert run_try(api, LATER, 2)["metadata"]["uid"] == made["metadata"]["uid"]


def test_an_airflow_that_does_not_tell_when_the_dag_run_started_takes_over(api: MemoryApi) -> None:
    made = run_try(api, EARLIER)
    assert run_try(api, IDENTITY, 2)["metadata"]["uid"] == made["metadata"]["uid"]


def test_when_the_dag_run_started_is_airflows_to_say() -> None:
    assert "start_date" in getattr(DagRunOfWorker, "model_fields", vars(DagRunOfWorker))
    context, task = context_of(dag_run=SimpleNamespace(start_date=STARTED))
    assert identity_of(context, task, "prod").run_started == STARTED
    context, task = context_of()
    assert identity_of(context, task, "prod").run_started is None


def test_a_lost_answer_to_create_is_no_second_launch(api: MemoryApi) -> None:
    api.faults[3] = lost()  # list, read, create
    run_try(api)
    assert len(api.creations) == 1
    assert [call.verb for call in api.calls] == ["list", "read", "create", "read"]


def test_a_lost_answer_may_also_be_told_as_existing(api: MemoryApi) -> None:
    api.faults[3] = Fault(ObjectExistsError("there is one", status=409), after=True)
    run_try(api)
    assert len(api.creations) == 1


def test_a_create_that_was_refused_is_the_tasks_error(api: MemoryApi) -> None:
    api.faults[3] = refused()
    with pytest.raises(ApiError, match="try later"):
        run_try(api)


def test_one_that_begins_to_leave_while_it_is_adopted_is_not_adopted(api: MemoryApi) -> None:
    """The trigger of a try that was killed deletes at the same moment."""
    first = run_try(api)

    def kills(call: Call) -> None:
        api.on_call = lambda _: None
        if call.verb == "annotate":
            api.delete(NAMESPACE, IDENTITY.name)
            controller(api)
        else:
            api.on_call = kills

    api.on_call = kills
    assert run_try(api, owner_try=2)["metadata"]["uid"] != first["metadata"]["uid"]
    assert len(api.live()) == 1


def taken_over_at(api: MemoryApi, verb: str, by: str) -> None:
    """A later try takes the object over just before that call."""

    def adopts(call: Call) -> None:
        if call.verb == verb:
            api.on_call = lambda _: None
            api.annotate(NAMESPACE, IDENTITY.name, {OWNER_TRY: by})

    api.on_call = adopts


def test_one_that_a_later_try_adopts_at_the_same_moment_is_the_later_trys(api: MemoryApi) -> None:
    run_try(api)
    taken_over_at(api, "annotate", by="3")
    with pytest.raises(SkyClusterError, match="belongs to try 3 by now; this is try 2"):
        run_try(api, owner_try=2)
    assert owner_try(api.objects[NAMESPACE, IDENTITY.name]) == "3"


def test_one_that_the_controller_writes_to_at_the_same_moment_is_adopted(api: MemoryApi) -> None:
    first = run_try(api)

    def writes(call: Call) -> None:
        if call.verb == "annotate":
            api.on_call = lambda _: None
            api.set_conditions(IDENTITY.name, Ready="True")

    api.on_call = writes
    second = run_try(api, owner_try=2)
    assert (second["metadata"]["uid"], owner_try(second)) == (first["metadata"]["uid"], "2")


@pytest.mark.parametrize("at_once", [True, False])
def test_only_who_has_it_collects(api: MemoryApi, at_once: bool) -> None:
    body = run_try(api)
    if at_once:
        taken_over_at(api, "annotate", by="2")
    else:
        run_try(api, owner_try=2)
    assert not owner_of(api).mark_collected(Target.of(body))
    assert COLLECTED not in api.objects[NAMESPACE, IDENTITY.name]["metadata"]["annotations"]


@pytest.mark.parametrize("ending", [{}, {"Failed": "True"}, {"Complete": "True"}])
def test_a_worker_that_comes_back_from_the_dead_takes_nothing(api: MemoryApi, ending: dict[str, str]) -> None:
    run_try(api)
    taken = run_try(api, owner_try=10)
    api.set_conditions(IDENTITY.name, **ending)
    with pytest.raises(SkyClusterError, match="belongs to try 10 by now; this is try 9"):
        run_try(api, owner_try=9)
    assert api.objects[NAMESPACE, IDENTITY.name]["metadata"]["annotations"] == taken["metadata"]["annotations"]
    assert not api.deletions


def test_a_kill_before_there_is_an_object_makes_none(api: MemoryApi) -> None:
    with pytest.raises(SkyClusterError, match="killed"):
        run_try(api, is_killed=lambda: True)
    assert not api.creations


# Letting go.


def test_discard_deletes_what_is_this_trys(api: MemoryApi) -> None:
    body = run_try(api)
    assert owner_of(api).discard()
    assert api.deletions == [body["metadata"]["uid"]]


def test_discard_deletes_what_an_older_try_left_that_died(api: MemoryApi) -> None:
    """Its successor failed before it had taken it over."""
    body = run_try(api, owner_try=9)
    assert owner_of(api, owner_try=10).discard()
    assert api.deletions == [body["metadata"]["uid"]]


@pytest.mark.parametrize(
    ("identity", "owner"),
    [(replace(IDENTITY, series=1), "1"), (replace(IDENTITY, deployment="dev"), "1"), (IDENTITY, "one"), (IDENTITY, "")],
)
def test_discard_leaves_what_is_not_known_to_be_this_series(api: MemoryApi, identity: Identity, owner: str) -> None:
    body = manifest_of(identity)
    body["metadata"]["name"] = IDENTITY.name
    body["metadata"]["annotations"][OWNER_TRY] = owner
    api.create(body)
    assert not owner_of(api, owner_try=2).discard()
    assert not api.deletions


@pytest.mark.parametrize("is_collected", [True, False])
def test_discard_spares_a_result_if_told_that_nobody_has_taken(api: MemoryApi, is_collected: bool) -> None:
    body = run_try(api)
    api.set_conditions(IDENTITY.name, Complete="True")
    if is_collected:
        owner_of(api).mark_collected(Target.of(body))
    assert owner_of(api, owner_try=2).discard(spares_results=True) is is_collected
    assert bool(api.deletions) is is_collected


def test_discard_leaves_a_later_trys(api: MemoryApi) -> None:
    run_try(api)
    run_try(api, owner_try=2)
    assert not owner_of(api, owner_try=1).discard()
    assert not api.deletions


def test_discard_looks_again_when_the_object_changed(api: MemoryApi) -> None:
    run_try(api)

    def adopts(call: Call) -> None:
        if call.verb == "delete":
            api.on_call = lambda _: None
            api.annotate(NAMESPACE, IDENTITY.name, {OWNER_TRY: "2"})

    api.on_call = adopts
    assert not owner_of(api).discard()
    assert not api.deletions


def kill_of(api: MemoryApi, body: dict[str, Any], owner_try: int = 1) -> Killer:
    kill = Killer(api, Target.of(body), owner_try)
    kill.saw(body)
    return kill


def test_a_kill_is_one_delete_with_preconditions_and_little_time(api: MemoryApi) -> None:
    body = run_try(api)
    api.calls.clear()
    assert kill_of(api, body)()
    deletes = [call.details for call in api.calls if call.verb == "delete"]
    version = body["metadata"]["resourceVersion"]
    assert deletes == [{"uid": body["metadata"]["uid"], "resource_version": version, "timeout": 3}]


def test_a_late_kill_leaves_what_the_next_try_has_taken_over(api: MemoryApi) -> None:
    """A worker that was cut off for a while is declared dead, and comes back after its successor has begun."""
    body = run_try(api)
    kill = kill_of(api, body)
    run_try(api, owner_try=2)
    assert kill()
    assert not api.deletions


def test_a_kill_that_races_with_adoption_stops(api: MemoryApi) -> None:
    body = run_try(api)

    def adopts(call: Call) -> None:
        if call.verb == "delete":
            api.on_call = lambda _: None
            api.annotate(NAMESPACE, IDENTITY.name, {OWNER_TRY: "2"})

    api.on_call = adopts
    kill_of(api, body)()
    assert not api.deletions


def test_a_kill_leaves_a_successor_of_the_same_name(api: MemoryApi) -> None:
    kill = kill_of(api, run_try(api))
    api.objects.clear()
    run_try(api)
    kill()
    assert not api.deletions


def refuses_to_tell(api: MemoryApi, *looks: int) -> None:
    """From now on these looks are not answered."""
    api.calls.clear()
    api.faults = {look: refused() for look in looks}


def test_a_kill_that_cannot_look_deletes_what_it_saw_last(api: MemoryApi) -> None:
    body = run_try(api)
    refuses_to_tell(api, 1)
    assert kill_of(api, body)()
    assert api.deletions == [body["metadata"]["uid"]]
    version = body["metadata"]["resourceVersion"]
    assert api.calls[-1].details == {"uid": body["metadata"]["uid"], "resource_version": version, "timeout": 3}


def test_a_kill_that_cannot_look_leaves_what_the_next_try_has_taken_over(api: MemoryApi) -> None:
    """Bug: a worker that was cut off deletes the job of its successor, since kube-apiserver does not answer within a second."""
    kill = kill_of(api, run_try(api))
    taken = run_try(api, owner_try=2)
    kill.saw(taken)
    refuses_to_tell(api, 1, 3, 5)
    assert not kill()
    assert not api.deletions


def test_a_kill_looks_again_if_the_controller_wrote_since(api: MemoryApi) -> None:
    body = run_try(api)
    kill = kill_of(api, body)
    api.set_conditions(IDENTITY.name, Ready="True")
    refuses_to_tell(api, 1)
    assert kill()
    assert api.deletions == [body["metadata"]["uid"]]


def test_a_kill_of_what_was_never_seen_looks_until_it_is_answered(api: MemoryApi) -> None:
    body = run_try(api)
    refuses_to_tell(api, 1, 2)
    assert Killer(api, Target.of(body), 1)()
    assert api.deletions == [body["metadata"]["uid"]]
    assert {call.verb for call in api.calls[:3]} == {"read"}


def test_a_kill_raises_nothing(api: MemoryApi) -> None:
    body = run_try(api)
    api.calls.clear()
    api.faults = {1: refused(), 2: refused()}
    assert kill_of(api, body)() is False


# Who it is.


def test_series_grow_with_clears_and_not_with_retries() -> None:
    def series(**ti: Any) -> int:
        context, task = context_of(retries=2, **ti)
        return identity_of(context, task, "prod").series

    assert series(try_number=1, max_tries=2) == 0
    assert series(try_number=3, max_tries=2) == 0
    assert series(try_number=4, max_tries=3 + 2) == 3


def test_identity_is_the_task_instances() -> None:
    context, task = context_of(map_index=4)
    assert identity_of(context, task, "prod") == Identity("prod", "train", "manual__1", "fit", map_index=4, series=0)


# Whatever dies.


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("found", ["nothing", "active", "failed", "collected", "leaving"])
def test_a_death_at_any_call_is_made_good_by_the_next_try(found: str, at: int, after: bool) -> None:
    api = MemoryApi()
    controller(api)
    expected = prepare(api, found)
    api.calls.clear()
    api.faults = {at: died(after=after)}
    with suppress(Died):
        run_try(api, owner_try=2)
    api.faults = {}
    body = run_try(api, owner_try=3)
    assert owner_try(body) == "3"
    assert [live["metadata"]["uid"] for live in api.live()] == [body["metadata"]["uid"]]
    assert len(api.creations) == expected


def prepare(api: MemoryApi, found: str) -> int:
    """Make what the try finds; return how many launches there are to be in the end."""
    if found == "nothing":
        return 1
    body = run_try(api)
    if found == "active":
        return 1
    if found == "leaving":
        api.delete(NAMESPACE, IDENTITY.name)
    else:
        api.set_conditions(IDENTITY.name, **{"failed": {"Failed": "True"}, "collected": {"Complete": "True"}}[found])
        if found == "collected":
            owner_of(api).mark_collected(Target.of(body))
    return 2


class Lives(RuleBasedStateMachine):
    """Tries, clears, kills and deaths in any order. What Airflow promises is the order of the tries; nothing else is."""

    @initialize()
    def begin(self) -> None:
        self.api = MemoryApi()
        controller(self.api)
        self.series, self.number = 0, 0
        self.kills: list[Killer] = []
        self.allowed: dict[int, int] = {}
        """By series: how many launches there may have been."""
        self.is_settled = True
        self.tries: list[tuple[int, int]] = []
        """The series and the number of each try that there was."""

    def launches(self) -> list[int]:
        """The series of each object that there ever was."""
        return [int(body["metadata"]["annotations"][f"{PREFIX}/series"]) for body in self.api.creations]

    @property
    def identity(self) -> Identity:
        return replace(IDENTITY, series=self.series)

    @property
    def own(self) -> dict[str, Any] | None:
        return self.api.objects.get((NAMESPACE, self.identity.name))

    @rule(at=st.integers(1, 9), fault=st.sampled_from(["none", "died before", "died after", "lost", "refused"]))
    def try_again(self, at: int, fault: str) -> None:
        self.number += 1
        self.tries.append((self.series, self.number))
        before = self.own
        if before is None or is_over(before):
            self.allowed[self.series] = self.launches().count(self.series) + 1
        faults = {"died before": died(after=False), "died after": died(after=True), "lost": lost(), "refused": refused()}
        self.api.calls.clear()
        self.api.faults = {at: faults[fault]} if fault in faults else {}
        self.is_settled = False
        try:
            body = run_try(self.api, self.identity, self.number)
            self.kills.append(kill_of(self.api, body, self.number))
            self.is_settled = True
            if before is not None and not is_over(before):
                assert body["metadata"]["uid"] == before["metadata"]["uid"]
        except (Died, ApiError):
            pass
        self.api.faults = {}

    @precondition(lambda self: len(self.tries) > 1)
    @rule(which=st.integers(0, 50))
    def an_old_try_wakes(self, which: int) -> None:
        """It was cut off before its first call. Where nothing tells it of a later try it may make an object; it takes and deletes none."""
        series, number = self.tries[:-1][which % (len(self.tries) - 1)]
        later = {body["metadata"]["uid"] for body in self.api.objects.values() if int(owner_try(body)) > number}
        live = {body["metadata"]["uid"] for body in self.api.live()}
        before = self.api.objects.get((NAMESPACE, replace(IDENTITY, series=series).name))
        if before is None or is_over(before):
            self.allowed[series] = max(self.allowed.get(series, 0), self.launches().count(series) + 1)
        if later:
            with pytest.raises(SkyClusterError, match="by now; this is try"):
                run_try(self.api, replace(IDENTITY, series=series), number)
        else:
            body = run_try(self.api, replace(IDENTITY, series=series), number)
            self.kills.append(kill_of(self.api, body, number))
        assert later & live <= {body["metadata"]["uid"] for body in self.api.live()}

    @precondition(lambda self: self.tries)
    @rule(which=st.integers(0, 50), spares_results=st.booleans())
    def some_try_fails(self, which: int, spares_results: bool) -> None:
        series, number = self.tries[which % len(self.tries)]
        others = {
            body["metadata"]["uid"]
            for body in self.api.live()
            if int(owner_try(body)) > number or body["metadata"]["annotations"][f"{PREFIX}/series"] != str(series)
        }
        owner_of(self.api, replace(IDENTITY, series=series), number).discard(spares_results=spares_results)
        assert others <= {body["metadata"]["uid"] for body in self.api.live()}

    @rule()
    def clear(self) -> None:
        self.series += self.number + 1
        self.is_settled = False

    @rule(which=st.integers(0, 50), reads=st.booleans())
    def kill_some_try(self, which: int, reads: bool) -> None:
        """Also one of long ago, whose trigger comes to it only now."""
        if not self.kills:
            return
        kill = self.kills[which % len(self.kills)]
        current = self.own
        self.api.faults = {} if reads else {len(self.api.calls) + 1: refused()}
        kill()
        self.api.faults = {}
        if current is not None and owner_try(current) != kill._owner_try and not current["metadata"].get("deletionTimestamp"):
            assert self.own is not None
            assert not self.own["metadata"].get("deletionTimestamp")

    @precondition(lambda self: self.own is not None)
    @rule(ending=st.sampled_from(["Failed", "Complete", "Collected"]))
    def end(self, ending: str) -> None:
        own = self.own
        assert own is not None
        if is_over(own) or any(known["type"] == "Complete" for known in own.get("status", {}).get("conditions", [])):
            return
        self.api.set_conditions(self.identity.name, **{"Failed" if ending == "Failed" else "Complete": "True"})
        if ending == "Collected":
            self.api.annotate(NAMESPACE, self.identity.name, {COLLECTED: "true"})

    @rule()
    def clusters_go(self) -> None:
        self.api.finish_deletions()

    @invariant()
    def one_live_object(self) -> None:
        """While nothing has died in the middle; and of one series never more than one, since a name is one object."""
        if self.is_settled:
            assert len(self.api.live()) <= 1
        names = [body["metadata"]["name"] for body in self.api.live()]
        assert len(names) == len(set(names))

    @invariant()
    def no_launch_too_many(self) -> None:
        made = self.launches()
        for series in set(made):
            assert made.count(series) <= self.allowed[series]


def is_over(body: dict[str, Any]) -> bool:
    """Whether another launch of it is right."""
    failed = any(known["type"] == "Failed" for known in body.get("status", {}).get("conditions", []))
    return failed or bool(body["metadata"].get("deletionTimestamp")) or COLLECTED in body["metadata"]["annotations"]


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
