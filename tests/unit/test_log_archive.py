"""Whose log a name stands for, through objects and namespaces that come, go, and come again; and what the object is told of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.kube import Gone, Key, KubeError
from skyoperator.logs import frames
from skyoperator.logs.about import Origin
from skyoperator.logs.archive import Archive
from skyoperator.logs.collector import Collector, Pace
from skyoperator.logs.objects import Objects, catch_up
from skyoperator.logs.reporter import Reporter
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import Limits, StoredLog
from skyoperator.logs.types import Kind, LogKey, NoLogError, NoObjectError, State, Wanted

from tests.unit.build import RUN, a_world, after, an_object
from tests.unit.states import going_up, launched
from tests.unit.test_log_upstream import SkyPilot

LIMITS = Limits(log_bytes=1 << 20, total_bytes=1 << 24, segment_bytes=1 << 12, retention=timedelta(days=1))
SECONDS = 20.0


@dataclass
class Kubernetes:
    """Namespaces, the objects there are, and one object's status."""

    uids: dict[str, str] = field(default_factory=lambda: {"ml": "a1"})
    there: dict[tuple[str, str], SkyCluster] = field(default_factory=dict)
    failures: int = 0
    this: SkyCluster | None = None
    written: list[Mapping[str, Any]] = field(default_factory=list)
    asked: int = 0

    async def namespace_uid(self, name: str) -> str:
        self.asked += 1
        self._fail()
        return self.uids[name]

    async def named(self, namespace: str, name: str) -> SkyCluster | None:
        self._fail()
        return self.there.get((namespace, name))

    def take(self, event: Mapping[str, Any]) -> None:
        """Be where the watch that tells of this was."""
        this = SkyCluster.from_body(dict(event["object"]))
        if event["type"] == "DELETED":
            self.there.pop((this.namespace, this.name), None)
        else:
            self.there[this.namespace, this.name] = this

    async def get(self, key: Key) -> SkyCluster:
        self._fail()
        if self.this is None or self.this.uid != key.uid:
            raise Gone(f"{key} is gone")
        return self.this

    async def merge_status(self, _key: Key, status: Mapping[str, Any]) -> None:
        self._fail()
        self.written.append(status)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise KubeError("kube-apiserver is away")


@dataclass
class Listener:
    """Who is told of objects."""

    said: list[tuple[str, str]] = field(default_factory=list)

    def saw(self, this: SkyCluster, namespace_uid: str) -> None:
        self.said.append((this.uid, namespace_uid))

    def gone(self, uid: str) -> None:
        self.said.append((uid, "gone"))


