"""The `SkyPilot` protocol over the API server's REST interface, version 62 (SkyPilot 0.14.1)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

import aiohttp

from skyoperator.sky import parse
from skyoperator.sky.answers import API_VERSION
from skyoperator.sky.credentials import Credentials
from skyoperator.sky.http import SKYPILOT_VERSION, Http, session
from skyoperator.sky.types import (
    Cluster,
    ClusterNotUp,
    Job,
    Launched,
    NoSuchCluster,
    Request,
    RequestError,
    RequestFailed,
    SkyPilotError,
    UnknownRequest,
)

POST_TIMEOUT_SECONDS: Final = 20.0
"""What a POST that starts something may take; a lease must have more than this left before one is sent."""
GET_TIMEOUT_SECONDS: Final = 20.0
RESULT_TIMEOUT_SECONDS: Final = 10.0
CLUSTERS_TIMEOUT_SECONDS: Final = 30.0
JOBS_TIMEOUT_SECONDS: Final = 60.0
"""Through kubectl exec one /queue takes 2-3 s alone and 25 s beside fifteen others, on two cores."""
ENDPOINTS_TIMEOUT_SECONDS: Final = 90.0
"""SkyPilot itself waits 60 s for a load balancer's address (sky/provision/kubernetes/network.py:277)."""
LOG_TIMEOUT_SECONDS: Final = 60.0
LOG_LIMIT_BYTES: Final = 1 << 20
PROVISION_LOG_LINES: Final = 200
"""Of the log of a launch that failed: from its end back over the traceback of the last refusal."""

USER: Final[Mapping[str, str]] = {"SKYPILOT_USER_ID": "3cf75ab7", "SKYPILOT_USER": "skyoperator"}
"""Our identity towards a server without authentication; with it the server puts the authenticated user in its place
(sky/server/requests/executor.py:1234). It ends up in pod names, so it never changes."""

_T = TypeVar("_T")


