"""A TCP proxy that speaks just enough HTTP to hold one POST: before it reaches the server, or its answer before it reaches the client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Self

FROM_AFAR = b"X-Forwarded-For: 192.0.2.1\r\n"
"""A port-forward reaches SkyPilot from its own loopback, where it asks nobody for credentials unless this header is there
(sky/server/auth/loopback.py)."""


class Held:
    """Tells when the held POST has come to the point at which it is held."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, *, seconds: float) -> None:
        assert self._event.wait(seconds), f"no POST was held within {seconds:.0f} s"


class HoldingProxy:
    """Listens on loopback in a thread of its own; every connection carries one request after another, unchanged."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.launches = 0
        """How many POSTs to /launch reached the server."""
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._started = threading.Event()
        self._hold: tuple[bytes, bool, Held] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @contextlib.contextmanager
    def holding(self, path: str, *, before: bool = False) -> Iterator[Held]:
        """Hold POSTs to this path while the block runs; what was held is dropped, never delivered late."""
        held = Held()
        self._hold = (f"POST {path} ".encode(), before, held)
        try:
            yield held
        finally:
            self._hold = None

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end(server))
        self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        try:
            server_in, server_out = await asyncio.open_connection("127.0.0.1", self._target_port)
        except ConnectionError:
            client_out.close()
            return
        answers = asyncio.create_task(_copy(server_in, client_out))
        try:
            while request := await _read_request(client_in):
                hold = self._hold
                launches = request.startswith(b"POST /launch ")
                if hold is not None and request.startswith(hold[0]):
                    await self._keep(hold, request, server_in, server_out, answers)
                    return
                self.launches += launches
                server_out.write(request)
                await server_out.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            answers.cancel()
            for writer in (client_out, server_out):
                writer.close()

    async def _keep(
        self,
        hold: tuple[bytes, bool, Held],
        request: bytes,
        server_in: asyncio.StreamReader,
        server_out: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        _, before, held = hold
        answers.cancel()
        await asyncio.wait({answers})
        if not before:
            self.launches += 1
            server_out.write(request)
            await server_out.drain()
            await server_in.readuntil(b"\r\n\r\n")
        held.set()
        while self._hold is hold:
            await asyncio.sleep(0.05)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Return one whole request, or nothing at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    first, rest = head.split(b"\r\n", 1)
    return first + b"\r\n" + FROM_AFAR + rest + await reader.readexactly(length)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end, and pass the end on: a client must not wait for a server that has died."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
