"""What SkyPilot would choke on, or should never see, gets its reason at once and costs nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.support import SMALL, Sky, kubectl, pods_of

Apply = Callable[..., Sky]

REFUSED = {
    "unknown-key": ({"resources": SMALL, "runn": "echo"}, "InvalidTask", "run"),
    "local-file": ({"resources": SMALL, "run": "ls", "file_mounts": {"/x": "/var/run/secrets"}}, "PolicyDenied", "/var/run/secrets"),
    "injection": (
        {"resources": SMALL, "run": "ls", "envs": {"V": 'k", "/y": "/etc'}, "file_mounts": {"/x": "s3://b/$V"}},
        None,
        "file_mounts",
    ),
    "override": (
        {"resources": {"any_of": [{**SMALL, "_cluster_config_overrides": {"kubernetes": {}}}]}, "run": "ls"},
        "PolicyDenied",
        "_cluster_config_overrides",
    ),
}


def test_a_task_that_is_not_accepted_says_why_and_makes_no_pod(apply: Apply) -> None:
    made = {name: apply(name, task=task) for name, (task, _, _) in REFUSED.items()}
    for name, (_, reason, word) in REFUSED.items():
        got, message = made[name].until_not("Accepted", seconds=20)
        assert got in ({reason} if reason else {"InvalidTask", "PolicyDenied"}), name
        assert word in message
        assert made[name].condition("Stalled") == ("True", got, made[name].condition("Stalled")[2])  # type: ignore[index]
        assert "launch" not in made[name].status()
        assert not pods_of(made[name].name)


def test_an_edit_heals_it(apply: Apply) -> None:
    this = apply("heals", task={"resources": SMALL, "runn": "echo"})
    this.until_not("Accepted", seconds=20)
    kubectl("patch", "skyc", this.name, "-n", this.namespace, "--type=merge", "-p", '{"spec":{"task":{"runn":null,"run":"echo healed"}}}')
    this.until("Accepted", seconds=20)
    this.delete()