class SkyPilotClient:
    """One API server. Errors are SkyPilotError only; see each method of `types.SkyPilot` for what it returns."""

    def __init__(self, endpoint: str, *, credentials: Credentials, session: aiohttp.ClientSession) -> None:
        self._http = Http(endpoint, credentials=credentials, session=session)

    @classmethod
    @asynccontextmanager
    async def connect(cls, endpoint: str, credentials: Credentials) -> AsyncIterator[SkyPilotClient]:
        """Yield a client with a session of its own, closed at the end. Connects to nothing yet."""
        async with session() as own:
            yield cls(endpoint, credentials=credentials, session=own)

    async def check(self) -> None:
        """Return if the server takes our credentials and speaks our version."""
        version = await self._http.api_version(timeout_seconds=GET_TIMEOUT_SECONDS)
        if version < API_VERSION:
            raise self._http.server.unreachable(
                f"speaks API version {version or 'unknown'}, we need {API_VERSION}: upgrade it to SkyPilot {SKYPILOT_VERSION} or newer."
            )

    async def active_requests(self) -> tuple[Request, ...]:
        """See `SkyPilot.active_requests`."""
        return await self._requests()

    async def requests_of(self, cluster_name: str) -> tuple[Request, ...]:
        """See `SkyPilot.requests_of`."""
        found = await self._requests(("cluster_name", cluster_name), ("all_status", "true"))
        return tuple(request for request in found if request.cluster_name == cluster_name)

    async def task_name_of(self, request_id: str) -> str | None:
        """See `SkyPilot.task_name_of`. Only request_ids= returns bodies (sky/server/server.py:3183)."""
        query = [("request_ids", request_id)]
        rows = await self._http.get("api/status", query, timeout_seconds=GET_TIMEOUT_SECONDS)
        if not rows:
            raise UnknownRequest(f"SkyPilot knows no request {request_id}.")
        return self._http.server.parsed(lambda found: parse.task_name(found[0]), rows)

    async def result_of(self, request_id: str) -> Launched | RequestError:
        """See `SkyPilot.result_of`."""
        outcome = await self._http.outcome(request_id, timeout_seconds=RESULT_TIMEOUT_SECONDS)
        if outcome.error is None:
            return Launched(job_id=self._http.server.parsed(_job_id, outcome.value))
        return replace(outcome.error, log=await self._provision_log(outcome.cluster_name) if outcome.cluster_name else "")

    async def clusters(self) -> tuple[Cluster, ...]:
        """See `SkyPilot.clusters`. A refresh would take a long worker; the server does one by itself every minute."""
        body = {
            "cluster_names": None,
            "refresh": "NONE",
            "all_users": True,
            "include_handle": False,
            "include_credentials": False,
            "summary_response": True,
        }
        return self._each(parse.cluster, await self._ask("status", body, timeout_seconds=CLUSTERS_TIMEOUT_SECONDS))

    async def jobs(self, cluster_name: str) -> tuple[Job, ...]:
        """See `SkyPilot.jobs`."""
        body = {"cluster_name": cluster_name, "skip_finished": False, "all_users": True}
        try:
            rows = await self._ask("queue", body, timeout_seconds=JOBS_TIMEOUT_SECONDS)
        except ClusterNotUp as error:
            if NEVER_SET_UP not in str(error):
                raise
            return ()
        return self._each(parse.job, rows)

    async def launch(self, cluster_name: str, task_yaml: str, *, may_send: Callable[[], None] = lambda: None) -> str:
        """See `SkyPilot.launch`. Never retry_until_up: how often to try again is the controller's to decide."""
        body = {**BASE_BODY, "cluster_name": cluster_name, "task": task_yaml, "retry_until_up": False}
        return await self._http.post("launch", body, timeout_seconds=POST_TIMEOUT_SECONDS, may_send=may_send)

    async def down(self, cluster_name: str) -> str:
        """See `SkyPilot.down`. Never purge: that forgets a cluster whose teardown failed."""
        return await self._start("down", {"cluster_name": cluster_name, "purge": False})

    async def cancel(self, request_ids: Sequence[str]) -> str:
        """See `SkyPilot.cancel`. A list is always sent: null would cancel everybody's requests."""
        return await self._start("api/cancel", {"request_ids": list(request_ids)})

    async def cancel_jobs(self, cluster_name: str, job_ids: Sequence[int]) -> str:
        """See `SkyPilot.cancel_jobs`. A list is always sent: null would cancel the latest job, whosoever it is (skylet/job_lib.py:1097)."""
        return await self._start("cancel", {"cluster_name": cluster_name, "job_ids": list(job_ids), "all": False, "all_users": False})

    async def set_autostop(self, cluster_name: str, idle_minutes: int | None) -> str:
        """See `SkyPilot.set_autostop`. Always down, never stop: Kubernetes can't stop pods. A negative number cancels (core.py:1171)."""
        idle = -1 if idle_minutes is None else idle_minutes
        body = {"cluster_name": cluster_name, "idle_minutes": idle, "wait_for": "jobs_and_ssh", "down": idle_minutes is not None}
        return await self._start("autostop", body)

    async def endpoints(self, cluster_name: str) -> Mapping[str, str]:
        """See `SkyPilot.endpoints`."""
        answer = await self._ask("endpoints", {"cluster": cluster_name, "port": None}, timeout_seconds=ENDPOINTS_TIMEOUT_SECONDS)
        return self._http.server.parsed(parse.endpoints, answer)

    async def identity(self) -> str:
        """See `SkyPilot.identity`."""
        return self._http.server.parsed(parse.identity, await self._http.get("users", [], timeout_seconds=GET_TIMEOUT_SECONDS))

    async def mint_login(self) -> str:
        """Make a user with a name that nobody had before in the server's database, and return "name:password".

        An administrator, or it would see no requests but its own (sky/server/requests/role_filter.py:36). No service account: the id
        of one, 19 characters, is put into the names of pods and machines, and cuts so much off ours that clusters would share one
        (sky/utils/common_utils.py:299). Imported rather than created, so that the hash is ours to choose: /users/create takes bcrypt,
        which costs a quarter of a second of CPU at each request, and slows down nobody who would guess 256 random bits.
        """
        name, password = f"skyoperator-{secrets.token_hex(4)}", secrets.token_urlsafe(32)
        body = {**BASE_BODY, "csv_content": f"username,password,role\n{name},{_ldap_sha1(password)},admin\n"}
        answer = await self._http.post_for_json("users/import", body, timeout_seconds=POST_TIMEOUT_SECONDS)
        if self._http.server.parsed(lambda imported: int(imported["success_count"]), answer) != 1:
            raise self._http.server.unreachable(f"made no user for us: {answer.get('creation_errors') or answer.get('parse_errors')}")
        return f"{name}:{password}"

    async def log_tail(self, cluster_name: str, job_id: int, lines: int) -> str:
        """See `SkyPilot.log_tail`. At most LOG_LIMIT_BYTES; the stream is a 200 even if the request behind it fails."""
        body = {"cluster_name": cluster_name, "job_id": job_id, "follow": False, "tail": lines}
        request_id, raw = await self._http.post_for_stream(
            "logs", {**BASE_BODY, **body}, timeout_seconds=LOG_TIMEOUT_SECONDS, limit_bytes=LOG_LIMIT_BYTES
        )
        value_of(await self._http.outcome(request_id, timeout_seconds=RESULT_TIMEOUT_SECONDS))
        return parse.log_text(raw)

    async def _provision_log(self, cluster_name: str | None) -> str:
        """Return the end of what the cluster's latest launch did; nothing if it can't be had: the launch's error says enough to go on."""
        query, body = [("follow", "false"), ("tail", str(PROVISION_LOG_LINES))], {**BASE_BODY, "cluster_name": cluster_name}
        try:
            raw = await self._http.post_for_file(
                "provision_logs", body, query, timeout_seconds=RESULT_TIMEOUT_SECONDS, limit_bytes=LOG_LIMIT_BYTES
            )
        except SkyPilotError:
            return ""
        return parse.log_text(raw)

    async def _requests(self, *query: tuple[str, str]) -> tuple[Request, ...]:
        params = [*query, *(("fields", field) for field in parse.REQUEST_FIELDS)]
        return self._each(parse.request, await self._http.get("api/status", params, timeout_seconds=GET_TIMEOUT_SECONDS))

    async def _start(self, path: str, body: Mapping[str, Any]) -> str:
        return await self._http.post(path, {**BASE_BODY, **body}, timeout_seconds=POST_TIMEOUT_SECONDS)

    async def _ask(self, path: str, body: Mapping[str, Any], *, timeout_seconds: float) -> parse.Json:
        request_id = await self._start(path, body)
        return value_of(await self._http.outcome(request_id, timeout_seconds=timeout_seconds))

    def _each(self, parse_one: Callable[[Mapping[str, Any]], _T], rows: parse.Json) -> tuple[_T, ...]:
        return self._http.server.parsed(lambda found: tuple(parse_one(row) for row in found), rows)


