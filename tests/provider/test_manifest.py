"""What a DAG author writes becomes an object that ends by itself, and whose name is ours."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.identity import OWNER_TRY, Identity
from skyoperator_provider.manifest import (
    RETRY_REASONS,
    Defaults,
    ManifestError,
    Options,
    build,
    has_run,
    masked_values,
    namespace_of,
    parse,
    specs_differ,
)

IDENTITY = Identity("prod", "train", "manual__2026-01-01T00:00:00+00:00", "fit")
TASK = {"run": "python t.py", "resources": {"cpus": 2}}
MANIFEST: dict[str, Any] = {"apiVersion": "skyoperator.dev/v1alpha1", "kind": "SkyCluster", "spec": {"task": TASK}}
CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "skyclusters.skyoperator.dev.yaml").read_text())
SPEC_SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=20,
)
TASKS = st.dictionaries(st.text().filter(lambda key: key not in {"apiVersion", "kind"}), JSON, min_size=1, max_size=4)


def made(**given: Any) -> dict[str, Any]:
    return build(IDENTITY, "ml", 1, **given)


def with_spec(**spec: Any) -> dict[str, Any]:
    return {**MANIFEST, "spec": {"task": TASK, **spec}}


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {**MANIFEST, "metadata": metadata}


# The object


def test_a_task_becomes_an_object_of_ours_that_ends_by_itself() -> None:
    assert build(IDENTITY, "ml", 3, task=TASK) == {
        "apiVersion": "skyoperator.dev/v1alpha1",
        "kind": "SkyCluster",
        "metadata": {
            "name": IDENTITY.name,
            "namespace": "ml",
            "labels": IDENTITY.labels,
            "annotations": {**IDENTITY.annotations, OWNER_TRY: "3"},
        },
        "spec": {
            "task": TASK,
            "activeDeadlineSeconds": 86400,
            "autostop": {"idleMinutes": 60},
            "ttlSecondsAfterFinished": 86400,
        },
    }


@given(TASKS)
def test_a_task_is_the_same_however_it_is_given(task: dict[str, Any]) -> None:
    as_dict = made(task=task)
    assert as_dict["spec"]["task"] == task
    assert made(task_text=yaml.safe_dump(task)) == as_dict
    assert made(manifest={**MANIFEST, "spec": {"task": task}}) == as_dict
    assert IDENTITY.owns(as_dict)


@given(JSON, JSON)
def test_whatever_is_given_is_an_object_or_a_manifest_error(task: Any, spec: Any) -> None:
    for given_ in (
        {"task": task},
        {"manifest": spec},
        {"manifest": {**MANIFEST, "spec": spec}},
        {"manifest": {**MANIFEST, "metadata": spec}},
    ):
        try:
            body = made(**given_)
        except ManifestError:
            continue
        json.dumps(body, allow_nan=False)
        assert body["metadata"]["name"] == IDENTITY.name


def test_what_was_given_is_left_as_it_is() -> None:
    """It is rendered anew at each try, from the same DAG object."""
    manifest = with_spec(secrets=[{"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}])
    manifest["metadata"] = {"labels": {"team": "x"}}
    before = copy.deepcopy(manifest)
    made(manifest=manifest, options=Options(secrets={"B": "s/k"}, backoff_limit=1))
    assert manifest == before


@pytest.mark.parametrize("given_", [{}, {"task": TASK, "task_text": "run: x"}, {"task": TASK, "manifest": MANIFEST}])
def test_exactly_one_is_given(given_: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="exactly one of task, task_file and manifest"):
        made(**given_)


# What ends the cluster


@pytest.mark.parametrize(
    ("timeout_seconds", "option", "own", "expected"),
    [
        (None, None, None, 7),
        (90.5, None, None, 91),
        (0.2, None, None, 1),
        (90, 30, None, 30),
        (90, None, 45, 45),
        (90, 45, 45, 45),
    ],
    ids=["default", "execution_timeout", "never zero", "option", "manifest", "both say the same"],
)
def test_where_the_deadline_comes_from(timeout_seconds: float | None, option: int | None, own: int | None, expected: int) -> None:
    manifest = with_spec(**({} if own is None else {"activeDeadlineSeconds": own}))
    options, defaults = Options(active_deadline_seconds=option), Defaults(active_deadline_seconds=7)
    body = made(manifest=manifest, options=options, defaults=defaults, execution_timeout_seconds=timeout_seconds)
    assert body["spec"]["activeDeadlineSeconds"] == expected


def test_what_a_manifest_sets_is_kept() -> None:
    own = {
        "activeDeadlineSeconds": 5,
        "autostop": {"idleMinutes": 5},
        "ttlSecondsAfterFinished": 0,
        "whenFinished": "Keep",
        "backoffLimit": 0,
        "retryOn": [],
    }
    assert made(manifest=with_spec(**own))["spec"] == {"task": TASK, **own}


def test_a_cluster_that_is_left_behind_keeps_its_object() -> None:
    """The CRD refuses a TTL with it (spec, x-kubernetes-validations)."""
    assert "ttlSecondsAfterFinished" not in made(manifest=with_spec(deletionPolicy="Orphan"))["spec"]
    with pytest.raises(ManifestError, match="Orphan"):
        made(manifest=with_spec(deletionPolicy="Orphan"), options=Options(ttl_seconds_after_finished=60))
    assert any("ttlSecondsAfterFinished" in rule["rule"] and "Orphan" in rule["rule"] for rule in SPEC_SCHEMA["x-kubernetes-validations"])


# Options


def test_options_are_fields_of_the_spec() -> None:
    options = Options(
        active_deadline_seconds=60,
        ttl_seconds_after_finished=0,
        autostop_idle_minutes=5,
        secrets={"HF_TOKEN": "hugging-face/token"},
        backoff_limit=0,
        retry_on=["JobFailed", "NoCapacity", "JobFailed"],
        when_finished="Keep",
    )
    spec = made(task=TASK, options=options)["spec"]
    assert spec == {
        "task": TASK,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 0,
        "autostop": {"idleMinutes": 5},
        "secrets": [{"name": "HF_TOKEN", "secretKeyRef": {"name": "hugging-face", "key": "token"}}],
        "backoffLimit": 0,
        "retryOn": ["JobFailed", "NoCapacity"],
        "whenFinished": "Keep",
    }
    assert spec.keys() <= SPEC_SCHEMA["properties"].keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(active_deadline_seconds=0), "activeDeadlineSeconds .* at least 1"),
        (Options(ttl_seconds_after_finished=-1), "ttlSecondsAfterFinished .* at least 0"),
        (Options(backoff_limit=1001), "backoffLimit .* from 0 to 1000"),
        (Options(backoff_limit=True), "backoffLimit"),
        (Options(autostop_idle_minutes=0), "autostop_idle_minutes .* from 1"),
        (Options(retry_on=["Whatever"]), "retry_on .* NoCapacity"),
        (Options(retry_on="JobFailed"), "retry_on must be a list"),
        (Options(when_finished="Stop"), "when_finished must be Down or Keep"),
    ],
)
def test_options_that_the_server_would_refuse(options: Options, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        made(task=TASK, options=options)


def test_the_bounds_are_those_of_the_crd() -> None:
    fields = SPEC_SCHEMA["properties"]
    assert tuple(fields["retryOn"]["items"]["enum"]) == RETRY_REASONS
    assert (fields["backoffLimit"]["minimum"], fields["backoffLimit"]["maximum"]) == (0, 1000)
    idle = fields["autostop"]["properties"]["idleMinutes"]
    assert (idle["minimum"], idle["maximum"]) == (1, 525600)
    assert (fields["activeDeadlineSeconds"]["minimum"], fields["ttlSecondsAfterFinished"]["minimum"]) == (1, 0)
    assert fields["whenFinished"]["enum"] == ["Down", "Keep"]


def test_an_option_against_the_manifest_is_a_mistake() -> None:
    with pytest.raises(ManifestError, match="backoffLimit is 3, and the operator's argument for it 0"):
        made(manifest=with_spec(backoffLimit=3), options=Options(backoff_limit=0))


# Secrets

OWN_SECRET = {"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}


def test_secrets_join_those_of_the_manifest() -> None:
    body = made(manifest=with_spec(secrets=[OWN_SECRET]), options=Options(secrets={"A": "s/k", "B": "s.d/k_1"}))
    assert body["spec"]["secrets"] == [OWN_SECRET, {"name": "B", "secretKeyRef": {"name": "s.d", "key": "k_1"}}]


def test_a_secret_with_two_sources_is_a_mistake() -> None:
    with pytest.raises(ManifestError, match="The secret A is in secrets= and"):
        made(manifest=with_spec(secrets=[OWN_SECRET]), options=Options(secrets={"A": "other/k"}))


@pytest.mark.parametrize("reference", ["hf_abc123", "hf_abc123/", "/hf_abc123", "a/b/c", "Name/key", "na me/key", 7, {"name": "s"}])
def test_a_value_in_place_of_a_reference_is_refused_and_never_repeated(reference: Any) -> None:
    with pytest.raises(ManifestError, match="name-of-the-secret/key") as caught:
        made(task=TASK, options=Options(secrets={"HF_TOKEN": reference}))
    assert str(reference) not in str(caught.value)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "Ä"])
def test_a_secret_is_named_as_a_variable(name: str) -> None:
    with pytest.raises(ManifestError, match="no name of an environment variable"):
        made(task=TASK, options=Options(secrets={name: "s/k"}))


# The manifest


@pytest.mark.parametrize("key", ["name", "generateName"])
def test_the_name_is_ours(key: str) -> None:
    with pytest.raises(ManifestError, match=rf"metadata\.{key} is 'train'; leave it out: the name is made from the task instance"):
        made(manifest=with_metadata(**{key: "train"}))


def test_a_namespace_is_said_once() -> None:
    assert made(manifest=with_metadata(namespace="ml"))["metadata"]["namespace"] == "ml"
    with pytest.raises(ManifestError, match="'research', but the operator's is 'ml'"):
        made(manifest=with_metadata(namespace="research"))
    assert namespace_of(with_metadata(namespace="research")) == "research"
    assert namespace_of(MANIFEST) is None
    assert namespace_of({"metadata": None}) is None


def test_labels_and_annotations_join_ours() -> None:
    metadata = made(manifest=with_metadata(labels={"team": "x"}, annotations={"why": "y"}))["metadata"]
    assert metadata["labels"] == {"team": "x", **IDENTITY.labels}
    assert metadata["annotations"] == {"why": "y", **IDENTITY.annotations, OWNER_TRY: "1"}


@pytest.mark.parametrize("key", ["labels", "annotations"])
def test_ours_are_not_for_others_to_set(key: str) -> None:
    with pytest.raises(ManifestError, match=r"airflow\.skyoperator\.dev/owner-try"):
        made(manifest=with_metadata(**{key: {OWNER_TRY: "7"}}))


def test_what_the_server_sets_does_not_come_back() -> None:
    """A manifest out of `kubectl get -o yaml`: a resourceVersion would be refused at creation."""
    exported = {
        **with_metadata(uid="u", resourceVersion="7", creationTimestamp="t", managedFields=[], finalizers=["x/y"]),
        "status": {"phase": "Failed"},
    }
    body = made(manifest=exported)
    assert set(body) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(body["metadata"]) == {"name", "namespace", "labels", "annotations", "finalizers"}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({**MANIFEST, "kind": "Job"}, r"SkyCluster of skyoperator\.dev/v1alpha1, not skyoperator\.dev/v1alpha1 Job"),
        ({**MANIFEST, "apiVersion": "v1"}, "not v1 SkyCluster"),
        (TASK, "not None None; a SkyPilot task goes into task="),
        ({**MANIFEST, "spec": {}}, "no spec"),
        ({**MANIFEST, "spec": [1]}, r"manifest\.spec must be an object"),
        ({**MANIFEST, "metadata": "x"}, r"manifest\.metadata must be an object"),
        ({**MANIFEST, "sepc": {}}, "no key sepc"),
        (with_metadata(labels=["x"]), r"manifest\.metadata\.labels must be an object"),
        ("kind: SkyCluster", "must be an object, not str"),
    ],
)
def test_what_is_no_manifest(manifest: Any, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        made(manifest=manifest)


def test_a_manifest_as_a_task_is_told_where_it_belongs() -> None:
    for given_ in ({"task": MANIFEST}, {"task_text": json.dumps(MANIFEST)}):
        with pytest.raises(ManifestError, match="give it as manifest="):
            made(**given_)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (date(2026, 1, 1), r"spec\.task\.envs\.X is datetime\.date"),
        (float("nan"), r"spec\.task\.envs\.X is nan"),
        ({1: 2}, r"spec\.task\.envs\.X has the key 1"),
    ],
)
def test_what_json_can_not_hold_is_named(value: Any, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        made(task={"envs": {"X": value}})


def test_tuples_are_lists() -> None:
    assert made(task={"resources": {"ports": (80, 81)}})["spec"]["task"]["resources"]["ports"] == [80, 81]


# YAML


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: a\n---\nrun: b\n", "task_file holds 2 YAML documents"),
        ("run: [", "task_file is no YAML"),
        ("run: a\nrun: b\n", "the key run stands twice"),
        ("", "must hold one object"),
        ("# nothing\n", "must hold one object"),
        ("- run: a\n", "must hold one object"),
        ("a: &a [*a]\n", "an alias in it holds itself"),
        ("a: !!python/object/apply:os.system [id]\n", "task_file is no YAML"),
        ("a: .nan\n", "task_file: a is nan"),
        ("1: a\n", "task_file has the key 1"),
    ],
)
def test_texts_that_are_no_task(text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        made(task_text=text)


WORDS = ["a", ":", " ", "\n", "-", "&x", "*x", "!!int", "!!timestamp", "!!bool", "<<", "{", "]", '"', "?", "|", "1"]


@given(st.text() | st.lists(st.sampled_from(WORDS)).map("".join))
def test_any_text_is_an_object_or_a_manifest_error(text: str) -> None:
    try:
        found = parse(text, "task_file")
    except ManifestError:
        return
    json.dumps(found, allow_nan=False)


def test_dates_stay_as_they_are_written() -> None:
    """SkyPilot makes text of envs; JSON knows no dates."""
    assert parse("envs: {DAY: 2026-01-31, AT: 2026-01-31 10:00:00}", "t") == {"envs": {"DAY": "2026-01-31", "AT": "2026-01-31 10:00:00"}}


def test_one_document_may_be_framed() -> None:
    assert parse("---\nrun: a\n---\n", "t") == {"run": "a"}


def test_anchors_are_written_out() -> None:
    assert parse("a: &x {b: 1}\nc: {<<: *x, d: 2}\n", "t") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


# Reading


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"task": {"run": "x"}}, True),
        ({"task": {"run": " \n"}}, False),
        ({"task": {"run": None}}, False),
        ({"task": {"setup": "x"}}, False),
        ({"taskRef": {"name": "c"}}, None),
    ],
)
def test_whether_there_is_a_job(spec: dict[str, Any], expected: bool | None) -> None:
    assert has_run({"spec": spec}) is expected


def defaulted(body: dict[str, Any]) -> dict[str, Any]:
    """The object as kube-apiserver stores it: with the defaults that the CRD has."""
    defaults = {key: schema["default"] for key, schema in SPEC_SCHEMA["properties"].items() if "default" in schema}
    spec = {**defaults, **body["spec"]}
    if "taskRef" in spec:
        spec["taskRef"] = {"key": "task.yaml", **spec["taskRef"]}
    return {**body, "spec": spec}


@pytest.mark.parametrize(
    "spec", [{"task": TASK}, {"taskRef": {"name": "c"}}, {"task": TASK, "secrets": [], "suspend": False, "backoffLimit": 7}]
)
def test_what_the_server_filled_in_is_no_difference(spec: dict[str, Any]) -> None:
    wanted = made(manifest={**MANIFEST, "spec": spec})
    assert specs_differ(defaulted(wanted), wanted) == []


def test_differences_are_named() -> None:
    found = defaulted(made(manifest=with_spec(backoffLimit=1, whenFinished="Keep", retryOn=["NoCapacity"])))
    wanted = made(task={**TASK, "run": "python other.py"}, options=Options(retry_on=["JobFailed"]))
    assert specs_differ(found, wanted) == ["backoffLimit", "retryOn", "task", "whenFinished"]


def test_sets_have_no_order() -> None:
    one, other = {"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}, {"name": "B", "secretKeyRef": {"name": "s", "key": "k"}}
    found = made(manifest=with_spec(secrets=[one, other], retryOn=["JobFailed", "NoCapacity"]))
    assert specs_differ(found, made(manifest=with_spec(secrets=[other, one], retryOn=["NoCapacity", "JobFailed"]))) == []


# Secrets that were written out


def test_each_place_of_a_secret_is_named() -> None:
    task = {
        "run": "curl -H 'Bearer hunter22' x",
        "envs": {"TOKEN": "hunter22", "PORT": 8080, "DEBUG": True, "NONE": None, "TOKENIZERS_PARALLELISM": "false"},
        "resources": {"any_of": [{"image_id": "docker:x"}, {"image_id": "docker:hunter22"}]},
    }
    assert masked_values(made(task=task), lambda text: text.replace("hunter22", "***")) == [
        "spec.task.run",
        "spec.task.envs.TOKEN",
        "spec.task.resources.any_of[1].image_id",
    ]


def test_numbers_may_be_secrets_too() -> None:
    assert masked_values(made(task={"envs": {"PIN": 123456}}), lambda text: text.replace("123456", "***")) == ["spec.task.envs.PIN"]


def test_a_task_in_a_config_map_has_no_values_here() -> None:
    assert masked_values({"spec": {"taskRef": {"name": "c"}}}, lambda _: "***") == []
