"""What a box may read of the repository: ranges of plain files below three folders, no more.

Answers carry the file's size, so that a file that changes under a reader is noticed. A box is
shown its own assignment only.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from bedside_core.errors import ForbiddenPathError, InvalidMessageError, NotFoundError
from bedside_sync.distribution.disk import open_plain, read_block
from bedside_sync.wire import MAX_HEADER, MAX_MESSAGE, Message

FILE: Final = "file"  # kind of the request and of its answer
RANGE: Final = MAX_MESSAGE - MAX_HEADER - 64  # bytes of an answer
_ROOTS: Final = ("metadata", "targets", "chunks")
_PART: Final = re.compile(r"[A-Za-z0-9_%][A-Za-z0-9_.%+@-]{0,254}")
_ASSIGN: Final = re.compile(r"targets/assign/[0-9a-f]{64}\.(.+)\.json")


def site_of(identity: str) -> str:
    """Return the opaque site id of a box: it stands in public metadata, the box's name does not.

    Args:
        identity: the box's Ed25519 identity, 64 hex digits, as on the roster.
    """
    return "s" + sha256(b"bedside site 1\0" + bytes.fromhex(identity)).hexdigest()[:24]


class Gateway:
    """Reads files for boxes. Safe for several threads."""

    def __init__(self, folder: Path, site: Callable[[str], str]) -> None:
        """Serve a repository.

        Args:
            folder: of the repository; it may be made later.
            site: the site id of a verified peer.
        """
        self._folder, self._site = folder, site

    def answer(self, peer: str, request: Message) -> Message:
        """Return a range of a file.

        Raises:
            InvalidMessageError: the request is malformed.
            ForbiddenPathError: not below the three folders, no plain file, or another site's.
            NotFoundError: no such file.
        """
        start = request.integer("at")
        size, data = self.read(peer, request.text("path"), start)
        if start > size:
            raise InvalidMessageError("the range lies behind the end of the file")
        return Message(kind=FILE, fields={"size": size, "at": start}, payload=data)

    def read(self, peer: str, path: str, start: int) -> tuple[int, bytes]:
        """Return a file's size and at most `RANGE` bytes of it; errors as in `answer`."""
        parts = path.split("/")
        if (
            parts[0] not in _ROOTS
            or not 2 <= len(parts) <= 8
            or not all(_PART.fullmatch(part) for part in parts)
        ):
            raise ForbiddenPathError("a box reads metadata, targets and chunks only")
        assigned = _ASSIGN.fullmatch(path)
        if assigned and assigned.group(1) != self._site(peer):
            raise ForbiddenPathError("a box reads its own assignment only")
        place = self._folder.joinpath(*parts)
        try:
            resolved = place.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError) as cause:
            raise NotFoundError("no such file") from cause
        if resolved != self._folder.resolve().joinpath(*parts):  # a link somewhere on the way
            raise ForbiddenPathError("the path leads elsewhere")
        with open_plain(resolved) as file:
            size = file.seek(0, 2)
            file.seek(min(start, size))
            return size, read_block(file, RANGE)
