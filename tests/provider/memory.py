"""A kube-apiserver in memory: what SkyClusterHook's callers see of one, with its uids, versions, finalizers and preconditions.

`faults` makes the nth call fail: before it had an effect, or after, when only the answer is lost. `on_call` lets the world move on
between two calls, as a controller or another worker would.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skyoperator_provider.errors import ApiError, ChangedError, ObjectExistsError
from skyoperator_provider.hooks.skycluster import LogPiece, RemoteResult

Body = dict[str, Any]
FINALIZER = "skyoperator.dev/teardown"
NAMESPACE = "ml"
CALLS = 2000
"""More than any test needs."""


class Died(BaseException):
    """The worker is dead: not an Exception, so that nothing of the code under test runs on."""


@dataclass
class Fault:
    """What happens at one call."""

    error: BaseException
    after: bool
    """Whether the call had its effect first."""


@dataclass
class Call:
    """One call, as a test compares it."""

    verb: str
    name: str
    details: dict[str, Any] = field(default_factory=dict)


class MemoryApi:
    """The part of SkyClusterHook that operators use."""

    deployment = "prod"
    dashboard_url: str | None = "https://sky.example.com"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Body] = {}
        self.calls: list[Call] = []
        self.creations: list[Body] = []
        self.deletions: list[str] = []
        self.faults: dict[int, Fault] = {}
        self.on_call: Callable[[Call], None] = lambda call: None
        self.logs: dict[str, bytes] = {}
        """By uid, or by uid/attempt where attempts differ."""
        self.log_states: dict[str, str] = {}
        self.results: dict[str, RemoteResult] = {}
        """By uid, or by uid/attempt where attempts differ."""
        self._numbers = itertools.count(1)

    # The world's side.

    def live(self) -> list[Body]:
        """Return the objects that nobody has deleted."""
        return [body for body in self.objects.values() if not body["metadata"].get("deletionTimestamp")]

    def finish_deletions(self) -> None:
        """Do as the controller does when the clusters are gone: take the finalizer away."""
        self.objects = {key: body for key, body in self.objects.items() if not body["metadata"].get("deletionTimestamp")}

    def set_conditions(self, name: str, namespace: str = NAMESPACE, **status: str | tuple[str, str, str]) -> None:
        """Write conditions of the present generation: Ready="True", or Failed=("True", "JobFailed", "exit 3")."""
        body = self.objects[namespace, name]
        found = {known["type"]: known for known in body.setdefault("status", {}).setdefault("conditions", [])}
        for key, value in status.items():
            word, reason, message = (value, f"{key}Reason", "a message") if isinstance(value, str) else value
            generation = body["metadata"]["generation"]
            found[key] = {"type": key, "status": word, "reason": reason, "message": message, "observedGeneration": generation}
        body["status"]["conditions"] = list(found.values())
        self._touch(body)

    def set_job(self, name: str, *, attempt: int = 1, had: bool = True, namespace: str = NAMESPACE) -> None:
        """Write that there is a job, and whether its log was had to its end."""
        status = self.objects[namespace, name].setdefault("status", {})
        status |= {"phase": "Running", "launch": {"attempt": attempt}, "job": {"name": "j", "log": "/apis/..."}}
        if had:
            status["log"] = {"attempt": attempt, "state": "Archived"}

    # The hook's side.

    def get_namespace(self) -> str:
        return NAMESPACE

    def prepare(self) -> None:
        pass

    def create(self, manifest: Mapping[str, Any]) -> Body:
        metadata = manifest["metadata"]
        key = metadata["namespace"], metadata["name"]
        with self._call("create", metadata["name"], owner=dict(metadata.get("annotations") or {})):
            if key in self.objects:
                raise ObjectExistsError("there is one", status=409)
            body = copy.deepcopy(dict(manifest))
            number = next(self._numbers)
            made_at = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
            body["metadata"] |= {"uid": f"uid-{number}", "generation": 1, "finalizers": [FINALIZER], "creationTimestamp": made_at}
            self._touch(body)
            self.objects[key] = body
            self.creations.append(copy.deepcopy(body))
            return copy.deepcopy(body)

    def read(self, namespace: str, name: str, *, request_timeout_seconds: float | None = None) -> Body | None:
        with self._call("read", name, timeout=request_timeout_seconds):
            return copy.deepcopy(self.objects.get((namespace, name)))

    def list_by_label(self, namespace: str, selector: str) -> list[Body]:
        wanted = dict(pair.split("=") for pair in selector.split(","))
        with self._call("list", selector):
            found = [body for (where, _), body in self.objects.items() if where == namespace]
            return copy.deepcopy([body for body in found if wanted.items() <= (body["metadata"].get("labels") or {}).items()])

    def annotate(
        self, namespace: str, name: str, annotations: Mapping[str, str], *, uid: str | None = None, resource_version: str | None = None
    ) -> Body:
        with self._call("annotate", name, annotations=dict(annotations), uid=uid):
            body = self.objects.get((namespace, name))
            if body is None:
                raise ChangedError("it is gone", status=404)
            self._check(body, uid, resource_version)
            body["metadata"].setdefault("annotations", {}).update(annotations)
            self._touch(body)
            return copy.deepcopy(body)

    def delete(
        self,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        request_timeout_seconds: float | None = None,
    ) -> bool:
        with self._call("delete", name, uid=uid, resource_version=resource_version, timeout=request_timeout_seconds):
            body = self.objects.get((namespace, name))
            if body is None:
                return False
            self._check(body, uid, resource_version)
            if not body["metadata"].get("deletionTimestamp"):
                self.deletions.append(body["metadata"]["uid"])
                body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._touch(body)
            return True

    def wait_gone(self, namespace: str, name: str, uid: str, *, timeout_seconds: float, poll_seconds: float = 2.0) -> bool:
        with self._call("wait_gone", name, uid=uid):
            body = self.objects.get((namespace, name))
            return body is None or body["metadata"]["uid"] != uid

    def read_log(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        offset_bytes: int = 0,
        limit_bytes: int | None = None,
        tail_lines: int | None = None,
        attempt: int | None = None,
    ) -> LogPiece:
        with self._call("log", name, offset=offset_bytes, tail=tail_lines, uid=uid, attempt=attempt):
            key = f"{uid}/{attempt}" if f"{uid}/{attempt}" in self.logs else uid
            if key not in self.logs:
                return LogPiece(b"", None, "absent", "there is no such log")
            whole = self.logs[key]
            data = b"".join(whole.splitlines(keepends=True)[-tail_lines:]) if tail_lines else whole[offset_bytes:][:limit_bytes]
            end = len(whole) if tail_lines else offset_bytes + len(data)
            state: Any = self.log_states.get(key, "live")
            return LogPiece(data, end, state, "a disk failed" if state == "incomplete" else "")

    def result(self, namespace: str, name: str, *, uid: str, attempt: int | None = None) -> RemoteResult:
        with self._call("result", name, uid=uid, attempt=attempt):
            return self.results.get(f"{uid}/{attempt}", self.results.get(uid, RemoteResult("not yet", b"", "there is none")))

    # What a kube-apiserver does by itself.

    def _call(self, verb: str, name: str, **details: Any) -> _Called:
        assert len(self.calls) < CALLS, "who is never answered goes on for ever"
        call = Call(verb, name, details)
        self.calls.append(call)
        self.on_call(call)
        return _Called(self.faults.get(len(self.calls)))

    def _touch(self, body: Body) -> None:
        body["metadata"]["resourceVersion"] = str(next(self._numbers))

    @staticmethod
    def _check(body: Body, uid: str | None, resource_version: str | None) -> None:
        metadata = body["metadata"]
        if uid not in (None, metadata["uid"]) or resource_version not in (None, metadata["resourceVersion"]):
            raise ChangedError("a precondition does not hold", status=409)


class _Called:
    """Raises the call's fault at the right moment."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault

    def __enter__(self) -> None:
        if self._fault and not self._fault.after:
            raise self._fault.error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._fault and self._fault.after and error is None:
            raise self._fault.error


class Clock:
    """Time that passes when somebody sleeps, and at no other moment."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_sleep: Iterator[Callable[[], None]] = iter(())

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass the time, and let the next thing happen."""
        self.now += seconds
        next(self.on_sleep, lambda: None)()


def lost() -> Fault:
    """The call has its effect; its answer never comes."""
    return Fault(ApiError("no answer"), after=True)


def refused() -> Fault:
    """The call has no effect."""
    return Fault(ApiError("try later", status=503), after=False)


def forbidden() -> Fault:
    """The call has no effect, nor will it have any when it is tried again."""
    return Fault(ApiError("you may not", status=403), after=False)


def died(*, after: bool) -> Fault:
    """The worker dies at this call."""
    return Fault(Died(), after=after)
