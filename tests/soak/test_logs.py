"""Logs in amounts: many readers of one job, a log of a gigabyte, a volume that is full. Prints what it measured."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local.layout import layout
from tests.e2e.support import RELEASE, SMALL, KubectlError, Sky, eventually, kubectl
from tests.e2e.test_logs import LOGS, account, log_server, read, told
from tests.soak.chaos import Forward, kill_processes, pod_of, processes

Apply = Callable[..., Sky]
READERS = 50
GIBIBYTE = 1 << 30
KEPT_BYTES = 64 << 20
EDGE_BYTES = 16 << 10
LINE_BYTES = 1001
"""What `base64` makes of 750 bytes, and its line feed."""
SMALL_VOLUME = "4Mi"


@pytest.fixture(scope="module")
def viewer() -> str:
    return account("viewer", may_read=True)


def memory_bytes() -> int:
    """The resident memory of the log process."""
    pod = pod_of("logs")
    assert pod is not None
    (pid,) = processes("skyoperator.logs", within=pod["metadata"]["uid"])
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


class Reader:
    """Somebody who follows a log through kube-apiserver, and remembers a digest, the beginning and the end of it only."""

    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self.session = session
        self.name = name
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.beginning = self.end = b""

    async def read(self) -> None:
        server = json.loads(kubectl("config", "view", "--minify", "-o", "json"))["clusters"][0]["cluster"]["server"]
        async with self.session.get(server + told(self.name, follow="true")) as answer:
            assert answer.status == 200, await answer.text()
            async for chunk in answer.content.iter_any():
                self.digest.update(chunk)
                self.bytes += len(chunk)
                self.beginning = (self.beginning + chunk)[:EDGE_BYTES]
                self.end = (self.end + chunk)[-EDGE_BYTES:]


def session(token: str) -> aiohttp.ClientSession:
    authority = (layout().state / "pki" / "ca.crt").read_text()
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority), limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    return aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)


async def test_fifty_readers_share_one_stream_in_flat_memory(apply: Apply, viewer: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = "x" * 900
    this = apply("crowd", task={"resources": SMALL, "run": f"for i in $(seq 3000); do echo $i {line}; sleep 0.02; done"})
    await asyncio.to_thread(eventually, "the job runs", lambda: this.status().get("job", {}).get("status") == "RUNNING", seconds=240)
    alone = memory_bytes()
    streams: list[int] = []
    memory: list[int] = []
    async with session(viewer) as shared:
        readers = [Reader(shared, this.name) for _ in range(READERS)]
        reading = asyncio.gather(*(reader.read() for reader in readers))
        with Forward().open() as forward:
            while not reading.done():
                await asyncio.sleep(2)
                memory.append(memory_bytes())
                streams.append(await asyncio.to_thread(streams_of, forward, this.cluster))
        await reading
    assert {reader.digest.digest() for reader in readers} == {readers[0].digest.digest()}
    assert readers[0].bytes > 3000 * 900
    assert max(streams) == 1, streams
    with capsys.disabled():
        grown = (max(memory) - alone) / 2**20
        print(f"\n{READERS} readers of {readers[0].bytes} bytes each: 1 stream, memory {alone >> 20} MiB and {grown:.0f} MiB more at most")
    assert max(memory) - alone < 64 << 20


def streams_of(forward: Forward, cluster: str) -> int:
    """How many streams of a cluster's logs SkyPilot has open."""
    try:
        return sum(request["name"].removeprefix("sky.") == "logs" for request in forward.requests_of(cluster))
    except OSError:
        return 0


