"""What a retention sweep asks of the store and of the disk."""

from collections.abc import Sequence
from typing import Protocol

from bedside_core.retention import StudyFacts


class RetentionStore(Protocol):
    """Studies with what decides over their stay."""

    def facts(self, *, after: tuple[int, str] = (0, ""), limit: int = 1000) -> list[StudyFacts]:
        """Return studies in order of their making, from behind `after` (created, study id)."""
        ...

    def facts_of(self, study_ids: Sequence[str]) -> list[StudyFacts]:
        """Return these studies as they are now; those that are gone are left out."""
        ...

    def cursor(self, study_id: str) -> tuple[int, str]:
        """Return the place of a study in that order; NotFoundError."""
        ...


class Space(Protocol):
    """The file system the objects lie on."""

    def space(self) -> tuple[int, int]:
        """Return used and total bytes, as an ordinary user sees them."""
        ...
