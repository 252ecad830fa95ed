"""kubectl sky status and top: what they show, and what they say when they can't."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.api.v1alpha1 import Phase
from skyoperator.cli.fields import duration
from skyoperator.cli.main import SORTS, main
from skyoperator.cli.pace import seconds_of
from skyoperator.cli.table import COLOURS
from skyoperator.cli.top import PATHS

from tests.unit.fake_api import complete, conditioned, failed, sky_cluster
from tests.unit.sky_command import Sky, pauses, sky, write_kubeconfig

__all__ = ["pauses", "sky"]

NOW = datetime(2026, 1, 1, 3, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("status", "top"):
        monkeypatch.setattr(f"skyoperator.cli.{module}.now", lambda: NOW)


def up(name: str, **cluster: Any) -> dict[str, Any]:
    found = {"name": f"{name}-1234", "status": "UP", "infra": "Kubernetes/in-cluster", "resources": "1x(cpus=1)", "nodes": 1}
    launched = {"launchedAt": "2026-01-01T01:00:00Z"}
    return sky_cluster(name, cluster={**found, **launched, **cluster}, job={"id": 1, "name": "j", "status": "RUNNING"})


def test_status_of_one_object_has_all_that_a_person_needs(sky: Sky) -> None:
    this = up("train", endpoints=[{"port": "8080", "url": "10.0.0.1:8080"}], idleSince="2026-01-01T03:00:00Z")
    failures = {"count": 2, "reason": "NoCapacity", "message": "No node is free.", "nextRetryTime": "2026-01-01T04:00:00Z"}
    this["status"]["failures"] = failures
    sky.api.put(conditioned(this, Ready=("True", "Running", "Job 1 was\nsubmitted.")))

    shown = sky.run("status", "train").text

    assert shown.splitlines()[:4] == ["Name:           train", "Namespace:      team", "Status:         Running", "Age:            3h12m"]
    for expected in (
        "  Name:         train-1234",
        "  Launched:     2026-01-01T01:00:00Z (2h12m ago)",
        "  Idle:         12m",
        "  Port 8080:    10.0.0.1:8080",
        "  Attempt:      1",
        "  Count:        2 (backoffLimit 3)",
        "  Message:      No node is free.",
        "  Ready   True     Running   3h12m   Job 1 was submitted.",
        "  Job:          kubectl sky logs train -n team",
        "  Launch:       kubectl sky logs train -n team --provision",
    ):
        assert expected in shown.splitlines()


def test_status_of_a_new_object_says_that_the_controller_has_not_seen_it(sky: Sky) -> None:
    this = sky_cluster()
    this["status"] = {}
    sky.api.put(this)

    shown = sky.run("status", "train").text

    assert "Pending" in shown
    assert "has not seen the latest edit" in shown
    assert "Cluster:" not in shown


def test_the_table_is_aligned(sky: Sky) -> None:
    sky.api.put(conditioned(up("a"), Ready=("True", "Running", "")))
    sky.api.put(failed(sky_cluster("a-much-longer-name")))

    lines = sky.run("status").text.splitlines()

    assert lines[0].split() == ["NAME", "READY", "STATUS", "REASON", "ATTEMPT", "JOB", "INFRA", "AGE"]
    assert {line[lines[0].index("STATUS") :].split()[0] for line in lines[1:]} == {"Running"}
    assert lines[1].split() == ["a", "True", "Running", "Running", "1", "RUNNING", "Kubernetes/in-cluster", "3h12m"]


def test_colours_are_for_terminals_and_do_not_shift_columns(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    sky.api.put(up("a"))
    sky.api.put({**up("b"), "status": {"phase": "Failed"}})
    plain = sky.run("status").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    coloured = sky.run("status").out
    monkeypatch.setenv("NO_COLOR", "1")

    assert b"\x1b[31mFailed\x1b[0m" in coloured
    assert coloured.replace(b"\x1b[31m", b"").replace(b"\x1b[32m", b"").replace(b"\x1b[0m", b"") == plain
    assert sky.run("status").out == plain


def test_every_phase_but_the_quiet_one_has_a_colour() -> None:
    assert set(COLOURS) == {phase.value for phase in Phase} - {Phase.SUSPENDED.value}


def test_documents_are_the_objects(sky: Sky) -> None:
    sky.api.put(complete(sky_cluster()))
    this = sky.api.objects["team", "train"]

    assert json.loads(sky.run("status", "train", "-o", "json").out) == this
    assert yaml.safe_load(sky.run("status", "train", "-o", "yaml").out) == this
    assert json.loads(sky.run("status", "-o", "json").out) == {"apiVersion": "v1", "kind": "List", "items": [this]}


def test_top_shows_what_is_up(sky: Sky) -> None:
    sky.api.put(up("train", idleSince="2026-01-01T03:00:00Z"))
    sky.api.put(up("gone", status="TERMINATED"))
    sky.api.put(sky_cluster("not-yet"))

    lines = sky.run("top").text.splitlines()

    assert [line.split() for line in lines] == [
        ["NAME", "CLUSTER", "STATUS", "INFRA", "RESOURCES", "NODES", "AGE", "IDLE", "JOB"],
        ["train", "train-1234", "UP", "Kubernetes/in-cluster", "1x(cpus=1)", "1", "2h12m", "12m", "RUNNING"],
    ]


def test_top_of_all_namespaces(sky: Sky) -> None:
    sky.api.put(up("train"))
    other = up("train")
    other["metadata"]["namespace"] = "elsewhere"
    sky.api.put(other)

    assert [line.split()[0] for line in sky.run("top", "-A").text.splitlines()] == ["NAMESPACE", "elsewhere", "team"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("age", ["old", "young"]),
        ("idle", ["young", "old"]),
        ("nodes", ["young", "old"]),
        ("infra", ["young", "old"]),
        ("name", ["old", "young"]),
    ],
)
def test_top_is_sorted(sky: Sky, column: str, expected: list[str]) -> None:
    """The oldest, the longest idle and the biggest first; what is not idle comes last."""
    sky.api.put(up("old", launchedAt="2025-01-01T00:00:00Z", nodes=2))
    sky.api.put(up("young", idleSince="2026-01-01T00:00:00Z", nodes=10, infra="AWS"))

    lines = sky.run("top", "--sort-by", column).text.splitlines()

    assert [line.split()[0] for line in lines[1:]] == expected


def test_every_column_can_be_sorted_by() -> None:
    assert tuple(PATHS) == SORTS


def test_top_for_programs(sky: Sky) -> None:
    sky.api.put(up("train"))

    [record] = json.loads(sky.run("top", "-o", "json").out)

    assert record["launchedAt"] == "2026-01-01T01:00:00Z"
    assert record["idleSince"] is None
    assert (record["namespace"], record["nodes"]) == ("team", 1)


@pytest.mark.parametrize("command", ["status", "top"])
def test_nothing_is_said_to_be_nothing(sky: Sky, command: str) -> None:
    ran = sky.run(command)

    assert (ran.code, ran.out) == (0, b"")
    assert "namespace team" in ran.err


def test_the_namespace_is_the_flag_s_else_the_context_s_else_default(sky: Sky) -> None:
    sky.run("status")
    sky.run("status", "--context", "plain")
    sky.run("-n", "before", "status", "--context", "plain")
    sky.run("-n", "before", "status", "-n", "behind")

    asked = [path.split("/")[5] for _, path, _ in sky.api.asked]
    assert asked == ["team", "default", "before", "behind"]


def test_all_namespaces_and_a_name_do_not_go_together(sky: Sky) -> None:
    assert sky.run("status", "train", "-A").code == 2


def test_a_missing_crd_is_told_from_a_missing_object(sky: Sky) -> None:
    sky.api.has_crd = False

    for command in (("status",), ("status", "train"), ("top", "-A"), ("wait", "train", "--for=deleted")):
        ran = sky.run(*command)
        assert ran.code == 3
        assert "skyoperator is not installed" in ran.err


def test_a_missing_right_in_all_namespaces_is_named(sky: Sky) -> None:
    sky.api.forbidden.add(("list everywhere", "skyclusters"))

    ran = sky.run("top", "-A")

    assert ran.code == 3
    assert "You may not list skyclusters in all namespaces." in ran.err
    assert 'apiGroups: ["skyoperator.dev"], resources: [skyclusters], verbs: [list]' in ran.err
    assert 'User "jane"' in ran.err


def test_credentials_that_do_not_count(sky: Sky) -> None:
    sky.api.token = "another"

    ran = sky.run("status")

    assert ran.code == 3
    assert "expired" in ran.err


def test_no_kubeconfig(sky: Sky, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["status", "--kubeconfig", str(tmp_path / "none")]) == 3
    assert b"There is no kubeconfig at" in capsysbinary.readouterr().err


def test_no_such_context(sky: Sky) -> None:
    ran = sky.run("status", "--context", "elsewhere")

    assert ran.code == 3
    assert "elsewhere" in ran.err


def test_a_kubeconfig_that_is_none(sky: Sky) -> None:
    sky.kubeconfig.write_text("just words")

    assert sky.run("status").code == 3


def test_a_server_that_does_not_answer(sky: Sky, tmp_path: Path) -> None:
    write_kubeconfig(sky.kubeconfig, 1)

    ran = sky.run("status")

    assert ran.code == 3
    assert "was not reached" in ran.err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3599, "59m"),
        (3600, "1h"),
        (3660, "1h1m"),
        (86399, "23h59m"),
        (86400, "1d"),
        (90000, "1d1h"),
        (864000, "10d"),
    ],
)
def test_ages_have_two_units_at_most(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_a_timeout_is_read_as_kubectl_reads_it(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    words = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert seconds_of(words) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


@given(st.text(alphabet="019.hms -x", max_size=8))
def test_a_timeout_is_never_read_in_part(words: str) -> None:
    """What is read is numbers and units to the last letter."""
    try:
        seconds_of(words)
    except ValueError:
        return
    assert re.fullmatch(r"([0-9]+(\.[0-9]+)?(h|m|s|ms))+", words)
