"""Administrators' keys: made and used away from the hub, wrapped under a passphrase.

    {"version": 1, "name", "organisation", "key": public key, "salt", "nonce", "wrapped"}

The secret is 32 bytes of Ed25519, sealed with AES-256-GCM under a key derived by scrypt; name and
public key are bound in. Sources: RFC 7914 (scrypt), RFC 5116 (AES-GCM), RFC 8032 (Ed25519).
"""

from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import Field

from bedside_core.errors import InvalidInputError, InvalidKeyError, WeakPasswordError
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
from bedside_sync.system.random_os import random_bytes

_SHORTEST: Final = 12  # characters of a passphrase
_COST: Final = 1 << 16  # 64 MiB, about 0.2 s
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
    if len(passphrase) < _SHORTEST:
        raise WeakPasswordError(f"a passphrase has at least {_SHORTEST} characters")
    private = Ed25519PrivateKey.generate()
    salt, nonce = random_bytes(32), random_bytes(12)
    public = private.public_key().public_bytes_raw()
    secret = private.private_bytes_raw()
    sealed = AESGCM(_derived(passphrase, salt)).encrypt(nonce, secret, _bound(name, public))
    return WrappedKey(
        name=name,
        organisation=organisation,
        key=public.hex(),
        salt=salt.hex(),
        nonce=nonce.hex(),
        wrapped=sealed.hex(),
    )


def open_admin_key(wrapped: WrappedKey, passphrase: str) -> Ed25519PrivateKey:
    """Return the private key; InvalidKeyError when file or passphrase is wrong."""
    public = bytes.fromhex(wrapped.key)
    key = _derived(passphrase, bytes.fromhex(wrapped.salt))
    try:
        secret = AESGCM(key).decrypt(
            bytes.fromhex(wrapped.nonce),
            bytes.fromhex(wrapped.wrapped),
            _bound(wrapped.name, public),
        )
    except InvalidTag as cause:
        raise InvalidKeyError("the key does not open: wrong passphrase or changed file") from cause
    private = Ed25519PrivateKey.from_private_bytes(secret)
    if private.public_key().public_bytes_raw() != public:
        raise InvalidKeyError("the key file names another public key")
    return private


def read_draft(data: bytes) -> SignedEntry | SignedManifest:
    """Return the entry or manifest in a file that waits for signatures; InvalidInputError."""
    try:
        return decode(SignedEntry, data)
    except InvalidInputError:
        pass  # the other kind, or neither
    try:
        return decode(SignedManifest, data)
    except InvalidInputError as cause:
        raise InvalidInputError("the file holds no roster entry and no manifest") from cause


def sign_draft(
    draft: SignedEntry | SignedManifest, wrapped: WrappedKey, private: Ed25519PrivateKey
) -> SignedEntry | SignedManifest:
    """Return the draft with this administrator's signature; a second time it is no news."""
    if isinstance(draft, SignedEntry):
        message = signed_bytes(Tag.ROSTER, draft.entry.encode())
    else:
        message = signed_bytes(Tag.MANIFEST, draft.manifest.encode())
    others = [one for one in draft.signatures if one.by != wrapped.name]
    mine = Signature(by=wrapped.name, signature=private.sign(message).hex())
    if isinstance(draft, SignedEntry):
        return SignedEntry(entry=draft.entry, signatures=[*others, mine])
    return SignedManifest(manifest=draft.manifest, signatures=[*others, mine])


def _derived(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode("utf-8"))


def _bound(name: str, public: bytes) -> bytes:
    return enc(_CONTEXT, name.encode(), public)
