"""As much of S3 as one file takes to be put and read: put, head, and get with a range, all of them signed.

A program of Python's own library, for a pod. Signatures are asked for, and not verified. Clients may ask it as a proxy, so that one address
leads here from a pod and, through a port that is forwarded, from this machine.
"""

from __future__ import annotations

import hashlib
import sys
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class ObjectStore(ThreadingHTTPServer):
    """Keeps what is put by its path, in memory."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.kept: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectStore

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_signed():
            self.server.kept[self._key()] = body
            self._answer(HTTPStatus.OK, b"", {"ETag": etag(body)})
        else:
            self._answer(HTTPStatus.FORBIDDEN, b"")

    def do_GET(self) -> None:
        body = self.server.kept.get(self._key())
        if not self._is_signed():
            self._answer(HTTPStatus.FORBIDDEN, b"")
        elif body is None:
            self._answer(HTTPStatus.NOT_FOUND, b"")
        else:
            start, end = span(self.headers.get("Range"), len(body))
            kept = {"ETag": etag(body), "Last-Modified": formatdate(usegmt=True), "Accept-Ranges": "bytes"}
            if "Range" in self.headers:
                self._answer(HTTPStatus.PARTIAL_CONTENT, body[start:end], {**kept, "Content-Range": f"bytes {start}-{end - 1}/{len(body)}"})
            else:
                self._answer(HTTPStatus.OK, body, kept)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _is_signed(self) -> bool:
        return "Signature=" in self.path or "Signature=" in self.headers.get("Authorization", "")

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def span(asked: str | None, size: int) -> tuple[int, int]:
    """What `bytes=first-last` means, of so many bytes: where it starts, and where it has ended."""
    if asked is None:
        return 0, size
    first, last = asked.removeprefix("bytes=").split("-")
    return int(first), min(int(last) + 1, size) if last else size


def connection(address: str, **config: Any) -> dict[str, Any]:
    """The Airflow connection that leads to a store at this address, with botocore's config."""
    extra = {"region_name": "us-east-1", "endpoint_url": address, "config_kwargs": {"s3": {"addressing_style": "path"}, **config}}
    return {"conn_type": "aws", "login": "somebody", "password": "whatever", "extra": extra}


if __name__ == "__main__":
    ObjectStore(("", int(sys.argv[1]))).serve_forever()
