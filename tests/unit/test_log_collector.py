"""Each log is had to its end, once, and told of: by SkyPilot as it is faked in test_log_upstream, on a real folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from skyoperator.api.v1alpha1 import TERMINATED, SkyCluster
from skyoperator.kube import Key
from skyoperator.logs.about import Origin
from skyoperator.logs.collector import AGAIN_SECONDS, EASY_BYTES, Collector, Pace, seconds_to_next
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import Limits, StoredLog
from skyoperator.logs.types import Kind, LogKey, State
from skyoperator.sky.types import JobStatus, NoSuchCluster, SkyPilotUnreachable

from tests.unit.build import RUN, a_world, after, an_object, edited
from tests.unit.states import deleted, going_up, launched, with_job
from tests.unit.test_log_upstream import FAREWELL, HEAD, SkyPilot

NAMESPACE_UID = "0f0f"
LIMITS = Limits(log_bytes=1 << 20, total_bytes=1 << 24, segment_bytes=1 << 12, retention=timedelta(days=1))
SECONDS = 20.0


@dataclass
class Sky(SkyPilot):
    """SkyPilot with a launch's log, that can be away."""

    launch: bytes = b"looking for a node\n"
    error: Exception | None = None
    looks: int = 0
    following: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def job_log(self, cluster: str, job: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        self.looks += 1
        if self.error:
            raise self.error
        async for chunk in super().job_log(cluster, job, lines=lines, follow=False):
            yield chunk
        self.following += follow
        try:
            while follow and not self.ended:
                await self.more.wait()
                self.more.clear()
                while self.to_come:
                    yield self.to_come.pop(0)
        finally:
            self.following -= follow

    async def launch_log(self, _cluster: str) -> AsyncGenerator[bytes, None]:
        if self.error:
            raise self.error
        yield self.launch


@dataclass
class Stage:
    """A collector, and what it told."""

    sky: Sky
    store: Store
    told: list[Key] = field(default_factory=list)
    pace: Pace = field(default_factory=lambda: Pace(interval_seconds=0.01))

    async def report(self, of: Key, key: LogKey, _log: StoredLog) -> None:
        if key.kind is Kind.JOB:
            self.told.append(of)

    def collector(self) -> Collector:
        return Collector(self.sky, self.store, self.report, self.pace)

    def log(self, this: SkyCluster, kind: Kind = Kind.JOB) -> StoredLog:
        log = self.store.get(LogKey(NAMESPACE_UID, this.uid, 1, kind))
        assert log is not None
        return log

    def data(self, this: SkyCluster, kind: Kind = Kind.JOB) -> bytes:
        log = self.log(this, kind)
        data = b""
        while len(data) < log.size:
            data += log.read(len(data), 1 << 20).data
        return data


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(Sky(), Store(tmp_path / "logs", LIMITS))


@pytest.fixture
async def collector(stage: Stage) -> AsyncIterator[Collector]:
    found = stage.collector()
    yield found
    await found.stop()


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not what():
            await asyncio.sleep(0.005)


def with_running_job() -> SkyCluster:
    return after(an_object(RUN), a_world(), going_up(), launched(1), with_job(JobStatus.RUNNING))


SAID = b"(train, pid=7) " + FAREWELL


def with_ended_job() -> SkyCluster:
    return after(with_running_job(), with_job(JobStatus.SUCCEEDED))


def named(this: SkyCluster, name: str) -> SkyCluster:
    """The same for another object, whose cluster has its name."""
    cluster = this.status.cluster
    assert cluster is not None
    status = this.status.model_copy(update={"cluster": cluster.model_copy(update={"name": name})})
    return this.model_copy(update={"uid": name.encode().hex(), "name": name, "status": status})


async def test_a_log_is_had_while_the_job_runs_and_to_its_end(stage: Stage, collector: Collector) -> None:
    this = with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)
    stage.sky.log += b"epoch 1\n"
    await until(lambda: stage.data(this) == HEAD + b"epoch 1\n")
    stage.sky.log += b"epoch 2\nno end"
    stage.sky.ended = True
    collector.saw(with_ended_job(), NAMESPACE_UID)
    await until(lambda: stage.log(this).state is State.COMPLETE)
    assert stage.data(this) == HEAD + b"epoch 1\nepoch 2\nno end"
    await until(lambda: stage.told == [Key("ml", "train", this.uid)])
    assert stage.data(this, Kind.LAUNCH) == stage.sky.launch
    assert stage.log(this, Kind.LAUNCH).state is State.COMPLETE


