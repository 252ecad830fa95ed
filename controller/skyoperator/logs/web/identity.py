"""Who asks: whom the front proxy names, which a client certificate proves, or whose bearer token it is. There is no third way in.

kube-apiserver's own servers do the same (k8s.io/apiserver, pkg/authentication/request/headerrequest/requestheader.go,
pkg/authentication/request/x509/x509.go).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ssl import SSLContext, cert_time_to_seconds
from typing import Any, Protocol, cast
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from skyoperator.logs.web.reviews import Calls, Remembered, review

Certificate = Mapping[str, Any]
"""A client's, as SSLObject.getpeercert returns it: only of one that was verified; empty otherwise."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom Kubernetes knows the asker as."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """What a request shows of who sends it."""

    headers: CIMultiDictProxy[str]
    certificate: Certificate
    context: SSLContext | None
    """The one that verified the certificate."""


class Authenticator(Protocol):
    """Who tells who asks."""

    async def user(self, asker: Asker) -> User | None:
        """Return him, or None if nothing proves who he is. Raises UnavailableError."""


class FirstOf:
    """An Authenticator: the first of several that knows the asker."""

    def __init__(self, *doors: Authenticator) -> None:
        self._doors = doors

    async def user(self, asker: Asker) -> User | None:
        """See `Authenticator.user`."""
        for door in self._doors:
            found = await door.user(asker)
            if found is not None:
                return found
        return None


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How kube-apiserver shows itself, and whom it speaks for: what it publishes for aggregated API servers."""

    authorities_pem: str
    allowed_names: tuple[str, ...]
    """Common names; empty: any that the authorities signed."""
    user_headers: tuple[str, ...]
    uid_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]


def front_proxy(data: Mapping[str, str]) -> FrontProxy | None:
    """Return what the ConfigMap kube-system/extension-apiserver-authentication says; None if there is no front proxy.

    Raises ValueError if it makes no sense: guessing here would be letting in.
    """
    authorities = data.get("requestheader-client-ca-file", "").strip()
    if not authorities:
        return None
    return FrontProxy(
        authorities_pem=authorities,
        allowed_names=_names(data, "requestheader-allowed-names"),
        user_headers=_names(data, "requestheader-username-headers"),
        uid_headers=_names(data, "requestheader-uid-headers"),
        group_headers=_names(data, "requestheader-group-headers"),
        extra_prefixes=_names(data, "requestheader-extra-headers-prefix"),
    )


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    found = json.loads(data.get(key) or "[]")
    if not isinstance(found, list) or not all(isinstance(name, str) and name.strip() for name in found):
        raise ValueError(f"{key} is not a list of names: {data[key]!r}")
    return tuple(name.strip() for name in found)


class FrontProxyDoor:
    """An Authenticator: whom the front proxy names."""

    def __init__(self, trusts: Callable[[SSLContext], bool], clock: Callable[[], float] = time.time) -> None:
        """`trusts` tells whether a TLS context verifies by the authorities that count now."""
        self._trusts = trusts
        self._clock = clock
        self._proxy: FrontProxy | None = None

    def accept(self, proxy: FrontProxy | None) -> None:
        """Speak from now on to this one; None: to nobody."""
        self._proxy = proxy

    async def user(self, asker: Asker) -> User | None:
        """See `Authenticator.user`."""
        proxy = self._proxy
        if proxy is None or not self._is_the_proxy(asker, proxy):
            return None
        name = next((found for header in proxy.user_headers if (found := asker.headers.get(header, ""))), "")
        if not name:
            return None
        user = User(
            name=name,
            uid=next((found for header in proxy.uid_headers if (found := asker.headers.get(header, ""))), ""),
            groups=tuple(group for header in proxy.group_headers for group in asker.headers.getall(header, []) if group),
            extra=_extra(asker.headers, proxy.extra_prefixes),
        )
        return user if _is_text(user) else None

    def _is_the_proxy(self, asker: Asker, proxy: FrontProxy) -> bool:
        """A connection may be older than the authorities that count now, and live longer than its certificate."""
        if not asker.certificate or asker.context is None or not self._trusts(asker.context):
            return False
        if cert_time_to_seconds(str(asker.certificate["notAfter"])) <= self._clock():
            return False
        return not proxy.allowed_names or any(name in proxy.allowed_names for name in _common_names(asker.certificate))


def _common_names(certificate: Certificate) -> Iterator[str]:
    for part in certificate.get("subject", ()):
        yield from (value for key, value in part if key == "commonName")


def _extra(headers: CIMultiDictProxy[str], prefixes: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Keys of it are %-encoded, and in lower case once they came as headers."""
    found: dict[str, list[str]] = {}
    for prefix in prefixes:
        for header, value in headers.items():
            if header.lower().startswith(prefix.lower()):
                found.setdefault(unquote(header[len(prefix) :].lower()), []).append(value)
    return tuple((key, tuple(values)) for key, values in sorted(found.items()))


def _is_text(user: User) -> bool:
    """Bytes that are no UTF-8 come as surrogates: two users could look the same once they are replaced."""
    try:
        repr_of_all = "".join((user.name, user.uid, *user.groups, *(text for key, values in user.extra for text in (key, *values))))
        repr_of_all.encode()
    except UnicodeEncodeError:
        return False
    return True


class BearerDoor:
    """An Authenticator: whose token it is, by TokenReview."""

    def __init__(self, kube: Calls, remembered: Remembered[User | None] | None = None) -> None:
        self._kube = kube
        self._remembered = remembered or Remembered()

    async def user(self, asker: Asker) -> User | None:
        """See `Authenticator.user`."""
        given = asker.headers.getall("Authorization", [])
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            return None

        async def ask() -> User | None:
            return _reviewed(await review(self._kube, "TokenReview", {"token": token}))

        return await self._remembered.get(sha256(token.encode()).digest(), ask)


def _reviewed(status: Mapping[str, Any]) -> User | None:
    user = status.get("user") or {}
    if status.get("authenticated") is not True or not user.get("username"):
        return None
    extra = cast("Mapping[str, list[str]]", user.get("extra") or {})
    return User(
        name=str(user["username"]),
        uid=str(user.get("uid", "")),
        groups=tuple(user.get("groups") or ()),
        extra=tuple((key, tuple(values)) for key, values in sorted(extra.items())),
    )
