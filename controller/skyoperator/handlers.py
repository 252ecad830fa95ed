"""All the kopf there is: it watches SkyClusters and hands on each event.

kopf brings the watch that survives dropped connections and expired versions, and the log format. It writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeAlias

import kopf

from skyoperator.api.v1alpha1 import GROUP, PLURAL, VERSION

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 3.0


Saw: TypeAlias = Callable[[kopf.RawEvent], None]


async def watch(saw: Saw, *, namespaces: Collection[str], is_served: Callable[[], Awaitable[bool]]) -> None:
    """Hand on every event until a signal.

    kopf ends at whatever its watch has no answer to: an ERROR event that is not 410, a 404, a 401, rights that are away for a minute; and
    it looks only once, at its start, whether SkyClusters are served at all. None of that is a reason to end, so it is begun again.
    """
    stopping = asyncio.Event()
    while not stopping.is_set():
        try:
            if await is_served():
                await _watch_once(saw, namespaces, stopping)
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, the objects' own tasks go on, and so must the watch
            logger.warning("The watch of SkyClusters broke: %r. It is begun again in %.0f s.", error, AGAIN_SECONDS)
        _on_signals(stopping)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), AGAIN_SECONDS)


async def _watch_once(saw: Saw, namespaces: Collection[str], stopping: asyncio.Event) -> None:
    """Return at a signal. Raises what ends kopf."""
    tasks = await kopf.spawn_tasks(
        registry=registry(saw), settings=settings(), clusterwide=not namespaces, namespaces=namespaces, stop_flag=stopping
    )
    _on_signals(stopping)
    await kopf.run_tasks(tasks, ignored=Everything())


def _on_signals(stopping: asyncio.Event) -> None:
    """Take the signals back from kopf, whose own handlers are deaf between two watches."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)


class Everything(frozenset[asyncio.Task[Any]]):
    """Has every task: kopf cancels all others at its end, our objects' in mid-POST (kopf/_core/reactor/running.py:run_tasks)."""

    def __contains__(self, _: object) -> bool:
        return True


def registry(saw: Saw) -> kopf.OperatorRegistry:
    """Return the handlers, bound to what takes the events."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's own signature
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def happened(event: kopf.RawEvent, **_: object) -> None:
        saw(event)

    return handlers


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no events, no peering, no cluster-wide scans, and trouble is over within 10 s of its end."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.networking.connect_timeout = 10
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = (1, 2, 3, 5, *(10,) * 30)
    return chosen
