"""Controller, SkyPilot's API server and kube-apiserver are killed at random while real clusters come and go.

    SKYOPERATOR_CHAOS_KILLS   how often each of the three dies; 3, and 20 in `make chaos`
    SKYOPERATOR_CHAOS_SEED    repeats a run's choices; printed

Three objects at a time: one completes, one exits 3, one is deleted midway. In every second round the controller is a process of this
machine behind a proxy that holds its POST /launch, and something is killed between that and its answer; in the others it is the pod.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NAMESPACE
from tests.e2e.proxy import HoldingProxy
from tests.e2e.support import RELEASE, SMALL, Sky, eventually, free_port, kubectl, nothing_left, rows, skypilot_credentials
from tests.e2e.test_kills import Controller, as_service_account
from tests.soak.chaos import (
    VICTIMS,
    Figures,
    Forward,
    Victim,
    counting,
    executions,
    kill_api_server,
    kill_pod,
    steady,
)

KILLS = int(os.environ.get("SKYOPERATOR_CHAOS_KILLS", "3"))
SEED = int(os.environ.get("SKYOPERATOR_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
KILLS_PER_ROUND = 3
ROUNDS = -(-KILLS // KILLS_PER_ROUND)
END_SECONDS = 900
PENDING_SECONDS = 40
GOODBYE_SECONDS = 4  # a pod that is deleted answers for a moment longer
RETRIES: dict[str, Any] = {"backoffLimit": 20, "retryOn": ["NoCapacity", "SkyPilotError"]}
"""A launch that a dead kube-apiserver fails is tried again; a job that may have run is not."""
RIGHT_ENDS = {"good": ("Complete", "JobSucceeded", 1), "bad": ("Failed", "JobFailed", 1)}
"""How an object ends, with how many executions."""


@dataclass
class Chaos:
    """One run: the seeded choices, the way to SkyPilot, and the controller of this round."""

    chance: random.Random
    figures: Figures
    forward: Forward
    proxy: HoldingProxy
    process: Controller

    def kill(self, victim: Victim, moment: str) -> None:
        """Kill, and wait until what was killed is back, except for the controller: two deaths in one start would be one."""
        self.figures.say(f"kill {victim} {moment}")
        self.figures.kills[victim] += 1
        self.figures.moments[moment] += moment != "at random"
        if victim == "kube-apiserver":
            kill_api_server()
        elif victim == "controller" and self.process.process is not None:
            self.process.kill()
            self.process.start()
        else:
            kill_pod(victim, self.chance)
        if victim == "skypilot":
            time.sleep(GOODBYE_SECONDS)
            eventually("SkyPilot answers again", self.forward.answers, seconds=300, every_seconds=1)


@pytest.fixture
def counter() -> Iterator[None]:
    manifest = str(Path(__file__).with_name("chaos_counter.yaml"))
    kubectl("apply", "-n", NAMESPACE, "-f", manifest)
    kubectl("wait", "--for=condition=Ready", "pod/counter", "-n", NAMESPACE, "--timeout=60s")
    yield
    kubectl("delete", "-n", NAMESPACE, "-f", manifest, "--wait=false", "--grace-period=1")


@pytest.fixture
def chaos(counter: None, tmp_path: Path) -> Iterator[Chaos]:
    figures = Figures(SEED)
    with Forward().open() as forward, HoldingProxy(free_port(), forward.port) as proxy:
        environment = {
            "KUBECONFIG": str(as_service_account(tmp_path, hours=6)),
            "SKYOPERATOR_SKYPILOT_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
            "SKYOPERATOR_CREDENTIALS_DIR": str(skypilot_credentials(tmp_path)),
            "SKYOPERATOR_NAMESPACES": NAMESPACE,
            "SKYOPERATOR_INSTANCE": f"{RELEASE}/{RELEASE}",
            "SKYOPERATOR_LEASE_NAMESPACE": RELEASE,
            "SKYOPERATOR_LEASE_NAME": f"{RELEASE}-controller",
            "SKYOPERATOR_POD_NAME": "killed-in-chaos",
            "SKYOPERATOR_HTTP_PORT": str(free_port()),
        }
        process = Controller(environment, tmp_path / "controller.log")
        yield Chaos(random.Random(SEED), figures, forward, proxy, process)
        process.stop()
        scale(1)
        print(figures.summary())


def test_chaos(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nchaos with SKYOPERATOR_CHAOS_SEED={SEED}: {ROUNDS} rounds")
        for number in range(ROUNDS):
            round_of(chaos, number)
        print(chaos.figures.summary())
    assert all(chaos.figures.kills[victim] >= KILLS for victim in VICTIMS)
    assert chaos.figures.moments["while a launch is pending"] >= min(KILLS // 4, 5)
    assert chaos.figures.moments["between POST and its answer"] >= min(KILLS // 4, 5)


def round_of(chaos: Chaos, number: int) -> None:
    """Three objects, KILLS_PER_ROUND kills of each kind, and the three ends."""
    behind_proxy = number % 2 == 1
    kills = [*VICTIMS] * KILLS_PER_ROUND
    chaos.chance.shuffle(kills)
    if behind_proxy:
        scale(0)
        chaos.process.start()
    names = {role: f"chaos-{role}-{SEED % 1000}-{number}" for role in ("good", "bad", "gone")}
    chaos.figures.say(f"round {number + 1}: {', '.join(names.values())}, controller is {'a process' if behind_proxy else 'the pod'}")
    these = apply_all(chaos, names, kills if behind_proxy else [])
    disturb(chaos, these, kills)
    clusters = judge(chaos, these)
    clear(chaos, these, clusters)
    if behind_proxy:
        chaos.process.stop()
        chaos.process.process = None
        scale(1)


def apply_all(chaos: Chaos, names: dict[str, str], kills: list[Victim]) -> dict[str, Sky]:
    """Apply the three; if there is something to kill, with a kill while the answer to the first POST is held, and again to the next."""
    if not kills:
        return {role: apply(role, name) for role, name in names.items()}
    these: dict[str, Sky] = {}
    for group in (("good",), ("bad", "gone")):
        with chaos.proxy.holding("/launch") as held:
            these |= {role: apply(role, names[role]) for role in group}
            held.wait(seconds=180)
            chaos.kill(kills.pop(), "between POST and its answer")
    return these


def apply(role: str, name: str) -> Sky:
    then = {"good": "sleep 15", "bad": "sleep 10; exit 3", "gone": "sleep 20"}[role]
    spec: dict[str, Any] = {"task": {"resources": SMALL, "run": counting(NAMESPACE, name, then)}, **RETRIES}
    return steady(lambda: Sky.apply(NAMESPACE, name, **spec))


def disturb(chaos: Chaos, these: dict[str, Sky], kills: list[Victim]) -> None:
    """Kill what is left to kill: once while a launch waits in SkyPilot's queue, else whenever; one object is deleted in between."""
    deadline = time.monotonic() + PENDING_SECONDS
    while not chaos.forward.pending_launch() and time.monotonic() < deadline:
        time.sleep(0.2)
    if chaos.forward.pending_launch():
        chaos.kill(kills.pop(), "while a launch is pending")
    delete_before = chaos.chance.randrange(len(kills))
    for number, victim in enumerate(kills):
        time.sleep(chaos.chance.uniform(0, 15))
        if number == delete_before:
            chaos.figures.say(f"delete {these['gone'].name}")
            steady(lambda: kubectl("delete", "skyc", these["gone"].name, "-n", NAMESPACE, "--wait=false", "--ignore-not-found"))
        chaos.kill(victim, "at random")


