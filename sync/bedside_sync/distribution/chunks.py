"""The chunk store: pieces of packages as files named by their digest. Present means whole.

    chunks/<aa>/<sha256>     a chunk
    chunks/.part-*           one on its way; swept when the store is opened

A chunk is written under another name, synced, renamed, and its folder synced. So a fetch goes on
where it was cut, a chunk two versions share is fetched once, and a stick is read the same way.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from bedside_core.errors import (
    ChunkMismatchError,
    DiskFullError,
    ForbiddenPathError,
    NotFoundError,
    StoreUnavailableError,
    UpdateTooLargeError,
)
from bedside_sync.distribution.disk import disk, open_plain, read_block, sync_folder
from bedside_sync.distribution.manifest import CHUNK, PackagedFile, TargetManifest

_PART: Final = ".part-"
_HEX: Final = frozenset("0123456789abcdef")
Progress = Callable[[int, int], None]  # bytes there, bytes in all


class ChunkStore:
    """Chunks of one box or hub. Safe for several processes: a chunk is put whole or not at all."""

    def __init__(self, folder: Path, *, quota: int = 0) -> None:
        """Open, make when missing.

        Args:
            folder: of the chunks.
            quota: bytes all chunks together may have; 0 for no limit.

        Raises:
            DiskFullError, StoreUnavailableError: the folder cannot be made.
        """
        self._folder, self._quota = folder, quota
        with disk():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def has(self, digest: str) -> bool:
        """Whether a chunk is here, whole."""
        return self._place(digest).is_file()

    def missing(self, manifest: TargetManifest) -> list[str]:
        """Return the chunks of a package that are not here, each once, in order of the files."""
        return [digest for digest in manifest.chunk_sizes() if not self.has(digest)]

    def bytes_missing(self, manifest: TargetManifest) -> int:
        """Return how many bytes of a package still have to come."""
        sizes = manifest.chunk_sizes()
        return sum(size for digest, size in sizes.items() if not self.has(digest))

    def must_fit(self, manifest: TargetManifest) -> None:
        """Check before the first byte that a package fits.

        Raises:
            UpdateTooLargeError: over the quota even when everything else were pruned.
            DiskFullError: over the quota now, or the disk has less room than it needs.
        """
        need = self.bytes_missing(manifest)
        if self._quota and sum(manifest.chunk_sizes().values()) > self._quota:
            raise UpdateTooLargeError("the package is larger than the room kept for packages")
        if self._quota and self.used() + need > self._quota:
            raise DiskFullError("the room kept for packages is full; prune it")
        with disk():
            free = os.statvfs(self._folder)
        if need > free.f_bavail * free.f_frsize:
            raise DiskFullError("the disk has less room than the package needs")

    def fits(self, size: int) -> bool:
        """Whether that many bytes more stay within the quota."""
        return not self._quota or self.used() + size <= self._quota

    def put(self, digest: str, data: bytes) -> None:
        """Keep a chunk, durably.

        Raises:
            ChunkMismatchError: the bytes are not those the digest names; nothing was kept.
            DiskFullError, StoreUnavailableError: it cannot be written.
        """
        if len(data) > CHUNK or sha256(data).hexdigest() != digest:
            raise ChunkMismatchError("a chunk is not the one its digest names")
        place = self._place(digest)
        with disk():
            if not place.parent.is_dir():
                place.parent.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._folder)
            descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self._folder)
            partial = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                partial.rename(place)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            sync_folder(place.parent)

    def read(self, digest: str, *, keep: bool = False) -> bytes:
        """Return a chunk's bytes, checked.

        Args:
            digest: of the chunk.
            keep: leave a changed chunk where it is, as when a stick is only looked at.

        Raises:
            NotFoundError: it is not here.
            ChunkMismatchError: it changed on the disk; it is dropped, to be fetched again.
        """
        place = self._place(digest)
        with open_plain(place) as file:
            data = read_block(file, CHUNK + 1)
        if sha256(data).hexdigest() != digest:
            if not keep:
                with disk():
                    place.unlink(missing_ok=True)
            raise ChunkMismatchError("a chunk is not the one its digest names")
        return data

    def held(self) -> dict[str, int]:
        """Return every chunk here with its size in bytes."""
        return {
            path.name: path.stat().st_size
            for folder in self._folder.iterdir()
            if len(folder.name) == 2 and folder.is_dir()
            for path in folder.iterdir()
            if _is_digest(path.name)
        }

    def used(self) -> int:
        """Return the bytes of all chunks."""
        return sum(self.held().values())

    def prune(self, keep: Iterable[str]) -> int:
        """Delete every chunk that is not to be kept; returns the bytes freed."""
        wanted, freed = frozenset(keep), 0
        with disk():
            for digest, size in self.held().items():
                if digest not in wanted:
                    self._place(digest).unlink(missing_ok=True)
                    freed += size
        return freed

    def sweep(self) -> int:
        """Delete what a cut left half written; only while nobody else puts. Returns how many."""
        with disk():
            parts = list(self._folder.glob(f"{_PART}*"))
            for part in parts:
                part.unlink(missing_ok=True)
        return len(parts)

    def scan(self, folder: Path) -> int:
        """Take in the chunks of every plain file below a folder, for a delta against what it holds.

        For a slot that was filled by other means than this store. Returns how many were new.
        """
        new = 0
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            with open_plain(path) as file:
                while data := read_block(file, CHUNK):
                    digest = sha256(data).hexdigest()
                    if not self.has(digest):
                        self.put(digest, data)
                        new += 1
        return new

    def assemble(
        self, manifest: TargetManifest, folder: Path, progress: Progress | None = None
    ) -> None:
        """Write a package's files into an empty folder, every file and folder synced.

        Args:
            manifest: what is written; only its paths, nothing else.
            folder: made when missing; must be empty.
            progress: told bytes written and bytes in all.

        Raises:
            NotFoundError: a chunk is not here.
            ChunkMismatchError: a chunk or a whole file is not what the manifest says.
            StoreUnavailableError, DiskFullError: it cannot be written, or is not empty.
        """
        done = 0
        with disk():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise StoreUnavailableError("a package is assembled in an empty folder only")
            folders = {folder}
            for one in manifest.files:
                path = folder / one.path
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                parent = path.parent
                while parent != folder:
                    folders.add(parent)
                    parent = parent.parent
                for size in self._write(one, path):
                    done += size
                    if progress is not None:
                        progress(done, manifest.size)
            for each in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                sync_folder(each)
            sync_folder(folder.parent)

    def _write(self, one: PackagedFile, path: Path) -> Iterator[int]:
        whole = sha256()
        mode = 0o500 if one.executable else 0o400
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            for digest in one.chunks:
                data = self.read(digest)
                whole.update(data)
                file.write(data)
                yield len(data)
            file.flush()
            os.fsync(file.fileno())
        if whole.hexdigest() != one.sha256:
            raise ChunkMismatchError("a file put together is not the one the manifest names")

    def _place(self, digest: str) -> Path:
        if not _is_digest(digest):
            raise NotFoundError("a chunk is named by 64 hex digits")
        return self._folder / digest[:2] / digest


def _is_digest(name: str) -> bool:
    return len(name) == 64 and set(name) <= _HEX


def check_folder(manifest: TargetManifest, folder: Path, progress: Progress | None = None) -> None:
    """Read every file of a package back from the disk and compare; nothing else may be there.

    Raises:
        NotFoundError: a file is missing.
        ForbiddenPathError: something is there that the manifest does not name, or is a link.
        ChunkMismatchError: a file's bytes differ.
    """
    named = {one.path for one in manifest.files}
    for path in folder.rglob("*"):
        if path.is_symlink() or (
            not path.is_dir() and path.relative_to(folder).as_posix() not in named
        ):
            raise ForbiddenPathError("the folder holds what the manifest does not name")
    done = 0
    for one in manifest.files:
        whole, size = sha256(), 0
        with open_plain(folder / one.path) as file:
            while data := read_block(file, CHUNK):
                whole.update(data)
                size += len(data)
                done += len(data)
                if progress is not None:
                    progress(done, manifest.size)
        if size != one.size or whole.hexdigest() != one.sha256:
            raise ChunkMismatchError("a file differs from the one the manifest names")


def package_files(folder: Path, store: ChunkStore | None = None) -> tuple[PackagedFile, ...]:
    """Return a folder's files as a manifest lists them, and keep their chunks in a store.

    Raises:
        ForbiddenPathError: a link or anything that is no plain file.
        ValueError: a path no package may have (pydantic's ValidationError).
    """
    found: list[PackagedFile] = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        chunks: list[str] = []
        whole, size = sha256(), 0
        with open_plain(path) as file:
            while data := read_block(file, CHUNK):
                whole.update(data)
                size += len(data)
                digest = sha256(data).hexdigest()
                chunks.append(digest)
                if store is not None and not store.has(digest):
                    store.put(digest, data)
        found.append(
            PackagedFile(
                path=path.relative_to(folder).as_posix(),
                size=size,
                sha256=whole.hexdigest(),
                chunks=tuple(chunks),
                executable=int(bool(path.stat().st_mode & stat.S_IXUSR)),
            )
        )
    return tuple(sorted(found, key=lambda one: one.path))
