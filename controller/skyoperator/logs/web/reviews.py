"""What kube-apiserver says of tokens and rights, remembered for seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import nullcontext
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from skyoperator.kube import Json
from skyoperator.logs.web.status import UnavailableError

logger = logging.getLogger(__name__)

YES_SECONDS: Final = 10.0
NO_SECONDS: Final = 5.0
MAX_REMEMBERED: Final = 4096
AT_ONCE: Final = 16
"""So many questions at a time about what was no yes before: tokens, and names of objects, can be thought up without end."""

Answer = TypeVar("Answer")


class Calls(Protocol):
    """`KubeApi.call`."""

    async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
        """Return the answer. Raises ApiException, and what aiohttp raises."""


async def review(kube: Calls, kind: str, spec: Json) -> Mapping[str, Any]:
    """Return the status of a TokenReview or SubjectAccessReview. Raises UnavailableError: no answer is never a yes."""
    group, plural = _REVIEWS[kind]
    body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
    try:
        answer = await kube.call("POST", f"/apis/{group}/v1/{plural}", {}, body)
    except ApiException as error:
        hint = "Is the ClusterRoleBinding to system:auth-delegator there?"
        logger.warning("kube-apiserver refused a %s: HTTP %s %s. %s", kind, error.status, error.reason, hint)
        raise UnavailableError(f"kube-apiserver refused a {kind}: HTTP {error.status}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError("kube-apiserver does not answer, and without it nobody's rights are known: try again") from error
    return cast("Mapping[str, Any]", answer.get("status") or {})


_REVIEWS: Final = {
    "TokenReview": ("authentication.k8s.io", "tokenreviews"),
    "SubjectAccessReview": ("authorization.k8s.io", "subjectaccessreviews"),
}


class Remembered(Generic[Answer]):
    """Answers, for seconds, so many at most; who asks the same at the same time gets one answer. What is falsy is a no.

    However many are asked about that get a no, who had a yes neither waits for them nor is forgotten for them.
    """

    def __init__(
        self,
        *,
        yes_seconds: float = YES_SECONDS,
        no_seconds: float = NO_SECONDS,
        most: int = MAX_REMEMBERED,
        at_once: int = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._yes_seconds, self._no_seconds = yes_seconds, no_seconds
        self._most = most
        self._clock = clock
        self._turn = asyncio.Semaphore(at_once)
        self._yes: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()
        self._no: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Future[Answer]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer. Raises what `ask` raises; that is not remembered."""
        until, answer = self._yes.get(key) or self._no.get(key) or (float("-inf"), None)
        if until > self._clock():
            return cast("Answer", answer)
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key, ask))
            asking.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(asking)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        async with nullcontext() if key in self._yes else self._turn:
            asked_at = self._clock()
            answer = await ask()
        known, other, seconds = (self._yes, self._no, self._yes_seconds) if answer else (self._no, self._yes, self._no_seconds)
        other.pop(key, None)
        known[key] = (asked_at + seconds, answer)
        known.move_to_end(key)
        while len(known) > self._most:
            known.popitem(last=False)
        return answer

    def _end(self, key: Hashable, done: asyncio.Future[Answer]) -> None:
        """All who waited may be gone: its exception is then nobody's."""
        del self._asking[key]
        if not done.cancelled():
            done.exception()