async def test_the_launch_is_had_before_there_is_a_job_and_when_it_failed(stage: Stage, collector: Collector) -> None:
    this = after(an_object(RUN), a_world(), going_up())
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this, Kind.LAUNCH) == stage.sky.launch)
    assert stage.log(this, Kind.LAUNCH).state is State.LIVE
    stage.sky.launch += b"no node has room\n"
    collector.saw(deleted(this), NAMESPACE_UID)
    await until(lambda: stage.log(this, Kind.LAUNCH).state is State.COMPLETE)
    assert stage.data(this, Kind.LAUNCH) == stage.sky.launch


async def test_an_object_without_a_launch_calls_for_nothing(stage: Stage, collector: Collector) -> None:
    this = an_object(RUN)
    collector.saw(this, NAMESPACE_UID)
    await asyncio.sleep(0)
    assert stage.store.logs_of(NAMESPACE_UID, this.uid) == []


@pytest.mark.parametrize("how", ["deleted", "suspended", "gone"])
async def test_a_cluster_that_goes_gives_its_log_a_last_look(stage: Stage, how: str) -> None:
    stage.pace = Pace(interval_seconds=3600)
    collector, this = stage.collector(), with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)
    stage.sky.log += b"last words\n"
    match how:
        case "deleted":
            collector.saw(deleted(this), NAMESPACE_UID)
        case "suspended":
            collector.saw(after(edited(this, suspend=True), with_job(JobStatus.RUNNING)), NAMESPACE_UID)
        case _:
            collector.gone(this.uid)
    await until(lambda: stage.told)
    assert stage.data(this) == HEAD + b"last words\n"
    assert stage.log(this).state is State.INCOMPLETE
    assert "taken down while the job ran" in stage.log(this).message
    await collector.stop()


async def test_a_server_that_is_away_loses_nothing(stage: Stage, collector: Collector) -> None:
    this = with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)
    stage.sky.error = SkyPilotUnreachable("away")
    looks = stage.sky.looks
    await until(lambda: stage.sky.looks > looks + 2)
    assert stage.log(this).state is State.LIVE
    stage.sky.log += b"meanwhile\n"
    stage.sky.error, stage.sky.ended = None, True
    collector.saw(with_ended_job(), NAMESPACE_UID)
    await until(lambda: stage.log(this).state is State.COMPLETE)
    assert stage.data(this) == HEAD + b"meanwhile\n"


async def test_a_cluster_that_is_gone_already_is_said_to_be(stage: Stage, collector: Collector) -> None:
    stage.sky.error = NoSuchCluster("Cluster train does not exist.")
    this = after(with_running_job(), with_job(JobStatus.FAILED))
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.told)
    assert stage.log(this).state is State.INCOMPLETE
    assert "does not exist" in stage.log(this).message


async def test_a_process_that_is_started_again_goes_on_where_it_was(stage: Stage, tmp_path: Path) -> None:
    this, first = with_running_job(), stage.collector()
    stage.sky.log += b"one\n" * 3
    first.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == stage.sky.log)
    await first.stop()
    again = Stage(stage.sky, Store(tmp_path / "logs", LIMITS))
    second = again.collector()
    stage.sky.log += b"two\n"
    stage.sky.ended = True
    second.saw(with_ended_job(), NAMESPACE_UID)
    await until(lambda: again.told)
    assert again.data(this) == HEAD + b"one\n" * 3 + b"two\n"
    await second.stop()


async def test_readers_share_one_stream_and_it_ends_with_the_last_of_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.collector.LINGER_SECONDS", 0.05)
    stage.pace = Pace(interval_seconds=3600)
    collector, this = stage.collector(), with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)
    key = stage.log(this).key
    async with collector.reading(key), collector.reading(key):
        await until(lambda: stage.sky.following == 1)
        stage.sky.to_come.append(b"live\n")
        stage.sky.more.set()
        await until(lambda: stage.data(this) == HEAD + b"live\n")
        assert stage.sky.following == 1
    await until(lambda: stage.sky.following == 0)
    stage.sky.log += b"live\n"
    await collector.stop()


async def test_a_reader_from_before_the_object_was_seen_has_it_fresh_from_then_on(stage: Stage) -> None:
    stage.pace = Pace(interval_seconds=3600)
    collector, this = stage.collector(), with_running_job()
    async with collector.reading(LogKey(NAMESPACE_UID, this.uid, 1, Kind.JOB)):
        collector.saw(this, NAMESPACE_UID)
        await until(lambda: stage.sky.following == 1)
    await collector.stop()


async def test_one_log_that_cannot_be_had_holds_up_no_other(stage: Stage, collector: Collector) -> None:
    stuck, this = named(with_running_job(), "stuck"), with_ended_job()
    stage.sky.error = SkyPilotUnreachable("away")
    collector.saw(stuck, NAMESPACE_UID)
    await until(lambda: stage.sky.looks)
    stage.sky.error = None
    stage.sky.ended = True
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.log(this).state is State.COMPLETE)


