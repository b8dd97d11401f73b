"""The self-check whose passing is the only thing that keeps a watched service alive.

A timer that pings says that a timer runs. Here the thread that pings has just written to the
database, seen every worker and the receiver, been answered by the HTTP loop, and read a golden case
on the engine. Whatever of it fails or hangs, the pings stop and the service manager restarts us.
A full disk is no reason to restart: what is stored can still be read.
"""

import logging
from collections.abc import Callable, Mapping

from bedside_edge.ports.service_manager import ServiceManager

log = logging.getLogger(__name__)

_TIMES_A_PERIOD = 3  # two self-checks may be slow before the manager gives up


class Watchdog:
    """Steps for `Loop`: check, then ping."""

    def __init__(self, manager: ServiceManager, checks: Callable[[], Mapping[str, bool]]) -> None:
        """Put it together.

        Args:
            manager: is told.
            checks: the self-check: what was looked at, and whether it passed.
        """
        self._manager, self._checks = manager, checks

    def step(self) -> bool:
        """Check once; never busy."""
        failed = [name for name, passed in self._checks().items() if not passed]
        if failed:
            log.error("self-check failed", extra={"reason": ",".join(failed)})
        else:
            self._manager.alive()
        return False

    def nap(self) -> float:
        """Return the pause to the next self-check."""
        return max(self._manager.watchdog_s / _TIMES_A_PERIOD, 0.1)
