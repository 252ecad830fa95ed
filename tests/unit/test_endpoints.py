"""Where open ports are reached: written down while the cluster is UP, and for no longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from skyoperator import task
from skyoperator.api.v1alpha1 import ENDPOINT_LIMIT, TERMINATED, SkyCluster
from skyoperator.inputs import Inputs
from skyoperator.sky.types import ClusterStatus, JobStatus
from skyoperator.subject import subject_of
from skyoperator.world import World

from tests.unit.build import JOB, NO_RUN, POLICY, a_cluster, a_world, after, an_object, an_outage, decide, edited, is_silent
from tests.unit.states import EVERY_STATE, INIT, SECOND_JOB, deleted, gone, idle, launched, with_job

RESOURCES: dict[str, Any] = {"infra": "k8s", "ports": [8080, 9090]}
SERVES = {"resources": RESOURCES, "run": "python -m http.server 8080"}
PLAIN = {"resources": RESOURCES}
FOUND = {"8080": "192.0.2.7:8080", "9090": "192.0.2.7:9090"}
SHOWN = [{"port": port, "url": url} for port, url in FOUND.items()]

LAUNCHING = after(an_object(SERVES), a_world())
RUNNING = after(LAUNCHING, launched(), with_job(JobStatus.RUNNING))
KEPT = after(edited(RUNNING, whenFinished="Keep"), with_job(JobStatus.SUCCEEDED), idle())
READY = after(an_object(PLAIN), a_world(), launched(None), idle())
FOLLOWED = {"running": RUNNING, "kept": KEPT, "ready": READY}
followed = pytest.mark.parametrize("this", FOLLOWED.values(), ids=FOLLOWED)


def up(endpoints: Mapping[str, str] | None, status: ClusterStatus = ClusterStatus.UP) -> World:
    return a_world(cluster=a_cluster(status), endpoints=endpoints)


def shown(this: SkyCluster) -> Any:
    return this.status.as_json()["cluster"].get("endpoints")


@followed
def test_they_are_shown_and_the_same_answer_writes_nothing(this: SkyCluster) -> None:
    assert shown(after(this, up(None))) is None
    this = after(this, up(FOUND))
    assert shown(this) == SHOWN
    assert is_silent(this, decide(this, up(dict(FOUND))))


@followed
@pytest.mark.parametrize(
    "world", [up(None), an_outage(), a_world(server="http://another")], ids=["not asked yet", "outage", "another server"]
)
def test_what_is_not_known_changes_nothing(this: SkyCluster, world: World) -> None:
    assert shown(after(this, up(FOUND), world)) == SHOWN


@followed
@pytest.mark.parametrize(
    "world", [up({}), up(FOUND, ClusterStatus.INIT), up(None, ClusterStatus.STOPPED), a_world()], ids=["none", "INIT", "STOPPED", "no row"]
)
def test_nothing_is_reached_of_what_has_no_address_or_is_not_up(this: SkyCluster, world: World) -> None:
    this = after(this, up(FOUND), world)
    assert shown(this) is None
    assert shown(after(this, up(FOUND))) == SHOWN


@followed
@pytest.mark.parametrize("change", [deleted, lambda this: edited(this, suspend=True, whenFinished="Down")], ids=["deleted", "suspended"])
def test_they_go_with_the_cluster(this: SkyCluster, change: Any) -> None:
    this = after(change(after(this, up(FOUND))), up(None), up(None), gone(), gone())
    assert this.status.cluster is not None
    assert (this.status.cluster.status, shown(this)) == (TERMINATED, None)


def test_a_launch_onto_the_same_cluster_is_asked_about_anew() -> None:
    this = after(edited(after(READY, up(FOUND)), task={**PLAIN, "setup": "echo"}), up(FOUND))
    assert (this.status.launch or INIT.status.launch).attempt == 2  # type: ignore[union-attr]
    assert (shown(this), ports_of(this)) == (None, None)
    this = after(this, launched(None, id_="r2"))
    assert (shown(this), ports_of(this)) == (None, SECOND_JOB)
    assert shown(after(this, up({"8080": "192.0.2.8:8080"}))) == [{"port": "8080", "url": "192.0.2.8:8080"}]


def test_a_status_holds_no_more_than_can_be_stored() -> None:
    found = {str(port): f"192.0.2.7:{port}" for port in range(1, 65536)}
    assert [each["port"] for each in shown(after(READY, up(found)))] == [str(port) for port in range(1, ENDPOINT_LIMIT + 1)]


def ports_of(this: SkyCluster) -> str | None:
    subject = subject_of(this)
    return subject.ports_of if subject else None


@followed
def test_they_are_asked_about_once_the_launch_is_done_and_until_the_end(this: SkyCluster) -> None:
    assert ports_of(LAUNCHING) is None
    assert ports_of(this) == JOB
    assert ports_of(deleted(this)) is None
    assert ports_of(after(edited(this, whenFinished="Down", suspend=True), up(FOUND))) is None


@pytest.mark.parametrize("this", EVERY_STATE.values(), ids=EVERY_STATE)
def test_nobody_asks_about_what_opens_no_port(this: SkyCluster) -> None:
    assert ports_of(this) is None


def test_what_was_launched_counts_and_not_what_it_was_edited_to() -> None:
    assert ports_of(edited(RUNNING, task={"resources": {"infra": "k8s"}, "run": "echo"})) == JOB


def test_the_ports_of_a_task_in_a_config_map_count_too() -> None:
    this = an_object(task=None, taskRef={"name": "tasks"})
    for resources, has_ports in ((RESOURCES, True), ({"infra": "k8s"}, False)):
        launch = decide(this, a_world(), Inputs(POLICY, {"resources": resources})).status.launch
        assert launch is not None
        assert launch.has_ports is has_ports


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (None, False),
        ({}, False),
        ({"ports": None}, False),
        ({"ports": 8080}, True),
        ({"ports": "8000-8010"}, True),
        ({"any_of": [{"infra": "k8s"}, {"infra": "aws", "ports": [22]}]}, True),
        ({"ordered": [{"infra": "k8s"}, {"infra": "aws"}], "ports": [22]}, True),
        ({"ordered": [{"infra": "k8s"}, {"infra": "aws"}]}, False),
    ],
)
def test_which_tasks_open_ports(resources: Any, expected: bool) -> None:
    assert task.has_ports({**NO_RUN, "resources": resources}) is expected
