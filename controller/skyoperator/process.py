"""What our processes have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import kopf


async def until_one_ends(*parts: Awaitable[None], then: Callable[[], Awaitable[None]]) -> None:
    """Run all parts until one of them ends, do `then` while the others go on, and cancel them. Raises what the first one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await then()
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


def configure_logging(level: str) -> None:
    """Log JSON lines. kopf reports each watch event it has handed on: of use to nobody but who debugs it."""
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(level)
    if level != "DEBUG":
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
