"""Tables of tasks that must be refused, each for what it would do on the API server or a node, and of some that must not."""

import datetime as dt
from typing import Any

import pytest
from skyoperator.task import TaskRejected, check

from tests.parser.tasks import POLICY


def rejected(task: dict[str, Any]) -> TaskRejected:
    with pytest.raises(TaskRejected) as raised:
        check(task, policy=POLICY)
    return raised.value


TOP_LEVEL_DENIED: dict[str, Any] = {
    "secrets": {"TOKEN": "x"},
    "managed_secrets": ["TOKEN"],
    "config": {"kubernetes": {"pod_config": {}}},
    "service": {"replicas": 1},
    "pool": {"workers": 1},
    "api_server_access": True,
    "event_callback": "curl x",
    "inputs": {"s3://b": 1},
    "outputs": {"s3://b": 1},
    "file_mounts_mapping": {"/x": "/etc"},
    "volume_mounts": [],
    "_metadata": {},
    "_user_specified_yaml": "run: x",
}


@pytest.mark.parametrize("key", TOP_LEVEL_DENIED)
def test_what_reaches_beyond_the_cluster_is_denied(key: str) -> None:
    error = rejected({"run": "true", key: TOP_LEVEL_DENIED[key]})
    assert error.reason == "PolicyDenied"
    assert error.problems[0].startswith(f"spec.task.{key}: ")


DENIED: dict[str, tuple[dict[str, Any], str]] = {
    "config in disguise, in an alternative": (
        {"resources": {"any_of": [{"cpus": 1}, {"_cluster_config_overrides": {}}]}},
        "spec.task.resources.any_of[1]._cluster_config_overrides",
    ),
    "credentials of a registry": (
        {"resources": {"_docker_login_config": {"username": "u"}}},
        "spec.task.resources._docker_login_config",
    ),
    "a path on the API server": ({"file_mounts": {"/x": "/var/run/secrets"}}, 'spec.task.file_mounts["/x"]'),
    "a relative path on the API server": ({"file_mounts": {"/x": "state.db"}}, 'spec.task.file_mounts["/x"]'),
    "a source of SkyPilot's own": ({"file_mounts": {"/x": "skypilot:x"}}, 'spec.task.file_mounts["/x"]'),
    "a path as workdir": ({"workdir": "/etc"}, "spec.task.workdir"),
    "a path as storage source": ({"file_mounts": {"/x": {"source": "~/.sky"}}}, 'spec.task.file_mounts["/x"].source'),
    "a bucket below another's name": ({"file_mounts": {"/x": "s3://datasets-of-others"}}, 'spec.task.file_mounts["/x"]'),
    "a bucket to be made": (
        {"file_mounts": {"/x": {"source": "s3://datasets", "name": "n"}}},
        'spec.task.file_mounts["/x"].name',
    ),
    "a bucket to be deleted": (
        {"file_mounts": {"/x": {"source": "s3://datasets", "persistent": False}}},
        'spec.task.file_mounts["/x"].persistent',
    ),
    "a disk as bucket": (
        {"file_mounts": {"/x": {"source": "s3://datasets", "store": "volume"}}},
        'spec.task.file_mounts["/x"].store',
    ),
    "arguments of a command": (
        {"file_mounts": {"/x": {"source": "s3://datasets", "config": {"mount": {"hf_mount_args": ["-x"]}}}}},
        'spec.task.file_mounts["/x"].config.mount.hf_mount_args',
    ),
    "another's volume": ({"volumes": {"/x": "prod"}}, 'spec.task.volumes["/x"]'),
    "another's volume by name": ({"volumes": {"/x": {"name": "prod"}}}, 'spec.task.volumes["/x"].name'),
    "a directory of the node": (
        {"volumes": {"/x": {"name": "scratch", "host_path": "/"}}},
        'spec.task.volumes["/x"].host_path',
    ),
    "a disk of the account": ({"resources": {"volumes": []}}, "spec.task.resources.volumes"),
    "a command at the end": ({"resources": {"hooks": [{"run": "curl x"}]}}, "spec.task.resources.hooks"),
    "a label of ours": (
        {"resources": {"labels": {"skyoperator.dev/uid": "x"}}},
        'spec.task.resources.labels["skyoperator.dev/uid"]',
    ),
    "a label of ours for every cloud": (
        {"resources": {"labels": {"skyoperator-uid": "x"}}},
        "spec.task.resources.labels.skyoperator-uid",
    ),
    "the label of our instance": (
        {"resources": {"labels": {"skyoperator-instance": "x"}}},
        "spec.task.resources.labels.skyoperator-instance",
    ),
    "a label of ours in an alternative": (
        {"resources": {"ordered": [{"labels": {"skyoperator-uid": "x"}}]}},
        "spec.task.resources.ordered[0].labels.skyoperator-uid",
    ),
    "the label that SkyPilot finds pods by": (
        {"resources": {"labels": {"skypilot-cluster": "another"}}},
        "spec.task.resources.labels.skypilot-cluster",
    ),
    "the label that ties pods to SkyPilot": ({"resources": {"labels": {"parent": "x"}}}, "spec.task.resources.labels.parent"),
    "a label of the queue": (
        {"resources": {"labels": {"kueue.x-k8s.io/queue-name": "prod"}}},
        'spec.task.resources.labels["kueue.x-k8s.io/queue-name"]',
    ),
}


