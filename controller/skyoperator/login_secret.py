"""The Secret in which our login at the SkyPilot API server outlives the controller.

The chart makes it, empty, so that the controller needs no right to create Secrets: that right can't be tied to a name.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from skyoperator.kube import Conflict, Json, KubeApi, KubeError, explained, is_missing
from skyoperator.sky.types import SkyPilotUnreachable

NAME, PASSWORD = "username", "password"
_PATH: Final = "/api/v1/namespaces/{namespace}/secrets/{name}"


class LoginSecret:
    """A `sky.credentials.LoginStore`."""

    def __init__(self, kube: KubeApi, *, namespace: str, name: str) -> None:
        self._kube = kube
        self._names = {"namespace": namespace, "name": name}
        self._read: Json = {}

    @property
    def advice(self) -> str:
        """Return how to find out, and how to accept a server that has a new database."""
        namespace, name = self._names["namespace"], self._names["name"]
        return (
            f"The user in Secret {namespace}/{name} was made in the server's database: either that was lost, or another server answers. "
            f"Bring it back; or, to go on with an empty server: "
            f"kubectl -n {namespace} patch secret {name} --type=merge -p '{{\"data\":null}}'"
        )

    async def login(self) -> str:
        """See `LoginStore.login`."""
        with self._unknown_without_it(), explained("read", self._where):
            self._read = await self._kube.call("GET", _PATH, self._names)
        data = self._read.get("data") or {}
        name, password = (b64decode(data.get(key, "")).decode().strip() for key in (NAME, PASSWORD))
        return f"{name}:{password}" if name and password else ""

    async def keep(self, login: str) -> bool:
        """See `LoginStore.keep`."""
        name, _, password = login.partition(":")
        data = {key: b64encode(value.encode()).decode() for key, value in ((NAME, name), (PASSWORD, password))}
        body = {**self._read, "data": {**(self._read.get("data") or {}), **data}}
        try:
            with self._unknown_without_it(), explained("write", self._where):
                await self._kube.call("PUT", _PATH, self._names, body)
        except Conflict:
            return False
        return True

    @property
    def _where(self) -> str:
        return f"Secret {self._names['namespace']}/{self._names['name']}, which holds our login at SkyPilot"

    @contextmanager
    def _unknown_without_it(self) -> Iterator[None]:
        try:
            yield
        except Conflict:
            raise
        except KubeError as error:
            raise SkyPilotUnreachable(f"{error}{'. `helm upgrade` makes it again.' if is_missing(error) else ''}") from error
