"""Keeps up with how kube-apiserver shows itself: its authorities are renewed, and an old one must count no more."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, Protocol

from skyoperator.kube import KubeError
from skyoperator.logs.web.identity import FrontProxy, FrontProxyDoor, front_proxy
from skyoperator.logs.web.tls import Contexts

logger = logging.getLogger(__name__)

NAMESPACE: Final = "kube-system"
CONFIG_MAP: Final = "extension-apiserver-authentication"
"""Written by kube-apiserver, for aggregated API servers (kubernetes 1.34, pkg/controlplane/controller/clusterauthenticationtrust)."""
LOOK_SECONDS: Final = 60.0


class ConfigMaps(Protocol):
    """`KubeApi.config_map`."""

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the text data of a ConfigMap, or None if there is none of that name. Raises KubeError."""


class FrontProxyWatch:
    """`step` before the server is started, `run` beside it. Until it has been read, the door is shut."""

    def __init__(self, kube: ConfigMaps, door: FrontProxyDoor, contexts: Contexts, hang_up: Callable[[], None] = lambda: None) -> None:
        """`hang_up` ends the connections that were begun by other authorities."""
        self._kube = kube
        self._door = door
        self._contexts = contexts
        self.hang_up = hang_up
        self._proxy: FrontProxy | None = None

    async def step(self) -> None:
        """Take over what is written there. What can't be read, or makes no sense, changes nothing."""
        try:
            data = await self._kube.config_map(NAMESPACE, CONFIG_MAP)
            proxy = front_proxy(data or {})
            if proxy != self._proxy:
                self._take_over(proxy)
        except (KubeError, ValueError, ssl.SSLError) as error:
            logger.warning("ConfigMap %s/%s, by which kube-apiserver is known: %s", NAMESPACE, CONFIG_MAP, error)

    def _take_over(self, proxy: FrontProxy | None) -> None:
        self._contexts.use_authorities(proxy.authorities_pem if proxy is not None else "")
        self._door.accept(proxy)
        self._proxy = proxy
        self.hang_up()
        logger.info("the way through kube-apiserver is %s", "shut: it publishes no front proxy" if proxy is None else "open")

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.step()
