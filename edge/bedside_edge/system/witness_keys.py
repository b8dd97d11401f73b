"""The keys this box cosigns other logs with: a file of their own, not the log's.

A witness's name is not covered by its Ed25519 cosignature, so the key must sign nothing else
(c2sp.org/tlog-cosignature). Like the log's keys, a missing or damaged file is never replaced.
"""

from pathlib import Path
from typing import Final

from bedside_core.evidence.note import SignatureType, VerifierKey
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.system.log_keys import SeedKeys, open_seeds

WITNESS_KEY_FILE: Final = "witness.key"
_MAGIC: Final = b"bedside-witness-key\x01"


class SeedWitnessKeys:
    """`WitnessKeys` over two seeds held in memory."""

    __slots__ = ("_keys",)

    def __init__(self, seeds: bytes) -> None:
        self._keys = SeedKeys(seeds)

    def __repr__(self) -> str:
        return "SeedWitnessKeys(...)"

    def signers(self, name: str) -> tuple[LogSigner, ...]:
        """Return the keys under the name of the witness: types 0x04 and 0x06."""
        types = (SignatureType.ED25519_COSIGNATURE, SignatureType.ML_DSA_44_COSIGNATURE)
        return tuple(
            LogSigner(key=VerifierKey(name=name, kind=kind, public=public), sign=sign)
            for kind, (public, sign) in zip(types, self._keys.pairs(), strict=True)
        )


def open_witness_keys(folder: Path, random: RandomBytes, create: bool) -> SeedWitnessKeys:
    """Read the keys in `folder`, or make them there when `create` and there are none.

    Raises:
        StoreUnavailableError: the file is missing, damaged, a link, or open to other users.
    """
    return SeedWitnessKeys(open_seeds(folder / WITNESS_KEY_FILE, _MAGIC, random, create))
