"""docs/task.md says what `check` does, for every key that SkyPilot knows."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from skyoperator.task import Policy, TaskRejected, check

from tests.parser.conftest import SkyPilot
from tests.parser.tasks import POLICY

PAGE = Path(__file__).parents[2] / "docs" / "task.md"
ROW = re.compile(r"\| `(\w+)` \| (passed|by policy|InvalidTask|PolicyDenied) \| `(.+?)` \| .*\|")
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
    if verdict in ("passed", "by policy"):
        check(task(level, key, example), policy=POLICY)
    if verdict != "passed":
        with pytest.raises(TaskRejected) as refused:
            check(task(level, key, example), policy=Policy() if verdict == "by policy" else POLICY)
        assert refused.value.reason == ("PolicyDenied" if verdict == "by policy" else verdict)
        assert any(key in problem for problem in refused.value.problems)


@pytest.mark.parametrize("level", LEVELS)
def test_the_page_names_every_key_of_skypilot(skypilot: SkyPilot, level: str) -> None:
    known = {key for key in skypilot.must("schema")[LEVELS[level]] if not key.startswith("_")}
    assert {key for at, key, _, _ in rows() if at == level} == known
