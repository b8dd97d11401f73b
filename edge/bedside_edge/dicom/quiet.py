"""Keep the DICOM libraries from writing what they read to a log or to stderr.

Their warnings and log lines quote attribute values: a patient's name would reach the journal.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def mute_loggers() -> None:
    """Detach the libraries' loggers from ours; called once when this package reads or listens."""
    for name in ("pydicom", "pynetdicom", "highdicom", "pylibjpeg", "openjpeg", "PIL"):
        library = logging.getLogger(name)
        library.propagate = False
        library.setLevel(logging.CRITICAL + 1)


class _Muted:
    """Warning filters are process-wide: the first reader in sets them, the last one out resets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def enter(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                for module in ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "PIL"):
                    warnings.filterwarnings("ignore", module=module)

    def leave(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)
                self._saved = None


_muted = _Muted()


@contextmanager
def muted_warnings() -> Iterator[None]:
    """Drop the libraries' warnings while the block runs, from any number of threads."""
    _muted.enter()
    try:
        yield
    finally:
        _muted.leave()
