"""One request to the Kubernetes API: asked again if that is safe, and its refusal in words that say what to do.

Requests are made below CustomObjectsApi, which can't ask a subresource of ours, hides headers, and loses the bytes of a log. The
client itself, its credentials and their renewal are the kubernetes library's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import quote

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from skyoperator_provider.errors import ApiError
from skyoperator_provider.skycluster import GROUP, LOGS_GROUP, LOGS_VERSION, PLURAL, VERSION

Json = dict[str, Any]
Query = Sequence[tuple[str, str]]

PAUSES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before each repetition; together half a minute, in which a kube-apiserver is replaced by another."""
RETRY_AFTER_LIMIT_SECONDS: Final = 60.0
"""No wish of a server holds a worker's slot for longer at a time."""
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 60.0
MERGE_PATCH: Final = "application/merge-patch+json"
PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Refusals that pass by themselves."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and the right that it takes."""

    verb: str
    """As RBAC calls it: get, list, create, patch, delete."""
    method: str
    path: str
    group: str
    resource: str
    """As RBAC calls it: skyclusters, skyclusters/log."""
    namespace: str
    name: str = ""
    query: Query = ()
    body: Json | None = None
    content_type: str = "application/json"

    def __str__(self) -> str:
        """Return it as an English phrase, for messages."""
        what = f"SkyCluster {self.namespace}/{self.name}" if self.name else f"the SkyClusters of namespace {self.namespace}"
        of = {"skyclusters/log": "the log of ", "skyclusters/result": "the result of "}.get(self.resource, "")
        return f"{self.verb} {of}{what}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, good or bad."""

    status: int
    headers: Mapping[str, str]
    """Found under their names in any case."""
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether it is no refusal."""
        return self.status < HTTPStatus.BAD_REQUEST

    def document(self) -> Json:
        """Return the JSON object that it is; an empty one if it is none, as a proxy's page of HTML is not."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    @property
    def reason(self) -> str:
        """The word for programs: AlreadyExists, Conflict, NotFound."""
        return str(self.document().get("reason") or "")

    @property
    def message(self) -> str:
        """The sentence for people."""
        words = self.document().get("message") or self.body[:500].decode(errors="replace").strip()
        return str(words or HTTPStatus(self.status).phrase)


def object_request(verb: str, method: str, namespace: str, name: str = "", **rest: Any) -> Request:
    """Return a request for one SkyCluster, or without a name for those of a namespace."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{quote(namespace, safe='')}/{PLURAL}"
    path = f"{path}/{quote(name, safe='')}" if name and method != "POST" else path
    return Request(verb, method, path, GROUP, PLURAL, namespace, name, **rest)


def log_request(subresource: str, namespace: str, name: str, query: Query) -> Request:
    """Return a request to the log API: `log` or `result` of one SkyCluster."""
    root = f"/apis/{LOGS_GROUP}/{LOGS_VERSION}/namespaces/{quote(namespace, safe='')}/{PLURAL}"
    path = f"{root}/{quote(name, safe='')}/{subresource}"
    return Request("get", "GET", path, LOGS_GROUP, f"{PLURAL}/{subresource}", namespace, name, query)


class Api:
    """A Kubernetes API, as one Airflow connection reaches it.

    urllib3's own repetitions are switched off: it would repeat a request of 3 s four times, without a word.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        client.configuration.retries = False
        client.rest_client = RESTClientObject(client.configuration)
        self._client = client
        self._pauses_seconds = tuple(pauses_seconds)
        self._sleep = sleep
