"""One request to the Kubernetes API: asked again where that is safe, and its refusal in words that say what to do.

Requests are made below CustomObjectsApi, which can't ask for a subresource of its own, hides headers, and has no bytes of a log. The
client, its credentials and their renewal are the kubernetes library's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError, SSLError

from skyoperator_provider.errors import ApiError, ChangedError

Json: TypeAlias = dict[str, Any]
Query: TypeAlias = Sequence[tuple[str, str]]

logger = logging.getLogger(__name__)

PAUSES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before each repetition; together half a minute, in which one kube-apiserver takes another's place."""
RETRY_AFTER_LIMIT_SECONDS: Final = 60.0
"""No wish of a server holds a worker's slot for longer at a time."""
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 60.0
MERGE_PATCH: Final = "application/merge-patch+json"

_Timeout: TypeAlias = float | tuple[float, float]
"""For all, or to connect and for each wait for bytes."""
_Credentials: TypeAlias = tuple[dict[str, str], list[tuple[str, str]]]
"""Headers, and parameters of the query."""
_PATIENT: Final = (CONNECT_SECONDS, READ_SECONDS)
_PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Right:
    """What RBAC has to grant for a request."""

    verb: str
    group: str
    resource: str
    """With its subresource: skyclusters/log."""
    namespace: str

    def __str__(self) -> str:
        """Return it as people say it."""
        return f"{self.verb} {self.resource} of {self.group} in namespace {self.namespace}"

    @property
    def rule(self) -> str:
        """The rule of a Role that grants it."""
        return f'{{apiGroups: ["{self.group}"], resources: ["{self.resource}"], verbs: ["{self.verb}"]}}'


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    action: str
    """What it is for, in words that follow "can't": read SkyCluster ml/train."""
    method: str
    path: str
    right: Right | None = None
    query: Query = ()
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, be it a refusal."""

    status: int
    headers: Mapping[str, str]
    """Found by their names in any case."""
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether it is what was asked for."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def document(self) -> Json:
        """The JSON object that it is; an empty one if it is none, as a proxy's page of HTML."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    @property
    def reason(self) -> str:
        """Its word for programs: AlreadyExists, Conflict, NotFound."""
        return str(self.document.get("reason") or "")

    @property
    def details(self) -> Json:
        """What it is about."""
        found = self.document.get("details")
        return found if isinstance(found, dict) else {}

    @property
    def message(self) -> str:
        """Its sentence for people."""
        words = self.document.get("message") or self.body[:500].decode(errors="replace").strip()
        return str(words or f"HTTP {self.status}")

    @property
    def retry_after_seconds(self) -> float:
        """How long the server asks to be left alone; 0 if it does not say, or gives a date."""
        wish = self.headers.get("Retry-After", "").strip()
        return min(float(wish), RETRY_AFTER_LIMIT_SECONDS) if wish.isdecimal() else 0.0


def passes(answer: Answer) -> bool:
    """Tell whether a refusal passes by itself."""
    return answer.status in _PASSING


