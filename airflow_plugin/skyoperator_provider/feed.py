"""The SkyClusters of one namespace, followed once for all who wait for one of them.

    trigger ─┐                                  ┌─ list, when it begins and after a 410
    trigger ─┼─ Subscription ◄── Feed, a task ──┤
    trigger ─┘                                  └─ watch, again and again, from where the last one ended

A subscription keeps the newest state of one object and no other, so one who does not look costs no memory. The feed runs in a context of
its own: Airflow sorts log lines into tasks' logs by context variables, and a task started from a trigger would inherit those of the
trigger that happened to be the first (airflow/jobs/triggerer_job_runner.py, run_trigger).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from contextvars import Context
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from skyoperator_provider.errors import ApiError
from skyoperator_provider.skycluster import brief

if TYPE_CHECKING:
    from skyoperator_provider.hooks.logs import LogPiece, Place

logger = logging.getLogger(__name__)

Json = dict[str, Any]

PAGE: Final = 50
"""Objects that are listed at once. A spec may be 100 KiB, and while a page is parsed the loop does nothing else."""
READS_AT_ONCE: Final = 16
"""First looks that one feed takes at a time: a triggerer that starts again begins with a thousand."""
ATTEMPTS_WITHOUT_LOGIN: Final = 3
"""How often a 401 is met with new credentials before it counts as final."""
ATTEMPTS_AT_VERSION: Final = 3
"""How often a watch is tried from the same version before everything is listed anew."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the objects of a list."""

    items: Sequence[Json]
    resource_version: str
    continue_: str
    """Where the next page begins; empty: this was the last one."""


