"""Looking for updates and fetching them: from the hub or a stick, by the same code.

Nothing is installed here (`services/flashing.py`). What stops updates, an expired repository or a
clock that is wrong, never stops the box from reading studies.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside_core.errors import (
    BedsideError,
    InvalidConfigError,
    InvalidInputError,
    NotReadyError,
    RefusedError,
    TimeFloorError,
)
from bedside_edge.ports import Clock
from bedside_edge.ports.distribution import DistributionStore, Looked, Wanted
from bedside_edge.ports.evidence import BOX
from bedside_sync.distribution.assignment import Assignment, Running, Signed, decide
from bedside_sync.distribution.chunks import ChunkStore, Progress
from bedside_sync.distribution.disk import alone
from bedside_sync.distribution.manifest import TargetManifest
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.sources import Source

if TYPE_CHECKING:
    from bedside_sync.distribution.updater import Refresh

Named = Signed | BedsideError | None  # what an owner names, or why its word is not believed
_LOCK: Final = "lock"
_SCRATCH: Final = "scratch"
_BELIEVED_S: Final = 5 * 86_400  # as long as the hub's word on a site's assignment is good for


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which repository this box reads, and as whom.

    Attributes:
        root: bytes of the root built into the box; empty when there is none.
        site: this site's id in the repository; empty when it is not known.
        folder: for the lock and the scratch folder, on the box's own disk.
    """

    root: bytes
    site: str
    folder: Path


