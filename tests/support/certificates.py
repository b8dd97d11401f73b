"""A certificate authority for tests: EC P-256, any names, expired or revoked at will."""

import datetime
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@dataclass
class Issued:
    """A certificate with its key, as PEM texts."""

    certificate: str
    key: str
    serial: int


@dataclass
class Authority:
    """One authority; `issue` signs for whoever asks."""

    common: str = "test authority"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self):
        self.certificate = (
            self._builder(_name(self.common), self.key.public_key(), 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self.key, SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, common: str, *, days: int = 30, names: tuple[str, ...] = ()) -> Issued:
        """`days` below zero makes a certificate that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = [x509.DNSName(n) for n in ("localhost", common, *names)]
        alternative.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            self._builder(_name(common), key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .sign(self.key, SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(certificate=pem, key=_pem(key), serial=certificate.serial_number)

    def revoked(self, *serials: int) -> str:
        """Return a revocation list, PEM."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.common))
            .last_update(now - DAY)
            .next_update(now + DAY)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(one.build())
        signed = builder.sign(self.key, SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject: x509.Name, public, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name(self.common))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + days * DAY)
        )
