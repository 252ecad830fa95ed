"""The HTTPS server: who asks, whether he may, and only then whether there is a log.

    GET /apis/logs.skyoperator.dev/v1alpha1/namespaces/<namespace>/skyclusters/<name>/log
    GET /apis/logs.skyoperator.dev/v1alpha1/namespaces/<namespace>/skyclusters/<name>/result

kube-apiserver lets a subresource named `log` take as long as it takes (kubernetes 1.34, pkg/controlplane/apiserver/config.go:185).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from ssl import SSLContext, SSLObject
from typing import Final, cast

from aiohttp import web

from skyoperator.api.logs import LOGS_GROUP
from skyoperator.kube import KubeError
from skyoperator.logs.metrics import FOLLOWERS
from skyoperator.logs.types import ENDS_HERE, Log, Logs, NoLogError, NoObjectError, ResultLostError
from skyoperator.logs.web import discovery, parameters, status
from skyoperator.logs.web.access import Access, Authorizer, Subresource
from skyoperator.logs.web.capacity import Capacity
from skyoperator.logs.web.identity import Asker, Authenticator, User
from skyoperator.logs.web.parameters import Reading
from skyoperator.logs.web.rendering import Rendering
from skyoperator.logs.web.status import PLURAL, RefusedError, UnavailableError
from skyoperator.logs.web.streaming import (
    PIECE_BYTES,
    RECHECK_SECONDS,
    STALL_SECONDS,
    Disk,
    Pump,
    Range,
    RightGoneError,
    Rights,
    StalledError,
    range_of,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
"""How often a follower's log is looked for that has not begun, though nothing was heard of its object."""
SHUTDOWN_SECONDS: Final = 2.0
"""Followers are cut then: they go on at their offset with the next process."""

NEXT_OFFSET: Final = "Skyoperator-Next-Offset"
LOG_STATE: Final = "Skyoperator-Log-State"
LOG_MESSAGE: Final = "Skyoperator-Log-Message"
RESULT_SHA256: Final = "Skyoperator-Result-SHA256"

_PROBES: Final = frozenset({"/healthz", "/readyz"})
_ROOT: Final = f"/apis/{discovery.GROUP_VERSION}"
_OBJECT: Final = f"{_ROOT}/namespaces/{{namespace}}/{PLURAL}/{{name}}"
_USER: Final = web.RequestKey("user", User)
_BUSY: Final[web.AppKey[set[asyncio.BaseTransport | None]]] = web.AppKey("busy")
"""The connections that carry a request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take."""

    recheck_seconds: float = RECHECK_SECONDS
    stall_seconds: float = STALL_SECONDS
    look_seconds: float = LOOK_SECONDS


async def serve(
    port: int,
    *,
    logs: Logs,
    authenticator: Authenticator,
    authorizer: Authorizer,
    ssl_context: SSLContext,
    is_ready: Callable[[], bool],
    max_followers: int,
    host: str | None = None,
    pace: Pace | None = None,
) -> web.AppRunner:
    """Return the server, started; the caller cleans it up. There are so many followers at a time, and as many other readers."""
    server = LogServer(logs, authenticator, authorizer, pace or Pace(), max_followers)
    runner = web.AppRunner(server.app(is_ready), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, host=host, port=port, ssl_context=ssl_context).start()
    return runner


def hang_up(runner: web.AppRunner) -> None:
    """End each connection once the request that it carries is answered: the next one shows its certificate anew."""
    for connection in runner.server.connections if runner.server is not None else ():
        if connection.transport in runner.app[_BUSY]:
            connection.close()
        else:
            # aiohttp's close() would leave an idle one open, with nobody to read from it (3.14, web_protocol.py:516).
            connection.force_close()


