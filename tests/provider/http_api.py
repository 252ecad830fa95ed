"""A real HTTP server in a thread, that answers what a test laid out and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    """Found by their names in any case."""
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer to send; `body` a JSON document or bytes."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Send only so many bytes of the body, and hang up."""


class Drop:
    """Hang up without an answer."""


class Stall:
    """Answer nothing until the test is over."""


@dataclass
class HttpApi:
    """The replies that are left, the last of which is given again and again; and what was asked."""

    replies: deque[Reply | Drop | Stall] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def will(self, *replies: Reply | Drop | Stall) -> None:
        self.replies = deque(replies)

    def next_reply(self) -> Reply | Drop | Stall:
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]


def status(code: int, reason: str = "", message: str = "the server's words", **details: Any) -> Reply:
    """A refusal as kube-apiserver writes it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
        "details": details,
    }
    return Reply(code, body)


NOT_FOUND = status(404, "NotFound", 'skyclusters.skyoperator.dev "train" not found', name="train", kind="skyclusters")


@contextmanager
def serving() -> Iterator[HttpApi]:
    api = HttpApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # one packet an answer; two would wait for each other's acknowledgement

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            parts, sent = urlsplit(self.path), self.rfile.read(length)
            api.asked.append(
                Asked(self.command, parts.path, dict(parse_qsl(parts.query)), self.headers, json.loads(sent) if sent else None)
            )
            reply = api.next_reply()
            if isinstance(reply, Stall):
                api.over.wait()
            if not isinstance(reply, Reply):
                self.close_connection = True
                return
            self._send(reply)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - BaseHTTPRequestHandler's names

        def _send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: reply.cut])
            self.close_connection = reply.cut is not None

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - BaseHTTPRequestHandler's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