def judge(chaos: Chaos, these: dict[str, Sky]) -> list[str]:
    """Each object is in its right end state, and has run once. Returns the names of the clusters."""
    eventually(f"{these['gone'].name} is gone", lambda: not steady(these["gone"].exists), seconds=END_SECONDS, every_seconds=2)
    clusters = []
    for role in ("good", "bad"):
        this = these[role]
        eventually(f"{this.name} has ended", partial(ended, this), seconds=END_SECONDS, every_seconds=2)
        end, reason = ended(this)  # type: ignore[misc]
        counted = executions(NAMESPACE).get(this.name, 0)
        chaos.figures.say(f"{this.name}: {end}/{reason}, {counted} executions")
        chaos.figures.ends[f"{role}: {end}/{reason}"] += 1
        assert (end, reason, counted) == RIGHT_ENDS[role], steady(this.body)
        clusters.append(steady(this.status)["cluster"]["name"])
    return clusters


def ended(this: Sky) -> tuple[str, str] | None:
    for type_ in ("Complete", "Failed"):
        found = steady(partial(this.condition, type_))
        if found is not None and found[0] == "True":
            return type_, found[1]
    return None


def clear(chaos: Chaos, these: dict[str, Sky], clusters: list[str]) -> None:
    """Delete the round's objects, and find nothing of them: no pod, no row, no request, no second execution."""
    figures = chaos.figures
    names = [this.name for this in these.values()]
    steady(lambda: kubectl("delete", "skyc", *names, "-n", NAMESPACE, "--ignore-not-found", "--timeout=240s", timeout_seconds=250))
    for cluster in clusters:
        nothing_left(cluster, seconds=60)
    gone = these["gone"].name[:20].rstrip("-")
    eventually("no row of the deleted one", lambda: not [row for row in steady(rows) if row.startswith(gone)], seconds=60)
    eventually("no request is left", chaos.forward.is_idle, seconds=60)
    counted = {name: count for name, count in executions(NAMESPACE).items() if name in names}
    assert max(counted.values(), default=0) <= 1, f"executed twice: {counted}"
    figures.executions += sum(counted.values())
    figures.objects += len(names)
    figures.accepted += accepted(set(names))


def accepted(names: set[str]) -> int:
    """How many launches SkyPilot has taken, by the objects' Events."""
    jsonpath = "{range .items[*]}{.regarding.name}{'\\t'}{.note}{'\\n'}{end}"
    said = steady(lambda: kubectl("get", "events.events.k8s.io", "-n", NAMESPACE, "-o", f"jsonpath={jsonpath}")).splitlines()
    return len({line for line in said if line.partition("\t")[0] in names and "was taken by SkyPilot as request" in line})


def scale(replicas: int) -> None:
    deployment = f"deployment/{RELEASE}-controller"
    steady(lambda: kubectl("scale", deployment, "-n", RELEASE, f"--replicas={replicas}"))
    if replicas:
        steady(lambda: kubectl("rollout", "status", deployment, "-n", RELEASE, "--timeout=120s", timeout_seconds=130))
        return
    gone = ["wait", "--for=delete", "pod", "-n", RELEASE, "-l", "app.kubernetes.io/component=controller", "--timeout=60s"]
    steady(lambda: kubectl(*gone))
