"""Keys that sign policy documents: public ones in a folder of the box, private ones with people.

A public key is a file with one line, `name+<id>+<base64>` (the verifier key of C2SP signed-note,
Ed25519). A private key is a PEM file that belongs to a person, never to a box.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedside_core.errors import InvalidKeyError
from bedside_core.evidence.note import SignatureType, VerifierKey, parse_verifier_key
from bedside_core.signatures import Algorithm, PublicKey, Sign

FOLDER = "policy-keys"
_MOST_KEYS = 32


def trusted_keys(folder: Path) -> Mapping[str, PublicKey]:
    """Return the keys of the folder's `*.pub` files by key id; none when there is no folder.

    Raises:
        InvalidKeyError: a file cannot be read or holds no key. A key that cannot be read may be
            the one somebody relies on, so it is never passed over.
    """
    found: dict[str, PublicKey] = {}
    for path in sorted(folder.glob("*.pub"))[:_MOST_KEYS]:
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as cause:
            raise InvalidKeyError(f"the key file {path.name} cannot be read") from cause
        key = parse_verifier_key(text)
        if key.kind is not SignatureType.ED25519:
            raise InvalidKeyError(f"the key in {path.name} is not one that signs policies")
        found[key_id(key)] = key.public
    return found


def key_id(key: VerifierKey) -> str:
    """Return what an envelope names a key by: its name and short id."""
    return f"{key.name}+{key.key_id.hex()}"


def make_key(name: str, path: Path, passphrase: bytes | None) -> str:
    """Write a new private key to `path` and its public half beside it; return the public line.

    Args:
        name: of the person or office, without spaces.
        path: ends in `.pem`; must not exist. The public half gets the suffix `.pub`.
        passphrase: encrypts the file; None leaves it to the file's mode 0600.

    Raises:
        InvalidKeyError: the name cannot be one, or a file cannot be written or exists.
    """
    private = Ed25519PrivateKey.generate()
    key = _verifier(name, private)
    kind: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        kind = serialization.BestAvailableEncryption(passphrase)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)
    _write_new(path, pem, 0o600)
    _write_new(path.with_suffix(".pub"), key.text.encode() + b"\n", 0o644)
    return key.text


def load_signer(path: Path, name: str, passphrase: bytes | None) -> tuple[str, Sign]:
    """Return a key's id and a function that signs with it.

    Args:
        path: of the private key; the file beside it with the suffix `.pub` says its name.
        name: of the key when there is no such file; empty to insist on it.
        passphrase: of the file; None when it has none.

    Raises:
        InvalidKeyError: the files cannot be read, the passphrase is wrong, or they do not belong
            together.
    """
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except (OSError, ValueError, TypeError) as cause:
        raise InvalidKeyError("the private key cannot be read; is the passphrase right?") from cause
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidKeyError("only Ed25519 keys sign policies")
    if not name:
        try:
            name = parse_verifier_key(path.with_suffix(".pub").read_text().strip()).name
        except OSError as cause:
            raise InvalidKeyError("no `.pub` file lies beside the key; name it") from cause
    return key_id(_verifier(name, private)), private.sign


def _verifier(name: str, private: Ed25519PrivateKey) -> VerifierKey:
    raw = private.public_key().public_bytes_raw()
    return VerifierKey(
        name=name,
        kind=SignatureType.ED25519,
        public=PublicKey(algorithm=Algorithm.ED25519, raw=raw),
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise InvalidKeyError(f"{path} cannot be written, or exists") from cause
