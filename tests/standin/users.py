"""Who may call, and which database that is written in: SkyPilot's own users, the one of the start (basic auth), service accounts."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.standin import recorded


@dataclass
class Users:
    """The table of users. A server that lost its database makes a new one: other users of its own, and no token of the old one."""

    basic: str | None = None
    """The Authorization header of the user whom the server's environment names; it is made again after a wipe."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Service-account tokens, and their names."""
    imported: dict[str, str] = field(default_factory=dict)
    """Users that an administrator made: name and LDAP's SHA-1 hash of the password."""
    asks: bool = False
    server_id: str = field(default_factory=lambda: secrets.token_hex(4))
    born: int = field(default_factory=lambda: int(time.time()))

    def require(self, *, token: str, username: str, password: str) -> None:
        """Take these credentials from now on and no others; ask for none if all are empty."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.basic = f"Basic {pair}" if username else None
        self.tokens = {token: "given"} if token else {}
        self.imported = {}
        self.asks = bool(token or username)

    def of_a_new_database(self) -> Users:
        """Return what is left after a wipe."""
        return Users(basic=self.basic, asks=self.asks)

    def refusal(self, shown: str | None) -> web.Response | None:
        """Return the 401 for these credentials, or None if they pass."""
        kind, _, token = (shown or "").partition(" ")
        if not self.asks or (kind == "Bearer" and token in self.tokens):
            return None
        if kind == "Basic" and (shown == self.basic or self._is_imported(token)):
            return None
        if kind == "Bearer" and token.startswith("sky_"):
            return web.json_response({"detail": "Invalid or expired service account token"}, status=401)
        words = "Authentication required" if shown is None else "Invalid credentials"
        return web.json_response(words, status=401, headers={"WWW-Authenticate": 'Basic realm="SkyPilot"'})

    def _is_imported(self, encoded: str) -> bool:
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
        return self.imported.get(name) == "{SHA}" + base64.b64encode(digest).decode()

    def rows(self) -> list[dict[str, Any]]:
        """Return GET /users: service accounts are not among them (sky/users/server.py:149)."""
        own = [(self.server_id, "admin"), ("skypilot-system", "admin"), ("skypilot-system-viewer", "viewer")]
        rows = [recorded.user_row(name, name, self.born, role, "system") for name, role in own]
        return rows if self.basic is None else [*rows, recorded.user_row("4b583376", "operator", self.born + 1, "admin", "basic")]

    def take_in(self, csv: str) -> web.Response:
        """Make users of the lines; a name that is taken is an error in a 200 (sky/users/server.py:714)."""
        rows = [line.split(",") for line in csv.strip().splitlines()[1:]]
        taken = [name for name, _, _ in rows if name in self.imported]
        self.imported |= {name: password for name, password, _ in rows if name not in taken}
        return web.json_response(recorded.imported(len(rows), taken))
