"""What a disk holds after a power cut: what was synced, and any part of what was not.

The calls of a process are read from strace's log. A write lies in the cache until its file is
synced; at the cut the test decides which of the cached writes the disk had taken by itself. The
shared-memory file of SQLite is mapped, never written, and is gone after a power cut.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CALL = re.compile(
    r"(?P<name>pwrite64|write|fsync|fdatasync|ftruncate)\((?P<fd>\d+)<(?P<path>[^>]*)>(?P<rest>.*)"
    r"\) += (?P<result>-?\d+)"
)
_DATA = re.compile(r', "((?:\\x[0-9a-f]{2})*)"(\.\.\.)?, (\d+)(?:, (\d+))?$')


@dataclass(frozen=True)
class Call:
    """A system call on one file: its bytes and where they went."""

    name: str
    path: str
    data: bytes = b""
    offset: int = 0


@dataclass
class File:
    """A file as the disk has it, and what lies in the cache."""

    durable: bytearray = field(default_factory=bytearray)
    cached: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        for call in self.cached:
            _apply(self.durable, call)
        self.cached.clear()


class Disk:
    """Follows calls; `image` is what is left if the power goes now."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._files = {name: File() for name in names}

    def follow(self, call: Call) -> None:
        file = self._files.get(Path(call.path).name)
        if file is None:
            return
        if call.name in ("fsync", "fdatasync"):
            file.sync()
        else:
            file.cached.append(call)

    def cached(self) -> int:
        return sum(len(file.cached) for file in self._files.values())

    def image(self, folder: Path, taken: Callable[[], bool]) -> None:
        """Write the files into `folder`; `taken` says of each cached write whether it survived."""
        for name, file in self._files.items():
            content = bytearray(file.durable)
            for call in file.cached:
                if taken():
                    _apply(content, call)
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)


def calls(lines: list[str]) -> Iterator[Call]:
    """Read the calls of `strace -y -xx` that succeeded."""
    for line in lines:
        found = _CALL.search(line)
        if found is None or int(found["result"]) < 0:
            continue
        name, path = found["name"], _text(found["path"])
        if name in ("fsync", "fdatasync"):
            yield Call(name, path)
        elif name == "ftruncate":
            yield Call(name, path, offset=int(found["rest"].lstrip(", ")))
        elif written := _DATA.search(found["rest"]):
            assert not written[2], "strace cut a write short; give it a longer -s"
            data = bytes.fromhex(written[1].replace("\\x", ""))
            yield Call(name, path, data[: int(found["result"])], int(written[4] or 0))


def _text(path: str) -> str:
    if not path.startswith("\\x"):
        return path
    return bytes.fromhex(path.replace("\\x", "")).decode()


def _apply(content: bytearray, call: Call) -> None:
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    end = call.offset + len(call.data)
    content.extend(bytes(max(0, end - len(content))))
    content[call.offset : end] = call.data
