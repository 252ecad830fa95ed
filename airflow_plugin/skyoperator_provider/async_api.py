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

from skyoperator_provider.errors import ApiError
from skyoperator_provider.feed import Page
from skyoperator_provider.hooks import logs, requests
from skyoperator_provider.hooks.api import Answer, Request, changed, refusal
from skyoperator_provider.watches import Key

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient
    from kubernetes_asyncio.client.configuration import Configuration

Json = dict[str, Any]

REQUEST_SECONDS: Final = 15.0
WATCH_EXTRA_SECONDS: Final = 9.0
"""How long after its time-out a watch may take to end; then the connection is held for dead."""


class KubernetesSkyClusterApi:
    """SkyClusterApi, over HTTP."""

    def __init__(self, client: ApiClient, *, request_seconds: float = REQUEST_SECONDS) -> None:
        self._client = client
        self._request_seconds = request_seconds

    async def list(self, namespace: str, *, limit: int, continue_: str = "") -> Page:  # noqa: D102
        page = [("limit", str(limit)), *([("continue", continue_)] if continue_ else [])]
        request = requests.list_all(namespace, page)
        body = _good(request, await self._answer(request))
        return Page(body["items"], body["metadata"]["resourceVersion"], body["metadata"].get("continue") or "")

    async def get(self, namespace: str, name: str) -> Json | None:  # noqa: D102
        request = requests.read(namespace, name)
        answer = await self._answer(request)
        return None if requests.is_absent(answer) else _good(request, answer)

    async def delete(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:  # noqa: D102
        request = requests.delete(namespace, name, requests.preconditions(uid, resource_version))
        answer = await self._answer(request)
        if requests.is_changed(answer):
            raise changed(request, answer)
        if not requests.is_absent(answer):
            _good(request, answer)

    async def log(self, namespace: str, name: str, place: logs.Place) -> logs.LogPiece:  # noqa: D102
        request = requests.of_job("log", namespace, name, [*place.query(), ("ansi", "true")])
        return logs.piece(request, await self._answer(request))

    async def watch(self, namespace: str, *, resource_version: str, timeout_seconds: int) -> AsyncGenerator[Json, None]:  # noqa: D102
        request = requests.watch(namespace, resource_version, timeout_seconds)
        async with self._response(request, timeout_seconds + WATCH_EXTRA_SECONDS) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise refusal(request, await _read(response))
            async for line in lines(response.content.iter_any()):
                yield _event(request, line)

    async def _answer(self, request: Request) -> Answer:
        async with self._response(request, self._request_seconds) as response:
            return await _read(response)

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
            raise ApiError(f"Can't {request.action}: no answer within {timeout_seconds:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(f"Can't {request.action}: {error or type(error).__name__}") from error

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
            raise ApiError(f"Can't {request.action}: {error}") from error
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


async def _read(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, response.headers, await response.read())


def _good(request: Request, answer: Answer) -> Json:
    """Return the document that a good answer is. Raises ApiError."""
    if not answer.is_good:
        raise refusal(request, answer)
    document = answer.document
    if not document:
        raise ApiError(f"Can't {request.action}: the answer is no Kubernetes object, but {answer.message[:100]!r}")
    return document


def _event(request: Request, line: bytes) -> Json:
    """Return an event of a watch. Raises ApiError if it says that the watch is over."""
    try:
        event = json.loads(line)
        kind, found = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(f"Can't {request.action}: {line[:100]!r} is no event") from error
    if kind == "ERROR":
        raise refusal(request, Answer(int(found.get("code") or 500), {}, json.dumps(found).encode()))
    return cast("Json", event)