class UpdateService:
    """One box's way to its packages. Safe to call from several threads: one look at a time."""

    def __init__(
        self,
        store: DistributionStore,
        chunks: ChunkStore,
        place: Callable[[], Place],
        clock: Clock,
        *,
        running: Callable[[], Running],
        proven: Callable[[], int] = lambda: 0,
        denied: Callable[[TargetManifest], str] = lambda manifest: "",
    ) -> None:
        """Take what it stands on; nothing is read yet.

        Args:
            store: the rows.
            chunks: where content is kept.
            place: which repository; asked anew each time, for a box may join meanwhile.
            clock: the only clock that is asked, also by python-tuf.
            running: what runs here, and the floors.
            proven: seconds of the newest time this box has proof of beside its refreshes: the
                last evidence entry, the last cosignature.
            denied: why the site's policy forbids a package; empty when it does not.
        """
        self._store, self._chunks, self._place, self._clock = store, chunks, place, clock
        self._running, self._proven, self._denied = running, proven, denied
        self._turn = threading.Lock()

    def looked(self) -> Looked:
        """Return how the last look ended, and what this site is to run."""
        return self._store.looked()

    def check(self, source: Source, actor: str = BOX) -> Looked:
        """Refresh, and decide of each assigned item whether it may be installed.

        Raises:
            TimeFloorError: the clock stands before a time this box has proof of.
            MetadataUntrustedError, MetadataRollbackError, MetadataExpiredError,
            MetadataMismatchError, InvalidMetadataError, InvalidTargetError, TargetNotSignedError,
            ForeignAssignmentError, StaleAssignmentError: refused; it is evidence.
            HubUnavailableError: no answer; it is no evidence, and the box goes on as it is.
            UpdateRunningError: another process is at it.
            NotReadyError, InvalidConfigError: the box knows no repository, or not its site.
        """
        place = self._ready_place()
        with self._turn, alone(place.folder / _LOCK):
            self._refresh(source, place, actor)
        return self._store.looked()

    def fetch(self, source: Source, actor: str = BOX, progress: Progress | None = None) -> Looked:
        """Check, then fetch the content of every item that may be installed and is not here.

        Args:
            source: hub or stick.
            actor: who asks.
            progress: told bytes here, and bytes in all.

        Raises:
            As `check`. ChunkMismatchError, UpdateTooLargeError, NotFoundError: of the first item
                that cannot be had; the others are fetched all the same.
            DiskFullError, HubUnavailableError: later; what came is kept.
        """
        place = self._ready_place()
        with self._turn, alone(place.folder / _LOCK):
            self._refresh(source, place, actor)
            items = [item for item in self._store.looked().items if item.manifest and not item.code]
            self._drop_unused(items)
            failed = self._fetch_all(source, items, actor, progress)
        if failed is not None:
            raise failed
        return self._store.looked()

    def here(self, item: Wanted) -> bool:
        """Whether all of an item's content is here."""
        return item.manifest is not None and not self._chunks.missing(item.manifest)

    def ready(self) -> list[TargetManifest]:
        """Return what may be installed now: assigned, allowed, and all of its content here.

        Nothing when the last look that ended well is older than an assignment is good for: who
        keeps the hub's later word from a box (a stop, a vendor revoked) shall not gain by it.
        """
        looked, now = self._store.looked(), self._clock.now() // 1000
        if now - looked.checked_at > _BELIEVED_S:
            return []
        return [
            item.manifest
            for item in looked.items
            if item.manifest and not item.code and self.here(item)
        ]

    # --- inside --------------------------------------------------------------------------------

    def _ready_place(self) -> Place:
        place = self._place()
        if not place.root:
            raise NotReadyError("this box knows no repository: [update] root names its first root")
        if not place.site:
            raise InvalidConfigError("this box has no site id: join a consortium or set [update]")
        return place

    def _refresh(self, source: Source, place: Place, actor: str) -> None:
        # python-tuf takes a while to import: a box that starts does not need it
        from bedside_sync.distribution.updater import CLOCK_SLACK_S, opened, root_made_at

        now, memory = self._clock.now() // 1000, self._store.memory()
        seen = _Seen(memory=memory)
        try:
            floor = max(self._proven(), root_made_at(place.root))
            if now + CLOCK_SLACK_S < floor:
                raise TimeFloorError("the clock stands before a time this box has proof of")
            scratch = place.folder / _SCRATCH
            with opened(source, memory, root=place.root, now=now, scratch=scratch) as refresh:
                try:
                    assignment, signed = _read(refresh, place.site)
                finally:
                    seen.memory = refresh.memory()
        except BedsideError as error:
            if error.exit_code in (3, 4):  # a refusal; what is merely down says nothing
                self._store.refused(seen.memory, error.code, actor, now)
            raise
        items = self._decided(assignment, signed)
        self._store.refreshed(seen.memory, assignment, items, actor, now)

    def _decided(self, assignment: Assignment, signed: Mapping[str, Named]) -> list[Wanted]:
        running = self._running()
        first = decide(assignment, signed, running)
        denied = {
            one.item.path: reason
            for one in first
            if one.manifest is not None and (reason := self._denied(one.manifest))
        }
        return [
            Wanted(
                path=one.item.path,
                sha256=one.item.sha256,
                manifest=one.manifest,
                code=one.code,
                reason=one.reason,
            )
            for one in (decide(assignment, signed, running, denied) if denied else first)
        ]

    def _drop_unused(self, items: list[Wanted]) -> None:
        """Make room: pieces nobody is assigned any more go, when what is assigned needs it."""
        needed = sum(self._chunks.bytes_missing(i.manifest) for i in items if i.manifest)
        if needed:
            wanted = {digest for i in items if i.manifest for digest in i.manifest.chunk_sizes()}
            if not self._chunks.fits(needed):
                self._chunks.prune(wanted)

    def _fetch_all(
        self,
        source: Source,
        items: list[Wanted],
        actor: str,
        progress: Progress | None,
    ) -> BedsideError | None:
        from bedside_sync.distribution.updater import fetch_chunks

        sizes = [sum(i.manifest.chunk_sizes().values()) if i.manifest else 0 for i in items]
        failed: BedsideError | None = None
        for index, item in enumerate(items):
            if item.manifest is None:
                continue
            before, total = sum(sizes[:index]), sum(sizes)

            def tell(done: int, _of: int, before: int = before, total: int = total) -> None:
                if progress is not None:
                    progress(before + done, total)

            try:
                size = fetch_chunks(source, self._chunks, item.manifest, tell)
                self._store.fetched(item, size, actor)
            except BedsideError as error:
                if error.exit_code == 5:  # the source or the disk: it would stop the rest as well
                    return error
                failed = failed or error
        return failed


@dataclass(slots=True, kw_only=True)
class _Seen:
    memory: Memory


def _read(refresh: "Refresh", site: str) -> tuple[Assignment, dict[str, Named]]:
    refresh.refresh()
    assignment = refresh.assignment(site)
    signed: dict[str, Named] = {}
    for item in assignment.items:
        try:
            signed[item.path] = refresh.target(item.path)
        except (RefusedError, InvalidInputError) as error:  # of this owner; others go on
            signed[item.path] = error
    return assignment, signed
