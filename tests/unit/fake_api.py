"""A Kubernetes API on 127.0.0.1 that speaks the real shapes: SkyClusters with watches, Services, ConfigMaps, logs, metav1.Status."""

from __future__ import annotations

import copy
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
TOKEN: Final = "the-token"
LOGS: Final = "/apis/logs.skyoperator.dev/v1alpha1"
_LOG: Final = re.compile(rf"{LOGS}/namespaces/([^/]+)/skyclusters/([^/]+)/log")
_OBJECTS: Final = re.compile(r"/apis/skyoperator\.dev/v1alpha1(?:/namespaces/([^/]+))?/skyclusters(?:/([^/]+))?")
_CORE: Final = re.compile(r"/api/v1(?:/namespaces/([^/]+))?/(services|configmaps)(?:/([^/]+))?")


@dataclass
class Act:
    """What happens during one stream of a log."""

    grows_by: bytes = b""
    then: str = "live"
    cut_after: int | None = None
    """The connection breaks after so many bytes."""
    last_words: bytes = b""
    """A line of the server's own at the end."""


@dataclass
class FakeLog:
    """One log; each stream of it takes the next act."""

    data: bytes = b""
    state: str = "complete"
    message: str = ""
    hole: tuple[int, int] = (0, 0)
    """Bytes that were cut out: from, to."""
    acts: list[Act] = field(default_factory=list)
    page_bytes: int = 1 << 30
    """How much the server gives at a time, whatever is asked for."""
    is_down: bool = False
    """Whether all its pages are refused, as by a proxy in front of a server that is away."""
    broken_pages: int = 0
    """How many pages break off in their middle."""

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Return the next offset, and what is seen of the log from there on: a hole is a line of the server's own."""
        start, end = self.hole
        stop = min(offset + min(limit, self.page_bytes), len(self.data))
        if offset < start < stop:
            return start, self.data[offset:start]
        if start <= offset < end:
            return end, b"[skyoperator: %d bytes were cut here]\n" % (end - offset)
        return stop, self.data[offset:stop]

    def rest(self, offset: int) -> bytes:
        """Return all that is seen of it from there on."""
        seen = b""
        while offset < len(self.data):
            offset, part = self.read(offset, len(self.data))
            seen += part
        return seen


