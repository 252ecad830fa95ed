"""The Kubernetes API, as a trigger's client reaches it: requests that block no loop, and refusals that say what to do.

Everything goes below CustomObjectsApi: that has no watch without a second client of its own, cuts the lines of a watch at the size of a
buffer, and hides the headers of a log (kubernetes_asyncio 36.1, watch/watch.py and client/rest.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp

from skyoperator_provider.errors import ApiError, ChangedError
from skyoperator_provider.hooks.api import Answer, Request, log_request, object_request
from skyoperator_provider.hooks.skycluster import LogPiece
from skyoperator_provider.skycluster import LOGS_GROUP, PLURAL
from skyoperator_provider.watches import Key, Page

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient
    from kubernetes_asyncio.client.configuration import Configuration

Json = dict[str, Any]

REQUEST_SECONDS: Final = 15.0
WATCH_EXTRA_SECONDS: Final = 9.0
"""How long after its time-out a watch may take to end; then the connection is held for dead."""
NEXT_OFFSET: Final = "Skyoperator-Next-Offset"
LOG_STATE: Final = "Skyoperator-Log-State"
LOG_MESSAGE: Final = "Skyoperator-Log-Message"

_STATES: Final = ("live", "complete", "incomplete")


class KubernetesSkyClusterApi:
    """SkyClusterApi, over HTTP."""

    def __init__(self, client: ApiClient, *, request_seconds: float = REQUEST_SECONDS) -> None:
        self._client = client
        self._request_seconds = request_seconds

    async def list(self, namespace: str, *, limit: int, continue_: str = "") -> Page:  # noqa: D102
        query = [("limit", str(limit)), *([("continue", continue_)] if continue_ else [])]
        answer = await self._answer(object_request("list", "GET", namespace, query=query))
        body = answer.document()
        metadata = body["metadata"]
        return Page(body["items"], metadata["resourceVersion"], metadata.get("continue") or "")

    async def get(self, namespace: str, name: str) -> Json | None:  # noqa: D102
        try:
            return (await self._answer(object_request("get", "GET", namespace, name))).document()
        except _NotThereError:
            return None

    async def delete(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:  # noqa: D102
        body = {"preconditions": {"uid": uid, "resourceVersion": resource_version}}
        try:
            await self._answer(object_request("delete", "DELETE", namespace, name, body=body))
        except _NotThereError:
            return

    async def log(  # noqa: D102
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
        begin = {"offsetBytes": offset_bytes} if tail_lines is None else {"tailLines": tail_lines}
        wanted = {"uid": uid, **begin, "limitBytes": limit_bytes, "attempt": attempt, "ansi": "true"}
        query = [(key, str(value)) for key, value in wanted.items() if value is not None]
        try:
            return _piece(await self._answer(log_request("log", namespace, name, query)))
        except _NotThereError as none:
            return LogPiece(b"", None, "absent", none.reason)

    async def watch(self, namespace: str, *, resource_version: str, timeout_seconds: int) -> AsyncGenerator[Json, None]:  # noqa: D102
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(timeout_seconds)),
        ]
        request = object_request("watch", "GET", namespace, query=query)
        async with self._response(request, timeout_seconds + WATCH_EXTRA_SECONDS) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _refusal(request, await _read(response))
            async for line in lines(response.content.iter_any()):
                yield _event(request, line)

    async def _answer(self, request: Request) -> Answer:
        """Return a good answer. Raises _NotThereError, ChangedError, ApiError."""
        async with self._response(request, self._request_seconds) as response:
            answer = await _read(response)
        if not answer.is_good:
            raise _refusal(request, answer)
        return answer

    @asynccontextmanager
    async def _response(self, request: Request, timeout_seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer, of which nothing was read yet. What goes wrong while it is read is an ApiError, too."""
        try:
            response = await self._begun(request, timeout_seconds)
            try:
                yield response
            finally:
                response.close()
        except TimeoutError as error:
            raise ApiError(f"Can't {request}: no answer within {timeout_seconds:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(f"Can't {request}: {error or type(error).__name__}") from error

    async def _begun(self, request: Request, timeout_seconds: float) -> aiohttp.ClientResponse:
        try:
            response = await self._client.call_api(
                request.path,
                request.method,
                query_params=list(request.query),
                header_params={"Accept": "*/*", "Content-Type": request.content_type},
                body=request.body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout_seconds,
            )
        except RuntimeError as error:  # all that aiohttp has to say of a session that somebody closed (client.py, _request)
            raise ApiError(f"Can't {request}: {error}") from error
        return cast("aiohttp.ClientResponse", response)


@asynccontextmanager
async def connected(opened: AbstractAsyncContextManager[ApiClient]) -> AsyncIterator[KubernetesSkyClusterApi]:
    """Yield the API of a client that is yet to be opened, as `hook.get_conn()` returns it."""
    async with opened as client:
        yield KubernetesSkyClusterApi(client)


def key_of(configuration: Configuration, namespace: str, *, renewed_by: str = "") -> Key:
    """Return who can share a watch with the client of this configuration.

    A token that is renewed is nobody's name: one that the client renews by itself is that of the pod (the library does so in a cluster
    only), one that is made anew for each client is known by what makes it, `renewed_by`.
    """
    token = configuration.api_key.get("BearerToken", "")
    said = [
        renewed_by or ("the pod's own" if configuration.refresh_api_key_hook is not None else token),
        *(configuration.username, configuration.password, configuration.cert_file, configuration.key_file),
        *(configuration.ssl_ca_cert, configuration.verify_ssl, configuration.proxy),
    ]
    return Key(configuration.host or "", hashlib.sha256(json.dumps(said).encode()).hexdigest(), namespace)


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, however long, without their ends. What has no end yet when the stream ends is no line."""
    begun: list[bytes] = []
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*begun, line])
            begun.clear()
        begun.append(rest)


class _NotThereError(ApiError):
    """kube-apiserver, or the log process, says itself that it has no such thing."""


async def _read(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, response.headers, await response.read())


def _piece(answer: Answer) -> LogPiece:
    """Raises ApiError if this is no answer of the log API's."""
    state, offset = answer.headers.get(LOG_STATE, ""), answer.headers.get(NEXT_OFFSET, "")
    if state not in _STATES or not offset.isdecimal():
        raise ApiError(f"What answers for the log API is none: it says {LOG_STATE}: {state!r}, {NEXT_OFFSET}: {offset!r}")
    return LogPiece(answer.body, int(offset), cast("Any", state), answer.headers.get(LOG_MESSAGE, ""))


def _event(request: Request, line: bytes) -> Json:
    """Return an event of a watch. Raises ApiError if it says that the watch is over."""
    try:
        event = json.loads(line)
        kind, found = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(f"Can't {request}: {line[:100]!r} is no event") from error
    if kind == "ERROR":
        raise _refusal(request, Answer(int(found.get("code") or 500), {}, json.dumps(found).encode()))
    return cast("Json", event)


def _refusal(request: Request, answer: Answer) -> ApiError:
    """Return what the answer means, with what to do where that is known."""
    words = f"Can't {request}: {answer.message}"
    if answer.status == HTTPStatus.NOT_FOUND:
        return _not_found(request, answer, words)
    if answer.status == HTTPStatus.CONFLICT:
        return ChangedError(words, status=answer.status, reason=answer.reason)
    if answer.status == HTTPStatus.FORBIDDEN:
        right = f"the verb {request.verb} on {request.resource} of the group {request.group} in namespace {request.namespace}"
        words = f"{words.rstrip('.')}. The connection's account needs {right}"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        words = f"{words.rstrip('.')}. The connection's credentials are not taken; have they expired?"
    return ApiError(words, status=answer.status, reason=answer.reason)


def _not_found(request: Request, answer: Answer, words: str) -> ApiError:
    """A proxy says 404 too, and kube-apiserver of a group that is not served: then nothing is known of the object."""
    details = answer.document().get("details") or {}
    is_log = request.group == LOGS_GROUP
    if details.get("kind") == PLURAL and (details.get("group") == LOGS_GROUP if is_log else details.get("name") == request.name):
        return _NotThereError(words, status=answer.status, reason=answer.message)
    todo = "Is logs.apiService.enabled set in the chart?" if is_log else "Is the CRD installed?"
    return ApiError(f"{words.rstrip('.')}. {todo}", status=answer.status, reason=answer.reason)
