from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.task import TaskRejected, check, parse

from tests.parser.tasks import POLICY, TRICKY, tasks

BOMB = "a: &a [x, x, x, x]\n" + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(20))
MERGE_BOMB = "a: &a {x: 1}\n" + "\n".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join(['*' + chr(97 + n)] * 9)}]}}" for n in range(20)
)


@given(task=tasks())
def test_a_task_as_yaml_is_the_task(task: dict[str, Any]) -> None:
    text = yaml.safe_dump(task)
    if "&id" not in text:
        assert parse(text) == task
        check(parse(text), policy=POLICY)


@given(text=st.text() | st.lists(st.sampled_from([*TRICKY, "a: ", "\n", "  ", "- ", "{", "[", "]", "? "])).map("".join))
def test_any_text_is_an_object_or_rejected(text: str) -> None:
    try:
        assert isinstance(parse(text), dict)
    except TaskRejected as error:
        assert str(error).startswith("spec.taskRef")  # noqa: PT017  # the other outcome is as good


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: a\nrun: b\n", "the key run stands twice (line 2, column 1)"),
        ("resources: {cpus: 1, cpus: 2}", "the key cpus stands twice"),
        ("run: a\n---\nrun: b\n", "not one YAML document"),
        ("- run: a", "must hold a task"),
        ("", "must hold a task"),
        ("run: [", "not one YAML document"),
        ("run: !!python/object/apply:os.system [id]", "not one YAML document"),
        ("run: \x00", "cannot read"),
        ("envs: {A: 2024-99-99}", "cannot read"),
        ("envs: {A: 2024-01-01}", "put it in quotes"),
        ("envs: {1: x}", "put it in quotes"),
        ("envs: {A: .nan}", "no number that JSON can carry"),
        (f"envs: {{A: {'9' * 5000}}}", "cannot read"),
        (BOMB, "uses the alias *a"),
        (MERGE_BOMB, "uses the alias *a"),
        ("a: &a [*a]", "uses the alias *a"),
        ("[" * 5000, "levels deep"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_not_one_plain_object_is_rejected(text: str, told: str) -> None:
    with pytest.raises(TaskRejected) as raised:
        parse(text)
    assert told in str(raised.value)
    assert raised.value.reason == "InvalidTask"
    assert len(str(raised.value)) < 300
