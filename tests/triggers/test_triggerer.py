"""Each hears of its own object, by one watch, and nobody holds another up. What that costs is printed, and not asserted."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import pytest
from skyoperator_provider.triggers.skycluster import SkyClusterTrigger

from tests.bench.figures import cpu_seconds, memory_mib, report
from tests.e2e.support import eventually
from tests.triggers import COUNT
from tests.triggers.objects import Objects, reads, watches
from tests.triggers.tasks import CONNECTION, Triggerer, defer, events, logs, mark_failed, waiting

SECONDS = 300
"""For whatever is waited for."""
IDLE_SECONDS = 60.0
SAMPLES = 6
OF_THE_LAST_EDIT = {"type": "Complete", "status": "True", "reason": "JobSucceeded", "message": "done", "observedGeneration": 0}
ENDS = (
    ("reached", {"type": "Complete", "status": "True", "reason": "JobSucceeded"}),
    ("failed", {"type": "Failed", "status": "True", "reason": "JobFailed"}),
    ("rejected", {"type": "Accepted", "status": "False", "reason": "InvalidTask"}),
)
DELETED, KEPT = 0, 1
"""Who is killed: the first, who most likely began the watch for all, and one that is to leave its object."""
OTHERS = set(range(COUNT)) - {DELETED, KEPT}


@pytest.mark.parametrize("has_logs", [False, True], ids=["silent", "logs"])
def test_a_thousand_wait_in_one_triggerer(triggerer: Triggerer, run: str, objects: Objects, has_logs: bool) -> None:
    objects.say(dict.fromkeys(range(COUNT), OF_THE_LAST_EDIT))
    watched_before, read_before, memory_before = watched(), reads(), memory(triggerer)
    defer(run, [trigger(number, body["metadata"], has_logs=has_logs) for number, body in enumerate(objects.bodies)])
    eventually("all have looked, and wait", lambda: reads() - read_before >= COUNT, seconds=SECONDS, every_seconds=2)

    began_at, took_before, blocked_before = time.monotonic(), cpu_seconds(triggerer.runner), blocked(triggerer)
    assert watched(within_seconds=IDLE_SECONDS) - watched_before == 1
    share = (cpu_seconds(triggerer.runner) - took_before) / (time.monotonic() - began_at)
    what = f"{COUNT} triggers{' with logs' if has_logs else ''}"
    report(f"{what}: processor, while they wait", f"{share:.1%} of a core", "< 10 %")
    report(f"{what}: memory of the runner", memory(triggerer), "< 300 MiB")
    report("memory of the runner before", memory_before)
    assert waiting(run) == {DELETED, KEPT, *OTHERS}

    mark_failed(run, {DELETED, KEPT})
    eventually("both have gone", lambda: sum("trigger completed" in log for log in logs(run)) == 2, seconds=SECONDS)
    assert objects.names() == {f"n{number}" for number in {KEPT, *OTHERS}}
    assert watched() - watched_before == 1
    assert waiting(run) == OTHERS
    assert blocked(triggerer) == blocked_before

    began_at = time.monotonic()
    objects.say({number: {**ENDS[number % len(ENDS)][1], "message": f"n{number} ended"} for number in OTHERS})
    said_at = time.monotonic()
    eventually("all have heard", lambda: not waiting(run), seconds=SECONDS)
    report(f"{what}: all end in {said_at - began_at:.0f} s; the last event is stored", f"{time.monotonic() - said_at:.1f} s later")
    assert {number: heard(event) for number, event in events(run).items()} == {number: end(number, objects) for number in OTHERS}
    eventually("nobody watches", lambda: watches() == watched_before, seconds=SECONDS)
    began, ended = len(blocked_before), len(blocked(triggerer)) - len(blocked_before)
    report(f"{what}: the loop was blocked", f"{began} times as they began, {ended} as they ended")
    assert "error" not in triggerer.log.read_text().lower()
    assert max(log.count("can't be shown") for log in logs(run)) <= has_logs


def trigger(number: int, metadata: dict[str, Any], *, has_logs: bool) -> SkyClusterTrigger:
    return SkyClusterTrigger(
        **{key: metadata[key] for key in ("name", "namespace", "uid")},
        wait_for="complete",
        kubernetes_conn_id=CONNECTION,
        deadline_epoch_seconds=time.time() + 3600,
        on_kill_action="keep" if number == KEPT else "delete",
        logs=has_logs,
    )


def watched(*, within_seconds: float = 10.0) -> int:
    """Return how many watches there are most of the time: between one and the next there is one less, and others' come and go."""
    samples = []
    for _ in range(SAMPLES):
        time.sleep(within_seconds / SAMPLES)
        samples.append(watches())
    return int(median(samples))


def memory(triggerer: Triggerer) -> str:
    return f"RSS {memory_mib(triggerer.runner):.0f} MiB, PSS {memory_mib(triggerer.runner, 'Pss'):.0f} MiB"


def heard(event: dict[str, Any]) -> tuple[str, ...]:
    return tuple(event[key] for key in ("status", "reason", "message", "name", "uid"))


def end(number: int, objects: Objects) -> tuple[str, ...]:
    """Return what is to be heard."""
    status, condition = ENDS[number % len(ENDS)]
    return status, condition["reason"], f"n{number} ended", f"n{number}", objects.bodies[number]["metadata"]["uid"]


def blocked(triggerer: Triggerer) -> list[str]:
    """Return Airflow's warnings so far.

    There are some of any thousand triggers as they begin and end: each logs that, and that blocks the loop while the process that is to
    take the lines asks the database (airflow/jobs/triggerer_job_runner.py, run_trigger and run_once).
    """
    return [line for line in triggerer.log.read_text().splitlines() if "async thread was blocked for" in line]
