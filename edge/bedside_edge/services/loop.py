"""A thread's loop around small steps: rings wake it, errors are waited out, stop is prompt."""

import logging
import threading
from typing import Protocol

from bedside_core.errors import BedsideError
from bedside_edge.services.worker import Bell

log = logging.getLogger(__name__)

_AFTER_ERROR_S = 1.0


class Steps(Protocol):
    """Work in steps."""

    def step(self) -> bool:
        """Do one piece of work; False when there is none now."""
        ...

    def nap(self) -> float:
        """Return for how many seconds there will be none, unless something rings."""
        ...


class Loop:
    """Runs `steps` until told to stop."""

    def __init__(self, steps: Steps, bell: Bell) -> None:
        self._steps, self._bell = steps, bell
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the step in hand, then return from `run`."""
        self._stopping.set()
        self._bell.ring()

    def run(self) -> None:
        """Work until `stop`; a thread that died of an error would stop deliveries unseen."""
        while not self._stopping.is_set():
            seen = self._bell.count()
            try:
                nap = 0.0 if self._steps.step() else self._steps.nap()
            except Exception as error:
                code = error.code if isinstance(error, BedsideError) else "internal"
                log.exception("loop error", extra={"code": code})
                nap = _AFTER_ERROR_S
            if nap > 0 and not self._stopping.is_set():
                self._bell.wait(seen, nap)
