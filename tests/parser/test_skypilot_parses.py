"""What `check` accepts, SkyPilot's own parser accepts, and nothing but what the user wrote comes out of it."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from skyoperator.task import TaskRejected, check, has_run, render

from tests.parser.conftest import SkyPilot
from tests.parser.tasks import LABELS, POLICY, Written, tasks, written

JOB = "0b4f6d1e-a3"
EVERY_LEVEL = (
    "task", "workdir", "resources", "any_of", "ordered", "accelerator_args", "storage", "storage_config", "mount", "mount_cached",
)  # fmt: skip

slowly = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parsed(skypilot: SkyPilot, task: dict[str, Any]) -> dict[str, Any]:
    return skypilot.must("parse", render(task, job_name=JOB, labels=LABELS, policy=POLICY))


def render_written(what: Written) -> str:
    return render(
        what.task,
        job_name=JOB,
        labels=LABELS,
        policy=what.policy,
        secrets=what.secrets,
        autostop_minutes=what.autostop_minutes,
    )


@slowly
@given(what=written())
def test_skypilot_takes_every_accepted_task_and_adds_nothing(skypilot: SkyPilot, what: Written) -> None:
    out = skypilot.must("parse", render_written(what))
    assert not out["local"], "a path on the API server came out"
    assert not any(out["foreign"].values()), out["foreign"]
    for resources in out["resources"]:
        assert not any(resources["foreign"].values()), resources["foreign"]
        assert LABELS.items() <= resources["labels"].items()
    assert (out["name"], out["dag"]) == (JOB, JOB)
    assert out["num_nodes"] == what.task.get("num_nodes", 1)


@slowly
@given(what=written())
def test_what_the_installer_lets_through_is_what_the_user_wrote(skypilot: SkyPilot, what: Written) -> None:
    out = skypilot.must("parse", render_written(what))
    config = {**what.task.get("config", {})}
    hooks = config.pop("hooks", None)
    for resources in out["resources"]:
        assert (resources["on_request"]["overrides"] or {}) == config
        assert [hook["run"] for hook in resources["on_request"]["hooks"] or ()] == [hook["run"] for hook in hooks or ()]
    default = {"event_callback": None, "api_server_access": True, "inputs": None, "outputs": None}
    assert out["on_request"] == {**default, **{key: what.task[key] for key in default if key in what.task}}


@slowly
@given(what=written())
def test_secrets_arrive_to_the_letter_and_autostop_in_every_alternative(skypilot: SkyPilot, what: Written) -> None:
    out = skypilot.must("parse", render_written(what))
    assert out["secrets"] == what.secrets
    minutes = what.autostop_minutes
    expected = None if minutes is None else {"idle_minutes": minutes, "down": True}
    assert [resources["autostop"] for resources in out["resources"]] == [expected] * len(out["resources"])


def test_a_login_for_a_registry_reaches_the_image_it_is_for(skypilot: SkyPilot) -> None:
    login = {f"SKYPILOT_DOCKER_{part}": "x" for part in ("USERNAME", "PASSWORD", "SERVER")}
    out = skypilot.must("parse", render_written(Written({"resources": {"image_id": "docker:a"}}, POLICY, login)))
    assert [resources["foreign"]["docker_login"] for resources in out["resources"]] == [True]


@slowly
@given(task=tasks())
def test_envs_and_scripts_arrive_to_the_letter(skypilot: SkyPilot, task: dict[str, Any]) -> None:
    out = parsed(skypilot, task)
    users = {key: value for key, value in out["envs"].items() if not key.startswith("GIT_")}
    assert users == {key: str(value) for key, value in task["envs"].items()}
    for stage in ("setup", "run"):
        if has_run(task) and stage in task:
            assert out[stage].endswith(f"\nunset -f skyoperator_fence\n{task[stage]}")
        else:
            assert out[stage] == task.get(stage)


@slowly
@given(task=tasks())
def test_mounts_are_the_ones_the_user_wrote(skypilot: SkyPilot, task: dict[str, Any]) -> None:
    def own(text: str) -> str:
        return text.replace("${BUCKET}", task["envs"]["BUCKET"]).replace("$BUCKET", task["envs"]["BUCKET"])

    out = parsed(skypilot, task)
    wrote = {own(path): source for path, source in task.get("file_mounts", {}).items()}
    came = {**out["file_mounts"], **{path: storage["source"] for path, storage in out["storage"].items()}}
    assert came == {path: own(source if isinstance(source, str) else source["source"]) for path, source in wrote.items()}
    assert out["volumes"] == task.get("volumes", {})
    assert not any(storage.get("name") or storage.get("_is_sky_managed") for storage in out["storage"].values())


ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "a value that closes its own quotes": (
        {"envs": {"V": 'k", "/y": "/etc'}, "file_mounts": {"/x": "s3://datasets/$V"}},
        "local",
    ),
    "the token of the API server": ({"file_mounts": {"/x": "/var/tmp"}}, "local"),
    "a secret of another user": ({"secrets": {"TOKEN": None}}, "managed_secrets"),
    "another's secret by list": ({"secrets": ["secrets:global.TOKEN"]}, "managed_secrets"),
    "another's secret by its own key": ({"managed_secrets": ["TOKEN"]}, "managed_secrets"),
    "config in disguise": (
        {"resources": {"_cluster_config_overrides": {"kubernetes": {"pod_config": {"spec": {"hostNetwork": True}}}}}},
        "overrides",
    ),
    "config in disguise in an alternative": (
        {"resources": {"any_of": [{"_cluster_config_overrides": {"docker": {"run_options": ["--privileged"]}}}]}},
        "overrides",
    ),
    "config": ({"config": {"kubernetes": {"remote_identity": "admin"}}}, "overrides"),
    "a login of ours": (
        {"resources": {"_docker_login_config": {"username": "u", "password": "p", "server": "s"}}},
        "docker_login",
    ),
    "a login in envs": (
        {
            "envs": {f"SKYPILOT_DOCKER_{key}": "x" for key in ("USERNAME", "PASSWORD", "SERVER")},
            "resources": {"image_id": "docker:a"},
        },
        "docker_login",
    ),
    "a disk of the account": ({"resources": {"volumes": [{"path": "/x", "name": "prod"}]}}, "volumes"),
    "a disk by a file mount": ({"file_mounts": {"/x": {"store": "volume", "name": "prod", "source": "/etc"}}}, "local"),
    "a hook that outlives the job": ({"resources": {"autostop": {"idle_minutes": 1, "hook": "curl x"}}}, "hooks"),
    "a callback": ({"event_callback": "curl x"}, "event_callback"),
    "a mapping of files": ({"file_mounts_mapping": {"/x": "/etc"}}, "file_mounts_mapping"),
    "a bucket of its own": ({"file_mounts": {"/x": {"name": "new", "persistent": False}}}, "storage"),
}


def came_out(out: dict[str, Any], what: str) -> bool:
    each = [group for resources in out["resources"] for group in (resources, resources["foreign"], resources["on_request"])]
    places = [out, out["foreign"], out["on_request"], *each]
    return any(place.get(what) for place in places)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_works_on_skypilot_is_refused_by_us(skypilot: SkyPilot, name: str) -> None:
    task, harm = ATTACKS[name]
    if name == "a mapping of files":  # the server takes this key away before it parses the rest
        assert "file_mounts_mapping" in skypilot.must("schema")["task"]
    else:
        assert came_out(skypilot.must("parse", yaml.safe_dump(task)), harm), "SkyPilot is safe from this now"
    with pytest.raises(TaskRejected):
        check(task, policy=POLICY)


def put(level: str, key: str) -> dict[str, Any]:
    """Return a task with the key at the level, with a value that is wrong everywhere."""
    wrong: dict[str, Any] = {key: {"?": ["?"]}}
    storage = {"source": "s3://datasets"}
    at: dict[str, dict[str, Any]] = {
        "task": wrong,
        "workdir": {"workdir": wrong},
        "resources": {"resources": wrong},
        "any_of": {"resources": {"any_of": [wrong]}},
        "ordered": {"resources": {"ordered": [wrong]}},
        "accelerator_args": {"resources": {"accelerator_args": wrong}},
        "storage": {"file_mounts": {"/x": {**storage, **wrong}}},
        "storage_config": {"file_mounts": {"/x": {**storage, "config": wrong}}},
        "mount": {"file_mounts": {"/x": {**storage, "config": {"mount": wrong}}}},
        "mount_cached": {"file_mounts": {"/x": {**storage, "config": {"mount_cached": wrong}}}},
    }
    return at[level]


@pytest.mark.parametrize("level", EVERY_LEVEL)
def test_every_key_of_skypilot_is_known_to_us(skypilot: SkyPilot, level: str) -> None:
    """A key that a new SkyPilot brings must be decided on, not called unknown."""
    for key in skypilot.must("schema")[level]:
        with pytest.raises(TaskRejected) as refused:
            check(put(level, key), policy=POLICY)
        unknown = [problem for problem in refused.value.problems if f"{key}: there is no such key" in problem]
        assert not unknown, f"{level}.{key} is new"


EMPTY: list[dict[str, Any]] = [
    *({key: {}} for key in ("envs", "resources", "file_mounts", "volumes", "config", "inputs")),
    *({"resources": {key: {}}} for key in ("accelerators", "image_id", "labels", "accelerator_args")),
    *({"resources": {key: []}} for key in ("accelerators", "ports", "any_of", "ordered")),
    {"resources": {"any_of": [{}]}},
    {"file_mounts": {"/x": {"source": "s3://datasets", "config": {}}}},
    {"file_mounts": {"/x": {"source": "s3://datasets", "config": {"mount": {}}}}},
]


@pytest.mark.parametrize("task", EMPTY, ids=str)
def test_what_is_empty_is_refused_by_us_or_taken_by_skypilot(skypilot: SkyPilot, task: dict[str, Any]) -> None:
    try:
        text = render_written(Written(task, replace(POLICY, allow_task_keys=("config", "inputs"))))
    except TaskRejected:
        return
    skypilot.must("parse", text)


def test_labels_of_ours_suit_every_cloud(skypilot: SkyPilot) -> None:
    """Without `infra`, SkyPilot refuses a label that any enabled cloud refuses (sky/resources.py:1757)."""
    assert skypilot.must("labels", json.dumps(LABELS)) == {"refused_by": []}
    assert skypilot.must("labels", json.dumps({"skyoperator.dev/uid": "x"})) == {"refused_by": ["GCP"]}
