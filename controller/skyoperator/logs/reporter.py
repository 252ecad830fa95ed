"""status.log: what was kept of a log, told in the object itself."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from skyoperator.api.v1alpha1 import LogRecord, ResultRecord, SkyCluster
from skyoperator.kube import Gone, Key, KubeError
from skyoperator.logs.types import Kind, Log, LogKey, NoLogError, NothingKnownError, ResultLostError, State

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 5.0


class Ended(Log, Protocol):
    """A log that has ended: of a StoredLog, what is told."""

    def result(self) -> bytes:
        """Return what the job returned. Raises NoLogError, ResultLostError."""


class StatusWriter(Protocol):
    """The part of KubeApi that is needed here."""

    async def get(self, key: Key) -> SkyCluster:
        """Return the object as it is now. Raises Gone, also if another object has taken its name; KubeError."""

    async def merge_status(self, key: Key, status: Mapping[str, Any]) -> None:
        """Write these fields of the status. Raises Gone, KubeError."""


class Reporter:
    """Writes status.log."""

    def __init__(self, kube: StatusWriter) -> None:
        self._kube = kube

    async def report(self, of: Key, key: LogKey, log: Ended) -> None:
        """Tell of a job's log; return once that is written, or the object is gone. A launch's log is not told of."""
        if key.kind is not Kind.JOB:
            return
        record = (await asyncio.to_thread(record_of, key, log, datetime.now(UTC))).model_dump(mode="json", by_alias=True, exclude_none=True)
        is_written = await self._is_written(of, record)
        while not is_written:
            await asyncio.sleep(AGAIN_SECONDS)
            is_written = await self._is_written(of, record)

    async def _is_written(self, of: Key, record: Mapping[str, Any]) -> bool:
        """Write it; return False if that is to be tried again. What is written already is left alone."""
        try:
            this = await self._kube.get(of)
            if this.status.log is None or this.status.log.attempt < record["attempt"]:
                await self._kube.merge_status(of, {"log": record})
        except Gone:
            return True
        except KubeError as error:
            logger.warning("%s", error)
            return False
        return True


def record_of(key: LogKey, log: Ended, now: datetime) -> LogRecord:
    """Return what is told. Reads the disk for the job's result."""
    return LogRecord(
        attempt=key.attempt,
        state="Archived" if log.state is State.COMPLETE else "Incomplete",
        bytes=log.size,
        message=log.message[:1024] or None,
        archived_at=now,
        result=_result(log),
    )


def _result(log: Ended) -> ResultRecord | None:
    try:
        value = log.result()
    except (NoLogError, NothingKnownError):
        return None
    except ResultLostError:
        return ResultRecord(state="Lost")
    return ResultRecord(state="Collected", bytes=len(value), sha256=hashlib.sha256(value).hexdigest())
