"""Tasks that a user may write, generated: each is meant to pass `check`, and SkyPilot's own parser after it."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from skyoperator.task import Policy

POLICY = Policy(
    allowed_buckets=("s3://datasets", "gs://models/public", "https://account.blob.core.windows.net/box"),
    allowed_volumes=("scratch", "team-data"),
)
LABELS = {
    "skyoperator-uid": "0b4f6d1e-5a55-4c8e-9d5e-3f1c2a7b8c9d",
    "skyoperator-instance": "4e1d5e0c-9b1f-4c55-8a8e-0d8a2d1f6b7a",
}

# Text that YAML 1.1, bash or a template engine might take for something else.
TRICKY = (
    "yes", "no", "null", "~", "012", "0x1f", "1e3", "1_000", "1:30", "2024-01-01", ".nan", "=", "<<", "- a", "a: b", "# x",
    "---\na: b", "...", "%YAML 1.1", "&a *a", "!!python/object:os.system", "{{ x }}", "{% if x %}", "$HOME", "${PATH}", "`id`",
    "$(id)", "'\"'", '", "/x": "/etc', "a\\", "\ttab", " lead", "trail ", "a\r\nb", "\n\n", "é\u2028\u0085\ufeff", "\U0001f600", "x" * 300,
)  # fmt: skip

texts = st.sampled_from(TRICKY) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in range(32) if c not in (9, 10, 13)])
)
scripts = texts.filter(lambda text: text.strip())
env_names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: not name.startswith(("SKYPILOT", "GIT_")))
env_values = texts | st.integers(-(2**53), 2**53) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
label_keys = st.from_regex(r"(?:team\.example\.com/)?[a-z][a-z0-9_.-]{0,20}[a-z0-9]", fullmatch=True).filter(
    lambda key: not key.startswith(("skypilot", "ray", "skyoperator")) and key not in ("parent", "component")
)
label_values = st.from_regex(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?)?", fullmatch=True)
labels = st.dictionaries(label_keys, label_values, max_size=3)
accelerators = st.sampled_from(["H100", "H100:8", "A100-80GB:1", "V100:0.5"])

PLACES: list[dict[str, Any]] = [
    {"infra": "k8s"}, {"infra": "Kubernetes"}, {"infra": "k8s/gke_project_zone_name"}, {"infra": "aws/us-east-1"},
    {"infra": "aws/*/us-east-1a"}, {"infra": "*/us-east-1"}, {"infra": "*"}, {"cloud": "gcp"},
    {"cloud": "AWS", "region": "us-east-1", "zone": "us-east-1a"}, {},
]  # fmt: skip


def _common() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "cpus": st.sampled_from([1, 0.5, "4", "4+", "2.5"]),
        "memory": st.sampled_from([16, 1.5, "16", "16+", "32GB", "1tb+", "8Gi"]),
        "use_spot": st.booleans(),
        "disk_size": st.sampled_from([100, "100", "512GB", "1TB", "2Ti"]),
        "disk_tier": st.sampled_from(["low", "Medium", "best"]),
        "network_tier": st.just("standard"),
        "local_disk": st.sampled_from(["nvme", "SSD", "nvme:1000+", "500+"]),
        "max_hourly_cost": st.sampled_from([1, 0.25]),
        "ports": st.sampled_from([8080, "8080", "8000-8010", [8080, "9000-9001"], "8000,9000", [22]]),
        "labels": labels,
        "image_id": st.sampled_from(["docker:registry.example.com:5000/a/b:1@sha256:0123", {"docker": "debian:bookworm"}]),
    }


def _accelerators(many: bool) -> st.SearchStrategy[Any]:
    one = accelerators | st.sampled_from([{"H100": 1}, {"V100": 0.5}])
    return one | st.sampled_from([{"H100": 1, "A100": None}, ["H100:8", "A100"]]) if many else one


@st.composite
def resources(draw: st.DrawFn) -> dict[str, Any]:
    """Return a `resources` object, sometimes with alternatives."""
    key = draw(st.sampled_from(["any_of", "ordered", None]))
    gpu = draw(st.sampled_from(["gpus", "accelerators"]))
    base: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=_common()))
    base |= draw(st.sampled_from([{}, {"priority": 5}, {"priority_class": "high"}]))
    if key is None:
        chosen = draw(st.none() | _accelerators(many=True))
        return {**base, **draw(st.sampled_from(PLACES)), **({gpu: chosen} if chosen else {})}
    items = draw(st.lists(st.fixed_dictionaries({}, optional=_common()), min_size=1, max_size=3))
    each: list[dict[str, Any]] = [{**item, **draw(st.sampled_from(PLACES)), gpu: draw(_accelerators(many=False))} for item in items]
    return {**base, key: each}


def _mounts() -> st.SearchStrategy[dict[str, Any]]:
    targets = st.from_regex(r"(?:/|~/|)[a-z][a-z0-9._-]{0,8}(?:/[a-z0-9_]{1,5})?", fullmatch=True).filter(
        lambda path: path != "~/sky_workdir"
    )
    uris = st.sampled_from(["s3://datasets", "s3://datasets/a/b.csv", "gs://models/public/x=1", "s3://datasets/${BUCKET}"])
    azure = st.just("https://account.blob.core.windows.net/box/a")
    storage = st.sampled_from(
        [
            {"source": "s3://datasets"},
            {"source": "s3://datasets", "mode": "copy"},
            {"source": "s3://datasets", "mode": "MOUNT", "config": {"mount": {"read_only": True}}},
            {"source": "s3://datasets", "mode": "MOUNT_CACHED", "type": "DATASET_RO"},
            {
                "source": "s3://datasets",
                "mode": "MOUNT_CACHED",
                "config": {"mount_cached": {"transfers": 4, "buffer_size": "64M", "vfs_write_back": "1h5s"}},
            },
        ]
    )
    return st.dictionaries(targets | st.just("/data/$BUCKET"), uris | azure | storage, max_size=3)


volumes = st.dictionaries(
    st.from_regex(r"/[a-z]{1,8}", fullmatch=True),
    st.sampled_from(["scratch", {"name": "team-data"}, {"name": "scratch", "sub_path": "a/b-c"}]),
    max_size=2,
)
workdirs = st.fixed_dictionaries(
    {"url": st.sampled_from(["https://git.example.com/o/r", "ssh://git@h.example.com:2222/o/r.git", "git@h.io:o/r.git"])},
    optional={"ref": st.sampled_from(["main", "v1.2", "feature/x+y", "0123abc", "refs/tags/v1", "refs/heads/main"])},
)


secrets = st.dictionaries(
    env_names.map(lambda name: f"S_{name}") | st.sampled_from(["GIT_TOKEN", "GIT_SSH_KEY"]),
    (texts | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))),
    max_size=4,
)


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    """Return a task that passes `check` under POLICY."""
    task: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"envs": st.dictionaries(env_names, env_values, max_size=4)},
            optional={
                "name": st.sampled_from(["train", "my.task-1", "A"]),
                "num_nodes": st.integers(1, 64),
                "resources": resources() | st.none(),
                "file_mounts": _mounts(),
                "volumes": volumes,
                "workdir": workdirs,
                "setup": scripts,
                "run": scripts,
            },
        )
    )
    task["envs"]["BUCKET"] = draw(st.sampled_from(["a", "b-1", "x.y"]))
    return copy.deepcopy(task)  # what is sampled above would otherwise be shared between examples


ALLOWED_INFRA = ("k8s", "aws/us-east-1", "gcp")
ON_REQUEST: dict[str, st.SearchStrategy[Any]] = {
    "config": st.sampled_from(
        [
            {"kubernetes": {"provision_timeout": 600}},
            {"kubernetes": {"pod_config": {"metadata": {"annotations": {"a": "${HOME}"}}}}, "docker": {"run_options": ["--shm-size=1g"]}},
            {"hooks": [{"run": "echo bye", "events": ["down"]}]},
            {},
        ]
    ),
    "event_callback": scripts,
    "api_server_access": st.booleans(),
    "inputs": st.just({"s3://datasets": 1.5}),
    "outputs": st.just({"gs://models": 2}),
}


@dataclass(frozen=True)
class Written:
    """A task that a policy allows, and what is rendered with it."""

    task: dict[str, Any]
    policy: Policy
    secrets: dict[str, str] = field(default_factory=dict)
    autostop_minutes: int | None = None


def _somewhere(place: dict[str, Any], infra: str) -> dict[str, Any]:
    """Return the resources with the infra in place of wherever they were to be."""
    return {"infra": infra, **{key: value for key, value in place.items() if key not in ("infra", "cloud", "region", "zone")}}


@st.composite
def written(draw: st.DrawFn) -> Written:
    """Return a task out of `tasks` with secrets, autostop, and keys and places that its policy names."""
    task = draw(tasks())
    asked = draw(st.fixed_dictionaries({}, optional=ON_REQUEST))
    policy = replace(POLICY, allow_task_keys=tuple(asked))
    if draw(st.booleans()):
        policy = replace(policy, allowed_infra=ALLOWED_INFRA)
        places = st.sampled_from(["k8s", "Kubernetes/my-context", "AWS/us-east-1/us-east-1a", "gcp/us-central1"])
        found = dict(task.get("resources") or {})
        key = next((key for key in ("any_of", "ordered") if key in found), None)
        each = {key: [_somewhere(item, draw(places)) for item in found[key]]} if key else _somewhere({}, draw(places))
        task = {**task, "resources": {**_somewhere(found, "k8s"), **each}}
    return Written({**task, **copy.deepcopy(asked)}, policy, draw(secrets), draw(st.none() | st.integers(1, 10_000)))
