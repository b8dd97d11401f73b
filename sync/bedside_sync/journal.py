"""What a box and a helper must remember about a round, and one adapter that keeps it in files.

Everything is written to a temporary name, synced, renamed and its folder synced before the call
returns: a step counts only when it survives a power cut. Seeds and noise are never given to it.
"""

import os
from pathlib import Path
from typing import Final, Protocol

from bedside_core.errors import NotFoundError, StoreUnavailableError, WrongStateError

_MODE: Final = 0o600


class Journal(Protocol):
    """Durable facts by round and name. A fact once kept never changes; it can be destroyed."""

    def keep(self, round_name: str, fact: str, data: bytes) -> None:
        """Make a fact durable; the same again is no news, other bytes raise WrongStateError."""
        ...

    def read(self, round_name: str, fact: str) -> bytes:
        """Return a fact; NotFoundError."""
        ...

    def has(self, round_name: str, fact: str) -> bool:
        """Whether the fact is there."""
        ...

    def destroy(self, round_name: str, fact: str) -> None:
        """Overwrite and remove a fact; no error when it is gone."""
        ...

    def rounds(self) -> list[str]:
        """Return the rounds anything is known of."""
        ...


class FileJournal:
    """`Journal` in a folder of its own: `<round>/<fact>`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def keep(self, round_name: str, fact: str, data: bytes) -> None:
        """Make a fact durable; see `Journal`."""
        path = self._path(round_name, fact)
        if path.exists():
            if path.read_bytes() != data:
                raise WrongStateError("a round's fact never changes")
            return
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700)
                _sync(self._folder)
            partial = path.with_name(f".{fact}.part")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.rename(path)
            _sync(path.parent)
        except OSError as cause:
            raise StoreUnavailableError("a round's fact cannot be written") from cause

    def read(self, round_name: str, fact: str) -> bytes:
        """Return a fact; NotFoundError."""
        try:
            return self._path(round_name, fact).read_bytes()
        except FileNotFoundError as cause:
            raise NotFoundError("the round has no such fact") from cause

    def has(self, round_name: str, fact: str) -> bool:
        """Whether the fact is there."""
        return self._path(round_name, fact).exists()

    def destroy(self, round_name: str, fact: str) -> None:
        """Overwrite in place, sync, remove; see `Journal`."""
        path = self._path(round_name, fact)
        if not path.exists():
            return
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        _sync(path.parent)

    def rounds(self) -> list[str]:
        """Return the rounds anything is known of."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def _path(self, round_name: str, fact: str) -> Path:
        # round names are checked where manifests are read; facts are our own constants
        if not round_name or round_name.startswith(".") or "/" in round_name:
            raise NotFoundError("no such round")
        return self._folder / round_name / fact


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
