"""Recompute the evidence log from its raw entries and compare with everything derived or signed.

One pass over the entries keeps no tree: the frontier of the entries so far gives every node that
must be stored and the root at every size that was signed. Two signed checkpoints that both fit the
same entries are consistent with each other, so no pair of them is compared.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bedside_core.errors import BedsideError, EvidenceDamagedError, InvalidEntryError
from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import parse_entry
from bedside_core.evidence.merkle import Frontier, leaf_hash
from bedside_core.evidence.note import VerifierKey
from bedside_edge.store import evidence_rows as rows

Progress = Callable[[int, int], None]  # (entries done, entries in all)

_STEP: Final = 4096  # entries between two reports of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check went over, when nothing was wrong.

    Attributes:
        entries: number of entries.
        checkpoints: signed checkpoints compared and verified.
        root: root hash over all entries.
        seconds: how long it took.
    """

    entries: int
    checkpoints: int
    root: bytes
    seconds: float


def check_log(
    c: sqlite3.Connection,
    origin: str,
    keys: Sequence[VerifierKey],
    progress: Progress = lambda done, total: None,
    *,
    parse: bool = False,
) -> Checked:
    """Recompute everything from raw entries.

    Args:
        c: a connection that sees one committed state throughout.
        origin: the log's name in force; those it had before stand in `past_logs`.
        keys: the log's own keys; every checkpoint must verify under all of them.
        progress: told every few thousand entries.
        parse: also read each entry and see that it is one, and that no time falls.

    Raises:
        EvidenceDamagedError: the database's structure, an entry, a node or a checkpoint is not
            what it must be; says which.
    """
    started = time.perf_counter()
    _structure(c)
    total = rows.size(c)
    past = rows.past(c)
    base = past[-1].end if past else 0
    ours = rows.Era(base=base, end=max(total, base), origin=origin, keys=tuple(keys))
    signed = _signed(c, [*past, ours])
    ends = {era.end for era in past}
    frontier = Frontier()
    last_ts = 0
    if 0 in signed:
        _same(frontier.root(), signed[0], "the checkpoint of size 0")
    found = c.execute("SELECT i, data, nodes FROM entry ORDER BY i")
    for index, (i, data, stored) in enumerate(found):
        if i != index:
            raise EvidenceDamagedError(f"entry {index} is missing")
        if parse:
            last_ts = _readable(index, data, last_ts)
        if index in ends:  # from here on the log has another name, and a tree of its own
            frontier = Frontier()
        nodes = frontier.append(leaf_hash(data))
        if b"".join(node.digest for node in nodes) != stored:
            raise EvidenceDamagedError(f"the nodes of entry {index} do not follow from the entries")
        at = index + 1
        if at in signed:
            _same(frontier.root(), signed[at], f"the checkpoint of size {at}")
        if at % _STEP == 0:
            progress(at, total)
    if base > total or any(size > total for size in signed):
        raise EvidenceDamagedError(f"the log has {total} entries and signed for more")
    progress(total, total)
    return Checked(
        entries=total,
        checkpoints=len(signed),
        root=frontier.root(),
        seconds=time.perf_counter() - started,
    )


def _structure(c: sqlite3.Connection) -> None:
    """Ask SQLite whether the log's tables are whole; the rest of the database is not asked."""
    try:
        for table in ("entry", "cp", "cosig"):
            said = c.execute(f"PRAGMA integrity_check({table})").fetchone()[0]
            if said != "ok":
                raise EvidenceDamagedError(f"table {table} is damaged: {said}")
    except sqlite3.DatabaseError as cause:
        raise EvidenceDamagedError("the database of the evidence log is damaged") from cause


def _signed(c: sqlite3.Connection, eras: Sequence[rows.Era]) -> dict[int, bytes]:
    """Return size -> root of every signed checkpoint, its signatures verified."""
    found: dict[int, bytes] = {}
    for size, note in c.execute("SELECT size, note FROM cp ORDER BY size"):
        # a checkpoint at the size where a name ends is that name's own
        era = next((era for era in eras if size <= era.end), eras[-1])
        try:
            checkpoint = open_checkpoint(bytes(note), era.origin, era.keys).checkpoint
        except BedsideError as cause:
            raise EvidenceDamagedError(
                f"the checkpoint of size {size} is not this log's: {cause.code}"
            ) from cause
        if checkpoint.size != size - era.base:
            raise EvidenceDamagedError(f"the checkpoint of size {size} says another size")
        found[size] = checkpoint.root
    return found


def _readable(index: int, data: bytes, last_ts: int) -> int:
    try:
        ts = parse_entry(data).ts
    except InvalidEntryError as cause:
        raise EvidenceDamagedError(f"entry {index} is no entry") from cause
    if ts < last_ts:
        raise EvidenceDamagedError(f"the time of entry {index} falls behind the entry before")
    return ts


def _same(root: bytes, signed: bytes, what: str) -> None:
    if root != signed:
        raise EvidenceDamagedError(f"the entries do not lead to {what}")
