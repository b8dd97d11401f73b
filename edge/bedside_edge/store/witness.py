"""What this box, as a witness, knows of other logs.

Looking at what was seen and writing what is seen now are one transaction of the one writer, so
two requests for one log never both go forward from the same size.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Final

from bedside_core.errors import WrongStateError
from bedside_core.evidence.entry import Kind, as_ref
from bedside_core.evidence.note import VerifierKey, parse_note, parse_verifier_key
from bedside_core.evidence.witness import Seen, Verdict, Why
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.ports.witness import Judge, Refused, Watched
from bedside_edge.store.database import Database

_MOST_REFUSED: Final = 1000  # of one log; each is proof enough, and a cloned box asks every night


class SqliteWitness:
    """`WitnessStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def watch(self, origin: str, keys: Sequence[VerifierKey], actor: str, at: int) -> None:
        """Enrol a log; WrongStateError when it is enrolled with other keys."""
        lines = _lines(keys)

        def add(c: sqlite3.Connection) -> None:
            row = c.execute("SELECT keys FROM watched_logs WHERE origin = ?", (origin,)).fetchone()
            if row is not None:
                if row[0] != lines:
                    raise WrongStateError("the log is enrolled with other keys")
                return
            c.execute(
                "INSERT INTO watched_logs VALUES (?, ?, ?, ?, ?)",
                (origin, lines, _digest(origin), actor, at),
            )
            refs = {"what": "log-enrolled", "log": as_ref(origin)}
            self._record(c, Event(kind=Kind.ADMIN, actor=actor, payload=lines.encode(), refs=refs))

        self._database.write(add)

    def watched(self) -> list[Watched]:
        """Return every enrolled log, by name."""

        def look(c: sqlite3.Connection) -> list[Watched]:
            found = c.execute(
                "SELECT origin, keys, added_by, added_at, size, root"
                " FROM watched_logs LEFT JOIN seen USING (origin) ORDER BY origin"
            )
            return [
                Watched(
                    origin=origin,
                    keys=_keys(keys),
                    added_by=added_by,
                    added_at=added_at,
                    seen=None if size is None else Seen(size=size, root=bytes(root)),
                )
                for origin, keys, added_by, added_at, size, root in found
            ]

        return self._database.read(look)

    def decide(self, judge: Judge, at: int) -> tuple[Verdict, bool]:
        """Judge a request and persist what follows from it, in one transaction."""

        def run(c: sqlite3.Connection) -> tuple[Verdict, bool]:
            verdict = judge(lambda origin: _keys_of(c, origin), lambda origin: _seen_of(c, origin))
            if verdict.why is Why.COSIGNED:
                self._keep(c, verdict)
            return verdict, verdict.suspicious and self._accuse(c, verdict, at)

        return self._database.write(run)

    def last_note(self, origin_digest: str) -> bytes | None:
        """Return the note last cosigned, by the SHA-256 of the origin in lower hex."""

        def look(c: sqlite3.Connection) -> bytes | None:
            row = c.execute(
                "SELECT note FROM seen JOIN watched_logs USING (origin) WHERE digest = ?",
                (origin_digest,),
            ).fetchone()
            return bytes(row[0]) if row else None

        return self._database.read(look)

    def refused(self) -> list[Refused]:
        """Return the checkpoints kept as proof, newest first."""

        def look(c: sqlite3.Connection) -> list[Refused]:
            found = c.execute(
                "SELECT origin, why, size, last, note, at FROM refused_checkpoints"
                " ORDER BY seq DESC"
            )
            return [
                Refused(origin=origin, why=why, size=size, last=last, note=bytes(note), at=when)
                for origin, why, size, last, note, when in found
            ]

        return self._database.read(look)

    def _keep(self, c: sqlite3.Connection, verdict: Verdict) -> None:
        checkpoint = verdict.checkpoint
        assert checkpoint is not None  # noqa: S101  a checkpoint found good is there
        seen = _seen_of(c, checkpoint.origin)
        if seen is not None and seen.size == checkpoint.size:
            return  # the same head again: nothing changes
        row = (checkpoint.size, checkpoint.root, verdict.note, checkpoint.origin)
        statement = (
            "INSERT INTO seen (size, root, note, origin) VALUES (?, ?, ?, ?)"
            if seen is None
            else "UPDATE seen SET size = ?, root = ?, note = ? WHERE origin = ?"
        )
        c.execute(statement, row)
        refs: dict[str, int | str] = {
            "what": "cosigned",
            "log": as_ref(checkpoint.origin),
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
        }
        self._record(c, Event(kind=Kind.ADMIN, actor=BOX, refs=refs))

    def _accuse(self, c: sqlite3.Connection, verdict: Verdict, at: int) -> bool:
        """Keep a refused checkpoint once; return whether it is the first against its log."""
        checkpoint = verdict.checkpoint
        assert checkpoint is not None  # noqa: S101  suspicious only once its signatures are good
        digest = hashlib.sha256(parse_note(verdict.note).text.encode()).digest()
        before = c.execute(
            "SELECT count(*), coalesce(max(digest = ?), 0) FROM refused_checkpoints"
            " WHERE origin = ?",
            (digest, checkpoint.origin),
        ).fetchone()
        if before[1] or before[0] >= _MOST_REFUSED:
            return False
        c.execute(
            "INSERT INTO refused_checkpoints (origin, why, size, last, digest, note, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                checkpoint.origin,
                verdict.why,
                checkpoint.size,
                verdict.last,
                digest,
                verdict.note,
                at,
            ),
        )
        refs: dict[str, int | str] = {
            "code": "witness-refused",
            "why": str(verdict.why),
            "log": as_ref(checkpoint.origin),
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "last": verdict.last,
        }
        self._record(c, Event(kind=Kind.ALARM, actor=BOX, payload=verdict.note, refs=refs))
        return bool(before[0] == 0)


def _digest(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()


def _lines(keys: Sequence[VerifierKey]) -> str:
    return "\n".join(sorted({key.text for key in keys}))


def _keys(lines: str) -> tuple[VerifierKey, ...]:
    return tuple(parse_verifier_key(line) for line in lines.splitlines())


def _keys_of(c: sqlite3.Connection, origin: str) -> tuple[VerifierKey, ...]:
    row = c.execute("SELECT keys FROM watched_logs WHERE origin = ?", (origin,)).fetchone()
    return _keys(row[0]) if row else ()


def _seen_of(c: sqlite3.Connection, origin: str) -> Seen | None:
    row = c.execute("SELECT size, root FROM seen WHERE origin = ?", (origin,)).fetchone()
    return Seen(size=row[0], root=bytes(row[1])) if row else None
