import re

from hypothesis import given
from hypothesis import strategies as st
from skyoperator.task import cluster_name, job_name

SKYPILOT_CLUSTER = re.compile(r"[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
SKYPILOT_JOB = re.compile(r"[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*")
KUBERNETES_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True)
uids = st.uuids().map(str)


@given(name=names, uid=uids)
def test_a_cluster_name_suits_skypilot_and_kubernetes(name: str, uid: str) -> None:
    made = cluster_name(name, uid)
    assert SKYPILOT_CLUSTER.fullmatch(made)
    assert KUBERNETES_LABEL.fullmatch(made)
    assert len(made) <= 42 - len("-sa-0123456789abcdef"), "what Kubernetes leaves beside a service account's id"


@given(names=st.lists(names, min_size=2, max_size=2), uids=st.lists(uids, min_size=2, max_size=2, unique=True))
def test_two_objects_never_share_a_cluster(names: list[str], uids: list[str]) -> None:
    assert cluster_name(names[0], uids[0]) != cluster_name(names[1], uids[1])
    assert cluster_name(names[0], uids[0]) != cluster_name(names[0], uids[1])


def test_a_cluster_name_can_be_read() -> None:
    assert cluster_name("train", "u1").startswith("train-")
    assert cluster_name("7b.llama", "u1").startswith("s-7b-llama-")
    assert cluster_name("a" * 10 + ".b", "u1").startswith("a" * 10 + "-"), "no two dashes where the cut meets a dot"
    assert "--" not in cluster_name("a" * 10 + ".b", "u1")


def test_a_cluster_name_stays_the_same_for_ever() -> None:
    assert cluster_name("train", "0b4f6d1e-5a55-4c8e-9d5e-3f1c2a7b8c9d") == "train-7ec1c65bd2"


@given(uid=uids, attempts=st.lists(st.integers(1, 10**6), min_size=2, max_size=2, unique=True))
def test_every_attempt_has_a_job_name_of_its_own(uid: str, attempts: list[int]) -> None:
    first, second = (job_name(uid, attempt) for attempt in attempts)
    assert first != second
    assert SKYPILOT_JOB.fullmatch(first)
    assert first == f"{uid[:8]}-a{attempts[0]}"
