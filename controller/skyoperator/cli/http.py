"""One request to the Kubernetes API, or to what speaks its way: JSON both ways, bytes as they come, refusals in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from skyoperator.cli.errors import CliError, DroppedError, StatusError

Json: TypeAlias = dict[str, Any]
Query: TypeAlias = Sequence[tuple[str, str]]

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 30.0
CHUNK_BYTES: Final = 65536
MERGE_PATCH: Final = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Right:
    """A right that a request needs, to be named when it lacks."""

    verb: str
    resource: str
    group: str
    namespace: str | None = None

    def __str__(self) -> str:
        """Return it as a sentence, and as the rule that grants it."""
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        rule = f'apiGroups: ["{self.group}"], resources: [{self.resource}], verbs: [{self.verb}]'
        return f"You may not {self.verb} {self.resource} {where}. The rule that allows it: {{{rule}}}."


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was not refused; its body is read while it arrives."""

    response: urllib3.BaseHTTPResponse

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers; their names are found in any case."""
        return self.response.headers

    def read(self) -> bytes:
        """Return the whole body. Raises DroppedError if it breaks off."""
        return b"".join(self.chunks())

    def json(self) -> Json:
        """Return the body. Raises CliError if it is no JSON object."""
        return as_json(self.read())

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises DroppedError if it breaks off before its end."""
        try:
            with _transport():
                while chunk := self.response.read1(CHUNK_BYTES):
                    yield chunk
        finally:
            self.response.close()

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they arrive, without their ends. Raises DroppedError."""
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines


@dataclass(frozen=True, slots=True)
class Http:
    """A server that speaks the Kubernetes API's way."""

    client: ApiClient

    def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        right: Right | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
    ) -> Answer:
        """Return the answer. Raises StatusError if it is a refusal, DroppedError if there is none."""
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        with _transport():
            asked = self.client.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self.client.call_api(*asked, _request_timeout=(CONNECT_SECONDS, read_seconds)).response
        answer = Answer(cast("urllib3.BaseHTTPResponse", response))
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(response.status, answer.read(), right)
        return answer


def as_json(body: bytes) -> Json:
    """Return the object. Raises CliError if it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CliError(f"The server answered with something that is no Kubernetes object: {body[:200].decode(errors='replace')!r}")
    return found


@contextmanager
def _transport() -> Iterator[None]:
    """Turn what the libraries raise about a connection into DroppedError."""
    try:
        yield
    except (HTTPError, ApiException, OSError) as error:
        reason = error.reason if isinstance(error, ApiException) else error
        raise DroppedError(f"The server was not reached, or broke off: {reason}") from error


def _refusal(code: int, body: bytes, right: Right | None) -> StatusError:
    """Return the refusal, with the server's words in it."""
    try:
        status = as_json(body)
    except CliError:
        status = {}
    words = status.get("message") or body[:500].decode(errors="replace").strip() or HTTPStatus(code).phrase
    if code == HTTPStatus.UNAUTHORIZED:
        words = f"The server does not know who you are (401): {words}. Are the kubeconfig's credentials expired?"
    if code == HTTPStatus.FORBIDDEN and right is not None:
        words = f"{right} {words}"
    return StatusError(words, code, names_object=bool(status.get("details", {}).get("name")))
