"""The consortium's transport certificates: an authority of EC P-256 that the hub runs.

A transport certificate lets a box connect; what it may say there is decided by its Ed25519
identity on the roster. Whatever this authority has issued and the roster does not name is revoked:
one rule covers proposals nobody signed, renewed certificates and revoked members.

Sources: RFC 5280 (certificates, revocation lists); SEC 2 (P-256).
"""

import datetime
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.secagg.roster import Roster

_DAY: Final = datetime.timedelta(days=1)
AUTHORITY_DAYS: Final = 3650
MEMBER_DAYS: Final = 398
LIST_DAYS: Final = 30  # a revocation list is made anew every day while the hub serves


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key from the operating system's generator."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key as PEM, for a file only its owner reads."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


class Authority:
    """Issues and revokes. `now` is seconds since the epoch."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self.certificate = key, certificate

    @classmethod
    def make(cls, consortium: str, now: int) -> "Authority":
        """Return a new authority for ten years."""
        key = make_key()
        name = _name(f"{consortium} transport authority")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def read(cls, key_pem: str, certificate_pem: str) -> "Authority":
        """Return an authority from its two files."""
        key = serialization.load_pem_private_key(key_pem.encode("ascii"), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("an authority's key is of EC P-256")
        return cls(key, x509.load_pem_x509_certificate(certificate_pem.encode("ascii")))

    @property
    def key_pem(self) -> str:
        """The private key, for its file."""
        return private_pem(self._key)

    def issue_member(self, csr: x509.CertificateSigningRequest, now: int) -> x509.Certificate:
        """Return a box's certificate; of the request only name and key are taken over."""
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("checked before: a transport key is of EC P-256")
        return self._leaf(csr.subject, key, now, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def issue_server(self, name: str, key: ec.EllipticCurvePublicKey, now: int) -> x509.Certificate:
        """Return the hub's own certificate under the name boxes reach it by."""
        alternative = [x509.DNSName(name)]
        return self._leaf(_name(name), key, now, ExtendedKeyUsageOID.SERVER_AUTH, alternative)

    def revocation_list(self, serials: Iterable[int], now: int) -> str:
        """Return the list of revoked serial numbers, PEM."""
        at = _time(now) - _DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at)
            .next_update(at + LIST_DAYS * _DAY)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
            builder = builder.add_revoked_certificate(one.build())
        signed = builder.sign(self._key, SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def _leaf(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        now: int,
        use: x509.ObjectIdentifier,
        alternative: list[x509.DNSName],
    ) -> x509.Certificate:
        builder = (
            _builder(subject, self.certificate.subject, key, now, MEMBER_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        if alternative:
            names = x509.SubjectAlternativeName(alternative)
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, SHA256())


def keep_issued(store: HubStore, box: str, certificate: x509.Certificate, now: int) -> None:
    """Remember an issued certificate, so that it can be handed out and revoked."""
    with store.write() as db:
        db.execute(
            "INSERT INTO certificate VALUES (?, ?, ?, ?, ?)",
            (
                f"{certificate.serial_number:x}",
                box,
                certificate.fingerprint(SHA256()),
                pem(certificate),
                now,
            ),
        )


def issued(store: HubStore, digest: bytes) -> x509.Certificate:
    """Return an issued certificate by its SHA-256; NotFoundError."""
    text: str = store.row("SELECT pem FROM certificate WHERE digest = ?", digest)[0]
    return x509.load_pem_x509_certificate(text.encode("ascii"))


def to_revoke(store: HubStore, roster: Roster) -> list[int]:
    """Return the serial numbers of everything issued that the roster does not name."""
    named = {member.certificate for member in roster.members.values()}
    rows = store.rows("SELECT serial, digest FROM certificate ORDER BY serial")
    return [int(serial, 16) for serial, digest in rows if digest not in named]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: int,
    days: int,
) -> x509.CertificateBuilder:
    at = _time(now)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _DAY)  # a box's clock may be a little behind
        .not_valid_after(at + days * _DAY)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _time(now: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now, datetime.UTC)
