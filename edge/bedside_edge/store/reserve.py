"""Room kept free for the one write that has to succeed on a full disk: sealing the box."""

import contextlib
import os
from pathlib import Path
from typing import Final

BYTES: Final = 4 << 20
_NAME: Final = "reserve"


class Reserve:
    """A file of the state folder that is given up when the disk is full."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self.fill()

    def fill(self) -> bool:
        """Take the room, if there is any; say whether it is kept."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()  # half a reserve helps nobody
            return False
        return True

    def release(self) -> None:
        """Give the room to whoever writes next."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