async def test_a_job_that_speaks_like_skypilot_is_had_until_it_has_ended(stage: Stage, collector: Collector) -> None:
    """As one does that launches others: SkyPilot's farewell to those is the last that it says for a while."""
    this = with_running_job()
    stage.sky.log += SAID
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.sky.looks > 3)
    assert stage.log(this).state is State.LIVE
    stage.sky.log += b"and on\n"
    await until(lambda: stage.data(this) == HEAD + SAID + b"and on\n")
    stage.sky.ended = True
    collector.saw(with_ended_job(), NAMESPACE_UID)
    await until(lambda: stage.log(this).state is State.COMPLETE)
    assert stage.data(this) == HEAD + SAID + b"and on\n"


async def test_the_end_of_one_log_does_not_wait_for_looks_at_others(stage: Stage) -> None:
    stage.sky = hanging = Hanging()
    stage.pace = Pace(interval_seconds=0.01, looks=1)
    collector, this = stage.collector(), with_ended_job()
    collector.saw(named(with_running_job(), "stuck"), NAMESPACE_UID)
    await until(lambda: hanging.hangs)
    hanging.hangs, hanging.ended = False, True
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.log(this).state is State.COMPLETE)
    await collector.stop()


class Hanging(Sky):
    """SkyPilot, whose first answer never comes."""

    hangs = False

    async def job_log(self, cluster: str, job: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        if self.looks == 0:
            self.looks, self.hangs = 1, True
            await asyncio.Event().wait()
        async for chunk in super().job_log(cluster, job, lines=lines, follow=follow):
            yield chunk


async def test_more_logs_are_read_than_skypilot_has_threads_to_follow(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.collector.AGAIN_SECONDS", 0.01)
    stage.pace = Pace(interval_seconds=3600, followed=1)
    collector, some = stage.collector(), [named(with_running_job(), name) for name in ("one", "two")]
    for this in some:
        collector.saw(this, NAMESPACE_UID)
    await until(lambda: all(stage.data(this) == HEAD for this in some))
    async with collector.reading(stage.log(some[0]).key), collector.reading(stage.log(some[1]).key):
        await until(lambda: stage.sky.following == 1)
        looks = stage.sky.looks
        await until(lambda: stage.sky.looks > looks + 3)
        assert stage.sky.following == 1
    await collector.stop()


@pytest.mark.parametrize(
    ("grown_bytes", "vain_seconds", "expected"),
    [(0, 0.0, 30.0), (EASY_BYTES, 0.0, 30.0), (3 * EASY_BYTES, 0.0, 10.0), (1 << 40, 0.0, AGAIN_SECONDS), (0, 60.0, 240.0), (0, 0.1, 30.0)],
    ids=["quiet", "as much as may be", "three times that", "a flood", "a node that died", "refused at once"],
)
def test_a_log_is_looked_at_as_often_as_it_grows_and_less_often_in_vain(grown_bytes: int, vain_seconds: float, expected: float) -> None:
    assert seconds_to_next(30.0, grown_bytes=grown_bytes, vain_seconds=vain_seconds) == expected


async def test_a_node_that_died_takes_little_of_the_others_turn(stage: Stage) -> None:
    stage.sky = dying = Dying()
    stage.pace = Pace(interval_seconds=0.01, looks=1)
    collector, this = stage.collector(), named(with_running_job(), "alive")
    collector.saw(named(with_running_job(), "dead"), NAMESPACE_UID)
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: dying.looks_at_others > 10 * dying.looks > 10)
    await collector.stop()


async def test_what_was_in_vain_once_is_forgotten_when_somebody_reads(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.collector.AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("skyoperator.logs.collector.VAIN_FACTOR", 1e6)
    stage.sky = flaky = Flaky()
    stage.pace = Pace(interval_seconds=0.01)
    collector, this = stage.collector(), with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: flaky.looks)
    async with collector.reading(stage.log(this).key):
        await until(lambda: flaky.follows > 3)
    await collector.stop()


class Flaky(Sky):
    """SkyPilot, which answers no look, and lets each follower down after a moment."""

    follows = 0

    async def job_log(self, cluster: str, job: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        if follow:
            self.follows += 1
            async for chunk in SkyPilot.job_log(self, cluster, job, lines=lines, follow=False):
                yield chunk
        self.looks += not follow
        await asyncio.sleep(0.01)
        raise SkyPilotUnreachable("The connection was lost.")


class Dying(Sky):
    """SkyPilot, which waits for a dead node in vain."""

    looks_at_others = 0

    async def job_log(self, cluster: str, job: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        if cluster == "dead":
            self.looks += 1
            await asyncio.sleep(0.2)
            raise SkyPilotUnreachable("The node does not answer.")
        self.looks_at_others += 1
        async for chunk in SkyPilot.job_log(self, cluster, job, lines=lines, follow=follow):
            yield chunk


async def test_what_ended_before_there_was_a_log_process_is_left_in_peace(stage: Stage, collector: Collector) -> None:
    this = after(with_running_job(), with_job(JobStatus.SUCCEEDED))
    cluster = this.status.cluster
    assert cluster is not None
    terminated = this.status.model_copy(update={"cluster": cluster.model_copy(update={"status": TERMINATED})})
    collector.saw(this.model_copy(update={"status": terminated}), NAMESPACE_UID)
    await asyncio.sleep(0.05)
    assert (stage.sky.looks, stage.told, stage.store.logs_of(NAMESPACE_UID, this.uid)) == (0, [], [])


async def test_an_object_that_is_gone_is_forgotten(stage: Stage, collector: Collector) -> None:
    this = with_running_job()
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)
    collector.gone(this.uid)
    await until(lambda: not collector.collecting)
    assert stage.log(this).state is State.INCOMPLETE


async def test_a_volume_that_does_not_answer_is_tried_again(stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    this = with_running_job()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "open", dead)
        collector.saw(this, NAMESPACE_UID)
    assert not collector.collecting
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)


@pytest.mark.parametrize("what", ["open", "logs_of"])
async def test_a_finished_object_need_not_change_for_its_log_to_be_tried_again(
    stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    this = after(with_running_job(), with_job(JobStatus.SUCCEEDED))
    stage.sky.ended = True
    with monkeypatch.context() as broken:
        broken.setattr(Store, what, dead)
        collector.saw(this, NAMESPACE_UID)
        assert not stage.told
    await until(lambda: stage.told)
    assert stage.data(this) == HEAD


async def test_an_earlier_attempt_that_can_not_be_read_does_not_hold_up_the_present_one(
    stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = with_running_job()
    monkeypatch.setattr(Store, "logs_of", dead)
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this) == HEAD)


async def test_a_log_that_could_not_be_kept_is_not_tried_for_an_object_that_is_gone(
    stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, other = with_running_job(), with_running_job().model_copy(update={"uid": "ffff", "name": "other"})
    with monkeypatch.context() as broken:
        broken.setattr(Store, "open", dead)
        for this in (gone, other):
            collector.saw(this, NAMESPACE_UID)
    collector.gone(gone.uid)
    await until(lambda: collector.collecting)
    assert {key.object_uid for key in collector.collecting} == {other.uid}


def dead(*_: object) -> StoredLog:
    raise OSError(5, "Input/output error")


async def test_a_server_that_is_away_at_the_end_is_waited_for(stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.collector.LAST_CALL_SECONDS", 0.0)
    monkeypatch.setattr("skyoperator.logs.collector.AGAIN_SECONDS", 0.01)
    this = after(with_running_job(), with_job(JobStatus.FAILED))
    stage.sky.error = SkyPilotUnreachable("away")
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.sky.looks > 5)
    assert stage.log(this).state is State.LIVE
    stage.sky.error, stage.sky.ended = None, True
    await until(lambda: stage.log(this).state is State.COMPLETE)


async def test_an_earlier_attempt_that_nobody_collected_has_an_end(stage: Stage, collector: Collector) -> None:
    this = with_running_job()
    launch = this.status.launch
    assert launch is not None
    second = this.model_copy(update={"status": this.status.model_copy(update={"launch": launch.model_copy(update={"attempt": 2})})})
    first = stage.store.open(LogKey(NAMESPACE_UID, this.uid, 1, Kind.JOB), Origin(namespace="ml", name="train", job=1))
    first.append(b"half of it\n")
    collector.saw(second, NAMESPACE_UID)
    assert first.state is State.INCOMPLETE


async def test_a_launch_that_is_sent_again_is_still_had(stage: Stage, collector: Collector) -> None:
    this = after(an_object(RUN), a_world(), going_up())
    collector.saw(this, NAMESPACE_UID)
    await until(lambda: stage.data(this, Kind.LAUNCH) == stage.sky.launch)
    launch = this.status.launch
    assert launch is not None
    lost = this.status.model_copy(update={"launch": launch.model_copy(update={"request_id": None})})
    collector.saw(this.model_copy(update={"status": lost}), NAMESPACE_UID)
    first, stage.sky.launch = stage.sky.launch, b"looking again\n"
    await until(lambda: stage.data(this, Kind.LAUNCH) == first + b"looking again\n")
