"""What the log of this box keeps about its witnesses, the gap one of them showed, and the way on.

Sizes are those of the log under its name in force. A gap and its entry are one transaction, and so
are the new name, its first entry and the first checkpoint under it.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from bedside_core.errors import EvidenceGapError, WrongStateError
from bedside_core.evidence.checkpoint import parse_checkpoint_text
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.merkle import Frontier
from bedside_core.evidence.note import VerifierKey, parse_note
from bedside_edge.ports.evidence import BOX, Event
from bedside_edge.ports.witness import Gap, Standing
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.database import Database
from bedside_edge.store.evidence import SqliteEvidence
from bedside_edge.store.evidence_open import next_name

# Kinds that witnesses see at once and not only by night
STIRRING: Final = (Kind.INCIDENT, Kind.SEAL, Kind.UNSEAL, Kind.POLICY, Kind.UPDATE_STEP)


class SqliteWitnessed:
    """`WitnessedLog` over the database and the log in it."""

    def __init__(self, database: Database, log: SqliteEvidence) -> None:
        self._database, self._log = database, log

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._log.origin

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public halves of its keys."""
        return self._log.keys

    @property
    def locked(self) -> bool:
        """Whether a gap was found and the log does not go on under a new name yet."""
        return self._log.locked

    def outgoing_checkpoint(self) -> bytes:
        """Pad the log to its public schedule and return a new checkpoint; EvidenceGapError."""
        return self._log.outgoing_checkpoint()

    def last_outgoing(self) -> tuple[int, bytes] | None:
        """Return size and note of the checkpoint that went out last; None before any."""
        base = self._log.base

        def look(c: sqlite3.Connection) -> tuple[int, bytes] | None:
            row = c.execute(
                "SELECT size, note FROM cp_out JOIN cp USING (size) WHERE size > ?"
                " ORDER BY size DESC LIMIT 1",
                (base or -1,),
            ).fetchone()
            return (row[0] - base, bytes(row[1])) if row else None

        return self._database.read(look)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the hashes that show that the log at `new` begins with the log at `old`."""
        return self._log.consistency(old, new)

    def root_at(self, size: int) -> bytes | None:
        """Return the root the log had at a size; None when it never was that large."""
        base = self._log.base

        def look(c: sqlite3.Connection) -> bytes | None:
            if size > rows.size(c) - base:
                return None
            return Frontier.resume(size, rows.node_reader(c, base)).root()

        return self._database.read(look)

    def size(self) -> int:
        """Return the size of the log under its name in force."""
        return self._log.size() - self._log.base

    def cosigned(self, size: int, lines: Sequence[bytes]) -> None:
        """Keep cosignature lines for the checkpoint of `size`."""
        self._log.cosigned(size, lines)

    def cosigners(self, size: int) -> list[tuple[str, bytes]]:
        """Return name and key id of every cosignature kept for a size."""
        at = self._log.base + size

        def look(c: sqlite3.Connection) -> list[tuple[str, bytes]]:
            found = c.execute("SELECT name, keyid FROM cosig WHERE size = ? ORDER BY rowid", (at,))
            return [(name, bytes(key_id)) for name, key_id in found]

        return self._database.read(look)

    def cosignatures(self, size: int) -> bytes:
        """Return the cosignature lines kept for a size."""
        at = self._log.base + size
        return self._database.read(lambda c: rows.cosignatures(c, at))

    def stirred_since(self, size: int) -> bool:
        """Whether something was logged from `size` on that witnesses see before the night."""
        return self._since(size, STIRRING)

    def charged_since(self, size: int) -> bool:
        """Whether the privacy ledger charged anything from `size` on."""
        return self._since(size, (Kind.RELEASE,))

    def _since(self, size: int, kinds: Sequence[Kind]) -> bool:
        found = self._log.newest(limit=1, kinds=kinds)
        return bool(found) and found[0].index >= self._log.base + size

    # --- the gap -----------------------------------------------------------------------------

    def gap(self) -> Gap | None:
        """Return the gap that locks this log."""
        return self._database.read(_open_gap)

    def lock(self, gap: Gap) -> None:
        """Stop signing; durable with its entry when it returns. A locked log stays as it is."""

        def keep(c: sqlite3.Connection) -> None:
            if _open_gap(c) is not None:
                return
            c.execute(
                "INSERT INTO gaps (base, found_at, witness, size, root, note)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (self._log.base, gap.found_at, gap.witness, gap.size, gap.root, gap.note),
            )
            self._log.record(c, _found(gap))

        self._database.write(keep)
        self._log.found_gap()

    def gap_told(self, incident: str) -> None:
        """Keep the id of the incident that was opened for the gap."""
        self._database.write(
            lambda c: c.execute("UPDATE gaps SET incident = ? WHERE continued_at = 0", (incident,))
        )

    # --- standings ---------------------------------------------------------------------------

    def standings(self) -> dict[str, Standing]:
        """Return how the log stands with each witness that was ever asked."""

        def look(c: sqlite3.Connection) -> dict[str, Standing]:
            found = c.execute(
                "SELECT name, size, cosigned_at, tried_at, failures, said FROM witness_standings"
            )
            return {row[0]: _standing(row) for row in found}

        return self._database.read(look)

    def stands(self, standing: Standing) -> None:
        """Keep how the log stands with a witness."""
        row = (
            standing.name,
            standing.size,
            standing.cosigned_at,
            standing.tried_at,
            standing.failures,
            standing.said,
        )
        self._database.write(
            lambda c: c.execute(
                "INSERT OR REPLACE INTO witness_standings VALUES (?, ?, ?, ?, ?, ?)", row
            )
        )

    def tell(self, event: Event) -> None:
        """Append an entry; durable when it returns."""
        self._log.append(event)


def go_on(
    c: sqlite3.Connection,
    old: SqliteEvidence,
    new: SqliteEvidence,
    *,
    actors: Sequence[str],
    reason: str,
    at: int,
) -> int:
    """Let a locked log go on under a new name; return the index of its first entry.

    Args:
        c: the writing connection, inside a transaction.
        old: the log as it was opened; it must not be used afterwards.
        new: the same log under `next_name`, from the present size on.
        actors: who decided it, one or two ids.
        reason: in their words.
        at: ms.

    Raises:
        WrongStateError: the log is not locked, or `new` is not its continuation.
    """
    gap, size = _open_gap(c), rows.size(c)
    if gap is None:
        raise WrongStateError("the log has no gap: it goes on as it is")
    if new.base != size or new.origin != next_name(old.origin):
        raise WrongStateError("this is not how the log goes on")
    root = Frontier.resume(size - old.base, rows.node_reader(c, old.base)).root()
    c.execute(
        "INSERT INTO past_logs VALUES (?, ?, ?, ?)",
        (old.base, size, old.origin, _lines(old.keys)),
    )
    c.execute("UPDATE gaps SET continued_at = ? WHERE continued_at = 0", (at,))
    c.execute("DELETE FROM witness_standings")
    for name, value in ((rows.ORIGIN, new.origin), (rows.KEYS, _lines(new.keys))):
        c.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value.encode()))
    refs: dict[str, int | str] = {
        "size": size - old.base,
        "root": root.hex(),
        "witnessed_size": gap.witnessed.size,
        "witnessed_root": gap.witnessed.root.hex(),
    }
    if len(actors) > 1:
        refs["second"] = actors[1]
    payload = reason.encode()
    return new.begin(c, Event(kind=Kind.GAP, actor=actors[0], payload=payload, refs=refs))


def _open_gap(c: sqlite3.Connection) -> Gap | None:
    row = c.execute(
        "SELECT found_at, witness, size, root, note, incident FROM gaps WHERE continued_at = 0"
    ).fetchone()
    if row is None:
        return None
    note = bytes(row[4])
    return Gap(
        found_at=row[0],
        witness=row[1],
        size=row[2],
        root=bytes(row[3]),
        witnessed=parse_checkpoint_text(parse_note(note).text),
        note=note,
        incident=row[5],
    )


def _standing(row: tuple[Any, ...]) -> Standing:
    return Standing(
        name=row[0],
        size=row[1],
        cosigned_at=row[2],
        tried_at=row[3],
        failures=row[4],
        said=row[5],
    )


def _lines(keys: Sequence[VerifierKey]) -> str:
    return "\n".join(key.text for key in keys)


def _found(gap: Gap) -> Event:
    return Event(
        kind=Kind.ALARM,
        actor=BOX,
        payload=gap.note,
        refs={
            "code": EvidenceGapError.code,
            "size": gap.size,
            "root": gap.root.hex(),
            "witnessed_size": gap.witnessed.size,
            "witnessed_root": gap.witnessed.root.hex(),
        },
    )
