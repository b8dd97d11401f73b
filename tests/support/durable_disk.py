"""What a power cut leaves: file contents as of their last fsync, folder entries as of theirs.

While `DurableDisk` records, every call of `os.fsync` really happens and then copies what it made
durable. `restore` writes a folder as the disk would show it after the power came back: an entry
whose file was never synced is an empty file, a file whose entry was never synced is not there. The
database is copied as it stands when told (`committed`), which is after a COMMIT with
synchronous=FULL returned; that SQLite syncs by then is shown with strace, not assumed here.
"""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest


class DurableDisk:
    """Records fsync calls below `folder`; thread-safe."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.on_event: Callable[[], None] = lambda: None
        self._contents: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._links: dict[int, str] = {}  # a link is an entry of its folder, content and all
        self._database: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def committed(self) -> None:
        """Take the database files as durable."""
        with self._lock:
            self._database = {p.name: p.read_bytes() for p in self.folder.glob("bedside.db*")}
        self.on_event()

    def _fsync(self, fd: int) -> None:
        self._real(fd)
        if not Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self.folder):
            return
        status = os.fstat(fd)
        with self._lock:
            if stat.S_ISDIR(status.st_mode):
                found = {
                    name: os.stat(name, dir_fd=fd, follow_symlinks=False) for name in os.listdir(fd)
                }
                self._entries[status.st_ino] = {name: one.st_ino for name, one in found.items()}
                for name, one in found.items():
                    if stat.S_ISLNK(one.st_mode):
                        self._links[one.st_ino] = os.readlink(name, dir_fd=fd)
            else:
                path = f"/proc/self/fd/{fd}"  # the descriptor may be open for writing only
                self._contents[status.st_ino] = Path(path).read_bytes()
        self.on_event()

    def restore(self, to: Path) -> None:
        """Write what is durable now into the empty folder `to`."""
        to.mkdir(mode=0o700)
        with self._lock:
            self._copy_folder(self.folder, to)
            for name, content in self._database.items():
                (to / name).write_bytes(content)

    def _copy_folder(self, source: Path, to: Path) -> None:
        entries = self._entries.get(source.stat().st_ino, {})
        for path in source.iterdir():
            if path.is_dir() and not path.is_symlink():
                (to / path.name).mkdir(mode=0o700)
                self._copy_folder(path, to / path.name)
        for name, inode in entries.items():
            target = to / name
            if inode in self._links:
                target.symlink_to(self._links[inode])
                continue
            if name.startswith("bedside.db") or (source / name).is_dir():
                continue
            target.touch(mode=0o600)
            target.write_bytes(self._contents.get(inode, b""))
