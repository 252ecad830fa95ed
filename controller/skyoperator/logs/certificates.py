"""The certificate that the server shows, and the authority that signed it. Pure: made, judged and renewed, kept nowhere.

Both are renewed when a third of their life is left. A new authority counts beside the old one until that has run out, and signs nothing
until clients had a sixth of a certificate's life to learn of it: the bundle that they have verifies what they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, AUTHORITY_KEY, CERTIFICATE, CERTIFICATE_KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
BACKDATED: Final = timedelta(minutes=5)
"""Clocks of clients may be behind ours by so much."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long each is good for. An authority outlives all that it signs, as it is renewed with a third of its own life left."""

    authority: timedelta = timedelta(days=3650)
    certificate: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if self.certificate > self.authority / 3:
            raise ValueError(f"a certificate of {self.certificate} would outlive its authority of {self.authority}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the server shows itself with, as PEM."""

    bundle: bytes
    """All authorities that count, the one that signs first."""
    authority_key: bytes
    certificate: bytes
    key: bytes

    def data(self) -> dict[str, bytes]:
        """Return it as a Secret keeps it."""
        return {AUTHORITY: self.bundle, AUTHORITY_KEY: self.authority_key, CERTIFICATE: self.certificate, CERTIFICATE_KEY: self.key}

    @classmethod
    def from_data(cls, data: Mapping[str, bytes]) -> Identity | None:
        """Return what a Secret keeps; None if it keeps nothing, or nothing that can be used."""
        found = cls(*(data.get(key, b"") for key in (AUTHORITY, AUTHORITY_KEY, CERTIFICATE, CERTIFICATE_KEY)))
        try:
            authority = x509.load_pem_x509_certificates(found.bundle)[0]
            certificate = x509.load_pem_x509_certificate(found.certificate)
            keys = [load_pem_private_key(key, None).public_key() for key in (found.authority_key, found.key)]
        except (ValueError, TypeError):
            return None
        return found if [authority.public_key(), certificate.public_key()] == keys else None


def names_of(service: str, namespace: str, cluster_domain: str) -> tuple[str, ...]:
    """Return the names under which the server is reached: as a Service, and at the near end of a port-forward."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.{cluster_domain}",
        f"{service}.{namespace}",
        "localhost",
        "127.0.0.1",
        "::1",
    )


def renewed(current: Identity | None, now: datetime, *, names: Sequence[str], lifetimes: Lifetimes) -> Identity:
    """Return what is to be shown from now on: the same object if nothing is due."""
    if current is None:
        return _signed(*_new_authority(now, lifetimes, ()), now, names, lifetimes)
    authorities = x509.load_pem_x509_certificates(current.bundle)
    if now >= _authority_due_at(current, lifetimes):
        bundle, key = _new_authority(now, lifetimes, authorities)
        current = Identity(bundle, key, current.certificate, current.key)
    certificate = x509.load_pem_x509_certificate(current.certificate)
    fits = _names_in(certificate) == set(names) and any(_is_signed_by(certificate, authority) for authority in authorities)
    if fits and now < _certificate_due_at(current, lifetimes):
        return current
    return _signed(current.bundle, current.authority_key, now, names, lifetimes)


def due_at(identity: Identity, lifetimes: Lifetimes) -> datetime:
    """Return when something of it is to be renewed."""
    return min(_authority_due_at(identity, lifetimes), _certificate_due_at(identity, lifetimes))


def _authority_due_at(identity: Identity, lifetimes: Lifetimes) -> datetime:
    return _authority(identity).not_valid_after_utc - lifetimes.authority / 3


def _certificate_due_at(identity: Identity, lifetimes: Lifetimes) -> datetime:
    """With a new authority later than otherwise, but with a sixth of its life left: nobody can verify one that has run out."""
    known_at = _authority(identity).not_valid_before_utc + BACKDATED + lifetimes.certificate / 6
    until = x509.load_pem_x509_certificate(identity.certificate).not_valid_after_utc
    return max(until - lifetimes.certificate / 3, min(known_at, until - lifetimes.certificate / 6))


def _authority(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificates(identity.bundle)[0]


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names_in(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def _new_authority(now: datetime, lifetimes: Lifetimes, others: Sequence[x509.Certificate]) -> tuple[bytes, bytes]:
    """Return the bundle with a new authority and those of the others that still count, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: two authorities of one name would be tried for each other's certificates.
    name = _name(f"skyoperator-logs-ca@{int(now.timestamp())}-{x509.random_serial_number():x}"[:64])
    signed = (
        _begun(name, name, key.public_key(), now, lifetimes.authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    counting = [signed, *(other for other in others if other.not_valid_after_utc > now)]
    return b"".join(one.public_bytes(Encoding.PEM) for one in counting), _pem(key)


def _signed(bundle: bytes, authority_key: bytes, now: datetime, names: Sequence[str], lifetimes: Lifetimes) -> Identity:
    """Return an identity with a new certificate, by the bundle's first authority."""
    authority = x509.load_pem_x509_certificates(bundle)[0]
    signing = load_pem_private_key(authority_key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{AUTHORITY_KEY} is no key on an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _begun(_name(names[0][:64]), authority.subject, key.public_key(), now, lifetimes.certificate)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return Identity(bundle, authority_key, certificate.public_bytes(Encoding.PEM), _pem(key))


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
