"""Private keys of a consortium's member: Ed25519 identity, EC P-256 for transport."""

from typing import TYPE_CHECKING

from bedside_core.errors import StoreUnavailableError
from bedside_core.signatures import Sign
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.sync import Member
from bedside_sync.joining import SignedRequest, Welcome, check_welcome, make_request

if TYPE_CHECKING:  # it takes its time to import
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


class MemberKeys:
    """Does what needs private keys; holds none."""

    def __init__(self, random: RandomBytes) -> None:
        self._random = random

    def fresh(self) -> tuple[bytes, bytes]:
        """Return a new identity seed and a new transport key (PEM)."""
        return self._random(32), self.transport()

    def transport(self) -> bytes:
        """Return a new transport key (PEM)."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        return ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),  # it lies wrapped under the box key
        )

    def sign(self, seed: bytes) -> Sign:
        """Return what signs with an identity."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(seed).sign

    def request(self, member: Member, transport: bytes) -> SignedRequest:
        """Return a request to join, or to renew."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        identity = Ed25519PrivateKey.from_private_bytes(member.identity)
        return make_request(
            box=member.box,
            organisation=member.organisation,
            helper=member.helper,
            identity=identity.public_key().public_bytes_raw(),
            transport=_load(transport),
            sign=identity.sign,
        )

    def check(self, welcome: Welcome, box: str, transport: bytes) -> None:
        """Check that a welcome is for this box and key; InvalidMessageError."""
        check_welcome(welcome, box, _load(transport).public_key())


def _load(pem: bytes) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StoreUnavailableError("the transport key is of another kind")
    return key
