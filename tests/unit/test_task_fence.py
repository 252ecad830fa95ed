"""The fence, in the bash that runs it: rendered scripts are really run, as jobs of a cluster with a home directory."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator.task import render

JOB = "0b4f6d1e-a1"
CANNOT_CREATE = 73


def script(task: dict[str, Any], stage: str = "run", job: str = JOB) -> str:
    text: str = yaml.safe_load(render(task, job_name=job, labels={}))[stage]
    return text


def start(
    home: Path,
    text: str,
    *,
    launch: str = "sky-2026-11-23-15-34-05-123456",
    job_id: int = 1,
    rank: int = 0,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the script as SkyPilot does: after other commands on the same line, by an interactive bash, with its variables."""
    file = home.parent / f"job-{launch}-{job_id}-{rank}.sh"
    file.write_text(f"#!/bin/bash\nset -a\nset +a\nunset A && unset B; {text}\n\nlast=$?\nexit $last", newline="")
    variables = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "SKYPILOT_TASK_ID": f"{launch}_train-0123456789_{job_id}",
        "SKYPILOT_NODE_RANK": str(rank),
        "SKYPILOT_SETUP_NODE_RANK": str(rank),
        **(env or {}),
    }
    return subprocess.run(
        ["bash", "-i", str(file)], env=variables, capture_output=True, text=True, check=False, timeout=60, cwd=home,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def runs(home: Path) -> int:
    """Return how often a script that appends a line to `ran` did so."""
    return len((home / "ran").read_text().splitlines()) if (home / "ran").exists() else 0


RAN = script({"run": "echo x >> ~/ran"})


def test_a_job_runs_and_ends_as_its_script_ends(home: Path) -> None:
    assert start(home, RAN).returncode == 0
    assert runs(home) == 1
    assert start(home, script({"run": "exit 3"}, job="0b4f6d1e-a2")).returncode == 3
    assert start(home, script({"run": "false"}, job="0b4f6d1e-a3")).returncode == 1


def test_a_duplicate_says_so_and_does_nothing(home: Path) -> None:
    start(home, RAN, job_id=1)
    second = start(home, RAN, job_id=2, launch="sky-2026-11-23-15-35-05-123456")
    assert second.returncode == 0
    assert "already run by job 1" in second.stdout
    assert runs(home) == 1


def test_job_ids_are_compared_as_numbers(home: Path) -> None:
    start(home, RAN, job_id=9)
    assert start(home, RAN, job_id=10).returncode == 0
    assert runs(home) == 1


def test_of_many_at_once_exactly_one_runs_and_no_lower_job_succeeds_idly(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda job_id: start(home, RAN, job_id=job_id), range(1, 9)))
    assert runs(home) == 1
    ran = [index for index, one in enumerate(done) if one.returncode == 0 and "already run" not in one.stdout]
    assert len(ran) == 1
    assert all(one.returncode == CANNOT_CREATE for one in done[: ran[0]]), "a job before the one that ran must not look green"
    assert all("already run" in one.stdout for one in done[ran[0] + 1 :])


def test_every_attempt_and_every_node_runs_once_even_in_a_home_they_share(home: Path) -> None:
    for rank in range(3):
        assert start(home, RAN, rank=rank).returncode == 0
    assert runs(home) == 3
    assert start(home, script({"run": "echo x >> ~/ran"}, job="0b4f6d1e-a2"), job_id=2).returncode == 0
    assert runs(home) == 4


def test_a_run_that_ray_starts_again_fails_rather_than_repeat_itself(home: Path) -> None:
    start(home, RAN)
    again = start(home, RAN)
    assert again.returncode == CANNOT_CREATE
    assert "has begun here before" in again.stderr
    assert runs(home) == 1


