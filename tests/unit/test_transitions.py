"""Which Events a life posts, in order; none while nothing happens."""

from __future__ import annotations

import pytest
from skyoperator.sky.types import JobStatus, Launched, RequestError, RequestStatus
from skyoperator.transitions import transitions
from skyoperator.world import ABSENT, World

from tests.unit.build import a_cluster, a_job, a_request, a_world, after, an_object, an_outage
from tests.unit.situations import WORLDS
from tests.unit.states import COMPLETE_STOPPING, EDITED, EVERY_STATE, LAUNCHING, NEW, RUNNING, deleted, is_seen, reached

PASSES = 4
"""No world takes more to come to rest."""

LAUNCHED = a_world(cluster=a_cluster(), launch=a_request(RequestStatus.SUCCEEDED), outcome=Launched(1))


def reasons(*worlds: World, this: object = NEW) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for world in worlds:
        before, this = this, after(this, world)  # type: ignore[arg-type]
        found += [(transition.kind, transition.reason) for transition in transitions(before.status, this.status)]  # type: ignore[attr-defined]
    return found


def test_a_good_life() -> None:
    running = a_world(cluster=a_cluster(), jobs=(a_job(),))
    succeeded = a_world(cluster=a_cluster(), jobs=(a_job(JobStatus.SUCCEEDED),))
    assert reasons(a_world(), LAUNCHED, running, running, succeeded, succeeded, a_world(empty_seconds=10)) == [
        ("Normal", "Launching"),
        ("Normal", "JobSubmitted"),
        ("Normal", "JobSucceeded"),
        ("Normal", "ClusterDown"),
    ]


def test_a_launch_that_fails() -> None:
    failed = a_world(launch=a_request(RequestStatus.FAILED), outcome=RequestError("ResourcesUnavailableError", "no GPU"))
    assert reasons(failed, a_world(empty_seconds=10), this=LAUNCHING) == [("Warning", "NoCapacity"), ("Normal", "ClusterDown")]


def test_a_launch_the_server_forgot() -> None:
    assert reasons(a_world(launch=ABSENT), this=LAUNCHING) == [("Warning", "LaunchLost")]


def test_what_is_not_accepted_is_said_once() -> None:
    assert reasons(a_world(), a_world(), this=an_object({"runn": 1})) == [("Warning", "InvalidTask")]
    assert reasons(a_world(cluster=a_cluster(), jobs=(a_job(),)), this=EDITED) == [("Warning", "ImmutableTask")]


def test_a_down_that_fails_is_told_once_for_each_message() -> None:
    def failing(words: str, *, active: bool = False) -> World:
        return a_world(cluster=a_cluster(), active=(a_request(id_="d1", name="down"),) if active else (), down_error=words)

    tries = [failing("no rights"), failing("no rights", active=True), failing("no rights"), failing("no route"), failing("no route")]
    for this in (COMPLETE_STOPPING, deleted(RUNNING)):
        assert reasons(*tries, this=after(this, a_world(cluster=a_cluster()))) == [("Warning", "DownFailed")] * 2


@pytest.mark.parametrize("name", [name for name, this in EVERY_STATE.items() if is_seen(this)])
def test_a_world_that_stays_as_it_is_is_told_of_once(name: str) -> None:
    for world in WORLDS[name]:
        settled = after(EVERY_STATE[name], *[world] * PASSES)
        assert transitions(settled.status, after(settled, world).status) == [], world


@pytest.mark.parametrize("name", [name for name, this in EVERY_STATE.items() if is_seen(this)])
def test_an_outage_is_told_of_by_no_event(name: str) -> None:
    this = EVERY_STATE[name]
    assert transitions(this.status, after(this, an_outage(reached(this))).status) == []
