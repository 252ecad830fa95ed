"""What we render, in the scripts that SkyPilot puts on a node: its git_clone.sh and its wrapping of `run`, really run."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator.task import render

from tests.parser.conftest import SkyPilot

JOB = "0b4f6d1e-a1"
IDENTITY = {f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def rendered(task: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(render(task, job_name=JOB, labels={}))
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


def clone(skypilot: SkyPilot, repository: Repository, target: Path, ref: str | None) -> str:
    """Run git_clone.sh with the variables of a task that has this ref, and return what the clone holds."""
    workdir = {"url": "https://git.example.com/o/r", **({"ref": ref} if ref else {})}
    variables = {**rendered({"workdir": workdir})["envs"], "GIT_URL": str(repository.path)}
    tool = skypilot.must("script", json.dumps({"run": "", "envs": {}}))["git_clone"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(target.parent), **variables}
    done = subprocess.run(["bash", tool, str(target)], env=environment, capture_output=True, text=True, check=False)
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


def run(skypilot: SkyPilot, home: Path, task: dict[str, Any], job_id: int) -> subprocess.CompletedProcess[str]:
    envs = {
        **rendered(task)["envs"],
        "SKYPILOT_TASK_ID": f"sky-2026-11-23-15-34-05-123456_train-0123456789_{job_id}",
        "SKYPILOT_NODE_RANK": "0",
    }
    text = skypilot.must("script", json.dumps({"run": rendered(task)["run"], "envs": envs}))["script"]
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
