"""TLS of the server: its own certificate and the authorities of clients, both of which change while it runs.

A context can be given a certificate anew, but never fewer authorities. So each change makes a new context, and the one that listens
hands every handshake to the newest (OpenSSL takes certificate, authorities and the names it asks for from it; SSL_set_SSL_CTX).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory


class Contexts:
    """`listening` for the server; `use_certificate` and `use_authorities` count from the next handshake on."""

    def __init__(self) -> None:
        self._certificate: tuple[bytes, bytes] | None = None
        self._authorities_pem = ""
        self._newest: ssl.SSLContext | None = None
        self.listening = _empty()
        self.listening.sni_callback = self._hand_over

    def use_certificate(self, chain_pem: bytes, key_pem: bytes) -> None:
        """Show this one. Raises ssl.SSLError if it and its key don't belong together."""
        self._newest = _made(chain_pem, key_pem, self._authorities_pem)
        self._certificate = (chain_pem, key_pem)

    def use_authorities(self, authorities_pem: str) -> None:
        """Verify clients by these; "" by none. Raises ssl.SSLError if it is no certificate."""
        if self._certificate is not None:
            self._newest = _made(*self._certificate, authorities_pem)
        elif authorities_pem:
            _empty().load_verify_locations(cadata=authorities_pem)
        self._authorities_pem = authorities_pem

    def trusts(self, context: ssl.SSLContext) -> bool:
        """Return whether it verifies by the authorities that count now."""
        return isinstance(context, _Context) and context.authorities_pem == self._authorities_pem != ""

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Called for every handshake, with a server name or without (RFC 6066; OpenSSL's final_server_name)."""
        if self._newest is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._newest
        return None


class _Context(ssl.SSLContext):
    """A context that knows by whom it verifies."""

    authorities_pem = ""


def _empty() -> _Context:
    """No session is resumed: it would bring along a client that was verified by authorities which may count no more."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _made(chain_pem: bytes, key_pem: bytes, authorities_pem: str) -> _Context:
    context = _empty()
    context.authorities_pem = authorities_pem
    if authorities_pem:
        context.load_verify_locations(cadata=authorities_pem)
    with TemporaryDirectory() as directory:
        chain, key = Path(directory, "tls.crt"), Path(directory, "tls.key")
        chain.write_bytes(chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(key_pem)
        context.load_cert_chain(chain, key)
    return context
