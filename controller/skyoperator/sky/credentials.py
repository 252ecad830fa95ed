"""Who we are to the SkyPilot API server."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skyoperator.sky.types import SkyPilotUnreachable

logger = logging.getLogger(__name__)


class Credentials(Protocol):
    """Where the Authorization header comes from."""

    @property
    def advice(self) -> str:
        """Return what to do when the server rejects them, as a sentence that names where they are."""

    async def authorization(self) -> str | None:
        """Return the header's value, or None for a server without authentication. Raises SkyPilotUnreachable if there is none to be had."""

    def rejected(self) -> None:
        """Take note of a 401: what was remembered of them counts no more."""


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """For a server without authentication; our identity is then `client.USER`."""

    advice: str = "There are no credentials configured."

    async def authorization(self) -> str | None:
        """Return None: no header is sent."""
        return None

    def rejected(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class SecretDirectory:
    """A mounted Secret with the key `token` (a SkyPilot service-account token), or `username` and `password`. A token wins.

    It is read at each use, so that a rotated Secret works at once.
    """

    path: Path
    source: str

    @property
    def advice(self) -> str:
        """Return where to look."""
        return f"Check {self.source}; a server that lost its database no longer knows any token."

    async def authorization(self) -> str | None:
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

    def rejected(self) -> None:
        """Do nothing: nothing is remembered."""

    def _read(self, key: str) -> str:
        try:
            return (self.path / key).read_text(encoding="utf-8").strip()
        except OSError:
            return ""


class LoginStore(Protocol):
    """Where the login that we minted outlives us. Both methods raise SkyPilotUnreachable: without it nothing is known of SkyPilot."""

    @property
    def advice(self) -> str:
        """Return what to do when the server rejects the login that is in it."""

    async def login(self) -> str:
        """Return "name:password", or "" if there is none."""

    async def keep(self, login: str) -> bool:
        """Store it, unless somebody has written there since `login` was asked; return whether that was done."""


class KeptLogin:
    """The login that another process of ours minted: read, never made."""

    def __init__(self, store: LoginStore) -> None:
        self._store = store
        self._login = ""

    @property
    def advice(self) -> str:
        """Return what the store advises."""
        return self._store.advice

    async def authorization(self) -> str | None:
        """Return the header's value. Raises SkyPilotUnreachable while there is no login yet."""
        self._login = self._login or await self._store.login()
        if not self._login:
            raise SkyPilotUnreachable("There is no login for the SkyPilot API server yet: the controller makes it when it starts.")
        return "Basic " + base64.b64encode(self._login.encode()).decode()

    def rejected(self) -> None:
        """Read the store again before the next call."""
        self._login = ""


class MintedLogin:
    """A user of our own that was made in the server's database, so that a server which lost it answers 401.

    One is minted only where there is none. One that is rejected is never replaced: that a server no longer knows us must be
    seen by a person, who empties the store to accept the new one. See docs/design/server-identity.md.
    """

    def __init__(self, store: LoginStore, mint: Callable[[], Awaitable[str]]) -> None:
        self._store = store
        self._mint = mint
        self._login = ""
        self._unstored = ""
        self._turn = asyncio.Lock()

    @property
    def advice(self) -> str:
        """Return what the store advises."""
        return self._store.advice

    async def authorization(self) -> str | None:
        """Return the header's value: as remembered, else as stored, else of a new one that was stored first."""
        async with self._turn:
            if not self._login:
                self._login = await self._store.login() or await self._new()
            return "Basic " + base64.b64encode(self._login.encode()).decode()

    def rejected(self) -> None:
        """Read the store again before the next call: what is in it may have been changed, or taken out."""
        self._login = ""

    async def _new(self) -> str:
        """Return a new login once it is stored; one that could not be stored is stored at the next try, not minted again."""
        self._unstored = self._unstored or await self._mint()
        if not await self._store.keep(self._unstored):
            self._unstored = ""
            raise SkyPilotUnreachable("Somebody else has just stored a login for the SkyPilot API server; it is read at the next call.")
        login, self._unstored = self._unstored, ""
        logger.info("made a user of our own in the SkyPilot API server's database")
        return login
