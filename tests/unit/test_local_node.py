"""The local cluster's node: whom its pid file may kill, what its parts read, and what it may reach."""

import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local import build, cgroups, cluster, configs, layout, manifests, node
from deploy.local.commands import Failure
from deploy.local.images import copied
from deploy.local.layout import Layout
from deploy.local.node import Node, Process
from deploy.local.plan import CABLE, Action, plan

PLACES = Layout(cache=Path("/cache"), state=Path("/cache/local"))
SECRETS = {user: f"secret-of-{user}" for user in configs.USERS}


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def record(folder: Path, process: Process, state: str = "/cache/local") -> Path:
    file = folder / "node.json"
    fields = {"pid": process.pid, "started_ticks": process.started_ticks, "boot": process.boot}
    file.write_text(json.dumps({"process": fields, "state": state}))
    return file


def known(process: subprocess.Popen[bytes]) -> Process:
    found = Process.of(process.pid)
    assert found
    return found


def test_a_recorded_process_is_known_again_and_killed(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    found = node.running(record(tmp_path, known(child)))
    assert found == Node(known(child), Path("/cache/local"))
    found.process.kill()
    assert child.wait(10) == -signal.SIGKILL
    assert node.running(tmp_path / "node.json") is None


@pytest.mark.parametrize("stale", [{"started_ticks": 1}, {"boot": "another boot"}])
def test_a_stale_record_never_kills_who_got_the_number_since(tmp_path: Path, child: subprocess.Popen[bytes], stale: dict[str, Any]) -> None:
    former = replace(known(child), **stale)
    assert node.running(record(tmp_path, former)) is None
    former.kill()
    assert child.poll() is None


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert Process.of(ended.pid) is None


def test_a_process_whose_name_looks_like_its_figures_is_read_right(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 2"
    odd.write_text("#!/bin/sh\nread line\n")
    odd.chmod(0o755)
    with subprocess.Popen([odd], stdin=subprocess.PIPE) as process:
        found = Process.of(process.pid)
        process.communicate(b"\n")
    assert found
    assert found.started_ticks > 100


@pytest.mark.parametrize("text", ["", "no json", "{}", '{"process": {"pid": 1}, "state": "/x"}', '{"process": null}'])
def test_a_damaged_record_is_no_node(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    assert node.running(tmp_path / "node.json") is None


def test_a_cluster_of_another_state_folder_is_refused_in_a_sentence(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    theirs = record(tmp_path, known(child), state="/home/other")
    with pytest.raises(Failure, match=r"state in /home/other.*cluster-down"):
        node.own(PLACES, theirs)
    assert node.own(Layout(cache=PLACES.cache, state=Path("/home/other")), theirs) is not None


def actions() -> list[Action]:
    made = plan(PLACES, [Path("/sys/fs/cgroup/memory/skyoperator/node")])["actions"]
    assert isinstance(made, list)
    return made


def commands() -> list[str]:
    return [shlex.join(action["run"]) for action in actions() if "run" in action]


def test_every_action_does_exactly_one_thing() -> None:
    assert [action for action in actions() if len(action.keys() & {"root", "run", "start", "until"}) != 1] == []


def test_the_node_has_no_way_out_of_the_machine() -> None:
    assert not re.search(r"route add (default|0\.0\.0\.0)|MASQUERADE", "\n".join(commands()))
    assert f"iptables -A FORWARD -i cni0 -o {CABLE} -j DROP" in commands()
    assert not any(plugin.get("ipMasq") for plugin in configs.NETWORK["plugins"])  # type: ignore[attr-defined]


def test_nothing_starts_before_the_machines_root_is_out_of_sight() -> None:
    kinds = ["root" if "root" in action else "start" for action in actions() if "root" in action or "start" in action]
    assert kinds[0] == "root"
    assert kinds.count("root") == 1


@pytest.mark.parametrize("folder", ["etc", "usr"])
def test_the_machines_own_folders_are_read_only(folder: str) -> None:
    target = f"/cache/local/root/{folder}"
    bound = commands().index(f"mount --bind /{folder} {target}")
    assert commands()[bound + 1] == f"mount -o remount,bind,ro {target}"


def test_only_containerd_and_kubenode_run_in_the_node() -> None:
    started = {action["start"][0] for action in actions() if "start" in action}
    assert started == {"containerd", "/opt/bin/kubenode"}


def test_kubenode_knows_every_part_that_the_plan_starts() -> None:
    source = (build.KUBENODE / "main.go").read_text()
    parts = [action["start"][1] for action in actions() if action.get("start", [""])[0].endswith("kubenode")]
    assert [part for part in parts if f'case "{part}":' not in source] == []


def test_every_file_that_a_part_reads_is_written() -> None:
    words = " ".join(word for action in actions() for word in action.get("start", []))
    read = set(re.findall(rf"{layout.INSIDE}/etc/([\w./-]+)", words))
    assert read - configs.files(SECRETS, "").keys() == set()


def test_each_user_has_the_token_of_its_own_kubeconfig() -> None:
    files = configs.files(SECRETS, "QQ==")
    rows = {line.split(",")[0]: line.split(",")[1] for line in files["tokens.csv"].splitlines()}
    for key, user in configs.USERS.items():
        token = json.loads(files[f"{key}.kubeconfig"])["users"][0]["user"]["token"]
        assert rows[token] == user.name
    assert [line for line in files["tokens.csv"].splitlines() if "system:masters" in line] == [
        'secret-of-admin,admin,admin,"system:masters"'
    ]


def test_containerd_reads_its_configuration_and_the_kubelet_finds_it() -> None:
    parsed = tomllib.loads(configs.CONTAINERD)
    assert f"unix://{parsed['grpc']['address']}" == configs.KUBELET["containerRuntimeEndpoint"]
    assert parsed["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"] == layout.PAUSE_IMAGE


def test_the_kubelet_never_collects_images_that_cannot_be_pulled_again() -> None:
    assert configs.KUBELET["imageGCHighThresholdPercent"] == 100


def test_claims_without_a_class_get_ours_and_kubenode_serves_it() -> None:
    assert manifests.STORAGE["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}  # type: ignore[index]
    source = (build.KUBENODE / "volumes.go").read_text()
    assert f'provisioner = "{manifests.STORAGE["provisioner"]}"' in source


def test_pods_find_dns_where_coredns_listens() -> None:
    assert configs.KUBELET["clusterDNS"] == [manifests.DNS["spec"]["clusterIP"]]  # type: ignore[index]
    assert f"bind {manifests.DNS_ENDPOINTS['endpoints'][0]['addresses'][0]}" in configs.COREFILE  # type: ignore[index]


def health(folder: Path, **fields: object) -> cluster.Health:
    places = Layout(cache=folder, state=folder)
    (folder / "status.json").write_text(json.dumps({"ready": False, "doing": "", "error": "", "parts": {}, **fields}))
    return cluster.health(places)


def test_a_part_that_died_is_told_apart_from_those_that_run(tmp_path: Path) -> None:
    found = health(tmp_path, ready=True, parts={"etcd": "running", "kubelet": "exited with code 1"})
    assert found.dead == {"kubelet": "exited with code 1"}


def test_a_node_that_wrote_nothing_yet_is_not_ready(tmp_path: Path) -> None:
    assert not cluster.health(Layout(cache=tmp_path, state=tmp_path)).ready


@pytest.mark.parametrize(
    ("environment", "cache", "state"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/skyoperator", "/home/me/.cache/skyoperator/local"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/big"}, "/big/skyoperator", "/big/skyoperator/local"),
        ({"HOME": "/home/me", "SKYOPERATOR_STATE": "/fast"}, "/home/me/.cache/skyoperator", "/fast"),
    ],
)
def test_where_things_lie(environment: dict[str, str], cache: str, state: str) -> None:
    assert layout.layout(environment) == Layout(cache=Path(cache), state=Path(state))


def test_only_missing_packages_are_installed(tmp_path: Path) -> None:
    assert build.missing_packages(tmp_path) == list(build.PACKAGES.values())
    for program in build.PACKAGES:
        (tmp_path / program.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program.lstrip("/")).touch()
    (tmp_path / "usr/sbin/runc").unlink()
    assert build.missing_packages(tmp_path) == ["runc"]


def test_a_dockerfile_tells_what_it_copies_from_the_repository() -> None:
    text = """\
FROM a AS builder
COPY pyproject.toml uv.lock ./
COPY --chown=1:1 controller/ \\
     /src/
RUN echo COPY nothing
FROM b
COPY --from=builder /opt /opt
"""
    assert copied(text) == ["pyproject.toml", "uv.lock", "controller"]


@pytest.mark.parametrize(("marker", "expected"), [("cgroup.controllers", ["."]), ("memory/cgroup.procs", ["cpuset", "memory"])])
def test_both_kinds_of_cgroups_are_found(tmp_path: Path, marker: str, expected: list[str]) -> None:
    for controller in ("cpuset", "memory"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpuset")
    (tmp_path / marker).touch()
    assert cgroups.hierarchies(tmp_path) == [tmp_path / name for name in expected]


def test_what_the_node_holds_in_memory_is_read_from_either_kind(tmp_path: Path) -> None:
    assert cgroups.memory_bytes(tmp_path) is None
    for folder, text in (("memory/skyoperator", "total_rss 5\n"), ("skyoperator", "file 1\nanon 7\n")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "memory.stat").write_text(text)
    assert cgroups.memory_bytes(tmp_path) == 7
    (tmp_path / "skyoperator/memory.stat").unlink()
    assert cgroups.memory_bytes(tmp_path) == 5
