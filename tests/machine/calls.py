"""Coroutines without an event loop: a call is a place where a pass can be stopped, gone on with, or left for dead."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A call that is about to be made."""

    name: str

    def __await__(self) -> Generator[Call, None, None]:
        """Stop here until somebody sends the coroutine on."""
        yield self


class Plain:
    """Makes the methods of an object coroutines."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._before(name)
            result = getattr(self._target, name)(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call

    async def _before(self, name: str) -> None:
        """Nothing stops a plain call."""


class Stepped(Plain):
    """Makes the methods of an object coroutines that stop before each call."""

    async def _before(self, name: str) -> None:
        if name != "event":
            await Call(name)


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns; nothing in it waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits")
