"""Key slots: secrets outside the database, each needed to open one wrapped key.

A backup of the database holds wrapped keys for ever. They open only with the slot they were wrapped
under, and a slot can be destroyed: after that no copy of the database brings the key back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsMark:
    """Where a slots file stands; kept in the database, so that an exchanged file is noticed."""

    file: str  # random name of the file, hex
    records: int  # destructions so far
    head: str  # authenticates all of them, hex


class KeySlots(Protocol):
    """Slots are numbered from 1 and used once: a number never wraps a second key."""

    def wrap(self, key: bytes, context: bytes) -> tuple[int, bytes]:
        """Take a fresh slot and return its number with `key` wrapped under it.

        The slot is durable when this returns, so that no key is filed under one that a power cut
        takes back.

        Raises:
            DiskFullError, StoreUnavailableError: no slot was taken.
        """
        ...

    def unwrap(self, slot: int, wrapped: bytes, context: bytes) -> bytes:
        """Return the key.

        Raises:
            NotFoundError: the slot was destroyed, or never was.
            DamagedObjectError: changed, or of another slot, context or box.
        """
        ...

    def destroy(self, slots: Iterable[int], at: int) -> None:
        """Overwrite slots for good; durable when it returns. Idempotent.

        Raises:
            NotFoundError: a number that never was; none was destroyed.
            StoreUnavailableError: the disk refused; do it again.
        """
        ...

    def is_destroyed(self, slot: int) -> bool:
        """Tell whether a slot was destroyed."""
        ...

    def highest(self) -> int:
        """Return the highest number that exists; 0 if none."""
        ...

    def mark(self) -> SlotsMark:
        """Return where the slots stand."""
        ...
