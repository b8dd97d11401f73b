"""Heat: above one limit people are told, above the next no study is read until it cooled down.

Jobs wait in the queue meanwhile; none is lost or refused. Reading begins again below the lower
limit, so that a board does not stop and start at the edge.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Heat:
    """Watches the temperature a profile's zones show; safe to ask from several threads."""

    def __init__(
        self, read: Callable[[], float | None], warn_c: float | None, stop_c: float | None
    ) -> None:
        """Take how the temperature is read, and the limits in degrees Celsius (both or none)."""
        self._read, self._warn, self._stop = read, warn_c, stop_c
        self._lock = threading.Lock()
        self._hot = self._warm = False

    @property
    def watched(self) -> bool:
        """Whether the profile sets limits and the board shows a temperature."""
        return self._warn is not None and self._read() is not None

    def resting(self) -> bool:
        """Whether no study may be read now; a zone that cannot be read stops nothing."""
        if self._warn is None or self._stop is None or (now := self._read()) is None:
            return False
        with self._lock:
            hot = now >= self._stop or (self._hot and now >= self._warn)
            warm = now >= self._warn
            if hot != self._hot:
                log.warning("too hot to read" if hot else "cool enough to read again")
            elif warm and not self._warm:
                log.warning("board is warm")
            self._hot, self._warm = hot, warm
            return hot

    def told(self) -> tuple[bool, str]:
        """Return whether studies are read, and the temperature in words."""
        resting, now = self.resting(), self._read()
        words = "unknown" if now is None else f"{now:.0f} degrees Celsius"
        return not resting, f"{words}, warns at {self._warn}, stops at {self._stop}"