def body(this: SkyCluster) -> dict[str, Any]:
    meta = {"name": this.name, "namespace": this.namespace, "uid": this.uid, "generation": 1, "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"task": RUN}, "status": this.status.as_json()}


def event(this: SkyCluster, type_: str = "ADDED") -> dict[str, Any]:
    return {"type": type_, "object": body(this)}


def launched_as(uid: str, attempt: int = 1, name: str = "train") -> SkyCluster:
    this = after(an_object(RUN), a_world(), going_up(), launched(1)).model_copy(update={"uid": uid, "name": name})
    assert this.status.launch is not None
    launch = this.status.launch.model_copy(update={"attempt": attempt})
    return this.model_copy(update={"status": this.status.model_copy(update={"launch": launch})})


@dataclass
class Stage:
    """An archive, and its objects."""

    kubernetes: Kubernetes
    objects: Objects
    store: Store
    archive: Archive

    async def happen(self, *events: dict[str, Any]) -> None:
        for each in events:
            self.kubernetes.take(each)
            self.objects.happened(each)
        task = asyncio.create_task(self.objects.run())
        await asyncio.sleep(0.01)
        task.cancel()

    def keep(self, uid: str, attempt: int, text: bytes, *, kind: Kind = Kind.JOB, namespace_uid: str = "a1", job: int = 1) -> StoredLog:
        log = self.store.open(LogKey(namespace_uid, uid, attempt, kind), Origin(namespace="ml", name="train", job=job))
        log.append(text)
        return log

    async def read(self, **wanted: Any) -> bytes:
        log = await self.archive.find(Wanted("ml", **{"name": "train", **wanted}))
        return log.read(0, 1 << 20).data


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    kubernetes, store = Kubernetes(), Store(tmp_path / "logs", LIMITS)
    objects = Objects(kubernetes, Listener())

    async def report(_of: Key, _key: LogKey, _log: StoredLog) -> None:
        raise AssertionError("nothing is collected here")

    collector = Collector(SkyPilot(), store, report, Pace())
    return Stage(kubernetes, objects, store, Archive(store, objects, collector, kubernetes))


async def test_a_name_stands_for_the_object_that_has_it_now(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    await stage.happen(event(launched_as("aa")))
    assert await stage.read() == b"of the first\n"
    await stage.happen(event(launched_as("aa"), "DELETED"), event(launched_as("bb")))
    with pytest.raises(NoLogError, match="no job log yet"):
        await stage.read()
    stage.keep("bb", 1, b"of the second\n")
    assert await stage.read() == b"of the second\n"
    assert await stage.read(uid="aa") == b"of the first\n"


async def test_a_name_that_is_free_stands_for_the_object_that_had_it_last(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    await stage.happen(event(launched_as("aa")), event(launched_as("aa"), "DELETED"))
    assert await stage.read() == b"of the first\n"
    with pytest.raises(NoObjectError, match="no SkyCluster ml/other"):
        await stage.read(name="other")


async def test_a_namespace_that_was_made_anew_has_none_of_its_predecessors_logs(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    stage.kubernetes.uids["ml"] = "b2"
    for wanted in ({}, {"uid": "aa"}):
        with pytest.raises(NoLogError):
            await stage.read(**wanted)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, b"attempt 3\n"),
        ({"previous": True}, b"attempt 1\n"),
        ({"attempt": 1}, b"attempt 1\n"),
        ({"job": 7}, b"attempt 1\n"),
        ({"kind": Kind.LAUNCH}, b"launch 3\n"),
    ],
)
async def test_which_of_an_objects_logs_is_meant(stage: Stage, wanted: dict[str, Any], said: bytes) -> None:
    stage.keep("aa", 1, b"attempt 1\n", job=7)
    stage.keep("aa", 3, b"attempt 3\n", job=8)
    stage.keep("aa", 3, b"launch 3\n", kind=Kind.LAUNCH)
    await stage.happen(event(launched_as("aa", attempt=3)))
    assert await stage.read(**wanted) == said


async def test_the_log_of_an_earlier_attempt_is_not_passed_off_as_the_present_one(stage: Stage) -> None:
    stage.keep("aa", 1, b"attempt 1\n")
    await stage.happen(event(launched_as("aa", attempt=2)))
    with pytest.raises(NoLogError, match=r"no job log of attempt 2 yet; of these it has: 1"):
        await stage.read()
    with pytest.raises(NoLogError, match="of job 9"):
        await stage.read(job=9)


async def test_a_name_is_never_the_predecessors_though_the_watch_has_not_told_yet(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    stage.kubernetes.take(event(launched_as("bb")))
    with pytest.raises(NoLogError, match="no job log yet") as raised:
        await stage.read()
    assert not isinstance(raised.value, NoObjectError), "the log may come, and a follower waits for it"
    assert await stage.read(uid="aa") == b"of the first\n"
    await stage.happen(event(launched_as("bb")), event(launched_as("bb"), "DELETED"))
    stage.kubernetes.take(event(launched_as("cc")))
    with pytest.raises(NoLogError, match="no job log yet"):
        await stage.read()


@pytest.mark.parametrize("wanted", [{}, {"uid": "aa"}])
async def test_an_earlier_attempt_is_not_the_present_one_though_the_watch_has_not_told_yet(stage: Stage, wanted: dict[str, Any]) -> None:
    stage.keep("aa", 1, b"attempt 1\n")
    await stage.happen(event(launched_as("aa")))
    stage.kubernetes.take(event(launched_as("aa", attempt=2)))
    with pytest.raises(NoLogError, match="no job log of attempt 2 yet"):
        await stage.read(**wanted)


async def test_an_object_whose_log_outlived_a_restart_is_read_before_the_watch_tells_of_it(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    stage.kubernetes.take(event(launched_as("aa")))
    assert await stage.read() == b"of the first\n"


async def test_an_object_that_is_gone_and_has_no_log_gets_none(stage: Stage) -> None:
    stage.kubernetes.take(event(launched_as("bb")))
    with pytest.raises(NoObjectError, match="with uid aa now"):
        await stage.read(uid="aa")


async def test_what_an_object_is_now_costs_one_question(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    await stage.happen(event(launched_as("aa")))
    stage.kubernetes.asked = 0
    await stage.read()
    assert stage.kubernetes.asked == 0, "the namespace of an object that is known is known"


async def test_who_waits_is_told_of_the_very_object(stage: Stage) -> None:
    with stage.archive.changes(Wanted("ml", "train")) as changed:
        await stage.happen(event(launched_as("bb", name="other")))
        assert not changed.is_set()
        await stage.happen(event(launched_as("aa")))
        assert changed.is_set()
        changed.clear()
        await stage.happen(event(launched_as("aa"), "DELETED"))
        assert changed.is_set()


async def test_what_a_job_returned_is_read_by_name(stage: Stage) -> None:
    log = stage.keep("aa", 1, b"working\n")
    for line in frames.encode(b'{"loss": 0.5}', "abcdefgh"):
        log.take_frame(line.encode())
    await stage.happen(event(launched_as("aa")))
    with pytest.raises(NoLogError):
        await stage.archive.result(Wanted("ml", "train"))
    log.finish(State.COMPLETE, "")
    assert await stage.archive.result(Wanted("ml", "train")) == b'{"loss": 0.5}'


async def test_each_event_is_taken_in_order_and_each_namespace_asked_once_for_an_object() -> None:
    kubernetes, listener = Kubernetes(), Listener()
    objects = Objects(kubernetes, listener)
    this, other = launched_as("aa"), launched_as("bb", name="other")
    for each in (event(this), {"type": "MODIFIED", "object": {**body(this), "spec": 7}}, event(this), event(other)):
        objects.happened(each)
    task = asyncio.create_task(objects.run())
    await asyncio.sleep(0.01)
    assert listener.said == [("aa", "a1"), ("aa", "a1"), ("bb", "a1")]
    assert kubernetes.asked == 2
    objects.forget(objects.uids() - {"bb"})
    assert listener.said[3:] == [("aa", "gone")]
    assert objects.uids() == {"bb"}
    task.cancel()


async def test_one_whose_name_was_taken_while_nobody_watched_is_forgotten(stage: Stage) -> None:
    await stage.happen(event(launched_as("aa")), event(launched_as("bb")))
    stage.objects.forget(stage.objects.uids() - {"bb"})
    assert stage.objects.uids() == {"bb"}
    assert stage.objects.namespace_uid_of("aa") is None


async def test_all_that_there_was_at_the_start_is_met(stage: Stage) -> None:
    """One that is not what its CRD lets in, or whose namespace is gone, is met too: it is waited for no longer."""
    meeting = asyncio.create_task(stage.objects.met(frozenset({"aa", "bb"})))
    await stage.happen(event(launched_as("aa")))
    assert not meeting.done()
    stage.objects.happened({"type": "ADDED", "object": {**body(launched_as("bb", name="other")), "spec": 7}})
    await stage.happen()
    await asyncio.wait_for(meeting, SECONDS)


async def test_the_process_is_ready_once_what_there_was_is_met_or_gone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.objects.LIST_AGAIN_SECONDS", 0.01)
    lists: Iterator[KubeError | frozenset[str]] = iter([KubeError("kube-apiserver is away"), frozenset({"aa", "gone"})])

    async def uids() -> frozenset[str]:
        found = next(lists, frozenset({"aa", "new"}))
        if isinstance(found, KubeError):
            raise found
        return found

    catching_up = asyncio.create_task(catch_up(stage.objects, uids))
    await asyncio.sleep(0.1)
    assert not catching_up.done()
    await stage.happen(event(launched_as("aa")))
    await asyncio.wait_for(catching_up, SECONDS)


async def test_what_can_not_be_listed_holds_up_the_rest_for_a_while_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.objects.CATCH_UP_SECONDS", 0.05)

    async def uids() -> frozenset[str]:
        raise KubeError("no right to list")

    await asyncio.wait_for(catch_up(stage.objects, uids), SECONDS)


@pytest.fixture
def ended(stage: Stage) -> StoredLog:
    log = stage.keep("aa", 2, b"working\n")
    for line in frames.encode(b"[1]", "abcdefgh"):
        log.take_frame(line.encode())
    log.finish(State.COMPLETE, "")
    return log


async def test_an_object_is_told_of_its_log_once(stage: Stage, ended: StoredLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.logs.reporter.AGAIN_SECONDS", 0.0)
    kubernetes = stage.kubernetes
    kubernetes.this, kubernetes.failures = launched_as("aa", attempt=2), 2
    reporter = Reporter(kubernetes)
    of = Key("ml", "train", "aa")
    await reporter.report(of, ended.key, ended)
    (written,) = kubernetes.written
    told = written["log"]
    assert told | {"archivedAt": ""} == {
        "attempt": 2,
        "state": "Archived",
        "bytes": 8,
        "archivedAt": "",
        "result": {"state": "Collected", "bytes": 3, "sha256": hashlib.sha256(b"[1]").hexdigest()},
    }
    assert abs(datetime.now(UTC) - datetime.fromisoformat(told["archivedAt"])) < timedelta(minutes=1)
    kubernetes.this = kubernetes.this.model_copy(update={"status": kubernetes.this.status.model_validate({"log": told})})
    await reporter.report(of, ended.key, ended)
    assert len(kubernetes.written) == 1, "after a restart nothing is written again"


async def test_an_object_that_is_gone_is_told_nothing(stage: Stage, ended: StoredLog) -> None:
    stage.kubernetes.this = launched_as("another")
    await Reporter(stage.kubernetes).report(Key("ml", "train", "aa"), ended.key, ended)
    assert stage.kubernetes.written == []


async def test_a_job_that_returns_nothing_is_told_of_without_a_result(stage: Stage) -> None:
    log = stage.keep("aa", 1, b"working\n")
    log.finish(State.COMPLETE, "")
    stage.kubernetes.this = launched_as("aa")
    await Reporter(stage.kubernetes).report(Key("ml", "train", "aa"), log.key, log)
    (written,) = stage.kubernetes.written
    assert "result" not in written["log"]


async def test_a_uid_opens_no_log_of_another_name(stage: Stage) -> None:
    log = stage.store.open(LogKey("a1", "bb", 1, Kind.JOB), Origin(namespace="ml", name="other", job=1))
    log.append(b"not yours\n")
    stage.keep("aa", 1, b"of the first\n")
    await stage.happen(event(launched_as("aa")), event(launched_as("bb", name="other")))
    assert await stage.read(name="other") == b"not yours\n"
    with pytest.raises(NoLogError):
        await stage.read(uid="bb")


async def test_a_namespace_that_was_made_anew_unseen_has_none_of_its_predecessors_logs(stage: Stage) -> None:
    stage.keep("aa", 1, b"of the first\n")
    await stage.happen(event(launched_as("aa")))
    stage.kubernetes.uids["ml"] = "b2"
    stage.kubernetes.there.clear()
    with pytest.raises(NoLogError):
        await stage.read()
