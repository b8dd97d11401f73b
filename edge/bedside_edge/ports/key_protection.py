"""How the key files of a box are kept from whoever holds only the disk."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Protection(StrEnum):
    """What opens the key files, from weakest to strongest."""

    FILE = "file"  # nothing: mode 0600
    PASSPHRASE = "passphrase"  # noqa: S105
    TPM = "tpm"


class Sealer(Protocol):
    """Hides one key of 32 bytes behind something that is not on the disk."""

    @property
    def protection(self) -> Protection:
        """Which protection it gives."""
        ...

    def seal(self, key: bytes) -> Mapping[str, str | int]:
        """Return what the key can be opened from; it does not show the key.

        Raises:
            KeysSealedError: what hides the key is not there.
        """
        ...

    def unseal(self, sealed: Mapping[str, str | int]) -> bytes:
        """Return the key.

        Raises:
            KeysSealedError: what opens it is missing, changed or not the one it was sealed with.
        """
        ...
