"""All the logs, on a volume: <root>/<namespace uid>/<object uid>/<attempt>-<kind>/.

What may block on a disk is to be called in a thread. Locks are taken in this order: the store's, one log's, the cache's or the tally's.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from skyoperator.clock import utc_now
from skyoperator.logs.about import ABOUT, ABOUT_BYTES, About, Origin, unreadable
from skyoperator.logs.disk import Disk, Folder, Tally
from skyoperator.logs.segments import Cache
from skyoperator.logs.stored_log import Limits, StoredLog
from skyoperator.logs.types import Kind, LogKey, State

logger = logging.getLogger(__name__)

CACHED_SEGMENTS: Final = 4

_UID: Final = re.compile(r"[0-9a-f][0-9a-f-]{0,63}")
_NAME: Final = re.compile(rf"(0|[1-9][0-9]{{0,8}})-({'|'.join(Kind)})")


class Store:
    """The logs there are."""

    def __init__(self, root: Path, limits: Limits, clock: Callable[[], datetime] = utc_now, disk: Disk | None = None) -> None:
        """Look at all that is there. Raises OSError if the root can't be read; a log that can't be is INCOMPLETE."""
        self._root = root
        self._limits = limits
        self._clock = clock
        self._disk = disk or Disk()
        self._tally = Tally()
        self._cache = Cache(CACHED_SEGMENTS * limits.segment_bytes)
        self._lock = threading.RLock()
        self._opened: set[LogKey] = set()
        self._disk.make_folder(root)
        self._logs = {key: self._found(key) for key in self._keys()}

    @property
    def used_bytes(self) -> int:
        """What all the logs take on the volume."""
        return self._tally.used_bytes

    @property
    def failures(self) -> int:
        """How often the volume refused something since the process began."""
        return self._tally.failures

    def open(self, key: LogKey, origin: Origin) -> StoredLog:
        """Return the log, to collect it: the one that is there, or a new one, of which the volume has nothing until there is something.

        Raises ValueError for a key that no path is made of, OSError if what is there can't be read now.
        """
        folder = Folder(self._path_of(key), self._disk, self._tally)
        with self._lock:
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = self._made(key, folder, About(origin=origin, created_at=self._clock()), saved=False)
            self._opened.add(key)
        log.load()
        log.take_up(origin)
        return log

    def get(self, key: LogKey) -> StoredLog | None:
        """Return the log, to read it; None if there is none. Raises OSError if it can't be read now."""
        with self._lock:
            log = self._logs.get(key)
        if log is not None:
            log.load()
        return log

    def logs_of(self, namespace_uid: str, object_uid: str) -> list[tuple[LogKey, About]]:
        """Return the logs of an object, by attempt, and what is noted of them."""
        found = [log for log in self._all() if (log.key.namespace_uid, log.key.object_uid) == (namespace_uid, object_uid)]
        return [(log.key, log.about) for log in sorted(found, key=lambda log: (log.key.attempt, log.key.kind))]

    def find_by_name(self, namespace_uid: str, name: str) -> str | None:
        """Return the uid of the latest object of that name that has logs, whether it is gone or not."""
        found = [log for log in self._all() if log.key.namespace_uid == namespace_uid and log.about.origin.name == name]
        return max(found, key=lambda log: log.about.created_at).key.object_uid if found else None

    def sweep(self, alive: Collection[str] | None) -> None:
        """Remove what was kept long enough or is too much. `alive` are the uids of all objects that exist; None if that is not known."""
        for log in self._all():
            try:
                log.settle()
                if alive is not None:
                    self._age(log, gone=log.key.object_uid not in alive)
            except OSError as error:
                self._failed(log, error)
        self._room(0)

    def _age(self, log: StoredLog, *, gone: bool) -> None:
        now = self._clock()
        since = (log.about.gone_since or now) if gone else None
        log.set_gone(since)
        if since is None:
            return
        if log.live and log.key not in self._opened:
            log.load()
            log.finish(State.INCOMPLETE, "its object was deleted while nobody collected it")
        if now - since >= self._limits.retention:
            self._remove(log)

    def _room(self, more_bytes: int) -> bool:
        """Tell whether there is room for so many bytes more, after removing what may be for it."""
        if self._fits(more_bytes):
            return True
        with self._lock:
            for remove in self._removable():
                remove()
                if self._fits(more_bytes):
                    return True
        return False

    def _fits(self, more_bytes: int) -> bool:
        return self._tally.used_bytes + more_bytes <= self._limits.total_bytes

    def _removable(self) -> Iterator[Callable[[], None]]:
        """What may go, first what is missed least: objects that are gone, then bytes of logs, then what jobs returned."""
        ended = sorted((log for log in self._all() if not log.live), key=lambda log: log.about.ended_at or log.about.created_at)
        gone = [log for log in ended if log.about.gone_since]
        there = [log for log in ended if not log.about.gone_since]
        yield from (partial(self._remove, log) for log in gone)
        yield from (partial(self._drop, log, result_too=False) for log in there if not log.about.dropped)
        yield from (partial(self._drop, log, result_too=True) for log in there if log.holds_result)

    def _drop(self, log: StoredLog, *, result_too: bool) -> None:
        try:
            log.drop(result_too=result_too)
        except OSError as error:
            self._failed(log, error)

    def _remove(self, log: StoredLog) -> None:
        log.remove()
        with self._lock:
            self._logs.pop(log.key, None)
            self._opened.discard(log.key)

    def _failed(self, log: StoredLog, error: OSError) -> None:
        self._tally.failed()
        logger.warning("could not tidy up the log in %s: %s", self._path_of(log.key), error)

    def _all(self) -> list[StoredLog]:
        with self._lock:
            return list(self._logs.values())

    def _path_of(self, key: LogKey) -> Path:
        name = f"{key.attempt}-{Kind(key.kind)}"
        if not (_UID.fullmatch(key.namespace_uid) and _UID.fullmatch(key.object_uid) and _NAME.fullmatch(name)):
            raise ValueError(f"no log has such a key: {key}")
        return self._root / key.namespace_uid / key.object_uid / name

    def _keys(self) -> Iterator[LogKey]:
        for namespace_uid in self._folders(self._root, _UID):
            for object_uid in self._folders(self._root / namespace_uid, _UID):
                for name in self._folders(self._root / namespace_uid / object_uid, _NAME):
                    attempt, kind = name.split("-")
                    yield LogKey(namespace_uid, object_uid, int(attempt), Kind(kind))

    def _folders(self, folder: Path, name: re.Pattern[str]) -> list[str]:
        try:
            entries = self._disk.entries(folder)
        except OSError as error:
            if folder == self._root:
                raise
            logger.warning("can't read the logs in %s: %s", folder, error)
            self._tally.failed()
            return []
        return [entry.name for entry in entries if entry.is_folder and name.fullmatch(entry.name)]

    def _found(self, key: LogKey) -> StoredLog:
        folder = Folder(self._path_of(key), self._disk, self._tally)
        try:
            folder.scan()
            about = About.model_validate_json(folder.pread(ABOUT, 0, ABOUT_BYTES))
        except FileNotFoundError:
            why = "it is not there"
        except OSError as error:
            why = str(error)
        except ValidationError as error:
            why = f"it is damaged ({error.errors()[0]['type']})"
        else:
            return self._made(key, folder, about, saved=True)
        logger.warning("%s/%s: %s", folder.path, ABOUT, why)
        return self._made(key, folder, unreadable(self._clock(), why), saved=False)

    def _made(self, key: LogKey, folder: Folder, about: About, *, saved: bool) -> StoredLog:
        limits, cache, clock = self._limits, self._cache, self._clock
        return StoredLog(key, folder, about, saved=saved, limits=limits, cache=cache, clock=clock, room=self._room)
