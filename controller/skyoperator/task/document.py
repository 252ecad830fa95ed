"""A task that comes as YAML text, out of the ConfigMap that `spec.taskRef` names."""

from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from skyoperator.task.problems import JSON, Problem, refuse
from skyoperator.task.shape import MAX_DEPTH, unreadable

ROOT = "spec.taskRef"


def parse(text: str) -> dict[str, JSON]:
    """Return the task that the YAML text holds, as plain data for `check`.

    Aliases are refused, for a few lines of them make more data than there is memory; so are keys that stand twice, of which
    YAML would silently drop the first.

    Raises:
        TaskRejected: The text is not one YAML document with one object of JSON values in it.
    """
    try:
        refuse(_structure(text))
        task = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        refuse([Problem(ROOT, f"is not one YAML document: {error.problem}{_place(error)}")])
    except (yaml.YAMLError, ValueError) as error:
        refuse([Problem(ROOT, f"holds a value that YAML cannot read: {str(error).splitlines()[0]}")])
    else:
        refuse(unreadable(ROOT, task))
        if isinstance(task, dict):
            return task
    refuse([Problem(ROOT, "must hold a task, with keys such as run and resources")])
    raise AssertionError


def _structure(text: str) -> Iterator[Problem]:
    """Judge the text before it becomes data, which takes memory and stack in proportion to what aliases and depth make."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            yield Problem(ROOT, f"uses the alias *{event.anchor}; write its value out")
            return
        if depth > MAX_DEPTH:
            yield Problem(ROOT, f"is nested more than {MAX_DEPTH} levels deep; make it flatter")
            return


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)
