"""A folder in memory for tests that open a state at every step and do not test the disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 wanted for its speed, nothing secret in it


@contextmanager
def ram_folder() -> Iterator[Path]:
    """Yield an empty folder, in memory where the system has one, and remove it."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)
