"""What flashing needs of the world: rows, folders, a place to try a candidate, who acts on it.

The rows are the truth (`bedside_core.slots`); folders and links are made to agree with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bedside_core.result import Json
from bedside_core.slots import Pair
from bedside_sync.distribution.manifest import TargetManifest

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of what was flashed, as it is written with the change it is about.

    Attributes:
        slot: `a` or `b`.
        what: `staging`, `staged`, `verified`, `trial`, `good`, `bad`, `emptied`, `rolled-back`.
        reason: stable code, of `bad` and `rolled-back`.
        body: canonical JSON: the acceptance record of `good`, what was seen of `bad`.
        at: milliseconds since 1970.
        entry: index in the evidence log; -1 until the log was told.
    """

    kind: str
    slot: str
    what: str
    digest: str
    release_counter: int
    actor: str
    at: int
    reason: str = ""
    body: bytes | None = field(default=None, repr=False)
    entry: int = -1


class FlashStore(Protocol):
    """The rows."""

    def pairs(self) -> list[Pair]:
        """Return every pair there is, by kind."""
        ...

    def pair(self, kind: str) -> Pair:
        """Return the pair of a kind; a fresh one when nothing was ever flashed of it."""
        ...

    def manifest(self, kind: str, slot: str) -> bytes:
        """Return the manifest of what is in a slot; NotFoundError when it is empty."""
        ...

    def save(self, before: Pair, after: Pair, step: Step, manifest: bytes | None = None) -> int:
        """Replace a pair, with its step and its evidence, in one transaction.

        Returns:
            The index of the evidence entry, -1 for a step that the log is not told of.

        Raises:
            StaleRevisionError: the pair is not `before` any more; nothing changed.
        """
        ...

    def charge(self, before: Pair, after: Pair) -> None:
        """Replace a pair that only lost a try; durable when it returns. StaleRevisionError."""
        ...

    def unapplied(self) -> list[str]:
        """Return the kinds whose serving slot the box does not act on yet."""
        ...

    def applied(self, kind: str, serving: Pair) -> None:
        """The box acts on what this pair serves; nothing when it has changed since."""
        ...

    def steps(self, *, kind: str = "", limit: int = 100) -> list[Step]:
        """Return what was flashed, newest first."""
        ...

    def tell(self) -> int:
        """Write evidence of what the launcher did; returns how many entries."""
        ...


class SlotFolders(Protocol):
    """The folders of the slots, filled from chunks that are here."""

    def place(self, kind: str, slot: str) -> Path:
        """Return the folder of a slot; it may not exist."""
        ...

    def empty(self, kind: str, slot: str) -> None:
        """Remove what is in a slot's folder, and the folder; its chunks stay."""
        ...

    def whole(self, kind: str, slot: str, manifest: TargetManifest) -> bool:
        """Whether every file is there with its size; content is not read."""
        ...

    def fill(
        self, kind: str, slot: str, manifest: TargetManifest, progress: Progress | None = None
    ) -> None:
        """Write a package's files, each synced; durable when it returns.

        Raises:
            NotFoundError: a chunk is not here.
            ChunkMismatchError, DiskFullError, StoreUnavailableError: it could not be written.
        """
        ...

    def verify(
        self, kind: str, slot: str, manifest: TargetManifest, progress: Progress | None = None
    ) -> None:
        """Read every file back from the disk and compare; errors as in `check_folder`."""
        ...

    def point(self, kind: str, slot: str) -> None:
        """Let `current` name a slot, or nothing when empty; durable when it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is tried, and where it lies."""

    kind: str
    manifest: TargetManifest
    folder: Path


class Gate(Protocol):
    """The health gate of a kind: tries a candidate, shows nothing of it to anybody."""

    def __call__(self, candidate: Candidate, seconds: float) -> Json:
        """Return the acceptance record of a candidate that may serve.

        Args:
            candidate: verified files; never what is in service.
            seconds: until the trial's deadline.

        Raises:
            TrialFailedError: it ended without a verdict; it may be tried again.
            BedsideError: why it may not serve; its code becomes the slot's reason.
        """
        ...

    def stop(self) -> None:
        """End what is under way without a verdict; called from another thread."""
        ...


# Act on what serves now: a candidate, or None for what the box came with. Safe to call again.
Apply = Callable[[str, Candidate | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one sort of thing is tried and put to use.

    Attributes:
        gate: None when the launcher tries it at the next start of the box.
        apply: None when only a restart puts it to use.
        in_use: whether the box still needs what an idle slot holds; refuses to overwrite it.
    """

    gate: Gate | None
    apply: Apply | None
    in_use: Callable[[Candidate], bool] = lambda candidate: False


Ways = Mapping[str, Way]  # by the first word of a kind: app, model, profile, policy


class Verifier(Protocol):
    """What must hold of the box itself before anything is confirmed."""

    def __call__(self) -> Sequence[str]:
        """Return the names of the checks that passed; BedsideError for the first that does not."""
        ...
