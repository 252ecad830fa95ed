"""Which object an operator speaks of that did not make it: what a create task returned, a name, or the task that made it.

What a task made is found by its labels, in the namespace and for the deployment of whoever looks; and in those that the task itself told by
XCom, since its manifest or its connection may name others. Neither alone finds everything: an XCom goes when the next try begins, and a
connection knows only its own namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import yaml

from skyoperator_provider.identity import PREFIX, Identity
from skyoperator_provider.ownership import Target, is_leaving

Body = dict[str, Any]


class Objects(Protocol):
    """What is asked of kube-apiserver: SkyClusterHook's part that this module needs."""

    def read(self, namespace: str, name: str) -> Body | None:
        """As SkyClusterHook.read."""
        ...

    def list_by_label(self, namespace: str, selector: str) -> list[Body]:
        """As SkyClusterHook.list_by_label."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that may be there or not. With a uid it is that one and no other of its name."""

    namespace: str
    name: str
    uid: str | None = None

    def __str__(self) -> str:
        return f"SkyCluster {self.namespace}/{self.name}"

    def is_to(self, body: Mapping[str, Any] | None) -> bool:
        """Tell whether this is the object that is meant."""
        return body is not None and self.uid in (None, body["metadata"]["uid"])


def parse(value: object, namespace: str) -> Reference | None:
    """Return what a rendered `cluster=` means: {name, namespace, uid} as a create task returns it, the same as text, or a name.

    None if there is nothing: a create task that failed early has returned nothing. Raises ValueError for anything else.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = yaml.safe_load(value)
    if value is None or value in ("", "None"):
        return None
    if isinstance(value, str):
        return Reference(namespace, value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return _reference(value, namespace)
    raise ValueError(f"cluster={value!r} names no SkyCluster. Give what SkyClusterCreateOperator returned, or a name.")


def _reference(value: Mapping[str, Any], namespace: str) -> Reference:
    return Reference(value.get("namespace") or namespace, value["name"], value.get("uid"))


@dataclass(frozen=True, slots=True)
class Told:
    """What a task told of its object: where it is or is about to be, and whose it is."""

    reference: Reference
    deployment: str | None
    """None: it was told by a version that did not say it."""


@dataclass(frozen=True, slots=True)
class Maker:
    """A task of this DAG run that makes objects, and how to find them."""

    task: Identity
    namespace: str
    told: tuple[Told, ...] = ()


def tell(target: Target | Reference, deployment: str) -> dict[str, str]:
    """Return what a task tells of its object by XCom. While there is no object yet, there is no uid."""
    uid = {"uid": target.uid} if target.uid else {}
    return {"name": target.name, "namespace": target.namespace, **uid, "deployment": deployment}


def told(pulled: object, namespace: str) -> tuple[Told, ...]:
    """Return what was told, out of the XCom of one task instance or of several; what is none is passed over."""
    values = pulled if isinstance(pulled, Iterable) and not isinstance(pulled, Mapping) else [pulled]
    named = [value for value in values if isinstance(value, Mapping) and isinstance(value.get("name"), str)]
    return tuple(Told(_reference(value, namespace), value.get("deployment")) for value in named)


class AmbiguousError(ValueError):
    """Several objects are meant where one has to be; says what to write instead."""


def made_by(objects: Objects, maker: Maker) -> list[Target]:
    """Return the objects that a task of this DAG run made, whichever its series, newest first.

    Of a mapped task those with the same map index; an unmapped one asks for all of them.
    """
    return [Target.of(body) for body in _made_by(objects, maker)]


def one_made_by(objects: Objects, maker: Maker) -> Target | None:
    """Return the newest object that a task of this DAG run made; None if there is none.

    One that goes, and was there before this DAG run started, is what an earlier one of the same id left: its end is not this one's.
    Raises AmbiguousError if a mapped task made them and an unmapped one asks: the end of one of them says nothing of the others.
    """
    found = [body for body in _made_by(objects, maker) if not (is_leaving(body) and maker.task.is_later_than(body))]
    indexes = sorted({_map_index(body) for body in found}, key=lambda index: (len(index), index))
    if len(indexes) > 1:
        raise AmbiguousError(
            f"cluster_task_id={maker.task.task_id!r} is a mapped task, and made a SkyCluster for each of the map indexes "
            f"{', '.join(indexes)}; this task is not mapped, so it can't be told which is meant. Put both into one mapped task group, "
            "or expand this one over cluster=, with what the task returned"
        )
    return Target.of(found[0]) if found else None


def _made_by(objects: Objects, maker: Maker) -> list[Body]:
    found = {body["metadata"]["uid"]: body for body in (*_labelled(objects, maker), *_told_of(objects, maker))}
    bodies = sorted(found.values(), key=lambda body: body["metadata"].get("creationTimestamp") or "", reverse=True)
    return _of_map_index(bodies, maker.task.map_index)


def _labelled(objects: Objects, maker: Maker) -> Iterator[Body]:
    own = (maker.namespace, maker.task)
    others = ((each.reference.namespace, replace(maker.task, deployment=each.deployment or maker.task.deployment)) for each in maker.told)
    for namespace, task in dict.fromkeys((own, *others)):
        selector = ",".join(f"{key}={task.labels[key]}" for key in (f"{PREFIX}/{name}" for name in ("dag-id", "run-id", "task-id")))
        found = (body for body in objects.list_by_label(namespace, selector) if _is_of_task(body, task))
        # Of two DAG runs of one id the earlier one may be at work still. A clear moves a start: a run's own objects may look earlier.
        yield from (body for body in found if not task.is_earlier_than(body))


def _told_of(objects: Objects, maker: Maker) -> Iterator[Body]:
    """Give what was told with its uid, whatever has become of its labels. An earlier try's, and another in its place, have another uid."""
    for each in maker.told:
        body = objects.read(each.reference.namespace, each.reference.name) if each.reference.uid else None
        if body is not None and each.reference.is_to(body):
            yield body


def _is_of_task(body: Mapping[str, Any], task: Identity) -> bool:
    """By the annotations: a label may have been shortened, and anybody may write one."""
    found = body["metadata"].get("annotations") or {}
    passed_over = {f"{PREFIX}/map-index", f"{PREFIX}/series"}
    return all(found.get(key) == value for key, value in task.annotations.items() if key not in passed_over)


def _of_map_index(bodies: list[Body], map_index: int) -> list[Body]:
    """Never another index's in place of one's own that is gone."""

    def at(index: int) -> list[Body]:
        return [body for body in bodies if _map_index(body) == str(index)]

    return (at(map_index) or at(-1)) if map_index >= 0 else bodies


def _map_index(body: Mapping[str, Any]) -> str:
    return str((body["metadata"].get("annotations") or {}).get(f"{PREFIX}/map-index", -1))


def upstream(own: Identity, task_id: str) -> Identity:
    """Return another task of the same DAG run."""
    return replace(own, task_id=task_id, series=0)