def test_a_log_of_a_gigabyte_is_kept_within_its_bound(apply: Apply, viewer: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    run = f"yes $(head -c 750 /dev/urandom | base64 -w 0) | head -c {GIBIBYTE} | nl -w 9"
    this = apply("flood", task={"resources": SMALL, "run": run}, autostop={"idleMinutes": 60}, whenFinished="Keep")
    this.until("Complete", seconds=1500)
    eventually("its log was had", lambda: this.status().get("log"), seconds=1500, every_seconds=5)
    record = this.status()["log"]
    assert record["bytes"] > GIBIBYTE
    pod = pod_of("logs")
    assert pod is not None
    used = kubectl("exec", "-n", RELEASE, pod["metadata"]["name"], "--", "python", "-c", SIZE).strip()
    reader = served(this.name, viewer)
    first, last = numbers_in(reader.beginning), numbers_in(reader.end)
    with capsys.disabled():
        memory, took = memory_bytes() >> 20, time.monotonic() - began
        print(f"\n{record}: {used} bytes on the volume, {reader.bytes} served, {memory} MiB of memory, {took:.0f} s in all")
    assert KEPT_BYTES // 2 < reader.bytes <= KEPT_BYTES + (8 << 20)
    assert int(used) <= KEPT_BYTES
    assert memory < 512
    assert first[:3] == [1, 2, 3]
    assert last == list(range(last[0], last[0] + len(last)))
    assert last[-1] >= GIBIBYTE // LINE_BYTES
    assert "cut" in record["message"]


SIZE = """
import pathlib
print(sum(file.stat().st_size for file in pathlib.Path("/var/lib/skyoperator/logs").rglob("*") if file.is_file()))
"""


def numbers_in(text: bytes) -> list[int]:
    """The numbers that nl has given the whole lines of this part of the log."""
    return [int(number) for number in re.findall(rb"^[^\n]*\) +(\d+)\t[^\n]+\n", text, re.MULTILINE)]


def served(name: str, token: str) -> Reader:
    async def run() -> Reader:
        async with session(token) as own:
            reader = Reader(own, name)
            await reader.read()
            return reader

    return asyncio.run(run())


@pytest.fixture
def small_volume() -> Iterator[None]:
    """The log process with a volume that is full after 4 MiB."""
    deployment = f"deployment/{LOGS}"
    claim = json.loads(kubectl("get", deployment, "-n", RELEASE, "-o", "json"))["spec"]["template"]["spec"]["volumes"]
    (before,) = (volume for volume in claim if volume["name"] == "logs")
    mount({"name": "logs", "persistentVolumeClaim": None, "emptyDir": {"medium": "Memory", "sizeLimit": SMALL_VOLUME}})
    yield
    mount({**before, "emptyDir": None})


def mount(volume: dict[str, Any]) -> None:
    patch = {"spec": {"template": {"spec": {"volumes": [volume]}}}}
    kubectl("patch", f"deployment/{LOGS}", "-n", RELEASE, "-p", json.dumps(patch))
    kubectl("rollout", "status", f"deployment/{LOGS}", "-n", RELEASE, "--timeout=120s", timeout_seconds=130)


def test_a_full_volume_stops_nothing_but_itself(small_volume: None, apply: Apply, viewer: str, capsys: pytest.CaptureFixture[str]) -> None:
    this = apply("brimful", task={"resources": SMALL, "run": "head -c 12000000 /dev/urandom | base64; echo the end"})
    reason, _ = this.until("Complete", seconds=300)
    assert reason == "JobSucceeded"
    record = eventually("it is told what is missing", lambda: this.status().get("log"), seconds=60)
    with capsys.disabled():
        print(f"\n{record}")
    assert record["state"] == "Incomplete"
    assert "No space left" in record["message"]
    eventually("its cluster is gone", lambda: this.status()["cluster"].get("status") == "TERMINATED", seconds=90)
    assert served(this.name, viewer).bytes > 1 << 20, "what was kept is served"
    this.delete()


def test_authority_and_certificate_are_made_anew_under_running_readers(apply: Apply, viewer: str) -> None:
    this = apply("patient", task={"resources": SMALL, "run": "for i in $(seq 150); do echo line $i; sleep 1; done"})
    eventually("the job runs", lambda: this.status().get("job", {}).get("status") == "RUNNING", seconds=240)
    before, pods = shown(), pod_of("logs")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(served, this.name, viewer)
        kubectl("patch", "secret", f"{LOGS}-tls", "-n", RELEASE, "--type=merge", "-p", '{"data":null}')
        eventually("another certificate is shown", lambda: shown() != before, seconds=150, every_seconds=5)
        kubectl("wait", "--for=condition=Available", "apiservice/v1alpha1.logs.skyoperator.dev", "--timeout=30s")
        eventually("readers get through", lambda: b"line 1" in read(this.name, viewer), seconds=30)
        assert reading.result(timeout=400).bytes > 150 * len("line 1"), "who was reading reads to the end"
    after = pod_of("logs")
    assert pods is not None
    assert after is not None
    assert after["metadata"]["uid"] == pods["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == pods["status"]["containerStatuses"][0]["restartCount"]


def test_a_log_process_that_dies_is_soon_back(apply: Apply, viewer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """How long discovery is partial, and namespaces wait that are deleted: it has one replica, since its logs are on one volume."""
    this = apply("outlived", task={"resources": SMALL, "run": "echo line 1"})
    this.until("Complete", seconds=300)
    eventually("its log was had", lambda: this.status().get("log"), seconds=60)
    for what, end in {"killed": kill_log_process, "its pod deleted": delete_log_pod}.items():
        seconds = seconds_without(end, this.name, viewer)
        with capsys.disabled():
            print(f"\nthe log process, {what}: served again after {seconds:.1f} s")


def seconds_without(end: Callable[[], object], name: str, token: str) -> float:
    """Let the log process end; return how long it took until another one served this log through kube-apiserver."""
    before, began = incarnation(), time.monotonic()
    end()
    eventually("another process serves it", lambda: incarnation() != before and reads(name, token), seconds=120, every_seconds=0.2)
    seconds = time.monotonic() - began
    kubectl("wait", "--for=condition=Available", "apiservice/v1alpha1.logs.skyoperator.dev", "--timeout=30s")
    return seconds


def kill_log_process() -> None:
    pod = pod_of("logs")
    assert pod is not None
    assert kill_processes("skyoperator.logs", within=pod["metadata"]["uid"]) == 1


def delete_log_pod() -> None:
    kubectl("delete", "pod", "-n", RELEASE, "-l", "app.kubernetes.io/component=logs", "--wait=false")


def incarnation() -> tuple[str, int] | None:
    """Which process of which pod it is; None while there is none."""
    pod = pod_of("logs")
    started = pod["status"].get("containerStatuses") if pod is not None else None
    return (pod["metadata"]["uid"], started[0]["restartCount"]) if pod is not None and started else None


def reads(name: str, token: str) -> bool:
    with suppress(KubectlError):
        return b"line 1" in read(name, token)
    return False


def shown() -> str:
    """The certificate that the log server shows."""
    with log_server() as url:
        return ssl.get_server_certificate(("localhost", int(url.rpartition(":")[2])))
