"""Which change of a task is which: none, one that a live cluster takes, or one that takes a new cluster."""

import copy
from typing import Any

import pytest
from hypothesis import given
from skyoperator.task import cluster_digest, digest

from tests.parser.tasks import tasks

BASE: dict[str, Any] = {
    "resources": {"infra": "k8s", "cpus": 2},
    "envs": {"SIZE": "small"},
    "workdir": {"url": "git@h.io:o/r.git", "ref": "main"},
    "file_mounts": {"/data": "s3://datasets/a"},
    "setup": "pip install x",
}

LIVE: list[dict[str, Any]] = [
    {"setup": "pip install y"},
    {"run": "python x.py"},
    {"name": "other"},
    {"envs": {"SIZE": "large"}},
    {"workdir": {"url": "git@h.io:o/r.git", "ref": "v2"}},
    {"workdir": {"url": "ssh://git@h.io/o/r.git"}},
    {"file_mounts": {"/data": "s3://datasets/b", "/more": {"source": "s3://datasets", "mode": "COPY"}}},
    {"file_mounts": {}},
    {"event_callback": "x"},
    {"num_nodes": 1},
    {"volumes": {}},
]
NEW: list[dict[str, Any]] = [
    {"resources": {"infra": "k8s", "cpus": 4}},
    {"resources": {"infra": "k8s", "cpus": 2, "memory": 8}},
    {"resources": {"infra": "k8s", "cpus": 2, "image_id": "docker:debian"}},
    {"resources": {"infra": "k8s", "cpus": 2, "labels": {"team": "x"}}},
    {"resources": {"infra": "k8s", "cpus": 2, "ports": 80}},
    {"resources": {"infra": "aws", "cpus": 2}},
    {"resources": {"any_of": [{"infra": "k8s", "cpus": 2}]}},
    {"resources": None},
    {"num_nodes": 2},
    {"volumes": {"/scratch": "scratch"}},
    {"config": {"kubernetes": {"pod_config": {}}}},
    {"workdir": {"url": "git@h.io:o/other.git", "ref": "main"}},
    {"file_mounts": {"/data": {"source": "s3://datasets"}}},
    {"file_mounts": {"/data": {"source": "s3://datasets", "mode": "MOUNT_CACHED"}}},
]


@pytest.mark.parametrize("edit", LIVE, ids=str)
def test_what_a_live_cluster_takes(edit: dict[str, Any]) -> None:
    assert cluster_digest({**BASE, **edit}) == cluster_digest(BASE)
    if edit not in ({"num_nodes": 1}, {"volumes": {}}):
        assert digest({**BASE, **edit}) != digest(BASE)


@pytest.mark.parametrize("edit", NEW, ids=str)
def test_what_takes_a_new_cluster(edit: dict[str, Any]) -> None:
    assert cluster_digest({**BASE, **edit}) != cluster_digest(BASE)
    assert digest({**BASE, **edit}) != digest(BASE)


def test_a_variable_counts_where_it_is_used() -> None:
    mounted: dict[str, Any] = {"envs": {"V": "a"}, "volumes": {"/x/$V": "scratch"}}
    assert cluster_digest(mounted) != cluster_digest({**mounted, "envs": {"V": "b"}})
    assert cluster_digest(mounted) == cluster_digest({"volumes": {"/x/a": "scratch"}})


@given(task=tasks())
def test_the_same_task_has_the_same_digests(task: dict[str, Any]) -> None:
    other = dict(reversed(copy.deepcopy(task).items()))
    assert (digest(task), cluster_digest(task)) == (digest(other), cluster_digest(other))


def test_the_form_of_a_number_does_not_matter() -> None:
    assert cluster_digest({"resources": {"cpus": 2.0}}) == cluster_digest({"resources": {"cpus": 2}})
