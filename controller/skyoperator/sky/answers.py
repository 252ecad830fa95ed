"""What an answer of the SkyPilot API server means when it is not the one we hoped for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from yarl import URL

from skyoperator.sky.parse import Json, words
from skyoperator.sky.types import SkyPilotError, SkyPilotRefused, SkyPilotRejectsUs, SkyPilotUnreachable

API_VERSION: Final = 62

_REFUSALS: Final = frozenset({400, 409, 413, 422})
"""A 404, 408 or 429 to a POST comes from something in front of SkyPilot, and says nothing about the task."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Server:
    """Which server we complain of, and what to do when it rejects our credentials."""

    url: URL
    advice: str

    def unreachable(self, complaint: str) -> SkyPilotUnreachable:
        """Return the error for "nothing is known", with the server's address."""
        return SkyPilotUnreachable(f"The SkyPilot API server at {self.url} {complaint}")

    def failure(self, method: str, path: str, status: int, text: str) -> SkyPilotError:
        """Return the error that an answer other than 200 stands for."""
        said = words(text)
        if status in {401, 403}:
            return SkyPilotRejectsUs(
                f"The SkyPilot API server at {self.url} rejects our credentials with HTTP {status}: {said}. {self.advice}"
            )
        if 300 <= status < 400:
            return self.unreachable("redirects us, to a login perhaps. Let our token through the proxy in front of it.")
        if json_object(text).get("error") == "version_mismatch":
            return self.unreachable(f"does not speak our API version {API_VERSION}: {said}")
        if method == "POST" and status in _REFUSALS:
            return SkyPilotRefused(status, said)
        return self.unreachable(f"answers {method} /{path} with HTTP {status}: {said}")

    def json(self, path: str, text: str) -> Json:
        """Return the parsed JSON. Raises SkyPilotUnreachable for anything else, such as a proxy's web page."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.unreachable(f"answers /{path} with something that is not JSON. Is it SkyPilot?") from error

    def parsed(self, parse: Callable[[Json], _T], raw: Json) -> _T:
        """Return `parse(raw)`. Raises SkyPilotUnreachable for JSON of another shape."""
        try:
            return parse(raw)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise self.unreachable(f"answers in a shape we do not know ({error!r}). Is it SkyPilot?") from error


def json_object(text: str) -> Mapping[str, Any]:
    """Return the JSON object in the text, or an empty one."""
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def names_a_request(text: str) -> bool:
    """Tell SkyPilot's "Request '…' not found" from a proxy's 404, which must never be read as an absent request."""
    return str(json_object(text).get("detail", "")).startswith("Request ")


def failed_row(text: str) -> Mapping[str, Any] | None:
    """Return the failed request inside a 500 of /api/get, or None for a 500 of the server's own."""
    detail = json_object(text).get("detail")
    return detail if isinstance(detail, dict) and "request_id" in detail else None