class LogServer:
    """The routes."""

    def __init__(self, logs: Logs, authenticator: Authenticator, authorizer: Authorizer, pace: Pace, max_followers: int) -> None:
        self._logs = logs
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._pace = pace
        self._followers = Capacity(max_followers, "followers")
        self._others = Capacity(max_followers, "readers")
        self._disk = Disk()
        self._busy: set[asyncio.BaseTransport | None] = set()

    def app(self, is_ready: Callable[[], bool]) -> web.Application:
        """Return the application."""

        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_: web.Request) -> web.Response:
            return web.Response(text="ready\n") if is_ready() else web.Response(status=503, text="not ready\n")

        app = web.Application(middlewares=[self._answered])
        app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
        for path, handler in {
            "/apis": _apis,
            f"/apis/{LOGS_GROUP}": _constant(discovery.API_GROUP),
            _ROOT: _constant(discovery.API_RESOURCE_LIST),
            f"{_OBJECT}/log": self._log,
            f"{_OBJECT}/result": self._result,
        }.items():
            app.router.add_get(path, handler, allow_head=False)
        app[_BUSY] = self._busy
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        self._disk.close()

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing but the probes is answered to who is nobody, and no error but as a Status."""
        connection = request.transport
        self._busy.add(connection)
        try:
            if request.path not in _PROBES:
                request[_USER] = await self._user(request)
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - told apart, and logged if it is none of ours
            return status.response(_refusal(error, request))
        finally:
            self._busy.discard(connection)

    async def _user(self, request: web.Request) -> User:
        connection = cast("SSLObject | None", request.get_extra_info("ssl_object"))
        asker = Asker(
            headers=request.headers,
            certificate=request.get_extra_info("peercert") or {},
            context=connection.context if connection is not None else None,
        )
        user = await self._authenticator.user(asker)
        if user is None:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "Unauthorized: a bearer token of this cluster is needed, or the way through kube-apiserver"
            )
        return user

    async def _authorize(self, user: User, access: Access) -> None:
        """Raises RefusedError, 403, in the same words whether there is such an object or not."""
        if not await self._authorizer.may(user, access):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f'{PLURAL}.{LOGS_GROUP} "{access.name}" is forbidden: User "{user.name}" cannot get resource '
                f'"{PLURAL}/{access.subresource}" in API group "{LOGS_GROUP}" in the namespace "{access.namespace}"',
                name=access.name,
            )

    async def _result(self, request: web.Request) -> web.Response:
        access = await self._admitted(request, "result")
        wanted = parameters.wanted_result(access.namespace, access.name, _query(request))
        with self._others.one_more(request[_USER].name):
            body = await self._logs.result(wanted)
        headers = {RESULT_SHA256: sha256(body).hexdigest(), "Cache-Control": "no-store"}
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        access = await self._admitted(request, "log")
        reading = parameters.reading(access.namespace, access.name, _query(request))
        rights = Rights(lambda: self._recheck(request, access), self._pace.recheck_seconds)
        if not reading.follow:
            with self._others.one_more(request[_USER].name):
                return await self._send(request, await self._logs.find(reading.wanted), reading, rights)
        with self._followers.one_more(request[_USER].name), FOLLOWERS.track_inprogress():
            log = await self._found(reading, rights)
            async with self._logs.following(log):
                return await self._send(request, log, reading, rights)

    async def _admitted(self, request: web.Request, subresource: Subresource) -> Access:
        access = Access(request.match_info["namespace"], request.match_info["name"], subresource)
        await self._authorize(request[_USER], access)
        return access

    async def _recheck(self, request: web.Request, access: Access) -> None:
        """Raises RightGoneError, also if nobody can tell: no answer is never a yes."""
        try:
            await self._authorize(await self._user(request), access)
        except (RefusedError, UnavailableError) as error:
            raise RightGoneError(str(error)) from error

    async def _found(self, reading: Reading, rights: Rights) -> Log:
        """Return the log, as soon as there is one. Raises NoLogError if it has not begun in time, at once if the object is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + reading.wait_seconds
        with self._logs.changes(reading.wanted) as changed:
            while True:
                changed.clear()
                await rights.ask_if_due()
                try:
                    return await self._logs.find(reading.wanted)
                except NoLogError as error:
                    if isinstance(error, NoObjectError) or loop.time() >= until:
                        raise
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(self._pace.look_seconds, max(until - loop.time(), 0.0)))

    async def _send(self, request: web.Request, log: Log, reading: Reading, rights: Rights) -> web.StreamResponse:
        wanted = await range_of(log, reading, self._disk)
        answer = web.StreamResponse(headers=_headers(log, wanted, reading))
        answer.enable_chunked_encoding()
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=PIECE_BYTES)
        await answer.prepare(request)
        pump = Pump(log, answer, self._disk, rights, stall_seconds=self._pace.stall_seconds)
        rendering = Rendering(wanted.offset, rank=reading.rank, ansi=reading.ansi)
        with _ended(request):
            try:
                await pump.run(wanted, rendering, follow=reading.follow)
            except RightGoneError as gone:
                await pump.write(rendering.line(f"{ENDS_HERE}{gone}"))
                raise
        return answer


@contextmanager
def _ended(request: web.Request) -> Iterator[None]:
    """End an answer that is not whole so that the reader sees it: without the last chunk."""
    transport = request.transport
    try:
        yield
    except ConnectionError:
        return
    except StalledError as stalled:
        logger.info("closed a reader of %s that %s", request.path, stalled)
        if transport is not None:
            transport.abort()
    except RightGoneError as gone:
        logger.info("closed a reader of %s: %s", request.path, gone)
        if transport is not None:
            transport.close()
    except Exception:
        logger.exception("can't go on with %s", request.path)
        if transport is not None:
            transport.close()


def _headers(log: Log, wanted: Range, reading: Reading) -> dict[str, str]:
    """How far the log had come when the answer began. Where it will end is known only of one that does not follow."""
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        LOG_STATE: log.state.value,
    }
    if not reading.follow:
        headers[NEXT_OFFSET] = str(wanted.end)
    message = "".join(character if character.isprintable() else " " for character in log.message)[:1024]
    return {**headers, LOG_MESSAGE: message} if message else headers


_CODES: Final = (
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (KubeError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoLogError, HTTPStatus.NOT_FOUND),
    (ResultLostError, HTTPStatus.GONE),
    (RightGoneError, HTTPStatus.FORBIDDEN),
)


def _refusal(error: Exception, request: web.Request) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    name = request.match_info.get("name", "")
    if isinstance(error, web.HTTPException):
        return RefusedError(HTTPStatus(error.status), f"{request.method} {request.path}: {error.reason}")
    for kind, code in _CODES:
        if isinstance(error, kind):
            return RefusedError(code, str(error), name=name)
    logger.error("could not answer %s", request.path, exc_info=error)
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "an error that is not yours; the log process's own output has it", name=name)


def _query(request: web.Request) -> dict[str, list[str]]:
    return {key: request.query.getall(key) for key in request.query}


def _constant(document: object) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(document)

    return handler


async def _apis(request: web.Request) -> web.Response:
    """kube-aggregator asks again every minute, with the ETag that it has (handler_discovery.go)."""
    if not discovery.wants_aggregated(request.headers.get("Accept", "")):
        return web.json_response(discovery.API_GROUP_LIST)
    headers = {"ETag": discovery.AGGREGATED_ETAG, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") == discovery.AGGREGATED_ETAG:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return web.Response(
        body=json.dumps(discovery.API_GROUP_DISCOVERY_LIST).encode(), headers={**headers, "Content-Type": discovery.AGGREGATED}
    )
