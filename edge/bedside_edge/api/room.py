"""How much of what comes in is held at a time: a number of uploads, a sum of bytes.

Every upload holds some buffers while it streams to the disk, an object to be analysed without being
stored is in memory whole. Without a bound many senders, each within its own limit, would take the
box's memory together; with one the last of them are told to come again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bedside_core.errors import QueueFullError

Take = Callable[[int], None]  # claims bytes before they are held


class Room:
    """Counts what is held; used from one event loop."""

    def __init__(self, most_uploads: int, most_bytes: int) -> None:
        """Hold at most so many uploads at a time, and bodies of so many bytes together."""
        self.most_bytes = most_bytes
        self._most_uploads = most_uploads
        self._uploads = self._bytes = 0

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Hold a place for one upload.

        Raises:
            QueueFullError: all are taken.
        """
        if self._uploads >= self._most_uploads:
            raise QueueFullError("too many uploads at a time; send it again in a moment")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    @contextmanager
    def body(self) -> Iterator[Take]:
        """Give a function that claims bytes of one body; they are free again at the end.

        The function raises QueueFullError when bodies hold too many bytes together.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self._bytes + count > self.most_bytes:
                raise QueueFullError("too much is held in memory; send it again in a moment")
            self._bytes += count
            mine += count

        try:
            yield take
        finally:
            self._bytes -= mine
