"""A quick look at the end of the evidence log: what a trial can afford; the night does all of it.

The newest entries hash to their nodes and follow each other in time, and the newest checkpoint is
signed by the log's keys and is the root of what is stored. A change further back is found by
`check_log`, which reads everything.
"""

import sqlite3
from typing import Final

from bedside_core.errors import BedsideError, EvidenceDamagedError
from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import parse_entry
from bedside_core.evidence.merkle import HASH_BYTES, leaf_hash, root_at
from bedside_edge.store import evidence_rows as rows

_DEPTH: Final = 256


def check_tail(c: sqlite3.Connection, depth: int = _DEPTH) -> int:
    """Check the newest entries and the newest checkpoint; returns how many entries.

    Raises:
        EvidenceDamagedError: the log's end is not what was written and signed.
    """
    try:
        count = _newest_entries(c, depth)
        _newest_checkpoint(c)
    except EvidenceDamagedError:
        raise
    except BedsideError as cause:
        raise EvidenceDamagedError(f"the end of the log cannot be read: {cause.code}") from cause
    return count


def _newest_entries(c: sqlite3.Connection, depth: int) -> int:
    start = max(0, rows.size(c) - depth)
    found = c.execute("SELECT i, data, nodes FROM entry WHERE i >= ? ORDER BY i", (start,))
    count, last = 0, 0
    for index, data, nodes in found:
        ts = parse_entry(data).ts
        if index != start + count or leaf_hash(data) != nodes[:HASH_BYTES] or ts < last:
            raise EvidenceDamagedError(f"entry {index} is not what was written")
        last, count = ts, count + 1
    return count


def _newest_checkpoint(c: sqlite3.Connection) -> None:
    era = rows.eras(c)[-1]
    held = rows.latest_checkpoint(c, era)
    if held is None:
        return
    size, note = held
    signed = open_checkpoint(note, era.origin, era.keys).checkpoint
    root = root_at(size - era.base, rows.node_reader(c, era.base))
    if (signed.size, signed.root) != (size - era.base, root):
        raise EvidenceDamagedError(f"the checkpoint of size {size} is not of these entries")