def test_setup_and_run_of_a_job_belong_together(home: Path) -> None:
    task = {"setup": "echo s >> ~/setup", "run": "echo x >> ~/ran"}
    setup, run = script(task, "setup"), script(task, "run")
    assert start(home, setup, job_id=1).returncode == 0
    assert start(home, setup, job_id=2).returncode == 0, "the duplicate's setup does nothing"
    assert start(home, run, job_id=2).returncode == 0, "and neither does its run, though it comes first"
    assert runs(home) == 0
    assert start(home, run, job_id=1).returncode == 0
    assert runs(home) == 1
    assert (home / "setup").read_text() == "s\n"


def test_setup_without_run_may_repeat() -> None:
    assert script({"setup": "echo x >> ~/ran"}, "setup") == "echo x >> ~/ran"


def test_a_home_that_outlived_its_cluster_never_looks_like_success(home: Path) -> None:
    start(home, RAN, job_id=1, launch="sky-2026-01-01-00-00-00-000000")
    later = start(home, RAN, job_id=1)
    assert later.returncode == CANNOT_CREATE
    assert "belongs to sky-2026-01-01-00-00-00-000000_train-0123456789_1" in later.stderr


def broken(kind: str, home: Path) -> dict[str, str]:
    """Break the home directory, and return the variables that differ."""
    if kind == "full disk":  # /dev/full cannot hold a directory either
        return {"HOME": "/dev/full"}
    if kind == "read-only home":
        return {"HOME": "/proc/self/fdinfo"}
    if kind == "a file in the way":
        (home / ".skyoperator").write_text("")
        return {}
    if kind == "a directory in the way":
        (home / f".skyoperator/attempts/{JOB}-node0").mkdir(parents=True)
        return {}
    return {"SKYPILOT_TASK_ID": ""}


@pytest.mark.parametrize("kind", ["full disk", "read-only home", "a file in the way", "a directory in the way", "no job to name"])
@pytest.mark.parametrize("stage", ["setup", "run"])
def test_what_cannot_be_claimed_fails_loudly_and_runs_nothing(home: Path, kind: str, stage: str) -> None:
    text = script({"setup": f"echo x >> {home}/ran", "run": f"echo x >> {home}/ran"}, stage)
    done = start(home, text, env=broken(kind, home))
    assert done.returncode == CANNOT_CREATE
    assert re.search(f"skyoperator: not running {JOB}: .+", done.stderr)
    assert runs(home) == 0


SCRIPTS: dict[str, tuple[str, str]] = {
    "shebang": ("#!/bin/sh\necho out", "out\n"),
    "comment": ("# only a comment", ""),
    "heredoc": ("cat <<'E'\n$x `y` 'z'\nE\n", "$x `y` 'z'\n"),
    "unfinished last line": ("echo a\necho b", "a\nb\n"),
    "set -e": ("set -euo pipefail\necho a\ntrue\necho b", "a\nb\n"),
    "functions": ("f() { local me=1; echo f$me; }\nf", "f1\n"),
    "background": ("sleep 0 &\nwait\necho done", "done\n"),
    "exec": ("exec echo replaced", "replaced\n"),
    "nothing of the fence is left": ('declare -F skyoperator_fence; echo "[${me-}${mark-}${owner-}${why-}]"', "[]\n"),
    "three dashes": ("echo a\n---() { echo b; }\n---", "a\nb\n"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_any_shape_runs_as_it_would_alone(home: Path, name: str) -> None:
    text, expected = SCRIPTS[name]
    done = start(home, script({"run": text}))
    assert done.stdout == expected
    assert done.returncode == 0


def test_set_e_before_the_fence_does_not_turn_a_duplicate_red(home: Path) -> None:
    start(home, RAN, job_id=1)
    assert start(home, f"set -eu; {RAN}", job_id=2).returncode == 0


def test_set_e_in_a_script_fails_the_job(home: Path) -> None:
    done = start(home, script({"run": "set -e\nfalse\necho never"}))
    assert done.returncode == 1
    assert "never" not in done.stdout