NEVER_SET_UP: Final = "stopped or not properly set up"
"""What the queue of a row fails with that is UP, but has no head (sky/backends/backend_utils.py:3652): the server died in mid-launch, its
status daemon found the bare node healthy, and nothing can have been submitted to it."""

BASE_BODY: Final[Mapping[str, Any]] = {
    "env_vars": USER,
    "entrypoint": "skyoperator",
    "entrypoint_command": "skyoperator",
    "using_remote_api_server": True,
    "override_skypilot_config": {},
}
"""What every body must say: fields left out are filled in from the server's own environment (payloads.py:185)."""

_ANSWERS: Final[Mapping[str, type[SkyPilotError]]] = {
    "ClusterDoesNotExist": NoSuchCluster,
    "ClusterNotUpError": ClusterNotUp,
}


def _ldap_sha1(password: str) -> str:
    digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "{SHA}" + base64.b64encode(digest).decode()


def value_of(outcome: parse.Outcome) -> parse.Json:
    """Return the value of a request that reads. Raises what its error means."""
    if outcome.error is None:
        return outcome.value
    answer = _ANSWERS.get(outcome.error.type)
    raise RequestFailed(outcome.error) if answer is None else answer(outcome.error.message)


def _job_id(value: parse.Json) -> int | None:
    job_id = value.get("job_id") if isinstance(value, Mapping) else None
    return None if job_id is None else int(job_id)
