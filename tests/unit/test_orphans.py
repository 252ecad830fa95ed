"""Clusters of ours that no object owns are reported, once, and nothing else is.

Which bug would turn this red: an orphan nobody hears of; a report of a cluster that has an object, is somebody else's, was left behind on
purpose (also before a restart), or whose object could not be seen; a report repeated; a memory that grows or forgets too soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.kube import KubeError
from skyoperator.orphans import (
    CHECK_SECONDS,
    FORGOTTEN_AFTER,
    ORPHANED_AFTER,
    REMEMBERED_AT_MOST,
    Orphans,
    as_text,
    from_text,
    instance_label,
)
from skyoperator.sky.types import INSTANCE_LABEL, NAMESPACE_LABEL, UID_LABEL, Cluster, ClusterStatus

from tests.unit.fakes import FakeSky
from tests.unit.watching import OUTAGE, now

pytestmark = pytest.mark.looptime(start=1000)

OURS = instance_label("lease-uid", "skyoperator/release")
AFTER = ORPHANED_AFTER.total_seconds() + 2 * CHECK_SECONDS


@dataclass
class FakeRegistry:
    objects: frozenset[str] = frozenset()
    text: str = ""
    notes: list[str] = field(default_factory=list)
    writes: int = 0
    lists: int = 0
    failure: KubeError | None = None

    async def uids(self) -> frozenset[str]:
        self.lists += 1
        if self.failure is not None:
            raise self.failure
        return self.objects

    async def released(self) -> Mapping[str, datetime]:
        return from_text(self.text)

    async def set_released(self, released: Mapping[str, datetime]) -> None:
        self.writes += 1
        self.text = as_text(released)

    async def announce(self, note: str) -> None:
        self.notes.append(note)


@dataclass
class Stage:
    sky: FakeSky = field(default_factory=FakeSky)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    watched: set[str] = field(default_factory=set)

    def process(self) -> Orphans:
        return Orphans(
            self.sky,
            self.registry,
            instance=lambda: OURS,
            watched=lambda: self.watched,
            serves=lambda namespace: namespace == "ml",
            now=now,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Orphans]:
        orphans = self.process()
        task = asyncio.create_task(orphans.run())
        yield orphans
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def a_row(name: str = "a", *, instance: str = OURS, namespace: str = "ml") -> Cluster:
    return Cluster(name, ClusterStatus.UP, labels={UID_LABEL: f"uid-{name}", INSTANCE_LABEL: instance, NAMESPACE_LABEL: namespace})


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_an_orphan_is_reported_once_after_its_time(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.sky.rows = (a_row(),)
    async with stage.running() as orphans:
        await asyncio.sleep(ORPHANED_AFTER.total_seconds())
        assert (orphans.count, stage.registry.notes) == (0, [])
        await asyncio.sleep(2 * CHECK_SECONDS)
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(10 * AFTER)
        assert orphans.count == 1
    (note,) = stage.registry.notes
    assert "sky down a" in note
    assert "uid-a" in note


async def test_an_orphan_that_is_gone_counts_no_more(stage: Stage) -> None:
    stage.sky.rows = (a_row(), a_row("b"))
    async with stage.running() as orphans:
        await asyncio.sleep(AFTER)
        assert orphans.count == 2
        stage.sky.rows = (a_row("b"),)
        await asyncio.sleep(2 * CHECK_SECONDS)
        assert orphans.count == 1


@pytest.mark.parametrize(
    "row",
    [
        a_row(instance=instance_label("another-lease", "skyoperator/release")),
        a_row(instance=instance_label("lease-uid", "skyoperator/other")),
        Cluster("a", ClusterStatus.UP),
        a_row(namespace="not-served"),
    ],
)
async def test_what_is_not_ours_to_judge_is_not_reported(stage: Stage, row: Cluster) -> None:
    stage.sky.rows = (row,)
    async with stage.running() as orphans:
        await asyncio.sleep(AFTER)
        assert (orphans.count, stage.registry.notes) == (0, [])


async def test_what_has_an_object_is_not_reported_whether_it_is_watched_or_only_listed(stage: Stage) -> None:
    stage.sky.rows = (a_row(), a_row("b"))
    stage.watched, stage.registry.objects = {"uid-a"}, frozenset({"uid-b"})
    async with stage.running() as orphans:
        await asyncio.sleep(3 * AFTER)
        assert (orphans.count, stage.registry.notes) == (0, [])


async def test_a_list_that_fails_proves_nothing(stage: Stage) -> None:
    stage.sky.rows, stage.registry.failure = (a_row(),), KubeError("410 in the middle")
    async with stage.running() as orphans:
        await asyncio.sleep(AFTER)
        assert orphans.count == 0
        stage.registry.failure = None
        await asyncio.sleep(2 * CHECK_SECONDS)
        assert orphans.count == 1


async def test_a_server_that_is_away_changes_nothing(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    async with stage.running() as orphans:
        await asyncio.sleep(AFTER)
        stage.sky.failures["clusters"] = OUTAGE
        await asyncio.sleep(AFTER)
        assert orphans.count == 1
        stage.sky.failures.clear()
        await asyncio.sleep(AFTER)
    assert len(stage.registry.notes) == 1


async def test_what_was_left_behind_on_purpose_is_not_reported_by_the_next_process_either(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    await stage.process().release("a")
    async with stage.running() as orphans:
        await asyncio.sleep(AFTER + FORGOTTEN_AFTER.total_seconds())
        assert (orphans.count, stage.registry.notes) == (0, [])
    assert stage.registry.lists == 0


async def test_what_was_left_behind_is_forgotten_when_it_is_gone_for_long_and_not_before(stage: Stage) -> None:
    orphans = stage.process()
    stage.sky.rows = (a_row(),)
    await orphans.release("a")
    stage.sky.rows = ()
    await orphans.check()
    assert set(from_text(stage.registry.text)) == {"a"}
    await asyncio.sleep(FORGOTTEN_AFTER.total_seconds() + 1)
    await orphans.check()
    assert from_text(stage.registry.text) == {}


async def test_an_idle_look_writes_nothing(stage: Stage) -> None:
    stage.sky.rows = (a_row(),)
    await stage.process().release("a")
    async with stage.running():
        await asyncio.sleep(10 * AFTER)
    assert stage.registry.writes == 1


async def test_the_memory_is_bounded_and_keeps_the_newest(stage: Stage) -> None:
    stage.registry.text = as_text({f"n{number}": now() - timedelta(hours=1) for number in range(REMEMBERED_AT_MOST)})
    await stage.process().release("newest")
    released = from_text(stage.registry.text)
    assert len(released) == REMEMBERED_AT_MOST
    assert "newest" in released


@given(st.dictionaries(st.text(), st.datetimes(timezones=st.just(UTC))))
def test_the_memory_is_read_as_it_was_written(released: dict[str, datetime]) -> None:
    whole = {name: at.replace(microsecond=0) for name, at in released.items()}
    assert from_text(as_text(whole)) == whole


@given(st.text() | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(repr))
def test_a_memory_that_was_tampered_with_is_begun_anew(text: str) -> None:
    assert isinstance(from_text(text), dict)


@pytest.mark.parametrize("text", ['{"a": "2026-01-01T00:00:00"}', '{"a": 1}', '["a"]', "{"])
def test_a_time_without_its_zone_or_no_time_is_no_memory(text: str) -> None:
    assert from_text(text) == {}


@given(st.text(), st.text())
def test_the_label_is_one_that_any_cloud_takes(uid: str, instance: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", instance_label(uid, instance))
