"""Who we are to the SkyPilot API server, read from a mounted Secret at each use so that a rotated Secret works at once."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skyoperator.sky.types import SkyPilotUnreachable


class Credentials(Protocol):
    """Where the Authorization header comes from."""

    @property
    def source(self) -> str:
        """Return what to look at when the server rejects them, as words in a message: "Secret sky/api-token"."""

    def authorization(self) -> str | None:
        """Return the header's value, or None for a server without authentication."""


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """For a server without authentication; our identity is then `client.USER`."""

    source: str = "no credentials configured"

    def authorization(self) -> str | None:
        """Return None: no header is sent."""
        return None


@dataclass(frozen=True, slots=True)
class SecretDirectory:
    """A mounted Secret with the key `token` (a SkyPilot service-account token), or `username` and `password`.

    A token wins. It is minted in the server's own database, so a server that lost its database answers 401 instead of
    an empty list of clusters.
    """

    path: Path
    source: str

    def authorization(self) -> str | None:
        """Return the header's value. Raises SkyPilotUnreachable when the Secret lacks the keys."""
        if token := self._read("token"):
            return f"Bearer {token}"
        username, password = self._read("username"), self._read("password")
        if not username or not password:
            raise SkyPilotUnreachable(
                f"No SkyPilot credentials: {self.source} has neither the key token nor username and password. "
                f"Put them there; they are read again at the next call."
            )
        return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    def _read(self, key: str) -> str:
        try:
            return (self.path / key).read_text(encoding="utf-8").strip()
        except OSError:
            return ""
