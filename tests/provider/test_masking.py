"""Airflow's own masker, as a task has it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow.providers.common.compat.sdk import BaseHook, mask_secret
from skyoperator_provider.identity import Identity
from skyoperator_provider.manifest import build, masked_values
from skyoperator_provider.masking import mask

from tests.provider.airflows import secrets_masker


@pytest.fixture(autouse=True)
def fresh_masker() -> Iterator[None]:
    masker = secrets_masker()
    before = set(masker.patterns), masker.replacer
    yield
    masker.patterns, masker.replacer = before


def test_a_secret_that_was_told_is_masked() -> None:
    assert mask("the value is hunter22-told") == "the value is hunter22-told"
    mask_secret("hunter22-told")
    assert mask("the value is hunter22-told") == "the value is ***"


def test_the_password_of_a_connection_is_found_in_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`envs: {WANDB_KEY: "{{ conn.wandb.password }}"}` renders to this."""
    monkeypatch.setenv("AIRFLOW_CONN_WANDB", json.dumps({"conn_type": "http", "password": "hunter22-of-wandb"}))
    password = BaseHook.get_connection("wandb").password
    body = build(Identity("d", "d", "r", "t"), "ml", 1, task={"envs": {"WANDB_KEY": password, "EPOCHS": 3}, "run": "x"})
    assert masked_values(body, mask) == ["spec.task.envs.WANDB_KEY"]


def test_a_name_that_sounds_secret_is_none() -> None:
    """Airflow masks by names as well, and `token` is in this one."""
    body = build(Identity("d", "d", "r", "t"), "ml", 1, task={"envs": {"TOKENIZERS_PARALLELISM": "false"}})
    assert masked_values(body, mask) == []


@pytest.mark.parametrize("key", ["labels", "annotations"])
def test_a_manifests_labels_and_annotations_are_asked_about(key: str) -> None:
    mask_secret("hunter22-told")
    manifest = {
        "apiVersion": "skyoperator.dev/v1alpha1",
        "kind": "SkyCluster",
        "metadata": {key: {"a/b": "hunter22-told", "c": "d"}},
        "spec": {"task": {"run": "x"}},
    }
    body = build(Identity("d", "d", "r", "t"), "ml", 1, manifest=manifest)
    assert masked_values(body, mask) == [f"metadata.{key}.a/b"]


def test_a_password_that_is_a_word_of_the_dags_name_is_none_there() -> None:
    mask_secret("airflow")
    body = build(Identity("airflow", "airflow", "r", "airflow"), "ml", 1, task={"run": "x"})
    assert masked_values(body, mask) == []
