"""GET and POST to one SkyPilot API server.

A POST answers with a request id; the request's value is fetched by GET /api/get, which blocks until the request has
finished (sky/server/server.py:2841). So every call here has a time-out of its own, and none waits for another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import aiohttp
from yarl import URL

from skyoperator.sky import parse
from skyoperator.sky.answers import API_VERSION, Server, failed_row, names_a_request
from skyoperator.sky.credentials import Credentials
from skyoperator.sky.types import UnknownRequest

SKYPILOT_VERSION: Final = "0.14.1"
KEEPALIVE_SECONDS: Final = 2.0
"""Below uvicorn's 5 s: a POST on a connection that the server is just closing would have an unknown fate."""

_VERSION_HEADER: Final = "X-SkyPilot-API-Version"
_REQUEST_ID_HEADER: Final = "X-SkyPilot-Request-ID"

_Query: TypeAlias = Sequence[tuple[str, str]]
_Body: TypeAlias = Mapping[str, Any]


def session() -> aiohttp.ClientSession:
    """Return a session that holds back no call, whatever the number of them."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS))


class Http:
    """Calls with our headers and credentials. Raises nothing but SkyPilotError."""

    def __init__(self, endpoint: str, *, credentials: Credentials, session: aiohttp.ClientSession) -> None:
        self.server = Server(URL(endpoint).with_user(None), credentials.advice)
        self._credentials = credentials
        self._session = session

    async def get(self, path: str, params: _Query, *, timeout_seconds: float) -> parse.Json:
        """Return the JSON of a 200; every other answer is SkyPilotUnreachable."""
        async with self._answer("GET", path, timeout_seconds, params=params) as response:
            return await self._json(path, response)

    async def post(self, path: str, body: _Body, *, timeout_seconds: float, may_send: Callable[[], None] = lambda: None) -> str:
        """Return the id of the request that this started. Raises SkyPilotRefused when it certainly started none.

        `may_send` is called once our credentials are at hand: fetching them takes as long as it takes, from then on the time-out counts.
        """
        async with self._answer("POST", path, timeout_seconds, json=body, may_send=may_send) as response:
            await self._require_200(path, response)
            return self._request_id(path, response)

    async def post_for_json(self, path: str, body: _Body, *, timeout_seconds: float) -> parse.Json:
        """Return the JSON that answers a POST with no request behind it. Raises as `post` does."""
        async with self._answer("POST", path, timeout_seconds, json=body) as response:
            return await self._json(path, response)

    async def post_for_stream(self, path: str, body: _Body, *, timeout_seconds: float, limit_bytes: int) -> tuple[str, bytes]:
        """Return the request id and the last whole lines of the streamed answer, `limit_bytes` at most."""
        async with self._answer("POST", path, timeout_seconds, json=body) as response:
            await self._require_200(path, response)
            return self._request_id(path, response), await _last_lines(response.content, limit_bytes)

    @asynccontextmanager
    async def post_for_chunks(
        self, path: str, body: _Body, params: _Query = (), *, silence_seconds: float
    ) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """Yield the request id and the streamed answer piece by piece, however long it takes as long as it is never silent for longer."""
        async with self._answer("POST", path, silence_seconds, params=params, json=body, is_stream=True) as response:
            await self._require_200(path, response)
            yield response.headers.get(_REQUEST_ID_HEADER, ""), response.content.iter_any()

    async def post_for_file(self, path: str, body: _Body, params: _Query, *, timeout_seconds: float, limit_bytes: int) -> bytes:
        """Return the last whole lines of an answer that is a file of the server's, with no request behind it."""
        async with self._answer("POST", path, timeout_seconds, params=params, json=body) as response:
            await self._require_200(path, response)
            return await _last_lines(response.content, limit_bytes)

    async def outcome(self, request_id: str, *, timeout_seconds: float) -> parse.Outcome:
        """Return what the request came to, waiting until it has finished. Raises UnknownRequest."""
        path = "api/get"
        async with self._answer("GET", path, timeout_seconds, params=[("request_id", request_id)]) as response:
            text = await _text(response)
            if response.status == 404 and names_a_request(text):
                raise UnknownRequest(f"The SkyPilot API server at {self.server.url} knows no request {request_id}.")
            row = failed_row(text) if response.status == 500 else None
            if row is None:
                row = await self._json(path, response)
            return self.server.parsed(parse.outcome, row)

    async def api_version(self, *, timeout_seconds: float) -> int:
        """Return the API version that the server declares on an authenticated call; 0 if it declares none."""
        path, cheapest = "api/status", [("fields", "request_id"), ("limit", "1")]
        async with self._answer("GET", path, timeout_seconds, params=cheapest) as response:
            await self._json(path, response)
            declared = response.headers.get(_VERSION_HEADER, "")
            return int(declared) if declared.isdecimal() else 0

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        timeout_seconds: float,
        *,
        params: _Query = (),
        json: _Body | None = None,
        is_stream: bool = False,
        may_send: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None if is_stream else timeout_seconds, sock_read=timeout_seconds)
        url, headers = self.server.url.joinpath(path), await self._headers()
        may_send()
        try:
            async with self._session.request(
                method, url, params=params, json=json, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status == 401:
                    self._credentials.rejected()
                yield response
        except TimeoutError as error:
            raise self.server.unreachable(f"did not answer {method} /{path} within {timeout_seconds:g} s.") from error
        except aiohttp.ClientError as error:
            raise self.server.unreachable(
                f"can't be reached ({method} /{path}: {error}). Check that it runs, its address, and network policies."
            ) from error

    async def _headers(self) -> dict[str, str]:
        headers = {_VERSION_HEADER: str(API_VERSION), "X-SkyPilot-Version": SKYPILOT_VERSION}
        authorization = await self._credentials.authorization()
        return headers if authorization is None else {**headers, "Authorization": authorization}

    async def _require_200(self, path: str, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            raise self.server.failure(response.method, path, response.status, await _text(response))

    async def _json(self, path: str, response: aiohttp.ClientResponse) -> parse.Json:
        await self._require_200(path, response)
        return self.server.json(path, await _text(response))

    def _request_id(self, path: str, response: aiohttp.ClientResponse) -> str:
        request_id = response.headers.get(_REQUEST_ID_HEADER)
        if not request_id:
            raise self.server.unreachable(f"took POST /{path} but named no request id. Is it SkyPilot?")
        return request_id


async def _text(response: aiohttp.ClientResponse) -> str:
    return await response.text(encoding="utf-8", errors="replace")


async def _last_lines(stream: aiohttp.StreamReader, limit_bytes: int) -> bytes:
    tail, received = bytearray(), 0
    async for chunk in stream.iter_any():
        tail += chunk
        received += len(chunk)
        del tail[:-limit_bytes]
    return bytes(tail) if received <= limit_bytes else bytes(tail).partition(b"\n")[2]
