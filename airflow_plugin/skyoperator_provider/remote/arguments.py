"""What a function is called with, as what is sent."""

from __future__ import annotations

import base64
import inspect
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from skyoperator_provider.remote.far.tagged import UnsendableError, decode, encode


class Serializer(StrEnum):
    """How arguments are sent. What comes back is always JSON: a pickle from a cluster would run its code here."""

    JSON = "json"
    CLOUDPICKLE = "cloudpickle"


class UnsendableArgumentError(ValueError):
    """An argument can't be sent, or the function does not take it; names it."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, as the far side reads them."""

    payload: Mapping[str, Any]
    sizes: Mapping[str, int]
    """By argument: about how many bytes it takes once it is compressed."""
    seen: Sequence[tuple[str, object]]
    """Each argument's name, and all that can be read of it by who opens what is sent: plain values; of a pickle the bytes too."""


def pack(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    serializer: Serializer | str = Serializer.JSON,
) -> Arguments:
    """Return the arguments as they are sent.

    Raises:
        UnsendableArgumentError: The function does not take them, or one of them can't be sent.
        ImportError: cloudpickle is asked for and not installed.
    """
    kwargs = kwargs or {}
    named = _named(function, args, kwargs)
    if Serializer(serializer) is Serializer.CLOUDPICKLE:
        return _pickled(function, args, kwargs, named)
    try:
        encoded = [encode(value, f"argument {name}") for name, value in named]
    except UnsendableError as error:
        raise UnsendableArgumentError(f"{function.__name__}(): {error}") from None
    payload = {"serializer": "json", "args": encoded[: len(args)], "kwargs": dict(zip(kwargs, encoded[len(args) :], strict=True))}
    sent = [(name, value) for (name, _), value in zip(named, encoded, strict=True)]
    sizes = {name: _compressed(json.dumps(value).encode()) for name, value in sent}
    return Arguments(payload, sizes, [(name, decode(value)) for name, value in sent])


def _named(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the arguments with the names that people know them by: positional ones first, each in its order."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UnsendableArgumentError(f"{function.__name__}(): {error}") from None
    return [*zip(_positional_names(signature, len(args)), args, strict=True), *kwargs.items()]


def _positional_names(signature: inspect.Signature, count: int) -> Iterator[str]:
    for index, parameter in enumerate(signature.parameters.values()):
        if index == count:
            return
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from (f"{parameter.name}[{at}]" for at in range(count - index))
            return
        yield parameter.name


def _pickled(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], named: Sequence[tuple[str, Any]]) -> Arguments:
    try:
        import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            'serializer="cloudpickle" needs cloudpickle here: pip install "airflow-provider-skyoperator[cloudpickle]"'
        ) from error
    with _by_value(cloudpickle, sys.modules.get(function.__module__)):
        parts: list[bytes] = []
        for name, value in named:
            try:
                parts.append(cloudpickle.dumps(value))
            except Exception as error:
                raise UnsendableArgumentError(f"{function.__name__}(): argument {name} can't be pickled: {error}") from error
        pickled = base64.b64encode(cloudpickle.dumps((list(args), dict(kwargs)))).decode()
    python = "{}.{}".format(*sys.version_info)
    payload = {"serializer": "cloudpickle", "python": python, "pickled": pickled}
    seen = [(name, (value, part)) for (name, value), part in zip(named, parts, strict=True)]
    return Arguments(payload, {name: _compressed(part) for name, (_, part) in seen}, seen)


@contextmanager
def _by_value(cloudpickle: Any, module: Any) -> Iterator[None]:
    """Let the classes of the DAG file be sent as they are: no module of its name can be imported on the far side."""
    if module is None or module.__name__ in cloudpickle.list_registry_pickle_by_value():
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _compressed(data: bytes) -> int:
    return len(zlib.compress(data))
