"""The slots on disk.

<state>/slots/<kind>/a, b        what is flashed; kind is app, profile, policy, model/<name>
<state>/slots/<kind>/current     a link for people and tools; the row decides, the link follows
<state>/slots/chunks/            the chunk store
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from bedside_core.errors import InvalidInputError
from bedside_edge.ports.flashing import Progress
from bedside_sync.distribution.chunks import ChunkStore, check_folder
from bedside_sync.distribution.disk import disk, sync_folder
from bedside_sync.distribution.manifest import TargetManifest

FOLDER: Final = "slots"
_LINK: Final = "current"


class FlashFolders:
    """`SlotFolders` below one folder."""

    def __init__(self, folder: Path, chunks: ChunkStore) -> None:
        self._folder, self._chunks = folder, chunks

    def place(self, kind: str, slot: str) -> Path:
        """Return the folder of a slot; it may not exist."""
        return self._of(kind) / slot

    def empty(self, kind: str, slot: str) -> None:
        """Remove what is in a slot's folder, and the folder; its chunks stay."""
        place = self.place(kind, slot)
        with disk():
            if place.is_symlink() or place.is_file():  # nothing of ours: still in the way
                place.unlink()
            elif place.exists():
                shutil.rmtree(place)
            else:
                return
            sync_folder(place.parent)

    def whole(self, kind: str, slot: str, manifest: TargetManifest) -> bool:
        """Whether every file is there with its size; content is not read."""
        place = self.place(kind, slot)
        for one in manifest.files:
            path = place / one.path
            if path.is_symlink() or not path.is_file() or path.stat().st_size != one.size:
                return False
        return True

    def fill(
        self, kind: str, slot: str, manifest: TargetManifest, progress: Progress | None = None
    ) -> None:
        """Write a package's files, each synced; durable when it returns."""
        place = self.place(kind, slot)
        with disk():
            self._make(place.parent)
        self._chunks.assemble(manifest, place, progress)

    def verify(
        self, kind: str, slot: str, manifest: TargetManifest, progress: Progress | None = None
    ) -> None:
        """Read every file back from the disk and compare; errors as in `check_folder`."""
        place = self.place(kind, slot)
        with disk():
            _forget_cached(place)
        check_folder(manifest, place, progress)

    def point(self, kind: str, slot: str) -> None:
        """Let `current` name a slot, or nothing when empty; durable when it returns."""
        link = self._of(kind) / _LINK
        with disk():
            self._make(link.parent)
            held = str(link.readlink()) if link.is_symlink() else ""
            if held == slot:
                return
            if not slot:
                link.unlink()
            else:
                made = link.with_name(f"{_LINK}.tmp")
                made.unlink(missing_ok=True)
                made.symlink_to(slot)
                made.replace(link)
            sync_folder(link.parent)  # a link cannot be synced, the folder that holds it can

    def _of(self, kind: str) -> Path:
        first, _, name = kind.partition("/")
        if not first.isalpha() or name in (".", "..") or "/" in name:
            raise InvalidInputError("no such kind of slot")
        return self._folder / first / name if name else self._folder / first

    def _make(self, folder: Path) -> None:
        """Make a folder and those above it durable, each in the one that holds it."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def _forget_cached(folder: Path) -> None:
    """Ask the kernel to drop its copy of the files: what is read next comes from the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file, contextlib.suppress(OSError):  # advice, no more
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
