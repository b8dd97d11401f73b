"""Reading the evidence log's rows: everything that needs no key and changes nothing.

The functions take a connection, so the running box, the command on a stopped box's folder and the
command on a copy of it read in the same way.

Entries are numbered for ever. A log that went on under a new name after a gap starts at the entry
where the last one ended, its `base`: what leaves the box - checkpoints, tiles, proofs - counts from
there, everything kept here (`cp`, `cosig`, indices of other tables) counts from 0.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bedside_core.errors import InvalidTileError, NotFoundError
from bedside_core.evidence.entry import Kind, parse_entry
from bedside_core.evidence.merkle import HASH_BYTES, ReadNode, inclusion_proof
from bedside_core.evidence.note import VerifierKey, parse_verifier_key
from bedside_core.evidence.proof import ProofFile
from bedside_core.evidence.tiles import WIDTH, Tile, bundle_bytes, tile_bytes
from bedside_edge.ports.evidence import Kept

ORIGIN: Final = "evidence-origin"  # names in `meta`
KEYS: Final = "evidence-keys"

_SELECT: Final = """
  SELECT entry.i, data, coalesce(study_id, ''), coalesce(subject_id, '')
  FROM entry LEFT JOIN entry_about USING (i) """


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """The log under one of its names: entries [base, end); the one in force has no end yet."""

    base: int
    end: int
    origin: str
    keys: tuple[VerifierKey, ...]

    def __contains__(self, index: int) -> bool:
        return self.base <= index < self.end


def meta(c: sqlite3.Connection, name: str) -> str:
    """Return a text the log keeps about itself; empty when it never did."""
    row = c.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0].decode() if row else ""


def known_keys(c: sqlite3.Connection) -> tuple[VerifierKey, ...]:
    """Return the public halves of the keys this log signs with; empty before the first start."""
    return _keys(meta(c, KEYS))


def past(c: sqlite3.Connection) -> list[Era]:
    """Return the names before the one in force, oldest first."""
    if not c.execute("SELECT 1 FROM sqlite_master WHERE name = 'past_logs'").fetchone():
        return []  # a copy of an older version's database
    found = c.execute("SELECT base, end_, origin, keys FROM past_logs ORDER BY base")
    return [
        Era(base=base, end=end, origin=origin, keys=_keys(lines))
        for base, end, origin, lines in found
    ]


def eras(c: sqlite3.Connection) -> list[Era]:
    """Return the log under every name it had, oldest first; the last is in force."""
    before = past(c)
    base = before[-1].end if before else 0
    return [*before, Era(base=base, end=size(c), origin=meta(c, ORIGIN), keys=known_keys(c))]


def size(c: sqlite3.Connection) -> int:
    """Return the number of entries."""
    return int(c.execute("SELECT coalesce(max(i) + 1, 0) FROM entry").fetchone()[0])


def node_reader(c: sqlite3.Connection, base: int = 0) -> ReadNode:
    """Return what reads one stored node: it stands in the row of the last entry it covers."""

    def read(level: int, n: int) -> bytes:
        last = base + ((n + 1) << level) - 1
        row = c.execute(
            "SELECT substr(nodes, ?, 32) FROM entry WHERE i = ?", (32 * level + 1, last)
        ).fetchone()
        if row is None or len(row[0]) != HASH_BYTES:
            raise NotFoundError(f"the log has no node ({level}, {n})")
        return bytes(row[0])

    return read


def entry(c: sqlite3.Connection, index: int) -> Kept:
    """Return one entry; NotFoundError."""
    row = c.execute(_SELECT + "WHERE entry.i = ?", (index,)).fetchone()
    if row is None:
        raise NotFoundError(f"the log has no entry {index}")
    return _kept(row)


def entries(c: sqlite3.Connection, start: int, end: int) -> list[Kept]:
    """Return entries [start, end), fewer at the end of the log."""
    rows = c.execute(_SELECT + "WHERE entry.i >= ? AND entry.i < ? ORDER BY entry.i", (start, end))
    return [_kept(row) for row in rows]


def newest(
    c: sqlite3.Connection, limit: int, before: int | None, kinds: Iterable[Kind]
) -> list[Kept]:
    """Return entries newest first."""
    last = size(c) if before is None else before
    return _filtered(c, "entry.i < ?", (last,), "DESC", limit, kinds)


def between(
    c: sqlite3.Connection, since: int, until: int, limit: int, after: int, kinds: Iterable[Kind]
) -> list[Kept]:
    """Return entries of a time range in seconds, oldest first; times in the log never fall."""
    first = max(_first_at(c, since), after + 1)
    span = (first, _first_at(c, until))
    return _filtered(c, "entry.i >= ? AND entry.i < ?", span, "ASC", limit, kinds)


def about(c: sqlite3.Connection, study_id: str, subject_id: str) -> list[int]:
    """Return the indices of what is known to be about a study or a patient."""
    column, value = ("study_id", study_id) if study_id else ("subject_id", subject_id)
    found = c.execute(
        f"SELECT i FROM entry_about WHERE {column} = ? AND {column} <> '' ORDER BY i",  # noqa: S608
        (value,),
    )
    return [int(i) for (i,) in found]


def tile(c: sqlite3.Connection, wanted: Tile, base: int = 0) -> bytes:
    """Return a tile or bundle; NotFoundError when the log is not that large."""
    try:
        if wanted.level is not None:
            return tile_bytes(wanted, node_reader(c, base))
        start = base + wanted.index * WIDTH
        rows = c.execute(
            "SELECT data FROM entry WHERE i >= ? AND i < ? ORDER BY i",
            (start, start + wanted.width),
        )
        found = [bytes(data) for (data,) in rows]
        if len(found) == wanted.width:
            return bundle_bytes(found)
    except (InvalidTileError, OverflowError) as cause:
        raise NotFoundError("the log has no such tile") from cause
    raise NotFoundError("the log has no such tile")


def latest_checkpoint(
    c: sqlite3.Connection, era: Era | None = None, covering: int = -1
) -> tuple[int, bytes] | None:
    """Return size (counted from 0) and bytes of the newest checkpoint, cosignatures included.

    Args:
        c: the connection.
        era: the name it must be of; the newest of all when None.
        covering: an index that the checkpoint must cover; a cosigned one wins over a newer one
            that nobody cosigned yet.
    """
    # a checkpoint at the size where a name begins is the last of the name before
    begins = era.base if era is not None and era.base else -1
    row = c.execute(
        "SELECT size, note FROM cp WHERE size > max(?1, ?2) AND size <= ?3"
        " ORDER BY ?1 >= 0 AND EXISTS (SELECT 1 FROM cosig WHERE cosig.size = cp.size) DESC,"
        " size DESC LIMIT 1",
        (covering, begins, size(c) if era is None else era.end),
    ).fetchone()
    if row is None:
        return None
    return int(row[0]), bytes(row[1]) + cosignatures(c, row[0])


def cosignatures(c: sqlite3.Connection, size: int) -> bytes:
    """Return the cosignature lines of the checkpoint of a size, counted from 0."""
    lines = c.execute("SELECT line FROM cosig WHERE size = ? ORDER BY rowid", (size,)).fetchall()
    return b"".join(bytes(line) for (line,) in lines)


def proof(c: sqlite3.Connection, index: int) -> bytes | None:
    """Return the proof file of an entry, or None when no checkpoint covers it yet."""
    kept = entry(c, index)
    era = next(era for era in eras(c) if index in era)
    covering = latest_checkpoint(c, era, index)
    if covering is None:
        return None
    at, checkpoint = covering
    place = index - era.base
    path = tuple(inclusion_proof(place, at - era.base, node_reader(c, era.base)))
    return ProofFile(index=place, path=path, checkpoint=checkpoint, extra=kept.data).encode()


def _filtered(
    c: sqlite3.Connection,
    where: str,
    values: Sequence[int],
    order: str,
    limit: int,
    kinds: Iterable[Kind],
) -> list[Kept]:
    wanted = frozenset(kinds)
    # canonical JSON: a kind has one spelling. A ref of that name could look alike, so the parsed
    # kind decides; there are none today, and `limit` may then give fewer
    marks = [f'"kind":"{kind.value}"'.encode() for kind in sorted(wanted)]
    any_mark = " OR ".join(["instr(data, ?)"] * len(marks))
    clause = f" AND ({any_mark})" if marks else ""
    rows = c.execute(
        f"{_SELECT} WHERE {where}{clause} ORDER BY entry.i {order} LIMIT ?",
        (*values, *marks, max(0, limit)),
    )
    found = [_kept(row) for row in rows]
    return [kept for kept in found if not wanted or kept.entry.kind in wanted]


def _first_at(c: sqlite3.Connection, ts: int) -> int:
    """Return the index of the first entry not before `ts` seconds, by halving."""
    low, high = 0, size(c)
    while low < high:
        middle = (low + high) // 2
        if entry(c, middle).entry.ts < ts:
            low = middle + 1
        else:
            high = middle
    return low


def _kept(row: tuple[Any, ...]) -> Kept:
    data = bytes(row[1])
    return Kept(
        index=row[0], data=data, entry=parse_entry(data), study_id=row[2], subject_id=row[3]
    )


def _keys(lines: str) -> tuple[VerifierKey, ...]:
    return tuple(parse_verifier_key(line) for line in lines.splitlines())
