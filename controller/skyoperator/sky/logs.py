"""A job's and a launch's log out of SkyPilot's API server, as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Protocol

from skyoperator.sky.client import BASE_BODY, RESULT_TIMEOUT_SECONDS, value_of
from skyoperator.sky.credentials import Credentials
from skyoperator.sky.http import Http, session
from skyoperator.sky.types import SkyPilotUnreachable

SILENCE_SECONDS: Final = 120.0
"""SkyPilot sends a heartbeat each 30 s to who follows (sky/server/stream_utils.py:28); a big log may take a while to begin."""


EXIT_CODES: Final = frozenset({None, 0, 100, 101, 102, 103})
"""What SkyPilot's reader of logs ends with, whatever became of the job (sky/exceptions.py: JobExitCode). Anything else is of the way to
the node: a request that got no further than that counts as SUCCEEDED all the same (sky/core.py: tail_logs)."""

HEARTBEAT: Final = b"<sky-payload"


class LogSource(Protocol):
    """Where logs come from. What is raised is a SkyPilotError."""

    def job_log(self, cluster_name: str, job_id: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield the last so many lines of a job's log, or all of it; then what comes, until the job ends, if `follow`.

        SkyPilot's own remarks and heartbeats are in between. Raises NoSuchCluster, ClusterNotUp, RequestFailed, also at the end.
        """

    def launch_log(self, cluster_name: str) -> AsyncGenerator[bytes, None]:
        """Yield the log of the cluster's latest launch. Raises SkyPilotUnreachable also where there is none."""


class LogClient:
    """The `LogSource` of one API server. Each follower takes one of its 128 threads for requests."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def connect(cls, endpoint: str, credentials: Credentials) -> AsyncGenerator[LogClient, None]:
        """Yield a client with a session of its own, closed at the end. Connects to nothing yet."""
        async with session() as own:
            yield cls(Http(endpoint, credentials=credentials, session=own))

    async def job_log(self, cluster_name: str, job_id: int, *, lines: int | None, follow: bool) -> AsyncGenerator[bytes, None]:
        """See `LogSource.job_log`. The stream is a 200 even if the request behind it fails, so that is asked for at the end."""
        body = {"cluster_name": cluster_name, "job_id": job_id, "follow": follow, "tail": lines or 0}
        async with self._http.post_for_chunks("logs", {**BASE_BODY, **body}, silence_seconds=SILENCE_SECONDS) as (request_id, chunks):
            async for chunk in chunks:
                yield chunk
        code = value_of(await self._http.outcome(request_id, timeout_seconds=RESULT_TIMEOUT_SECONDS))
        if code not in EXIT_CODES:
            raise self._http.server.unreachable(f"could not read the log of job {job_id} on {cluster_name} (exit code {code}).")

    async def launch_log(self, cluster_name: str) -> AsyncGenerator[bytes, None]:
        """See `LogSource.launch_log`."""
        body: Mapping[str, Any] = {**BASE_BODY, "cluster_name": cluster_name}
        query = [("follow", "false")]
        async with self._http.post_for_chunks("provision_logs", body, query, silence_seconds=SILENCE_SECONDS) as (_, chunks):
            async for chunk in chunks:
                yield chunk


async def lively(chunks: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the chunks. Raises SkyPilotUnreachable if nothing but heartbeats comes for so long: they go on when a node has died."""
    async with aclosing(chunks):
        try:
            async with asyncio.timeout(seconds) as silence:
                async for chunk in chunks:
                    if not chunk.startswith(HEARTBEAT):
                        silence.reschedule(asyncio.get_running_loop().time() + seconds)
                    yield chunk
        except TimeoutError as error:
            raise SkyPilotUnreachable(f"SkyPilot told nothing of a log for {seconds:g} s.") from error


async def gathered(chunks: AsyncGenerator[bytes, None], limit_bytes: int) -> bytes | None:
    """Return it all; None as soon as it is more than so much."""
    text = bytearray()
    async with aclosing(chunks) as stream:
        async for chunk in stream:
            text += chunk
            if len(text) > limit_bytes:
                return None
    return bytes(text)
