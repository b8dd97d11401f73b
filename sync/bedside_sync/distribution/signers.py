"""Keys of those who sign packages and metadata: EC P-256, made and used away from the hub.

One key signs both TUF metadata and the bundle outsiders check; the two texts cannot be mistaken
for each other (one is a JSON object, the other begins with `DSSEv1`). The secret is wrapped under a
passphrase; name and public half are bound in.
"""

from typing import Annotated, Any, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from bedside_core.errors import InvalidKeyError
from bedside_sync.distribution.manifest import Hex32, Name
from bedside_sync.secagg.bodies import Body
from bedside_sync.wrapped import Wrapped, unwrap, wrap

_CONTEXT: Final = b"bedside signer key 1\0"
_ENCODING: Final = serialization.Encoding
PrivateKey = ec.EllipticCurvePrivateKey


class SignerPublic(Body):
    """What may be handed around: a name for people, and the public half."""

    format: Literal["bedside-signer-public/1"] = "bedside-signer-public/1"
    name: Name
    public: Annotated[str, Field(max_length=512)]

    @property
    def key_id(self) -> str:
        """The key's id in TUF metadata."""
        return str(tuf_key(self).keyid)


class SignerFile(Body):
    """A signer's key file; the secret is wrapped."""

    format: Literal["bedside-signer/1"] = "bedside-signer/1"
    name: Name
    public: Annotated[str, Field(max_length=512)]
    salt: Hex32
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]
    wrapped: Annotated[str, Field(pattern=r"^[0-9a-f]{64,1024}$")]

    @property
    def half(self) -> SignerPublic:
        """The half that may be handed around."""
        return SignerPublic(name=self.name, public=self.public)


def make_private() -> PrivateKey:
    """Return a new key."""
    return ec.generate_private_key(ec.SECP256R1())


def public_of(name: str, private: PrivateKey) -> SignerPublic:
    """Return a key's public half."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = private.public_key().public_bytes(_ENCODING.PEM, form).decode("ascii")
    return SignerPublic(name=name, public=pem)


def make_signer(name: str, passphrase: str) -> SignerFile:
    """Return a new key, wrapped; WeakPasswordError when the passphrase is too short."""
    private = make_private()
    half = public_of(name, private)
    secret = private.private_bytes(
        _ENCODING.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    sealed = wrap(secret, passphrase, _bound(half))
    return SignerFile(
        name=name,
        public=half.public,
        salt=sealed.salt.hex(),
        nonce=sealed.nonce.hex(),
        wrapped=sealed.sealed.hex(),
    )


def open_signer(file: SignerFile, passphrase: str) -> PrivateKey:
    """Return the private key; InvalidKeyError when file or passphrase is wrong."""
    sealed = Wrapped(
        salt=bytes.fromhex(file.salt),
        nonce=bytes.fromhex(file.nonce),
        sealed=bytes.fromhex(file.wrapped),
    )
    private = read_private(unwrap(sealed, passphrase, _bound(file.half)))
    if public_of(file.name, private) != file.half:
        raise InvalidKeyError("the key file names another public key")
    return private


def read_private(data: bytes) -> PrivateKey:
    """Return the P-256 key in DER or PEM; InvalidKeyError."""
    try:
        if data.startswith(b"-----"):
            key: Any = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise InvalidKeyError("not a private key") from cause
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidKeyError("signers' keys are of EC P-256")
    return key


def private_pem(private: PrivateKey) -> bytes:
    """Return an online key as it lies on the hub, mode 600."""
    return private.private_bytes(
        _ENCODING.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key of a PEM text; InvalidKeyError."""
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise InvalidKeyError("not a public key") from cause
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidKeyError("signers' keys are of EC P-256")
    return key


def tuf_key(half: SignerPublic) -> Any:  # noqa: ANN401  securesystemslib's key
    """Return a public half as TUF metadata holds it."""
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(public_key(half.public))


def _bound(half: SignerPublic) -> bytes:
    return _CONTEXT + half.encode()