@pytest.mark.parametrize("name", DENIED)
def test_what_a_task_must_not_reach_is_denied_where_it_stands(name: str) -> None:
    task, path = DENIED[name]
    error = rejected(task)
    assert error.reason == "PolicyDenied"
    assert [problem.partition(": ")[0] for problem in error.problems] == [path]


def at(path: str, value: Any) -> dict[str, Any]:
    """Return a task with the value at the dotted path."""
    for key in reversed(path.split(" ")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


BREAK_OUT = "a\n  securityContext: {privileged: true}"
INVALID: list[tuple[str, Any]] = [
    # What would break out of a template or a command line
    ("resources image_id", f"docker:{BREAK_OUT}"),
    ("resources image_id", {"us-east-1": f"docker:{BREAK_OUT}"}),
    ("resources image_id", {"docker": BREAK_OUT}),
    ("resources image_id", {"us\neast": "ami-1"}),
    ("resources image_id", {"us-east-1": None}),
    ("resources image_id", "docker:a;id"),
    ("resources image_id", "docker:a\n"),
    ("resources priority_class", "high\nx: y"),
    ("resources instance_type", "m5\nx: y"),
    ("resources instance_type", "m5 x"),
    ("resources region", "a\nb"),
    ("resources zone", "a b"),
    ("resources infra", "k8s/ctx\nx: y"),
    ("resources infra", "k8s\n"),
    ("resources accelerators", "H100\n"),
    ("resources accelerators", {"H100: 1\nx": 1}),
    ("resources accelerator_args", {"runtime_version": "a\nb"}),
    ("resources accelerator_args", {"tpu_name": "$(id)"}),
    ("resources labels", {"a\n": "b"}),
    ("resources labels", {"a: b\nc": "d"}),
    ("resources labels", {"a": "b\n"}),
    ("resources labels", {"a": "{{ x }}"}),
    ("resources labels", {"a": "x" * 64}),
    ("resources labels", {"a" * 64: "x"}),
    ("file_mounts /x", "gs://b/;curl x|sh"),
    ("file_mounts /x", "gs://b/$(id)"),
    ("file_mounts /x", "gs://b/a b"),
    ("file_mounts /x", "s3://datasets/../other"),
    ("file_mounts /x", "s3://datasets/"),
    ("file_mounts /x", "file://localhost/etc"),
    ("file_mounts /x", "https://example.com/x"),
    ("file_mounts /x", "S3://datasets"),
    ("file_mounts /x", ["s3://datasets"]),
    ("file_mounts /x", None),
    ("file_mounts /x source", ["/etc"]),
    ("file_mounts /x", {}),
    ("file_mounts /x/../y", "s3://datasets"),
    ("file_mounts /x/", "s3://datasets"),
    ("file_mounts /x;id", "s3://datasets"),
    ("file_mounts -x", "s3://datasets"),
    ("file_mounts s3://b", "s3://datasets"),
    ("volumes x", "scratch"),
    ("volumes /x", {"sub_path": "a"}),
    ("volumes /x", {"name": "scratch", "sub_path": "../a"}),
    ("volumes /x", {"name": "scratch", "sub_path": "a/../../b"}),
    ("workdir url", "https://token@git.example.com/o/r"),
    ("workdir url", "https://user:token@git.example.com/o/r"),
    ("workdir url", "ssh://git:token@git.example.com/o/r"),
    ("workdir url", "http://git.example.com/o/r"),
    ("workdir url", "http://git.example.svc.evil.com/o/r"),
    ("workdir url", "git://git.example.com/o/r"),
    ("workdir url", "ext::sh -c id"),
    ("workdir url", "file:///etc"),
    ("workdir url", "/etc"),
    ("workdir url", "--upload-pack=id"),
    ("workdir url", "-x@h:p"),
    ("workdir url", "ssh://-oProxyCommand=id/x"),
    ("workdir url", "https://h/o/r\n"),
    ("workdir url", "https://h/o/'r"),
    ("workdir url", "https://h/o r"),
    ("workdir url", "https://h"),
    ("workdir", {"ref": "main"}),
    ("workdir", {"url": "https://h/o/r", "ref": "--upload-pack=id"}),
    ("workdir", {"url": "https://h/o/r", "ref": "main -c x=y"}),
    ("workdir", {"url": "https://h/o/r", "ref": "a..b"}),
    ("workdir", {"url": "https://h/o/r", "ref": "main\n"}),
    ("workdir", {"url": "https://h/o/r", "ref": "*"}),
    ("workdir", {"url": "https://h/o/r", "ref": ""}),
    # What SkyPilot would refuse or ignore only after a cluster was asked for
    ("num_nodes", 0),
    ("num_nodes", True),
    ("num_nodes", 2.0),
    ("num_nodes", "2"),
    ("name", "a b"),
    ("name", "a---b"),
    ("name", "x" * 64),
    ("run", ["echo"]),
    ("run", " \n"),
    ("setup", ""),
    ("envs", ["A"]),
    ("envs A", None),
    ("envs A", {}),
    ("envs A", float("nan")),
    ("envs A", 2**64),
    ("envs A-B", "x"),
    ("envs 1A", "x"),
    ("envs A\n", "x"),
    ("envs SKYPILOT_TASK_ID", "x"),
    ("envs SKYPILOT_DOCKER_PASSWORD", "x"),
    ("resources", []),
    ("resources cpus", "four"),
    ("resources cpus", 0),
    ("resources cpus", "0+"),
    ("resources cpus", True),
    ("resources memory", "16x"),
    ("resources memory", -1),
    ("resources disk_size", "100MB"),
    ("resources disk_size", 0),
    ("resources disk_tier", "turbo"),
    ("resources network_tier", 1),
    ("resources local_disk", "tape:1"),
    ("resources use_spot", "yes"),
    ("resources max_hourly_cost", 0),
    ("resources ports", 0),
    ("resources ports", 65536),
    ("resources ports", "80-"),
    ("resources ports", "90-80"),
    ("resources ports", "٣"),
    ("resources ports", []),
    ("resources ports", [True]),
    ("resources accelerators", "H100:0"),
    ("resources accelerators", "H100:x"),
    ("resources accelerators", {"H100": 0}),
    ("resources accelerators", {"H100": "1"}),
    ("resources accelerators", []),
    ("resources accelerators", {}),
    ("resources gpus", {}),
    ("resources any_of", [{"gpus": {}}]),
    ("resources any_of", {"cpus": 1}),
    ("resources any_of", []),
    ("resources any_of", [{"any_of": [{"cpus": 1}]}]),
    ("resources any_of", [{"accelerators": {"H100": 1, "A100": 1}}]),
    ("resources", {"any_of": [{"cpus": 1}], "ordered": [{"cpus": 1}]}),
    ("resources", {"accelerators": ["A100", "H100"], "any_of": [{"cpus": 1}]}),
    ("resources", {"accelerators": {"A100": 1, "H100": 1}, "ordered": [{"cpus": 1}]}),
    ("resources", {"any_of": [{"priority": 1}, {"priority": 2}]}),
    ("resources", {"infra": "k8s", "any_of": [{"region": "x"}]}),
    ("resources", {"infra": "aws", "cloud": "aws"}),
    ("resources", {"gpus": "H100", "accelerators": "H100"}),
    ("resources", {"priority": 1, "priority_class": "a"}),
    ("resources", {"image_id": {"docker": "a", "us-east-1": "docker:b"}}),
    ("resources infra", "mars"),
    ("resources infra", "aws/a/b/c"),
    ("resources infra", "aws//b"),
    ("resources priority", 1001),
    ("resources autostop", 10),
    ("resources job_recovery", "failover"),
    ("resources ephemeral_storage", 1),
    ("file_mounts /x", {"source": "s3://datasets", "mode": "LINK"}),
    ("file_mounts /x", {"source": "s3://datasets", "config": {"mount_cached": {"transfers": 1}}}),
    ("file_mounts /x", {"source": "s3://datasets", "type": "DATASET_RO"}),
    ("file_mounts /x", {"source": "s3://datasets", "mode": "MOUNT_CACHED", "config": {"mount_cached": {"transfers": 0}}}),
    # What is no JSON, as YAML out of a ConfigMap may bring
    ("run", dt.date(2024, 1, 1)),
    ("run", b"x"),
    ("run", "a\x00b"),
    ("run", "\ud800"),
    ("envs", {1: "x"}),
]


@pytest.mark.parametrize(("path", "value"), INVALID, ids=lambda value: ascii(value)[:50])
def test_what_cannot_be_right_is_refused(path: str, value: Any) -> None:
    error = rejected(at(path, value))
    assert error.reason == "InvalidTask"
    assert error.problems[0].startswith(f"spec.task.{path.split(' ', maxsplit=1)[0]}")


ACCEPTED: list[tuple[str, Any]] = [
    ("resources infra", "k8s/arn:aws:eks:us-east-1:1:cluster/my-cluster"),
    ("resources image_id", "projects/p/global/images/family-x"),
    ("resources image_id", {"us-east-1": "ami-1", "us-west-2": "ami-2"}),
    ("resources image_id", {"docker": "debian:bookworm", "us-east-1": "ami-1"}),
    ("resources accelerators", "80GB+"),
    ("resources accelerators", "nvidia:80GB+:2"),
    ("resources accelerator_args", {"tpu_vm": True, "runtime_version": "tpu-vm-base"}),
    ("resources", None),
    ("resources", {"cpus": None, "any_of": [{"image_id": None, "infra": "aws"}]}),
    ("workdir", {"url": "http://git.team.svc/o/r.git"}),
    ("workdir", {"url": "http://git.team.svc.cluster.local:8080/o/r.git/"}),
    ("workdir", {"url": "git@github.com:o/r.git", "ref": "release/1.0"}),
    ("envs", {"GIT_URL": "of my own", "GIT_TOKEN": "of my own"}),
    ("file_mounts ~/data", "s3://datasets/a=1/b.csv"),
    ("run", "x" * 40_000),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED, ids=lambda value: ascii(value)[:50])
def test_what_skypilot_users_write_is_accepted(path: str, value: Any) -> None:
    check(at(path, value), policy=POLICY)
