"""The log server on 127.0.0.1 with TLS of its own, over logs in memory, and clients for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from skyoperator.logs.certificates import Lifetimes, names_of, renewed
from skyoperator.logs.types import Log, NoLogError, Piece, State, Wanted
from skyoperator.logs.web import Pace, serve
from skyoperator.logs.web.access import Access, Authorizer
from skyoperator.logs.web.identity import Asker, Authenticator, User
from skyoperator.logs.web.tls import Contexts

ROOT = "/apis/logs.skyoperator.dev/v1alpha1"
PATIENCE_SECONDS = 30.0
"""What a test waits for may never come: it then fails instead of hanging."""
NAMES = names_of("logs", "sky", "cluster.local")
LOG = f"{ROOT}/namespaces/ml/skyclusters/train/log"
RESULT = f"{ROOT}/namespaces/ml/skyclusters/train/result"


class MemoryLog:
    """A `Log`: bytes 0 to size, and a hole."""

    def __init__(self, data: bytes = b"", *, hole: tuple[int, int] = (0, 0), state: State = State.COMPLETE, message: str = "") -> None:
        self._data = data
        self._hole = hole
        self.state = state
        self.message = message
        self.reads = 0
        self.waiters = 0
        self._changed = asyncio.Event()

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, limit_bytes: int) -> Piece:
        self.reads += 1
        start, end = self._hole
        if start <= offset < end:
            offset = end
        stop = offset + limit_bytes if offset >= end else min(offset + limit_bytes, start)
        return Piece(offset, self._data[offset:stop])

    def offset_of_last_lines(self, lines: int) -> int:
        ends = [at + 1 for at, byte in enumerate(self._data) if byte == 10]
        if self._data and not self._data.endswith(b"\n"):
            ends.append(len(self._data))
        starts = [0, *ends][: len(ends)]
        return starts[-lines] if 0 < lines <= len(starts) else (self.size if lines == 0 else 0)

    async def grown(self, beyond: int) -> None:
        self.waiters += 1
        try:
            while self.size <= beyond and self.state is State.LIVE:
                await self._changed.wait()
        finally:
            self.waiters -= 1

    def append(self, data: bytes, state: State = State.LIVE) -> None:
        self._data += data
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()


class EndlessLog(MemoryLog):
    """A gibibyte that takes no memory."""

    @property
    def size(self) -> int:
        return 1 << 30

    def read(self, offset: int, limit_bytes: int) -> Piece:
        self.reads += 1
        return Piece(offset, b"x" * min(limit_bytes, self.size - offset))


@dataclass
class MemoryLogs:
    """A `Logs`: one answer to whatever is wanted."""

    log: Log | None = None
    result_json: bytes | None = None
    no_result: LookupError = field(default_factory=lambda: NoLogError("no result yet"))
    failure: NoLogError | None = None
    asked: list[Wanted] = field(default_factory=list)
    followers: int = 0
    most_followers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def find(self, wanted: Wanted) -> Log:
        self.asked.append(wanted)
        if self.failure is not None:
            raise self.failure
        if self.log is None:
            raise NoLogError(f"SkyCluster {wanted.namespace}/{wanted.name} has no log yet")
        return self.log

    @contextmanager
    def changes(self, wanted: Wanted) -> Iterator[asyncio.Event]:
        yield self.changed

    @asynccontextmanager
    async def following(self, log: Log) -> AsyncIterator[None]:
        self.followers += 1
        self.most_followers = max(self.most_followers, self.followers)
        try:
            yield
        finally:
            self.followers -= 1

    async def result(self, wanted: Wanted) -> bytes:
        self.asked.append(wanted)
        if self.result_json is None:
            raise self.no_result
        return self.result_json


class Somebody:
    """An `Authenticator` that knows everybody who says Bearer jane."""

    async def user(self, asker: Asker) -> User | None:
        return User("jane", groups=("ml",)) if asker.headers.get("Authorization") == "Bearer jane" else None


@dataclass
class Rights:
    """An `Authorizer`."""

    allowed: bool = True
    failure: Exception | None = None
    asked: list[tuple[User, Access]] = field(default_factory=list)

    async def may(self, user: User, access: Access) -> bool:
        self.asked.append((user, access))
        if self.failure is not None:
            raise self.failure
        return self.allowed


@dataclass
class Signer:
    """An authority of clients."""

    name: str = "front-proxy-ca"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def certificate(self) -> x509.Certificate:
        return self._sign(self.name, self.key.public_key(), timedelta(days=1), is_authority=True)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def client(self, common_name: str, good_for: timedelta = timedelta(hours=1)) -> tuple[bytes, bytes]:
        """Certificate and key of a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(common_name, key.public_key(), good_for, is_authority=False)
        return certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, good_for: timedelta, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + good_for)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


SERVER = renewed(None, datetime.now(UTC), names=NAMES, lifetimes=Lifetimes())


def server_contexts(authorities_pem: str = "") -> Contexts:
    contexts = Contexts()
    contexts.use_certificate(SERVER.certificate, SERVER.key)
    contexts.use_authorities(authorities_pem)
    return contexts


def client_context(bundle: bytes = SERVER.bundle, certificate: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=bundle.decode())
    if certificate is not None:
        with TemporaryDirectory() as directory:
            chain, key = Path(directory, "crt"), Path(directory, "key")
            chain.write_bytes(certificate[0])
            key.write_bytes(certificate[1])
            context.load_cert_chain(chain, key)
    return context


@dataclass
class Running:
    """A server, and where it is."""

    runner: web.AppRunner
    port: int

    @asynccontextmanager
    async def client(
        self,
        context: ssl.SSLContext | None = None,
        headers: dict[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """A client that says Bearer jane unless it is given headers."""
        connector = aiohttp.TCPConnector(ssl=context or client_context())
        given: Any = {"Authorization": "Bearer jane"} if headers is None else headers
        async with aiohttp.ClientSession(f"https://localhost:{self.port}", connector=connector, headers=given) as session:
            yield session


@asynccontextmanager
async def running(
    logs: MemoryLogs,
    *,
    authenticator: Authenticator | None = None,
    authorizer: Authorizer | None = None,
    contexts: Contexts | None = None,
    pace: Pace | None = None,
    is_ready: bool = True,
    max_followers: int = 512,
) -> AsyncIterator[Running]:
    runner = await serve(
        0,
        host="127.0.0.1",
        logs=logs,
        authenticator=authenticator or Somebody(),
        authorizer=authorizer or Rights(),
        ssl_context=(contexts or server_contexts()).listening,
        is_ready=lambda: is_ready,
        max_followers=max_followers,
        pace=pace,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield Running(runner, runner.addresses[0][1])
    finally:
        await runner.cleanup()
