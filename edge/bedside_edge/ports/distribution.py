"""What the box remembers of the repository its packages come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_sync.distribution.assignment import Assignment
from bedside_sync.distribution.manifest import TargetManifest
from bedside_sync.distribution.memory import Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One item of the site's assignment.

    Attributes:
        path: where its owner signs it.
        sha256: digest of its manifest.
        manifest: None when its owner does not name it so.
        code: why it may not be installed; empty when it may.
        reason: the code in words.
        fetched: whether all of its content was here once.
    """

    path: str
    sha256: str
    manifest: TargetManifest | None = field(default=None, repr=False)
    code: str = ""
    reason: str = ""
    fetched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """How the last look at the repository ended; times in seconds.

    Attributes:
        checked_at: the last that ended well; 0 before any.
        tried_at: the last of all.
        code: of the last; empty when it ended well.
        assignment: the newest seen.
    """

    checked_at: int
    tried_at: int
    code: str
    assignment: Assignment | None
    items: tuple[Wanted, ...]


class DistributionStore(Protocol):
    """The rows; every write is durable with its evidence when it returns."""

    def memory(self) -> Memory:
        """Return what was remembered last."""
        ...

    def looked(self) -> Looked:
        """Return how the last look ended, and what this site is to run."""
        ...

    def refreshed(
        self, memory: Memory, assignment: Assignment, items: Sequence[Wanted], actor: str, at: int
    ) -> None:
        """Keep a refresh that ended well, with what was decided of each item."""
        ...

    def refused(self, memory: Memory, code: str, actor: str, at: int) -> None:
        """Keep what was still checked before a refresh was refused, and why it was."""
        ...

    def fetched(self, item: Wanted, size: int, actor: str) -> None:
        """Note that the content of an item is here; `size` bytes came for it."""
        ...
