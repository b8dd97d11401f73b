"""The signature outsiders check with their own tools: an OpenSSF model-signing bundle.

It says which files with which digests a folder holds, in an in-toto statement inside a DSSE
envelope inside a sigstore bundle with a plain public key and no log. Written and checked here with
`cryptography` alone.

Sources: OpenSSF model-signing 1.1 (predicate v1.0), in-toto Statement v1, DSSE protocol v1,
sigstore bundle v0.3.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from bedside_core.errors import (
    InvalidEnvelopeError,
    ProofMismatchError,
    UntrustedSignatureError,
)
from bedside_core.signatures import exact_base64, pre_authentication, to_base64
from bedside_sync.distribution.signers import PrivateKey, public_key, public_of

BUNDLE_NAME: Final = "model.sig"  # in a package; it covers every file but itself
MAX_BUNDLE: Final = 4 << 20  # bytes
_MEDIA: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"


def sign_bundle(name: str, files: Mapping[str, str], private: PrivateKey) -> bytes:
    """Return the bundle of a folder.

    Args:
        name: of the folder; it is part of what is signed.
        files: path -> SHA-256 hex of every file but the bundle itself.
        private: EC P-256 key.
    """
    body = json.dumps(_statement(name, files), sort_keys=True, separators=(",", ":")).encode()
    signature = private.sign(pre_authentication(_PAYLOAD, body), ec.ECDSA(SHA256()))
    pem = public_of("signer", private).public
    bundle = {
        "mediaType": _MEDIA,
        "verificationMaterial": {
            "publicKey": {"hint": sha256(pem.encode("ascii")).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": to_base64(body),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": to_base64(signature), "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True, separators=(",", ":")).encode("ascii")


def _statement(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    listed = sorted(files.items())
    whole = sha256(b"".join(bytes.fromhex(digest) for _, digest in listed)).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [BUNDLE_NAME],
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest} for path, digest in listed
            ],
        },
    }


def check_bundle(data: bytes, files: Mapping[str, str], public: str) -> str:
    """Check a bundle against a folder's files; returns the name that was signed.

    Args:
        data: the bundle.
        files: path -> SHA-256 hex of every file but the bundle itself, as read from the disk.
        public: PEM of the key that is trusted; the bundle's hint decides nothing.

    Raises:
        InvalidEnvelopeError: not such a bundle.
        UntrustedSignatureError: not signed by this key.
        ProofMismatchError: a file is missing, changed, or there is one more.
    """
    body, signature = _opened(data)
    try:
        message = pre_authentication(_PAYLOAD, body)
        public_key(public).verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature as cause:
        raise UntrustedSignatureError("the bundle is not signed by this key") from cause
    try:
        statement = json.loads(body)
        name = str(statement["subject"][0]["name"])
        ignored = statement["predicate"]["serialization"]["ignore_paths"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError) as cause:
        raise InvalidEnvelopeError("the bundle holds no such statement") from cause
    wanted = _statement(name, files)
    wanted["predicate"]["serialization"]["ignore_paths"] = ignored
    if not isinstance(ignored, list) or statement != wanted:
        raise ProofMismatchError("the files are not those the bundle was signed for")
    return name


def _opened(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > MAX_BUNDLE:
        raise InvalidEnvelopeError("the bundle is too long")
    try:
        bundle = json.loads(data)
        envelope = bundle["dsseEnvelope"]
        (signed,) = envelope["signatures"]
        body, signature = exact_base64(envelope["payload"]), exact_base64(signed["sig"])
        kinds = bundle["mediaType"], envelope["payloadType"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as cause:
        raise InvalidEnvelopeError("not a bundle") from cause
    if kinds != (_MEDIA, _PAYLOAD) or body is None or signature is None:
        raise InvalidEnvelopeError("a bundle of another kind")
    return body, signature