@dataclass
class FakeApi:
    """What the server knows, and what it was asked."""

    port: int = 0
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    core: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    logs: dict[tuple[str, str, bool], FakeLog] = field(default_factory=dict)
    """By uid, attempt, and whether it is the launch's."""
    has_crd: bool = True
    is_aggregated: bool = True
    discovery: int = 404
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verb and resource."""
    on_watch: list[Callable[[], None]] = field(default_factory=list)
    """What happens once a watch has begun: the first at the first, and so on."""
    on_delete: Callable[[], None] | None = None
    """What happens just before a deletion."""
    token: str | None = TOKEN
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    version: int = 100
    oldest_version: int = 0
    """A watch from before that is refused, as too old."""

    def put(self, this: Json) -> None:
        """Store an object, as a write does."""
        key = (this["metadata"]["namespace"], this["metadata"]["name"])
        self._store(key, this, "MODIFIED" if key in self.objects else "ADDED")

    def remove(self, namespace: str, name: str) -> None:
        """Delete an object for good."""
        self._event("DELETED", self.objects.pop((namespace, name)))

    def _store(self, key: tuple[str, str], this: Json, type_: str) -> None:
        self.objects[key] = copy.deepcopy(this)
        self._event(type_, self.objects[key])

    def _event(self, type_: str, this: Json) -> None:
        self.version += 1
        this["metadata"]["resourceVersion"] = str(self.version)
        self.events.append({"type": type_, "object": copy.deepcopy(this)})

    def queries(self, path: str) -> list[dict[str, str]]:
        """Return the parameters of the requests to that path."""
        return [query for _, asked, query in self.asked if asked == path]


class Refusal(Exception):  # noqa: N818
    """An answer that is none."""

    def __init__(self, code: int, reason: str, message: str, name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message}
        if name:
            self.body["details"] = {"name": name, "group": "skyoperator.dev", "kind": "skyclusters"}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: FakeApi

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self._answer("GET")

    def do_DELETE(self) -> None:
        """Answer."""
        self._answer("DELETE")

    def do_PATCH(self) -> None:
        """Answer."""
        self._answer("PATCH")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.api.asked.append((method, url.path, query))
        try:
            self._route(method, url.path, query, body)
        except Refusal as refusal:
            self._json(refusal.body, refusal.code)

    def _route(self, method: str, path: str, query: dict[str, str], body: Json) -> None:
        if self.api.token is not None and self.headers.get("Authorization") != f"Bearer {self.api.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if path == LOGS:
            self._discover()
        elif found := _LOG.fullmatch(path):
            self._log(found[1], found[2], query)
        elif found := _OBJECTS.fullmatch(path):
            self._objects(method, found[1], found[2], query, body)
        elif found := _CORE.fullmatch(path):
            self._core(found[1], found[2], found[3])
        else:
            self._no_page()

    def _discover(self) -> None:
        if self.api.is_aggregated:
            self._json({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": LOGS.removeprefix("/apis/"), "resources": []})
        elif self.api.discovery == 404:
            self._no_page()
        else:
            self._plain(self.api.discovery, b"service unavailable\n")

    def _no_page(self) -> None:
        self._plain(404, b"404 page not found\n")

    def _check(self, verb: str, resource: str, namespace: str | None) -> None:
        if (verb, resource) in self.api.forbidden or (f"{verb} everywhere" if namespace is None else "", resource) in self.api.forbidden:
            raise Refusal(403, "Forbidden", f'{resource} is forbidden: User "jane" cannot {verb} resource "{resource}"')

    def _objects(self, method: str, namespace: str | None, name: str | None, query: dict[str, str], body: Json) -> None:
        if not self.api.has_crd:
            self._no_page()
            return
        is_watch = query.get("watch") == "true"
        verb = {"DELETE": "delete", "PATCH": "patch"}.get(method) or ("watch" if is_watch else "get" if name else "list")
        self._check(verb, "skyclusters", namespace)
        if name is None and is_watch:
            self._watch(query)
        elif name is None:
            self._list(namespace, query)
        else:
            self._one(method, str(namespace), name, body)

    def _list(self, namespace: str | None, query: dict[str, str]) -> None:
        only = query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            this for (where, name), this in sorted(self.api.objects.items()) if where == (namespace or where) and name == (only or name)
        ]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(items)
        more = str(start + limit) if start + limit < len(items) else ""
        meta = {"resourceVersion": str(self.api.version), "continue": more}
        self._json(
            {"kind": "SkyClusterList", "apiVersion": "skyoperator.dev/v1alpha1", "metadata": meta, "items": items[start : start + limit]}
        )

    def _watch(self, query: dict[str, str]) -> None:
        """Send what happens while the watch lasts, and end it."""
        since, name = int(query["resourceVersion"]), query["fieldSelector"].removeprefix("metadata.name=")
        if self.api.on_watch:
            self.api.on_watch.pop(0)()
        self._begin(200, {"Content-Type": "application/json"})
        if since < self.api.oldest_version:
            gone = Refusal(410, "Expired", f"too old resource version: {since}").body
            self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        for event in self.api.events:
            meta = event["object"]["metadata"]
            if int(meta["resourceVersion"]) > max(since, self.api.oldest_version) and meta["name"] == name:
                self._chunk(json.dumps(event).encode() + b"\n")
        self._chunk(b"")

    def _one(self, method: str, namespace: str, name: str, body: Json) -> None:
        this = self.api.objects.get((namespace, name))
        if this is None:
            raise Refusal(404, "NotFound", f'skyclusters.skyoperator.dev "{name}" not found', name)
        if method == "PATCH":
            this["spec"].update(body["spec"])
            self.api.put(this)
        if method == "DELETE":
            if self.api.on_delete is not None:
                self.api.on_delete()
                this = self.api.objects[namespace, name]
            if body.get("preconditions", {}).get("uid") not in {None, this["metadata"]["uid"]}:
                raise Refusal(409, "Conflict", "the UID in the precondition does not match", name)
            this["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.api.put(this)
        self._json(this)

    def _core(self, namespace: str | None, resource: str, name: str | None) -> None:
        self._check("get" if name else "list", resource, namespace)
        found = [item for (kind, where, _), item in self.api.core.items() if kind == resource and where == (namespace or where)]
        if name is None:
            self._json({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found})
            return
        one = self.api.core.get((resource, str(namespace), name))
        if one is None:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found', name)
        self._json(one)

    def _log(self, namespace: str, name: str, query: dict[str, str]) -> None:
        self._check("get", "skyclusters/log", namespace)
        this = self.api.objects.get((namespace, name))
        uid = query.get("uid") or (this["metadata"]["uid"] if this else "")
        attempt = query.get("attempt") or str(this["status"]["launch"]["attempt"] if this else 1)
        log = self.api.logs.get((uid, attempt, query.get("provision") == "true"))
        if log is None:
            raise Refusal(404, "NotFound", f"{namespace}/{name} has no log of that kind yet", name)
        offset = int(query.get("offsetBytes", "0"))
        if "tailLines" in query:
            offset = len(b"".join(log.data.splitlines(keepends=True)[: -int(query["tailLines"])]))
        if query.get("follow") == "true":
            self._follow(log, offset)
        else:
            self._page(log, offset, int(query.get("limitBytes", str(1 << 30))))

    def _page(self, log: FakeLog, offset: int, limit: int) -> None:
        if log.is_down:
            raise Refusal(503, "ServiceUnavailable", "error trying to reach service")
        next_, data = log.read(offset, limit)
        headers = {"Skyoperator-Next-Offset": str(next_), "Skyoperator-Log-State": log.state, "Content-Length": str(len(data))}
        self._begin(200, {**headers, **({"Skyoperator-Log-Message": log.message} if log.message else {})}, is_chunked=False)
        if log.broken_pages and data:
            log.broken_pages -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    def _follow(self, log: FakeLog, offset: int) -> None:
        act = log.acts.pop(0) if log.acts else Act(then="complete")
        log.data += act.grows_by
        log.state = act.then
        self._begin(200, {"Content-Type": "text/plain"})
        fresh = log.rest(offset) + act.last_words
        for start in range(0, len(fresh[: act.cut_after]), 1000):
            self._chunk(fresh[: act.cut_after][start : start + 1000])
        if act.cut_after is None:
            self._chunk(b"")
        else:
            self.close_connection = True

    def _json(self, body: Json, code: int = 200) -> None:
        self._plain(code, json.dumps(body).encode(), "application/json")

    def _plain(self, code: int, body: bytes, type_: str = "text/plain; charset=utf-8") -> None:
        self._begin(code, {"Content-Type": type_, "Content-Length": str(len(body))}, is_chunked=False)
        self.wfile.write(body)

    def _begin(self, code: int, headers: dict[str, str], *, is_chunked: bool = True) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        """Send a chunk; an empty one is the end."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class Server(ThreadingHTTPServer):
    """A server that takes it quietly when a client hangs up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serving(api: FakeApi, tls: ssl.SSLContext | None = None) -> Iterator[FakeApi]:
    """Serve it while this is open."""
    server = Server(("127.0.0.1", 0), type("OneApi", (Handler,), {"api": api}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sky_cluster(name: str = "train", *, namespace: str = "team", generation: int = 1, uid: str | None = None, **status: Any) -> Json:
    """Return an object as the API shows it, its task has something to run; its first launch is under way."""
    return {
        "apiVersion": "skyoperator.dev/v1alpha1",
        "kind": "SkyCluster",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-of-{name}",
            "generation": generation,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"task": {"run": "python train.py"}, "backoffLimit": 3},
        "status": {"observedGeneration": generation, "phase": "Running", "launch": {"attempt": 1}, **status},
    }


def conditioned(this: Json, *, generation: int | None = None, **conditions: tuple[str, str, str]) -> Json:
    """Return the object with the conditions: status, reason, message."""
    observed = this["metadata"]["generation"] if generation is None else generation
    written = [
        {
            "type": type_,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": observed,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for type_, (status, reason, message) in conditions.items()
    ]
    return {**this, "status": {**this["status"], "conditions": written}}


def complete(this: Json) -> Json:
    """Return the object with its job succeeded."""
    return conditioned(this, Complete=("True", "JobSucceeded", "Job 1 succeeded."), Failed=("False", "NotFinished", ""))


def failed(this: Json, message: str = "Job 1 failed with return code list: [3]") -> Json:
    """Return the object with its job failed."""
    return conditioned(this, Complete=("False", "NotFinished", ""), Failed=("True", "JobFailed", message))
