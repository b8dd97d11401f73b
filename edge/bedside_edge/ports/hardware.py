"""Where verdicts on this unit's engines are kept."""

from typing import Protocol

from bedside_core.hardware.acceptance import AcceptanceRecord


class AcceptanceStore(Protocol):
    """Verdicts, append-only, and the highest revision accepted of each profile."""

    def find(self, key: str) -> AcceptanceRecord | None:
        """Return the newest verdict on a tuple (`Subject.key`), or None."""
        ...

    def add(self, record: AcceptanceRecord) -> int:
        """Keep a verdict, durable with its evidence entry; return the entry's index.

        An accepted one raises the floor of its profile's revision.
        """
        ...

    def floor(self, profile_id: str) -> int:
        """Return the highest revision of a profile that was ever accepted; 0: none."""
        ...

    def newest(self, limit: int = 50) -> list[AcceptanceRecord]:
        """Return verdicts, newest first."""
        ...
