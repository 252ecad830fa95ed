"""docs/task.md says what `check` does, for every key that SkyPilot knows."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator.task import Policy, TaskRejected, check

from tests.parser.conftest import SkyPilot
from tests.parser.tasks import ON_REQUEST, POLICY

PAGE = Path(__file__).parents[2] / "docs" / "task.md"
ROW = re.compile(r"\| `(\w+)` \| (passed|by `\w+`|InvalidTask|PolicyDenied) \| `(.+?)` \| .*\|")
EVERYTHING = replace(POLICY, allow_task_keys=tuple(ON_REQUEST))
LEVELS = {"task": "task", "resources": "resources", "file_mounts": "storage"}


def rows() -> list[tuple[str, str, str, Any]]:
    """Return level, key, verdict and example of each row."""
    found = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        level = section.partition("\n")[0].strip("`")
        found += [(level, key, verdict, yaml.safe_load(example)) for key, verdict, example in ROW.findall(section)]
    return found


def task(level: str, key: str, example: Any) -> dict[str, Any]:
    if level == "task":
        return {key: example}
    if level == "resources":
        return {"resources": {key: example}}
    cached = {"mode": "MOUNT_CACHED"} if key == "type" else {}
    return {"file_mounts": {"/x": {"source": "s3://datasets", **cached, key: example}}}


@pytest.mark.parametrize(("level", "key", "verdict", "example"), rows(), ids=lambda value: str(value)[:30])
def test_each_key_fares_as_the_page_says(level: str, key: str, verdict: str, example: Any) -> None:
    allowing = {
        "passed": Policy(),
        "by `allowedBuckets`": Policy(allowed_buckets=POLICY.allowed_buckets),
        "by `allowedVolumes`": Policy(allowed_volumes=POLICY.allowed_volumes),
        "by `allowTaskKeys`": Policy(allow_task_keys=(key,)),
    }
    if verdict in allowing:
        # Whatever stands in a bucket needs the bucket first.
        mounts = POLICY.allowed_buckets if level == "file_mounts" else allowing[verdict].allowed_buckets
        check(task(level, key, example), policy=replace(allowing[verdict], allowed_buckets=mounts))
    if verdict != "passed":
        with pytest.raises(TaskRejected) as refused:
            check(task(level, key, example), policy=Policy() if verdict in allowing else EVERYTHING)
        assert refused.value.reason == ("PolicyDenied" if verdict in allowing else verdict)
        assert any(key in problem for problem in refused.value.problems)


def test_the_page_names_every_value_of_the_policy_and_what_it_can_let_through() -> None:
    schema = json.loads((PAGE.parents[1] / "deploy/helm/skyoperator/values.schema.json").read_text())["properties"]["policy"]["properties"]
    section = PAGE.read_text().partition("## What the installer decides")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == sorted(schema, key=section.index)
    assert {key for _, key, verdict, _ in rows() if verdict == "by `allowTaskKeys`"} == set(schema["allowTaskKeys"]["items"]["enum"])


@pytest.mark.parametrize("level", LEVELS)
def test_the_page_names_every_key_of_skypilot(skypilot: SkyPilot, level: str) -> None:
    known = {key for key in skypilot.must("schema")[LEVELS[level]] if not key.startswith("_")}
    assert {key for at, key, _, _ in rows() if at == level} == known
