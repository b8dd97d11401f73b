"""Administrators' keys: made and used away from the hub, wrapped under a passphrase.

    {"version": 1, "name", "organisation", "key": public key, "salt", "nonce", "wrapped"}

The secret is 32 bytes of Ed25519, sealed with AES-256-GCM under a key derived by scrypt; name and
public key are bound in. Sources: RFC 7914 (scrypt), RFC 5116 (AES-GCM), RFC 8032 (Ed25519).
"""

from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from bedside_core.errors import InvalidInputError, InvalidKeyError
from bedside_sync.promotion import SignedPromotion
from bedside_sync.secagg.bodies import HEX_32, Body, decode
from bedside_sync.secagg.manifest import SignedManifest
from bedside_sync.secagg.prg import Tag, enc, signed_bytes
from bedside_sync.secagg.roster import (
    Administrator,
    Hex32,
    Name,
    Signature,
    SignedEntry,
)
from bedside_sync.wrapped import Wrapped, unwrap, wrap

_CONTEXT: Final = b"bedside administrator key 1"


class PublicHalf(Body):
    """What the consortium's root is made of; no secret."""

    name: Name
    administrator: Administrator


class WrappedKey(Body):
    """An administrator's key file."""

    version: Literal[1] = 1
    name: Name
    organisation: Name
    key: Annotated[str, Field(pattern=HEX_32)]
    salt: Hex32
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]
    wrapped: Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]

    @property
    def public(self) -> PublicHalf:
        """The half that may be handed around."""
        known = Administrator(organisation=self.organisation, key=self.key)
        return PublicHalf(name=self.name, administrator=known)


def make_admin_key(name: str, organisation: str, passphrase: str) -> WrappedKey:
    """Return a new key, wrapped; WeakPasswordError when the passphrase is too short."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    sealed = wrap(private.private_bytes_raw(), passphrase, _bound(name, public))
    return WrappedKey(
        name=name,
        organisation=organisation,
        key=public.hex(),
        salt=sealed.salt.hex(),
        nonce=sealed.nonce.hex(),
        wrapped=sealed.sealed.hex(),
    )


def open_admin_key(wrapped: WrappedKey, passphrase: str) -> Ed25519PrivateKey:
    """Return the private key; InvalidKeyError when file or passphrase is wrong."""
    public = bytes.fromhex(wrapped.key)
    sealed = Wrapped(
        salt=bytes.fromhex(wrapped.salt),
        nonce=bytes.fromhex(wrapped.nonce),
        sealed=bytes.fromhex(wrapped.wrapped),
    )
    secret = unwrap(sealed, passphrase, _bound(wrapped.name, public))
    private = Ed25519PrivateKey.from_private_bytes(secret)
    if private.public_key().public_bytes_raw() != public:
        raise InvalidKeyError("the key file names another public key")
    return private


Draft = SignedEntry | SignedManifest | SignedPromotion
_KINDS: Final[tuple[type[Draft], ...]] = (SignedEntry, SignedManifest, SignedPromotion)


def read_draft(data: bytes) -> Draft:
    """Return the entry, manifest or promotion in a file that waits for signatures.

    Raises:
        InvalidInputError: it holds none of them.
    """
    for kind in _KINDS:
        try:
            return decode(kind, data)
        except InvalidInputError:
            continue  # another kind, or none
    raise InvalidInputError("the file holds no roster entry, no manifest and no promotion")


def sign_draft(draft: Draft, wrapped: WrappedKey, private: Ed25519PrivateKey) -> Draft:
    """Return the draft with this administrator's signature; a second time it is no news."""
    match draft:
        case SignedEntry():
            message = signed_bytes(Tag.ROSTER, draft.entry.encode())
        case SignedManifest():
            message = signed_bytes(Tag.MANIFEST, draft.manifest.encode())
        case SignedPromotion():
            message = signed_bytes(Tag.PROMOTION, draft.promotion.encode())
    others = [one for one in draft.signatures if one.by != wrapped.name]
    mine = Signature(by=wrapped.name, signature=private.sign(message).hex())
    return draft.model_copy(update={"signatures": [*others, mine]})


def _bound(name: str, public: bytes) -> bytes:
    return enc(_CONTEXT, name.encode(), public)
