"""Asks where the open ports of clusters are reached, beside the passes and the polls, and apart from the queues.

A load balancer gets its address minutes after its cluster is up, or never where there is none; each question meanwhile takes one of
SkyPilot's workers for a minute (sky/provision/kubernetes/network.py:277). So each pause is twice as long as the one before. Once there is
an answer it hardly changes any more: whatever changes it takes another launch, or a cluster that was not UP for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from skyoperator.lanes import PATIENCE_SECONDS, Lanes
from skyoperator.sky.types import SkyPilot, SkyPilotError
from skyoperator.snapshot import monotonic
from skyoperator.subject import Subject

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE: Final = 1
"""And one more of those that last. One that turns out to last leaves its place after PATIENCE_SECONDS: where no load balancer ever comes,
5 of the 9 workers that SkyPilot has for short requests on 4 cores are taken at worst."""
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 600.0
LONGEST_KNOWN_PAUSE_SECONDS: Final = 3600.0
"""After an answer that names an address."""


class EndpointReader:
    """`endpoints` is the last answer, None before the first; a question that fails changes nothing."""

    def __init__(self, sky: SkyPilot, *, cluster_name: str, attempt_name: str, lanes: Lanes, changed: Callable[[], None]) -> None:
        self.endpoints: Mapping[str, str] | None = None
        self.attempt_name = attempt_name
        self._sky = sky
        self._cluster_name = cluster_name
        self._lanes = lanes
        self._changed = changed
        self._is_slow = False
        self._task = asyncio.create_task(self._run(), name=f"endpoints of {cluster_name}")

    def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            before = self.endpoints
            await self._lanes.read(self._ask, is_slow=self._is_slow)
            if self.endpoints != before:
                pause = FIRST_PAUSE_SECONDS
                self._changed()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_KNOWN_PAUSE_SECONDS if self.endpoints else LONGEST_PAUSE_SECONDS)

    async def _ask(self) -> None:
        asked_at = monotonic()
        try:
            self.endpoints = await self._sky.endpoints(self._cluster_name)
        except SkyPilotError as error:
            logger.debug("%s: its endpoints are not known right now: %s", self._cluster_name, error)
        except Exception:
            logger.exception("%s: its endpoints make no sense", self._cluster_name)
        self._is_slow = monotonic() - asked_at > PATIENCE_SECONDS


class Endpoints:
    """The readers of all clusters with open ports; `keep` says for which attempt one is to be asked about, or that it is not."""

    def __init__(self, sky: SkyPilot) -> None:
        self._sky = sky
        self._lanes = Lanes(quick=QUESTIONS_AT_ONCE, slow=QUESTIONS_AT_ONCE)
        self._readers: dict[str, EndpointReader] = {}

    def server_is(self, *, away: bool) -> None:
        """Stop asking, or go on."""
        self._lanes.server_is(away=away)

    def keep(self, subject: Subject, *, is_up: bool, changed: Callable[[], None]) -> None:
        """Ask about the subject's attempt while its cluster is UP, and call `changed` when the answer does; else forget the answer."""
        name, wanted = subject.cluster_name, subject.ports_of if is_up else None
        reader = self._readers.get(name)
        if reader is not None and reader.attempt_name == wanted:
            return
        self.forget(name)
        if wanted is not None:
            self._readers[name] = EndpointReader(self._sky, cluster_name=name, attempt_name=wanted, lanes=self._lanes, changed=changed)

    def forget(self, cluster_name: str) -> None:
        """Ask about this cluster no more."""
        reader = self._readers.pop(cluster_name, None)
        if reader is not None:
            reader.stop()

    def of(self, cluster_name: str) -> Mapping[str, str] | None:
        """Return where each port of the cluster is reached; None if that is not known."""
        reader = self._readers.get(cluster_name)
        return None if reader is None else reader.endpoints