class Api:
    """A Kubernetes API, as one Airflow connection reaches it.

    Takes the client over. urllib3's own repetitions go: it would make a request of 3 s four times without a word
    (urllib3 2, util/retry.py, Retry.DEFAULT).
    """

    def __init__(
        self, client: ApiClient, *, pauses_seconds: Sequence[float] = PAUSES_SECONDS, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        client.configuration.retries = False
        self._client = client
        self._rest = RESTClientObject(client.configuration)
        self._pauses_seconds = tuple(pauses_seconds)
        self._sleep = sleep
        self._credentials: _Credentials | None = None

    def ask(self, request: Request, *, passes: Callable[[Answer], bool] = passes) -> Answer:
        """Return the answer, also a refusal; one that passes by itself only if it did not. Raises ApiError if there is no answer.

        Only for what may be asked twice: the answer to the first may have been lost after it was done.
        """
        for pause_seconds in self._pauses_seconds:
            try:
                answer = self._patient_answer(request)
            except ApiError as error:
                if isinstance(error.__cause__, SSLError):
                    raise
                why, wish_seconds = str(error), 0.0
            else:
                if not passes(answer):
                    return answer
                why, wish_seconds = f"can't {request.action}: {answer.message}", answer.retry_after_seconds
            wait_seconds = max(pause_seconds, wish_seconds)
            logger.warning("%s. Trying again in %g s.", why, wait_seconds)
            self._sleep(wait_seconds)
        return self._patient_answer(request)

    def ask_once(self, request: Request, timeout_seconds: float) -> Answer:
        """Return the answer, also a refusal; ask once, and log nothing. Raises ApiError if there is no answer in time.

        On a connection of its own: who is interrupted by a signal may hold the lock of the shared ones' pool, which is not reentrant
        (urllib3 2, connectionpool.py: a queue.LifoQueue). With the credentials of the last request that had time: to renew them a program
        of the kubeconfig may run, which nothing bounds.
        """
        credentials = self._credentials or self._renewed_credentials(request)
        rest = RESTClientObject(self._client.configuration)
        try:
            return self._answer(rest, request, credentials, timeout_seconds)
        finally:
            rest.pool_manager.clear()

    def close(self) -> None:
        """End the connections that are open. The next request makes new ones."""
        self._rest.pool_manager.clear()

    @property
    def _host(self) -> str:
        return str(self._client.configuration.host)

    def _renewed_credentials(self, request: Request) -> _Credentials:
        """Return the headers, and the parameters of the query, that tell who asks. Raises ApiError: a file or a program may be away."""
        headers: dict[str, str] = {}
        query: list[tuple[str, str]] = []
        try:
            self._client.update_params_for_auth(headers, query, ["BearerToken"])
        except (OSError, ConfigException) as error:
            raise ApiError(f"Can't {request.action}: the credentials for {self._host} can't be renewed: {error}") from error
        return headers, query

    def _patient_answer(self, request: Request) -> Answer:
        self._credentials = self._renewed_credentials(request)
        return self._answer(self._rest, request, self._credentials, _PATIENT)

    def _answer(self, rest: RESTClientObject, request: Request, credentials: _Credentials, timeout_seconds: _Timeout) -> Answer:
        try:
            return self._sent(rest, request, credentials, timeout_seconds)
        except (HTTPError, OSError) as error:
            raise ApiError(f"Can't {request.action}: {self._host} was not reached, or broke off: {error}") from error

    def _sent(self, rest: RESTClientObject, request: Request, credentials: _Credentials, timeout_seconds: _Timeout) -> Answer:
        """Send it as kubernetes.client.ApiClient does, but leave the answer's bytes and headers as they are."""
        who, who_query = credentials
        headers = {**self._client.default_headers, "Accept": "application/json, */*", "Content-Type": request.content_type, **who}
        query = [*request.query, *who_query]
        url = f"{self._host}{request.path}"
        try:
            response = rest.request(
                request.method, url, query_params=query, headers=headers, body=request.body, _request_timeout=timeout_seconds
            )
        except ApiException as refused:
            if not refused.status:
                raise SSLError(refused.reason) from refused
            return Answer(refused.status, refused.headers, refused.body)
        return Answer(response.status, response.getheaders(), response.data)


def refusal(request: Request, answer: Answer) -> ApiError:
    """Return the error that a refusal is: what was asked, of what, what the server says, and what to do."""
    words = " ".join(filter(None, (f"Can't {request.action}: {answer.message} (HTTP {answer.status}).", _advice(request, answer))))
    return ApiError(words, status=answer.status, reason=answer.reason)


def changed(request: Request, answer: Answer) -> ChangedError:
    """Return the error that an unmet precondition is."""
    return ChangedError(f"Can't {request.action}: {answer.message}", status=answer.status, reason=answer.reason)


def _advice(request: Request, answer: Answer) -> str:
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return "The server does not know who asks. Have the connection's credentials expired, or are they another cluster's?"
    if request.right is None:
        return ""
    if answer.status == HTTPStatus.FORBIDDEN and f"cannot {request.right.verb} resource" in answer.message:
        # RBAC's words. A quota, an admission policy, and a namespace that is being deleted say 403 as well.
        return (
            f"The connection's account may not {request.right}. The rule that allows it: {request.right.rule}. "
            "The chart writes it for the accounts in airflow.accounts."
        )
    if answer.status == HTTPStatus.NOT_FOUND:
        group = request.right.group
        return f"Is there such a namespace, and does this cluster serve {group}? See: kubectl get --raw /apis/{group}"
    return ""
