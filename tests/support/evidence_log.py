"""Keys and a small log for the evidence tests, and the worked example of docs/evidence-log.md.

The private keys are the bytes 0, 1, 2 ... and stand in this file: they sign for nobody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from bedside_core.evidence.checkpoint import Checkpoint, sign_checkpoint, signed_note
from bedside_core.evidence.entry import (
    Entry,
    Kind,
    TimeSource,
    commit_payload,
    commit_subject,
)
from bedside_core.evidence.merkle import (
    Frontier,
    ReadNode,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from bedside_core.evidence.note import NoteSignature, SignatureType, VerifierKey
from bedside_core.evidence.proof import ProofFile
from bedside_core.evidence.tiles import bundle_bytes, tile_bytes, tiles_of
from bedside_core.signatures import Algorithm, PublicKey

ORIGIN = "bedside.example/site-a/box-1"
WITNESS = "bedside.example/hub"


@dataclass(frozen=True)
class KeyPair:
    """A verifier key and the function that signs for it."""

    key: VerifierKey
    sign: Callable[[bytes], bytes]

    def signs(self, checkpoint: Checkpoint, time: int = 0) -> NoteSignature:
        """This key's line on a checkpoint."""
        return sign_checkpoint(checkpoint, self.key, self.sign, time)


def key_pair(name: str, kind: SignatureType, first: int) -> KeyPair:
    """The pair whose private seed is the 32 bytes from `first` upwards."""
    seed = bytes(range(first, first + 32))
    if kind.algorithm is Algorithm.ML_DSA_44:
        ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seed)
        raw, sign = ml_dsa.public_key().public_bytes_raw(), ml_dsa.sign
    else:
        ed25519 = Ed25519PrivateKey.from_private_bytes(seed)
        raw, sign = ed25519.public_key().public_bytes_raw(), ed25519.sign
    public = PublicKey(algorithm=kind.algorithm, raw=raw)
    return KeyPair(VerifierKey(name=name, kind=kind, public=public), sign)


LOG_ED = key_pair(ORIGIN, SignatureType.ED25519, 0)
LOG_ML = key_pair(ORIGIN, SignatureType.ML_DSA_44_COSIGNATURE, 32)
HUB_ED = key_pair(WITNESS, SignatureType.ED25519_COSIGNATURE, 64)
HUB_ML = key_pair(WITNESS, SignatureType.ML_DSA_44_COSIGNATURE, 96)
STRANGER = key_pair("bedside.example/stranger", SignatureType.ED25519_COSIGNATURE, 128)


def tree(entries: list[bytes]) -> ReadNode:
    """The stored nodes of a log."""
    frontier, nodes = Frontier(), {}
    for entry in entries:
        nodes |= {(each.level, each.n): each.digest for each in frontier.append(leaf_hash(entry))}
    return lambda level, n: nodes[level, n]


def head(entries: list[bytes], origin: str = ORIGIN) -> Checkpoint:
    """The unsigned checkpoint of a log."""
    return Checkpoint(origin=origin, size=len(entries), root=root_at(len(entries), tree(entries)))


# ---- the worked example -------------------------------------------------------------------------

SUBJECT_KEY, SALT = bytes([0x11]) * 32, bytes([0x22]) * 32
NONCES = [bytes([value]) * 16 for value in (0xA0, 0xA1, 0xA2)]
LOCAL_ID, PAYLOAD = b"patient 4711", b'{"opacity":"absent"}'


def example_entries() -> list[Entry]:
    """A consent, an inference that refers to it, and a pad."""
    subjects = [commit_subject(SUBJECT_KEY, nonce, LOCAL_ID) for nonce in NONCES]
    return [
        Entry(
            kind=Kind.CONSENT,
            ts=1_767_225_600,
            ts_src=TimeSource.HUB,
            actor="person:7",
            subject=subjects[0],
            nonce=NONCES[0].hex(),
        ),
        Entry(
            kind=Kind.INFERENCE,
            ts=1_767_225_660,
            ts_src=TimeSource.LOCAL,
            actor="service:worker",
            subject=subjects[1],
            nonce=NONCES[1].hex(),
            payload=commit_payload(SALT, PAYLOAD),
            refs={"consent": 0, "model": "cxr-opacity@1.0.0"},
        ),
        Entry(
            kind=Kind.PAD,
            ts=1_767_225_660,
            ts_src=TimeSource.LOCAL,
            actor="service:log",
            nonce=NONCES[2].hex(),
        ),
    ]


def example_blocks() -> dict[str, str]:
    """Every fenced block of the worked example, by its caption."""
    entries = [entry.encode() for entry in example_entries()]
    read, checkpoint = tree(entries), head(entries)
    note = signed_note(checkpoint, [LOG_ED.signs(checkpoint)])
    proof = ProofFile(
        index=1, path=tuple(inclusion_proof(1, 3, read)), checkpoint=note, extra=entries[1]
    )
    files = {
        tile.path: bundle_bytes(entries) if tile.level is None else tile_bytes(tile, read)
        for tile in tiles_of(3)
    }
    return {
        "entries": "\n".join(entry.decode() for entry in entries),
        "leaf hashes": "\n".join(leaf_hash(entry).hex() for entry in entries),
        "root": root_at(3, read).hex(),
        "verifier key": LOG_ED.key.text,
        "checkpoint": note.decode().rstrip("\n"),
        **{path: "\n".join(wrap(data.hex(), 96)) for path, data in files.items()},
        "proof file": proof.encode().decode().rstrip("\n"),
        "consistency": "\n".join(each.hex() for each in consistency_proof(2, 3, read)),
    }
