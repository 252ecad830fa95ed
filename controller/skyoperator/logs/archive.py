"""All the logs there are, as readers ask for them: by an object's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.logs.collector import Collector
from skyoperator.logs.objects import Namespaces, Objects
from skyoperator.logs.store import Store
from skyoperator.logs.stored_log import StoredLog
from skyoperator.logs.types import Kind, Log, LogKey, NoLogError, NoObjectError, Wanted


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose logs are asked for."""

    namespace_uid: str
    uid: str
    attempt: int | None
    """The latest one of an object that is there; None for one that is gone: then the latest of which there is a log."""


class Names(Namespaces, Protocol):
    """The part of KubeApi that is needed here."""

    async def named(self, namespace: str, name: str) -> SkyCluster | None:
        """Return the object that has this name now, or None if none has. Raises KubeError."""


class Archive:
    """`Logs`, out of what is kept."""

    def __init__(self, store: Store, objects: Objects, collector: Collector, names: Names) -> None:
        self._store = store
        self._objects = objects
        self._collector = collector
        self._names = names

    async def find(self, wanted: Wanted) -> Log:
        """See `Logs.find`. Raises KubeError too: what a name means is kube-apiserver's to say."""
        return await self._found(wanted)

    def changes(self, wanted: Wanted) -> AbstractContextManager[asyncio.Event]:
        """See `Logs.changes`."""
        return self._objects.changes(wanted.namespace, wanted.name)

    def following(self, log: Log) -> AbstractAsyncContextManager[None]:
        """See `Logs.following`."""
        return self._collector.reading(log.key) if isinstance(log, StoredLog) else nullcontext()

    async def result(self, wanted: Wanted) -> bytes:
        """See `Logs.result`."""
        log = await self._found(wanted)
        return await asyncio.to_thread(log.result)

    async def _found(self, wanted: Wanted) -> StoredLog:
        owner = await self._owner(wanted)
        kept = await asyncio.to_thread(self._store.logs_of, owner.namespace_uid, owner.uid)
        is_named = {key: about for key, about in kept if about.origin.name == wanted.name}
        jobs = {key: about.origin.job for key, about in is_named.items() if key.kind is wanted.kind}
        log = await asyncio.to_thread(self._store.get, chosen(wanted, owner, jobs))
        if log is None:
            raise NoLogError(f"The log of {wanted.namespace}/{wanted.name} is no longer kept.")
        return log

    async def _owner(self, wanted: Wanted) -> Owner:
        """Ask each time: the watch tells late of an object that took a name, and of an attempt that was begun."""
        this = await self._names.named(wanted.namespace, wanted.name)
        if this is not None and wanted.uid in {None, this.uid}:
            namespace_uid = self._objects.namespace_uid_of(this.uid) or await self._namespace_uid(wanted)
            return Owner(namespace_uid, this.uid, this.status.launch.attempt if this.status.launch else 0)
        namespace_uid = await self._namespace_uid(wanted)
        uid = wanted.uid or await asyncio.to_thread(self._store.find_by_name, namespace_uid, wanted.name)
        if uid is None:
            raise NoObjectError(f"There is no SkyCluster {wanted.namespace}/{wanted.name}, nor is a log kept of one that was.")
        return Owner(namespace_uid, uid, None)

    async def _namespace_uid(self, wanted: Wanted) -> str:
        return await self._names.namespace_uid(wanted.namespace) or ""


def chosen(wanted: Wanted, owner: Owner, jobs: dict[LogKey, int | None]) -> LogKey:
    """Return which of an object's logs is asked for; `jobs` has the job of each of them. Raises NoLogError, NoObjectError if it is gone."""
    try:
        return _among(wanted, owner, jobs)
    except NoLogError as error:
        if owner.attempt is not None:
            raise
        raise NoObjectError(_gone(wanted, owner, jobs)) from error


def _among(wanted: Wanted, owner: Owner, jobs: dict[LogKey, int | None]) -> LogKey:
    attempts = {key.attempt: key for key in jobs if wanted.job is None or jobs[key] == wanted.job}
    if wanted.attempt is not None:
        return _of_attempt(wanted, attempts, wanted.attempt)
    if wanted.job is not None and attempts:
        return attempts[max(attempts)]
    latest = owner.attempt if owner.attempt is not None else max(attempts, default=0)
    if not wanted.previous:
        return _of_attempt(wanted, attempts, latest)
    before = [attempt for attempt in attempts if attempt < latest]
    return _of_attempt(wanted, attempts, max(before, default=0))


def _of_attempt(wanted: Wanted, attempts: dict[int, LogKey], attempt: int) -> LogKey:
    if attempt in attempts:
        return attempts[attempt]
    what = f"{wanted.namespace}/{wanted.name}"
    if not attempts:
        said = "It may come once SkyPilot has taken the launch" if wanted.kind is Kind.LAUNCH else "It may come once the job is submitted"
        raise NoLogError(
            f"SkyCluster {what} has no {wanted.kind} log{_about(wanted)} yet. {said}; the launch's own is read with provision=true."
        )
    there = ", ".join(map(str, sorted(attempts)))
    raise NoLogError(
        f"SkyCluster {what} has no {wanted.kind} log of attempt {attempt or 'before'} yet; of these it has: {there} (attempt=N)."
    )


def _gone(wanted: Wanted, owner: Owner, jobs: Iterable[LogKey]) -> str:
    there = ", ".join(str(key.attempt) for key in jobs) or "none"
    return (
        f"There is no SkyCluster {wanted.namespace}/{wanted.name} with uid {owner.uid} now, and of the one that was no such "
        f"{wanted.kind} log is kept; attempts with one: {there}."
    )


def _about(wanted: Wanted) -> str:
    return "" if wanted.job is None else f" of job {wanted.job}"