class SkyClusterApi(Protocol):
    """What triggers need of Kubernetes. Each method raises ApiError, and no other error because of what is outside."""

    async def list(self, namespace: str, *, limit: int, continue_: str = "") -> Page:
        """Return a page of the namespace's objects, as they are now."""

    def watch(self, namespace: str, *, resource_version: str, timeout_seconds: int) -> AsyncGenerator[Json, None]:
        """Yield each change since that version, and bookmarks; end after the time-out. An ERROR event is raised, 410 as any other."""

    async def get(self, namespace: str, name: str) -> Json | None:
        """Return the object as it is now; None if there is none."""

    async def delete(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        """Delete this object in this version. Raises ChangedError if it is not that any more; nothing if there is none."""

    async def log(self, namespace: str, name: str, place: Place) -> LogPiece:
        """Return a piece of a log, escape sequences and all."""


Connect = Callable[[], AbstractAsyncContextManager[SkyClusterApi]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take, and how often they are tried."""

    watch_seconds: int = 50
    """How long one watch lasts: cncf's client cuts any request after 60 s (kube_client.py, API_TIMEOUT)."""
    short_watch_seconds: float = 1.0
    """A watch that ends sooner, and with nothing, counts as one that failed."""
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    attempts: int = 20
    """Failures in a row after which waiting is given up: with the pauses between them, eight minutes or more."""

    def pause_seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row: not the same for all who failed together."""
        longest = min(self.first_pause_seconds * 2.0 ** min(failures - 1, 30), self.longest_pause_seconds)
        return longest * random.uniform(0.5, 1.0)

    def is_final(self, error: ApiError, failures: int) -> bool:
        """Tell whether to give up: at once if a right is missing, for it does not come back by waiting."""
        limits: dict[int | None, int] = {HTTPStatus.FORBIDDEN: 1, HTTPStatus.UNAUTHORIZED: ATTEMPTS_WITHOUT_LOGIN}
        return failures >= min(limits.get(error.status, self.attempts), self.attempts)


class Subscription:
    """One object, as one who waits sees it: its newest state, however many there were since he looked."""

    def __init__(self, name: str, feed: Feed) -> None:
        self.name = name
        self._feed = feed
        self._version: int | None = None
        self._state: Json | None = None
        self._is_known = False
        self._is_new = asyncio.Event()
        self._error: ApiError | None = None

    async def next(self) -> Json | None:
        """Return the newest state that was not returned yet, as soon as there is one: None if the object is not there.

        It may be cancelled at any time without losing a state. Raises ApiError once the feed has given up.
        """
        await self._is_new.wait()
        if self._error is None:
            self._is_new.clear()
            return self._state
        raise _anew(self._error)

    async def api(self) -> SkyClusterApi:
        """Return the feed's own client, as soon as it has one. Raises ApiError once the feed has given up."""
        return await self._feed.api()

    def offer(self, state: Json | None, version: str) -> None:
        """Take a state in, unless a newer one is known: a watch may lag behind a read, and tell things twice.

        Versions of one object can be compared (kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions); where they
        are no numbers, what comes last counts.
        """
        number = int(version) if version.isdecimal() else None
        if number is not None and self._version is not None and number <= self._version:
            return
        self._version, self._state, self._is_known = number, state, True
        self._is_new.set()

    def offer_absence(self) -> None:
        """Take in that a read found nothing. It has no version, so whatever was seen meanwhile is newer, or is corrected by the watch."""
        if not self._is_known:
            self._is_known = True
            self._is_new.set()

    def fail(self, error: ApiError) -> None:
        """Tell that nothing will come any more."""
        self._error = error
        self._is_new.set()


class Feed:
    """Follows the objects of one namespace, for its subscriptions."""

    def __init__(self, namespace: str, connect: Connect, pace: Pace) -> None:
        self._namespace = namespace
        self._connect = connect
        self._pace = pace
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._version = ""
        self._failures = 0
        self._api: SkyClusterApi | None = None
        self._error: ApiError | None = None
        self._has_api_or_error = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"skyclusters of {namespace}", context=Context())

    @property
    def has_failed(self) -> bool:
        """Whether it has given up."""
        return self._error is not None

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._subscriptions

    def add(self, name: str) -> Subscription:
        """Return a subscription that hears of all that happens from now on."""
        subscription = Subscription(name, self)
        self._subscriptions.setdefault(name, []).append(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget it."""
        others = [other for other in self._subscriptions[subscription.name] if other is not subscription]
        if others:
            self._subscriptions[subscription.name] = others
        else:
            del self._subscriptions[subscription.name]

    async def close(self) -> None:
        """Return once the watch and its client are closed. A caller who is cancelled meanwhile leaves them to close by themselves."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def api(self) -> SkyClusterApi:
        """Return the client, as soon as there is one. Raises ApiError once the feed has given up."""
        while self._api is None:
            # Who is woken may find that it is gone again.
            await self._has_api_or_error.wait()
            if self._error is not None:
                raise _anew(self._error)
        return self._api

    async def read(self, subscription: Subscription) -> None:
        """Give it its first state: what happened before it heard of anything. Raises ApiError."""
        async with self._reads:
            found = await self._found(subscription.name)
        if found is None:
            subscription.offer_absence()
        else:
            subscription.offer(brief(found), found["metadata"]["resourceVersion"])

    async def _found(self, name: str) -> Json | None:
        failures = 0
        while True:
            api = await self.api()
            try:
                return await api.get(self._namespace, name)
            except ApiError as error:
                failures += 1
                if self._pace.is_final(error, failures):
                    raise
            await asyncio.sleep(self._pace.pause_seconds(failures))

    async def _run(self) -> None:
        try:
            while not self.has_failed:
                await self._try()
        finally:
            if not self.has_failed:
                self._give_up(ApiError(f"The watch of the SkyClusters of namespace {self._namespace} was stopped"))

    async def _try(self) -> None:
        """Follow, until something goes wrong; then be ready to try again, with a new client: its credentials may be what was wrong."""
        try:
            async with self._connect() as api:
                await self._serve(api)
        except Exception as error:  # noqa: BLE001 - whatever ends the feed, those who wait must hear of it
            failure = _api_error(error, self._namespace)
        self._failures += 1
        if failure.status == HTTPStatus.GONE or self._failures >= ATTEMPTS_AT_VERSION:
            self._version = ""
        if self._pace.is_final(failure, self._failures):
            tried = f" (tried {self._failures} times)" if self._failures > 1 else ""
            self._give_up(ApiError(f"{failure}{tried}", status=failure.status, reason=failure.reason))
            return
        logger.info("%s. Trying again (%d of %d).", failure, self._failures, self._pace.attempts)
        await asyncio.sleep(self._pace.pause_seconds(self._failures))

    def _give_up(self, error: ApiError) -> None:
        self._error = error
        self._has_api_or_error.set()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.fail(error)

    async def _serve(self, api: SkyClusterApi) -> NoReturn:
        self._api = api
        self._has_api_or_error.set()
        try:
            while True:
                if not self._version:
                    self._version = await self._list(api)
                await self._watch(api)
        finally:
            self._api = None
            self._has_api_or_error.clear()

    async def _list(self, api: SkyClusterApi) -> str:
        """Offer what there is, and to the others that theirs is not there. Returns the version it is of."""
        names: set[str] = set()
        page = Page((), "", "")
        while not page.resource_version or page.continue_:
            page = await api.list(self._namespace, limit=PAGE, continue_=page.continue_)
            for item in page.items:
                names.add(item["metadata"]["name"])
                self._offer(item)
        for name in self._subscriptions.keys() - names:
            for subscription in self._subscriptions[name]:
                subscription.offer(None, page.resource_version)
        return page.resource_version

    async def _watch(self, api: SkyClusterApi) -> None:
        loop = asyncio.get_running_loop()
        began, seconds = loop.time(), self._pace.watch_seconds
        is_silent = True
        async with aclosing(api.watch(self._namespace, resource_version=self._version, timeout_seconds=seconds)) as events:
            async for event in events:
                is_silent = False
                self._take(event)
        if is_silent and loop.time() - began < self._pace.short_watch_seconds:
            raise ApiError(f"Can't watch the SkyClusters of namespace {self._namespace}: each watch ends as soon as it has begun")
        self._failures = 0

    def _take(self, event: Mapping[str, Any]) -> None:
        found = event["object"]
        self._version = found["metadata"]["resourceVersion"]
        self._failures = 0
        if event["type"] != "BOOKMARK":
            self._offer(found, is_there=event["type"] != "DELETED")

    def _offer(self, found: Json, *, is_there: bool = True) -> None:
        """Offer an object's state to who waits for it, without its spec; what nobody waits for is not kept."""
        subscriptions = self._subscriptions.get(found["metadata"]["name"], ())
        state = brief(found) if subscriptions and is_there else None
        for subscription in subscriptions:
            subscription.offer(state, found["metadata"]["resourceVersion"])


def _anew(error: ApiError) -> ApiError:
    """Return a copy: an error that a thousand tasks raise collects the traceback of each."""
    return ApiError(str(error), status=error.status, reason=error.reason)


def _api_error(error: Exception, namespace: str) -> ApiError:
    if isinstance(error, ApiError):
        return error
    logger.warning("Can't watch the SkyClusters of namespace %s", namespace, exc_info=error)
    return ApiError(f"Can't watch the SkyClusters of namespace {namespace}: {type(error).__name__}: {error}")
