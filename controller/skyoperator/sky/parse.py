"""SkyPilot's JSON turned into our types. Pure: a word, a field or a shape of a newer server never raises KeyError here.

Times are seconds since the epoch; 0, -1 and null mean "not yet" (sky/skylet/job_lib.py:102: start_at defaults to -1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

import yaml

from skyoperator.sky.masking import masked
from skyoperator.sky.types import (
    NO_LABELS,
    Cluster,
    ClusterStatus,
    Job,
    JobStatus,
    Request,
    RequestError,
    RequestStatus,
)

Json: TypeAlias = Any
"""Whatever json.loads returns; only this module looks inside."""

REQUEST_FIELDS: Final = ("request_id", "name", "status", "cluster_name", "created_at", "status_msg")
"""The columns polls ask for. Never request_body, which holds the task's secrets in plain text."""

_NAME_PREFIX: Final = "sky."  # sky/server/constants.py REQUEST_NAME_PREFIX
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CONTROL_LINE: Final = re.compile(r"<sky-payload[^>]*>.*?</sky-payload>\n?", re.DOTALL)
_StrEnumT = TypeVar("_StrEnumT", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What /api/get says of a finished request: its value, or why there is none."""

    value: Json
    error: RequestError | None
    cluster_name: str | None = None


def plain(text: object) -> str:
    """Return text without terminal colours; anything but text is the empty string."""
    return _ANSI.sub("", text) if isinstance(text, str) else ""


def log_text(raw: bytes) -> str:
    """Return a streamed log without colours and without the messages meant for SkyPilot's own CLI."""
    return plain(_CONTROL_LINE.sub("", raw.decode("utf-8", errors="replace")))


def request(row: Mapping[str, Any]) -> Request:
    """Return one row of /api/status."""
    return Request(
        id=row["request_id"],
        name=str(row.get("name", "")).removeprefix(_NAME_PREFIX),
        status=_word(RequestStatus, row.get("status"), RequestStatus.PENDING),
        cluster_name=row.get("cluster_name"),
        created_at=_when(row.get("created_at")),
        status_msg=plain(row.get("status_msg")),
    )


def cluster(row: Mapping[str, Any]) -> Cluster:
    """Return one row of /status (sky/schemas/api/responses.py StatusResponse)."""
    labels = row.get("labels")
    return Cluster(
        name=row["name"],
        status=_word(ClusterStatus, row.get("status"), ClusterStatus.UNKNOWN),
        infra="/".join(filter(None, (row.get("cloud"), row.get("region")))),
        resources=plain(row.get("resources_str")),
        nodes=int(row.get("nodes") or 0),
        launched_at=_when(row.get("launched_at")),
        labels=MappingProxyType(dict(labels)) if labels else NO_LABELS,
        init_kind=row.get("init_kind"),
        message=plain(row.get("init_status_reason")),
    )


def job(row: Mapping[str, Any]) -> Job:
    """Return one row of /queue (sky/schemas/api/responses.py ClusterJobRecord)."""
    return Job(
        id=int(row["job_id"]),
        name=str(row.get("job_name", "")),
        status=_word(JobStatus, row.get("status"), JobStatus.UNKNOWN),
        submitted_at=_when(row.get("submitted_at")),
        started_at=_when(row.get("start_at")),
        finished_at=_when(row.get("end_at")),
    )


def endpoints(value: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the value of /endpoints, in the order of the ports."""
    return {port: plain(value[port]) for port in sorted(value, key=int)}


def identity(users: Json) -> str:
    """Return which database the rows of /users are from: "fcd1e5cf@2026-11-25T21:16:55Z". Raises ValueError if none of them tells.

    SkyPilot makes its own users when it makes its database; they can't be deleted and their created_at never changes
    (sky/users/permission.py:120, sky/users/server.py:608, sky/global_user_state.py:744). The oldest of them is named after the host.
    """
    born = [(int(user["created_at"]), str(user["id"])) for user in users if user.get("user_type") == "system" and user.get("created_at")]
    if not born:
        raise ValueError("/users names no user of SkyPilot's own, by which we would know the server")
    seconds, name = min(born)
    return f"{name}@{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Return what a finished request came to. A cancelled one carries no error of its own; we give it one."""
    error = json.loads(row.get("error") or "null")
    if error is not None:
        return Outcome(None, RequestError(str(error.get("type", "")), masked(plain(error.get("message")))), row.get("cluster_name"))
    if row.get("status") == RequestStatus.CANCELLED:
        return Outcome(None, RequestError("RequestCancelled", "The request was cancelled before it finished."))
    return Outcome(json.loads(row.get("return_value") or "null"), None)


def task_name(row: Mapping[str, Any]) -> str | None:
    """Return the `name` of the task in a launch's body; None if the body is hidden (another user's) or no such YAML."""
    try:
        body = json.loads(row.get("request_body") or "null")
        task = yaml.safe_load(body["task"])
        name = task["name"]
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return None
    return name if isinstance(name, str) else None


def words(body: str, limit: int = 500) -> str:
    """Return a server's complaint for people, at most `limit` characters.

    Of a 422 only places and messages are taken: it repeats the body it was sent, and so the task's secrets.
    """
    try:
        said = json.loads(body)
    except ValueError:
        return _first_line(body)[:limit]
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said.get("error") or ""
    if isinstance(said, list):
        said = "; ".join(_complaint(item) for item in said if isinstance(item, dict))
    return plain(said)[:limit]


def _complaint(item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in item.get("loc", ()))
    return f"{place}: {item.get('msg', 'invalid')}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in plain(text).splitlines() if line.strip()), "")


def _when(seconds: object) -> datetime | None:
    if not isinstance(seconds, int | float) or seconds <= 0:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _word(words_known: type[_StrEnumT], word: object, otherwise: _StrEnumT) -> _StrEnumT:
    try:
        return words_known(str(word))
    except ValueError:
        return otherwise
