"""taskRef and secrets: read when something is launched, refused in plain words, and never shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from skyoperator import references
from skyoperator.api.v1alpha1 import ConditionType, SkyCluster
from skyoperator.decision import Launch, TearDown
from skyoperator.inputs import Inputs
from skyoperator.kube import KubeError
from skyoperator.task import Policy
from skyoperator.world import ABSENT

from tests.unit.build import NAME, NOW, a_cluster, a_request, a_world, after, an_object, condition, decide
from tests.unit.fakes import FakeKube
from tests.unit.states import RUNNING, UNACKNOWLEDGED

CANARY = "s3cret-canary"
TOKEN = [{"name": "TOKEN", "secretKeyRef": {"name": "hf", "key": "token"}}]
A_TASK = "resources: {infra: k8s}\nrun: echo from the map\n"


def referring(**spec: Any) -> SkyCluster:
    return an_object(**{"task_": None, "task": None, "taskRef": {"name": "tasks"}, **spec})


async def read(this: SkyCluster, *, config_maps: dict[str, dict[str, str]] | None = None, secrets: Any = None) -> Inputs:
    return await references.read(FakeKube(config_maps=config_maps or {}, secrets=secrets or {}), this, Policy())


async def test_the_task_comes_from_the_config_map() -> None:
    inputs = await read(referring(), config_maps={"tasks": {"task.yaml": A_TASK}})
    assert inputs.task == {"resources": {"infra": "k8s"}, "run": "echo from the map"}
    decision = decide(referring(), a_world(), inputs)
    assert isinstance(decision.action, Launch)
    assert decision.status.launch is not None
    assert decision.status.launch.has_run


@pytest.mark.parametrize(
    ("config_maps", "words"),
    [
        ({}, "spec.taskRef: there is no ConfigMap tasks in namespace ml"),
        ({"tasks": {"other.yaml": A_TASK}}, "spec.taskRef: ConfigMap tasks has no key task.yaml; it has: other.yaml"),
        ({"tasks": {"task.yaml": "run: [unclosed"}}, "is not one YAML document"),
        ({"tasks": {"task.yaml": "- a list"}}, "must hold a task"),
    ],
)
async def test_a_reference_that_leads_nowhere_is_said_and_may_heal(config_maps: Any, words: str) -> None:
    this = referring()
    decision = decide(this, a_world(), await read(this, config_maps=config_maps))
    assert decision.action is None
    assert decision.after_seconds is not None
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "InvalidTask")
    assert words in next(found.message for found in decision.status.conditions if found.type == "Accepted")
    rejected = this.model_copy(update={"status": decision.status})
    healed = decide(rejected, a_world(), await read(rejected, config_maps={"tasks": {"task.yaml": A_TASK}}))
    assert isinstance(healed.action, Launch)


async def test_a_task_from_a_config_map_is_judged_like_any_other() -> None:
    inputs = await read(referring(), config_maps={"tasks": {"task.yaml": "file_mounts: {/x: /var/run/secrets}\nrun: x\n"}})
    assert condition(decide(referring(), a_world(), inputs).status, ConditionType.ACCEPTED) == ("False", "PolicyDenied")


async def test_a_config_map_that_changes_after_the_launch_is_no_edit() -> None:
    inputs = await read(referring(), config_maps={"tasks": {"task.yaml": A_TASK}})
    launched = referring().model_copy(update={"status": decide(referring(), a_world(), inputs).status})
    changed = await read(launched, config_maps={"tasks": {"task.yaml": "run: echo changed\n"}})
    assert condition(decide(launched, a_world(), changed).status, ConditionType.ACCEPTED)[0] == "True"


@pytest.mark.parametrize(
    ("secrets", "reason", "words"),
    [
        ({}, "SecretNotFound", "spec.secrets[0]: there is no Secret hf in namespace ml"),
        ({"hf": {"other": CANARY.encode()}}, "SecretNotFound", "spec.secrets[0]: Secret hf has no key token"),
        ({"hf": {"token": CANARY.encode() + b"\xff"}}, "InvalidTask", "spec.secrets[0]: key token of Secret hf is not text"),
        ({"hf": {"token": CANARY.encode() + b"\0"}}, "InvalidTask", "spec.secrets[0]: key token of Secret hf is not text"),
        ({"hf": {"token": CANARY.encode() * 10_000}}, "InvalidTask", "setup, run, envs and secrets are 130012 bytes together"),
    ],
    ids=["no secret", "no key", "not utf-8", "a zero byte", "too long"],
)
async def test_a_secret_that_is_missing_or_no_variable_is_said_without_its_value(secrets: Any, reason: str, words: str) -> None:
    this = an_object(secrets=TOKEN)
    inputs = await read(this, secrets=secrets)
    decision = decide(this, a_world(), inputs)
    assert decision.action is None
    assert decision.after_seconds is not None
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", reason)
    assert words in next(found.message for found in decision.status.conditions if found.type == "Accepted")
    assert CANARY not in f"{decision}{inputs}"
    healed = await read(this, secrets={"hf": {"token": b"fine"}})
    assert isinstance(decide(this.model_copy(update={"status": decision.status}), a_world(), healed).action, Launch)


class Locked(FakeKube):
    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        raise KubeError(f"could not read secrets {namespace}/{name}: HTTP 403")


async def test_a_secret_that_can_not_be_read_is_said_and_holds_up_nothing_that_ends_an_object() -> None:
    this = an_object(secrets=TOKEN)
    locked = await references.read(Locked(), this, Policy())
    assert condition(decide(this, a_world(), locked).status, ConditionType.ACCEPTED) == ("False", "SecretNotFound")
    over = suspended(UNACKNOWLEDGED, secrets=TOKEN)
    decision = decide(over, a_world(cluster=a_cluster()), await references.read(Locked(), over, Policy()))
    assert decision.action == TearDown(NAME, (), down=True)


def suspended(this: SkyCluster, **spec: Any) -> SkyCluster:
    """The object in the teardown that suspending it began."""
    asked = this.model_copy(update={"spec": an_object(suspend=True, **spec).spec})
    return after(asked, a_world(cluster=a_cluster()))


async def test_a_value_is_in_no_repr_and_in_no_status() -> None:
    this = an_object(secrets=TOKEN)
    inputs = await read(this, secrets={"hf": {"token": CANARY.encode()}})
    assert dict(inputs.secrets) == {"TOKEN": CANARY}
    assert CANARY not in f"{inputs!r}{decide(this, a_world(), inputs)!r}"


async def test_a_secret_that_clashes_with_an_env_is_refused() -> None:
    this = an_object({"run": "x", "envs": {"TOKEN": "1"}}, secrets=TOKEN)
    decision = decide(this, a_world(), await read(this, secrets={"hf": {"token": b"x"}}))
    assert condition(decision.status, ConditionType.ACCEPTED) == ("False", "InvalidTask")


@pytest.mark.parametrize(
    ("this", "wanted"),
    [
        (an_object(), True),
        (UNACKNOWLEDGED, True),
        (RUNNING, False),
        (an_object(deleting=True), False),
        (an_object().model_copy(update={"abandoned": True}), False),
    ],
    ids=["new", "unacknowledged", "running", "deleting", "abandoned"],
)
def test_secrets_are_read_only_when_something_may_be_launched(this: SkyCluster, wanted: bool) -> None:
    assert references.is_wanted(this) is wanted


async def test_a_secret_that_vanishes_keeps_an_attempt_from_being_sent_again_and_not_from_being_adopted() -> None:
    this = an_object(secrets=TOKEN)
    full = await read(this, secrets={"hf": {"token": b"x"}})
    written = this.model_copy(update={"status": decide(this, a_world(), full).status})
    gone, later = await read(written), NOW + timedelta(minutes=5)
    assert decide(written, a_world(later, attempt=ABSENT), gone).action is None
    assert isinstance(decide(written, a_world(later, attempt=ABSENT), full).action, Launch)
    adopted = decide(written, a_world(later, attempt=a_request(id_="r9")), gone).status
    assert adopted.launch is not None
    assert adopted.launch.request_id == "r9"


WORDS = "Job 1 failed with return code list: [3]\n(train, pid=1) token: hunter22 and more"


@pytest.mark.parametrize(
    ("secrets", "data", "told"),
    [
        ([], {}, WORDS),
        (["TOKEN"], {"key": b"hunter22"}, WORDS.replace("hunter22", "***")),
        (["TOKEN"], {"key": b"first line\nhunter22\n"}, WORDS.replace("hunter22", "***")),
        (["TOKEN"], {"key": b"and"}, WORDS),
        (["TOKEN"], None, WORDS.partition("\n")[0]),
    ],
    ids=["no secret", "a secret", "a line of one", "too short to be one", "one that is gone"],
)
async def test_a_jobs_last_words_are_told_without_its_secrets(secrets: list[str], data: dict[str, bytes] | None, told: str) -> None:
    this = an_object(secrets=[{"name": name, "secretKeyRef": {"name": "hf", "key": "key"}} for name in secrets])
    kube = FakeKube()
    if data is not None:
        kube.secrets["hf"] = data
    assert await references.discreet(kube, this, WORDS) == told
