"""How a box asks to join, and what it gets back: two files, carried by people.

The box makes both of its keys; they never leave it. Its request is signed by its identity and
holds a signing request for its transport certificate. The fingerprint is read out over the phone,
so a request changed on its way is noticed. The welcome comes back once two administrators have
signed the roster entry; its own fingerprint is that of the consortium's root, read back.

Source: RFC 2986 (PKCS #10).
"""

from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from pydantic import Field

from bedside_core.errors import InvalidMessageError, UntrustedSignatureError
from bedside_core.signatures import Sign
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.prg import Tag, digest, signed_bytes
from bedside_sync.secagg.roster import Hex32, Hex64, Name, Root, ed25519

Pem = Annotated[str, Field(max_length=8192)]
_FINGERPRINT_BYTES: Final = 16


class JoinRequest(Body):
    """What a box asks for."""

    version: Literal[1] = 1
    box: Name
    organisation: Name
    key: Hex32  # Ed25519 identity
    helper: Annotated[int, Field(ge=0, le=1)]
    csr: Pem  # PKCS #10, EC P-256, common name = box


class SignedRequest(Body):
    """A request with the box's signature; asked again with another `csr` it is a renewal."""

    request: JoinRequest
    signature: Hex64


class Welcome(Body):
    """What a new member needs, and what it pins."""

    version: Literal[1] = 1
    box: Name
    root: Root
    hub_key: Hex32
    url: Annotated[str, Field(max_length=512)]
    server_name: Annotated[str, Field(max_length=253)]
    authority: Pem
    certificate: Pem


def fingerprint(body: JoinRequest | Root) -> str:
    """Return 128 bits of a request's or root's digest in groups of four, to be read out."""
    whole = body.hash if isinstance(body, Root) else digest(Tag.JOIN, body.encode())
    text = whole[:_FINGERPRINT_BYTES].hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def make_request(
    *,
    box: str,
    organisation: str,
    helper: bool,
    identity: bytes,
    transport: ec.EllipticCurvePrivateKey,
    sign: Sign,
) -> SignedRequest:
    """Return a request to join, or to renew when the box is a member.

    Args:
        box: name it wants; it becomes the certificate's common name.
        organisation: whose box it is.
        helper: whether it may serve as helper.
        identity: raw Ed25519 public key.
        transport: EC P-256 key of its transport certificate.
        sign: with the private half of `identity`.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, box)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(transport, SHA256())
    request = JoinRequest(
        box=box,
        organisation=organisation,
        key=identity.hex(),
        helper=int(helper),
        csr=csr.public_bytes(serialization.Encoding.PEM).decode("ascii"),
    )
    signature = sign(signed_bytes(Tag.JOIN, request.encode()))
    return SignedRequest(request=request, signature=signature.hex())


def check_request(signed: SignedRequest) -> x509.CertificateSigningRequest:
    """Return the signing request inside, checked.

    Raises:
        UntrustedSignatureError: the request is not signed by the identity it names.
        InvalidMessageError: the signing request is none of EC P-256 for this box's name.
    """
    request = signed.request
    message = signed_bytes(Tag.JOIN, request.encode())
    if not ed25519(request.key).accepts(message, bytes.fromhex(signed.signature)):
        raise UntrustedSignatureError("the request is not signed by the box it names")
    try:
        csr = x509.load_pem_x509_csr(request.csr.encode("ascii"))
        key = csr.public_key()
        sound = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as cause:
        raise InvalidMessageError("the signing request cannot be read") from cause
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidMessageError("a transport key is of EC P-256")
    if not sound or common_name(csr.subject) != request.box:
        raise InvalidMessageError("the signing request is for another name, or not its own")
    return csr


def common_name(subject: x509.Name) -> str:
    """Return the only common name of a subject that has nothing else, or an empty string."""
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(list(subject)) == 1 and found else ""


def check_welcome(welcome: Welcome, box: str, transport: ec.EllipticCurvePublicKey) -> None:
    """Check that a welcome is for this box: its name, and a certificate of its own key.

    Raises:
        InvalidMessageError: it is for another.
    """
    try:
        certificate = x509.load_pem_x509_certificate(welcome.certificate.encode("ascii"))
        authority = x509.load_pem_x509_certificate(welcome.authority.encode("ascii"))
        certificate.verify_directly_issued_by(authority)
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as cause:
        raise InvalidMessageError("the welcome's certificate cannot be used") from cause
    if welcome.box != box or common_name(certificate.subject) != box or key != transport:
        raise InvalidMessageError("the welcome is for another box or another key")
