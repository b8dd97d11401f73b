"""Where a box reads the repository from: its hub, or a stick. What follows is the same code."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from bedside_core.errors import (
    BedsideError,
    ForbiddenPathError,
    HubRefusedError,
    HubUnavailableError,
    InvalidMessageError,
    NotFoundError,
)
from bedside_sync.calls import Ask
from bedside_sync.distribution.disk import open_plain, read_block
from bedside_sync.distribution.gateway import FILE, RANGE
from bedside_sync.distribution.manifest import CHUNK
from bedside_sync.wire import Message

_BLOCK: Final = 256 << 10  # bytes of a stick's file at a time
_LARGEST: Final = 8 << 20  # bytes of any file but a chunk, before its own limit is asked
_TRIES: Final = 3  # of a request the hub does not answer


class Source(Protocol):
    """Something a repository can be read from."""

    def read(self, path: str) -> Iterator[bytes]:
        """Return a file in blocks; the first block is read before this returns.

        Raises:
            NotFoundError: no such file.
            ForbiddenPathError: not to be read, or no plain file.
            HubUnavailableError, StoreUnavailableError: not now.
        """
        ...

    def chunks(self, wanted: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Yield chunks of the sizes given, in order; the bytes are not checked yet.

        A chunk that cannot be had whole comes with the bytes there are.
        """
        ...


class HubSource:
    """The hub's gateway, over whatever carries questions to it."""

    def __init__(self, carrier: Ask) -> None:
        self._carrier = carrier

    def read(self, path: str) -> Iterator[bytes]:
        """Return a file in blocks; errors as in `Source`."""
        first = self._ask(path, 0)
        return self._rest(path, first)

    def _rest(self, path: str, first: Message) -> Iterator[bytes]:
        size, at = first.integer("size"), len(first.payload)
        yield first.payload
        while at < size:
            answer = self._ask(path, at)
            if answer.integer("size") != size or not answer.payload:
                raise InvalidMessageError("the file changed while it was read")
            at += len(answer.payload)
            yield answer.payload

    def _ask(self, path: str, at: int) -> Message:
        for left in reversed(range(_TRIES)):
            try:
                return self._carrier.ask(_range(path, at))
            except HubUnavailableError:
                if not left:
                    raise
            except HubRefusedError as refused:
                raise _ours(refused) from refused
        raise HubUnavailableError("the hub does not answer")

    def chunks(self, wanted: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Yield chunks, with several requests under way; see `Source`."""
        asked: deque[tuple[str, int, bool]] = deque()  # of each request: chunk, size, its last

        def requests() -> Iterator[Message]:
            for digest, size in wanted.items():
                for at in range(0, size, RANGE):
                    asked.append((digest, size, at + RANGE >= size))
                    yield _range(chunk_path(digest), at)

        each = getattr(self._carrier, "ask_each", None)
        answers: Iterable[Message] = (
            each(requests()) if each else map(self._carrier.ask, requests())
        )
        parts: list[bytes] = []
        try:
            for answer in answers:
                digest, size, last = asked.popleft()
                parts.append(answer.payload)
                if last:
                    whole = b"".join(parts)
                    parts = []
                    yield digest, whole if answer.integer("size") == size else b""
        except HubRefusedError as refused:
            raise _ours(refused) from refused


def _range(path: str, at: int) -> Message:
    return Message(kind=FILE, fields={"path": path, "at": at})


def _ours(refused: HubRefusedError) -> BedsideError:
    """The two refusals that have a meaning of their own come back as what they are."""
    for kind in (NotFoundError, ForbiddenPathError):
        if refused.reason == kind.code:
            return kind(str(refused))
    return refused


class FolderSource:
    """A stick, or any folder with the repository's tree. Plain files only; no link is followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> Iterator[bytes]:
        """Return a file in blocks; errors as in `Source`."""
        parts = path.split("/")
        if not all(parts) or ".." in parts or "." in parts:
            raise ForbiddenPathError("the path leads elsewhere")
        place = self._folder
        for part in parts[:-1]:
            place /= part
            if place.is_symlink():
                raise ForbiddenPathError("a folder of the stick is a link")
        file = open_plain(place / parts[-1])

        def blocks() -> Iterator[bytes]:
            with file:
                left = _LARGEST
                while left > 0 and (data := read_block(file, min(_BLOCK, left))):
                    left -= len(data)
                    yield data

        return blocks()

    def chunks(self, wanted: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Yield chunks; see `Source`. No more is read than a chunk may have."""
        for digest in wanted:
            yield digest, b"".join(self.read(chunk_path(digest)))[: CHUNK + 1]


def chunk_path(digest: str) -> str:
    """Return where a chunk lies in the repository."""
    return f"chunks/{digest[:2]}/{digest}"
