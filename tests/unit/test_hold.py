"""Clusters that vanish together are held as unknown; one that vanishes alone is lost; nothing that was taken down is held.

Which bug would turn this red: a server that came back empty read as clusters that are gone (also if the controller was restarted with it),
a hold that never ends, one that a person cannot end or that an old confirmation ends, launches that fail or downs that succeed held.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from skyoperator.hold import FIRST_SECONDS, is_mass
from skyoperator.sky.types import ClusterStatus, RequestStatus
from skyoperator.subject import Subject
from skyoperator.teardown import CONFIRM_SECONDS
from skyoperator.world import ABSENT, World

from tests.unit.watching import OUTAGE, Stage, a_request, a_row, now, staged

pytestmark = pytest.mark.looptime(start=1000)

NAMES = [f"n{number}" for number in range(6)]
THREE = NAMES[:3]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


def subject(name: str, **more: object) -> Subject:
    return replace(Subject(name, name="train", namespace="ml"), **more)  # type: ignore[arg-type]


async def standing(stage: Stage, names: list[str] = NAMES, status: ClusterStatus = ClusterStatus.UP) -> None:
    """Clusters that have stood for long."""
    stage.sky.rows = tuple(a_row(name, status) for name in names)
    await looks(stage, names)
    await asyncio.sleep(FIRST_SECONDS + 10)


async def looks(stage: Stage, names: list[str], **more: object) -> list[World]:
    return list(await asyncio.gather(*(stage.look(subject(name, **more)) for name in names)))


def vanish(stage: Stage, *names: str) -> None:
    stage.sky.rows = tuple(row for row in stage.sky.rows if row.name not in names)


def is_held(world: World) -> bool:
    return world.cluster is None and world.active is None and "were no longer in its list" in world.complaint


def is_lost(world: World) -> bool:
    return world.cluster is ABSENT and world.active == () and world.empty_seconds >= CONFIRM_SECONDS


@pytest.mark.parametrize(
    ("missing", "known", "expected"),
    [(1, 1, False), (2, 2, False), (2, 4, False), (3, 3, True), (1, 5, False), (2, 5, True), (2, 9, True), (2, 10, False), (3, 1000, True)],
)
def test_how_many_are_too_many(missing: int, known: int, expected: bool) -> None:
    assert is_mass(missing, known) is expected


async def test_one_that_vanishes_is_lost(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, "n0")
    await asyncio.sleep(30)
    assert is_lost(await stage.look(subject("n0")))


async def test_several_that_vanish_are_held_until_they_are_back(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await standing(stage)
    vanish(stage, *THREE)
    since = now()
    with caplog.at_level(logging.INFO):
        await asyncio.sleep(3600)
        worlds = await looks(stage, THREE)
        assert all(is_held(world) for world in worlds)
        assert len({world.complaint for world in worlds}) == 1
        told = [f"at {since + timedelta(seconds=late):%Y-%m-%dT%H:%M:%SZ}" for late in range(4)]
        assert any(words in worlds[0].complaint for words in told)
        assert stage.hold.count == 3
        stage.woken_of.clear()
        stage.sky.rows = tuple(a_row(name) for name in NAMES)
        await asyncio.sleep(5)
    worlds = await looks(stage, THREE)
    assert [world.cluster for world in worlds] == list(stage.sky.rows[:3])
    assert stage.woken_of == dict.fromkeys(THREE, 1)
    assert stage.hold.count == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_the_others_are_shown_as_they_are(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, *THREE)
    await asyncio.sleep(5)
    assert (await stage.look(subject("n5"))).cluster == a_row("n5")


async def test_the_complaint_says_how_many_since_when_and_what_to_do(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, *THREE)
    await asyncio.sleep(5)
    world = await stage.look(subject("n0"))
    for part in (
        "3 clusters",
        'kubectl annotate skyc train -n ml skyoperator.dev/confirm-lost="$(date -u +%Y-%m-%dT%H:%M:%SZ)" --overwrite',
    ):
        assert part in world.complaint


async def test_what_a_person_confirms_is_lost_and_the_others_stay_held(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, *THREE)
    await asyncio.sleep(60)
    confirmed = await stage.look(subject("n0", confirmed_lost_at=now().replace(microsecond=0)))
    assert is_lost(confirmed)
    assert [is_held(world) for world in await looks(stage, THREE[1:])] == [True, True]
    await asyncio.sleep(600)
    assert is_lost(await stage.look(subject("n0")))


async def test_a_confirmation_of_an_earlier_loss_confirms_nothing(stage: Stage) -> None:
    earlier = now()
    await standing(stage)
    vanish(stage, *THREE)
    await asyncio.sleep(60)
    assert all(is_held(world) for world in await looks(stage, THREE, confirmed_lost_at=earlier))


async def test_a_confirmation_holds_over_a_restart_of_ours(stage: Stage) -> None:
    """The next process finds the clusters missing later than the first, but the objects have not been known ever since."""
    unknown_since, confirmed_at = now() - timedelta(hours=1), now() - timedelta(minutes=30)
    for name in THREE:
        await stage.look(subject(name, was_known=True, unknown_since=unknown_since))
    await asyncio.sleep(FIRST_SECONDS + 10)
    assert all(is_held(world) for world in await looks(stage, THREE, unknown_since=unknown_since))
    confirmed = await stage.look(subject("n0", unknown_since=unknown_since, confirmed_lost_at=confirmed_at))
    assert is_lost(confirmed)
    earlier = {"unknown_since": unknown_since, "confirmed_lost_at": unknown_since - timedelta(seconds=1)}
    assert all(is_held(world) for world in await looks(stage, THREE[1:], **earlier))


async def test_a_server_that_comes_back_empty_after_an_outage_is_not_believed(stage: Stage) -> None:
    await standing(stage)
    stage.sky.failures["active_requests"] = OUTAGE
    await asyncio.sleep(600)
    stage.sky.rows, stage.sky.failures = (), {}
    await asyncio.sleep(600)
    assert all(is_held(world) for world in await looks(stage, NAMES))


async def test_a_server_that_was_emptied_while_the_controller_restarted_is_not_believed(stage: Stage) -> None:
    """The objects come in one by one, some of them late, and the first is shown no absence either."""
    for name in THREE:
        world = await stage.look(subject(name, was_known=True))
        assert (world.cluster, world.active, world.empty_seconds) == (None, None, 0)
        assert world.complaint
        await asyncio.sleep(8)
    await asyncio.sleep(60)
    assert (await stage.look(subject("late", was_known=True))).cluster is None
    await asyncio.sleep(5)
    assert all(is_held(world) for world in await looks(stage, [*THREE, "late"], was_known=True))


async def test_one_that_was_lost_while_the_controller_restarted_is_lost(stage: Stage) -> None:
    stage.sky.rows = tuple(a_row(name) for name in NAMES[1:])
    await looks(stage, NAMES, was_known=True)
    await asyncio.sleep(FIRST_SECONDS + 5)
    assert is_lost(await stage.look(subject("n0", was_known=True)))


async def test_what_vanishes_one_after_the_other_is_held_but_not_what_was_lost_before(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, "n5")
    await asyncio.sleep(60)
    for name in THREE:
        vanish(stage, name)
        await asyncio.sleep(4)
    assert [is_held(world) for world in await looks(stage, THREE)] == [True, True, True]
    assert is_lost(await stage.look(subject("n5")))


async def test_losses_far_apart_are_losses(stage: Stage) -> None:
    await standing(stage)
    for name in THREE:
        vanish(stage, name)
        await asyncio.sleep(CONFIRM_SECONDS * 2)
    assert all(is_lost(world) for world in await looks(stage, THREE))


async def asked_for_down(stage: Stage) -> None:
    for name in THREE:
        stage.observer.acted(name, down_id=f"d-{name}")


async def being_taken_down(stage: Stage) -> None:
    stage.sky.active = tuple(a_request(f"d-{name}", "down", cluster=name) for name in THREE)
    await asyncio.sleep(3)
    stage.sky.active = ()


async def taken_down_by_somebody(stage: Stage) -> None:
    stage.sky.ended = tuple(a_request(f"d-{name}", "down", RequestStatus.SUCCEEDED, cluster=name) for name in THREE)


async def autostopped(stage: Stage) -> None:
    stage.sky.rows = tuple(replace(row, status=ClusterStatus.AUTOSTOPPING) if row.name in THREE else row for row in stage.sky.rows)
    await asyncio.sleep(3)


@pytest.mark.parametrize("how", [asked_for_down, being_taken_down, taken_down_by_somebody, autostopped])
async def test_what_was_taken_down_is_not_held(stage: Stage, how: Callable[[Stage], object]) -> None:
    await standing(stage)
    await how(stage)  # type: ignore[misc]
    vanish(stage, *THREE)
    await asyncio.sleep(30)
    assert all(is_lost(world) for world in await looks(stage, THREE))
    assert stage.hold.count == 0


async def test_a_down_that_failed_explains_nothing(stage: Stage) -> None:
    await standing(stage)
    stage.sky.ended = tuple(a_request(f"d-{name}", "down", RequestStatus.FAILED, cluster=name) for name in THREE)
    vanish(stage, *THREE)
    await asyncio.sleep(30)
    assert all(is_held(world) for world in await looks(stage, THREE))


async def test_rows_that_go_with_their_failed_launches_are_not_held(stage: Stage) -> None:
    await standing(stage, NAMES, ClusterStatus.INIT)
    stage.sky.active = tuple(a_request(f"l-{name}", cluster=name) for name in NAMES)
    await asyncio.sleep(30)
    stage.sky.rows, stage.sky.active = (), ()
    await asyncio.sleep(30)
    assert all(is_lost(world) for world in await looks(stage, NAMES))


async def test_a_held_object_that_is_gone_is_forgotten(stage: Stage) -> None:
    await standing(stage)
    vanish(stage, *THREE)
    await asyncio.sleep(30)
    for name in THREE:
        stage.observer.forget(name)
    assert stage.hold.count == 0
