"""Which code computes a round: the digest a manifest names and a box allows.

It covers the sources that bound, round, mask and sum. A box whose sources differ from those the
round was planned with does not take part: its bounds could be others than the ones that were
signed.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

_PACKAGES: Final = ("bedside_sync.secagg", "bedside_sync.tasks")


@cache
def task_code() -> bytes:
    """Return SHA-256 over the names and bytes of the sources, in order of their names."""
    whole = hashlib.sha256(b"bedside/task-code/v1")
    for package in _PACKAGES:
        sources = [one for one in files(package).iterdir() if one.name.endswith(".py")]
        for source in sorted(sources, key=lambda one: one.name):
            for part in (f"{package}/{source.name}".encode(), source.read_bytes()):
                whole.update(len(part).to_bytes(8, "big") + part)
    return whole.digest()
