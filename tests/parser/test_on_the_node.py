"""What we render, in the scripts that SkyPilot puts on a node: its git_clone.sh and its wrapping of `run`, really run."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from skyoperator.sky.masking import masked
from skyoperator.task import cluster_digest, render

from tests.parser.conftest import SkyPilot
from tests.parser.tasks import TRICKY, secrets

JOB = "0b4f6d1e-a1"
CANARY = "c4n4ry-5ecret"
IDENTITY = {f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def rendered(task: dict[str, Any], values: dict[str, str] | None = None) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(render(task, job_name=JOB, labels={}, secrets=values or {}))
    return loaded


class Repository:
    """A repository of three commits: v1 is tagged, 20240101 is a branch, main is the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        for content in ("v1", "20240101", "main"):
            (path / "content").write_text(content)
            self.git("add", "content")
            self.git("commit", "-q", "-m", content)
            self.git(*{"v1": ("tag", "v1"), "20240101": ("branch", "20240101"), "main": ("status",)}[content])

    def git(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path), **IDENTITY}
        done = subprocess.run(["git", *arguments], cwd=self.path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def git_clone(skypilot: SkyPilot, target: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    tool = skypilot.must("script", json.dumps({"run": "", "envs": {}}))["git_clone"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(target.parent), **variables}
    return subprocess.run(["bash", tool, str(target)], env=environment, capture_output=True, text=True, check=False)


def clone(skypilot: SkyPilot, repository: Repository, target: Path, ref: str | None) -> str:
    """Run git_clone.sh with the variables of a task that has this ref, and return what the clone holds."""
    workdir = {"url": "https://git.example.com/o/r", **({"ref": ref} if ref else {})}
    variables = {**rendered({"workdir": workdir})["envs"], "GIT_URL": str(repository.path)}
    done = git_clone(skypilot, target, variables)
    assert done.returncode == 0, done.stderr
    return (target / "content").read_text()


@pytest.mark.parametrize(
    ("ref", "content"),
    [
        (None, "main"),
        ("main", "main"),
        ("refs/heads/main", "main"),
        ("v1", "v1"),
        ("refs/tags/v1", "v1"),
        ("20240101", "20240101"),
        ("refs/heads/20240101", "20240101"),
    ],
)
def test_a_ref_is_what_the_job_finds(skypilot: SkyPilot, repository: Repository, tmp_path: Path, ref: str | None, content: str) -> None:
    assert clone(skypilot, repository, tmp_path / "clone", ref) == content


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_a_commit_is_found_by_as_many_digits_as_one_gives(skypilot: SkyPilot, repository: Repository, tmp_path: Path, digits: int) -> None:
    commit = repository.git("rev-parse", "main~1")
    assert clone(skypilot, repository, tmp_path / "clone", commit[:digits]) == "20240101"


@pytest.mark.parametrize("ref", [None, "main", "refs/heads/main"])
def test_a_cluster_that_is_kept_gets_the_branch_as_it_is_now(
    skypilot: SkyPilot, repository: Repository, tmp_path: Path, ref: str | None
) -> None:
    clone(skypilot, repository, tmp_path / "clone", ref)
    (repository.path / "content").write_text("newer")
    repository.git("commit", "-q", "-a", "-m", "newer")
    assert clone(skypilot, repository, tmp_path / "clone", ref) == "newer"


def test_another_repository_takes_another_cluster(skypilot: SkyPilot, repository: Repository, tmp_path: Path) -> None:
    """git_clone.sh fails in a clone of something else, so an edit of workdir.url can't be brought to a live cluster."""
    clone(skypilot, repository, tmp_path / "clone", "main")
    before, after = ({"workdir": {"url": f"https://git.example.com/o/{name}"}} for name in ("r", "other"))
    assert git_clone(skypilot, tmp_path / "clone", rendered(after)["envs"]).returncode == 1
    assert cluster_digest(before) != cluster_digest(after)


def test_a_token_reaches_the_repository_it_is_for(skypilot: SkyPilot, repository: Repository, tmp_path: Path) -> None:
    out = rendered({"workdir": {"url": "https://git.example.com/o/r"}}, {"GIT_TOKEN": "t0ken"})
    instead = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.path}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://t0ken@git.example.com/o/r",
    }
    done = git_clone(skypilot, tmp_path / "clone", {**out["envs"], **out["secrets"], **instead})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clone" / "content").read_text() == "main"


def clone_command(skypilot: SkyPilot, task: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    out = rendered(task, values)
    return skypilot.must("clone", json.dumps({**out["envs"], **out["secrets"]}))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=secrets.filter(bool))
def test_a_secret_is_data_to_the_shell_that_clones(skypilot: SkyPilot, values: dict[str, str]) -> None:
    command = clone_command(skypilot, {"workdir": {"url": "https://git.example.com/o/r"}}, values)["command"]
    exports = command[: command.rindex("bash ")]
    done = subprocess.run(["/bin/bash", "-c", f"{exports} env -0"], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    assert {name: found.get(name) for name in values} == values


def test_what_skypilot_says_about_a_failed_clone_holds_secrets_until_it_is_masked(skypilot: SkyPilot) -> None:
    task = {"workdir": {"url": "https://h.io/o/r"}}
    words = clone_command(skypilot, task, {"HF_TOKEN": CANARY})["words"]
    assert CANARY in words, "SkyPilot hides them itself now"
    told = masked(words)
    assert CANARY not in told
    assert told.startswith("Command export GIT_URL=*** && export HF_TOKEN=***")


def run(
    skypilot: SkyPilot, home: Path, task: dict[str, Any], job_id: int, values: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    out = rendered(task, values)
    envs = {
        **out["envs"],
        **out.get("secrets", {}),
        "SKYPILOT_TASK_ID": f"sky-2026-11-23-15-34-05-123456_train-0123456789_{job_id}",
        "SKYPILOT_NODE_RANK": "0",
    }
    text = skypilot.must("script", json.dumps({"run": out["run"], "envs": envs}))["script"]
    file = home / f"job{job_id}.sh"
    file.write_text(text)
    (home / "sky_workdir").mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/bash", "-i", str(file)], env={"PATH": os.environ["PATH"], "HOME": str(home)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=60, start_new_session=True,
    )  # fmt: skip


def test_the_fence_holds_in_skypilots_own_script(skypilot: SkyPilot, tmp_path: Path) -> None:
    task = {"envs": {"GREETING": 'it\'s "$HOME"\n'}, "run": '#!/bin/bash\nset -e\npwd\necho "$GREETING"\nexit 7'}
    first = run(skypilot, tmp_path, task, job_id=1)
    assert first.returncode == 7, first.stderr
    assert first.stdout == f'{tmp_path}/sky_workdir\nit\'s "$HOME"\n\n'
    second = run(skypilot, tmp_path, task, job_id=2)
    assert second.returncode == 0
    assert "already run by job 1" in second.stdout


@pytest.mark.parametrize("value", [*TRICKY, "$(touch x)", "a\nexit 1\n"], ids=ascii)
def test_a_secret_is_data_to_the_job(skypilot: SkyPilot, tmp_path: Path, value: str) -> None:
    task = {"run": 'printf "%s" "$TOKEN" | od -An -v -tx1 | tr -d " \n"'}
    done = run(skypilot, tmp_path, task, job_id=1, values={"TOKEN": value})
    assert bytes.fromhex(done.stdout) == value.encode(), done.stderr
