"""What is flashed, in SQLite: a pair, its step and its evidence are one transaction."""

import hashlib
import sqlite3
from typing import Final

from bedside_core.errors import DamagedObjectError, InvalidInputError, NotFoundError
from bedside_core.errors import StaleRevisionError as Stale
from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_core.slots import Pair, Slot, SlotState, fresh
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.flashing import Step
from bedside_edge.store.database import Database
from bedside_sync.distribution.manifest import read_manifest

_SLOT: Final = "name, state, digest, release_counter, min_counter, tries, deadline, reason"
_STEP: Final = "kind, name, what, digest, release_counter, reason, actor, at, body, entry"
# Steps between two that matter would only fill the log: what was staged and never tried is nothing
_QUIET: Final = frozenset({"staged", "verified"})
_ACCEPTED: Final = frozenset({"good"})


class SqliteFlashing:
    """`FlashStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def pairs(self) -> list[Pair]:
        """Return every pair there is, by kind."""

        def read(c: sqlite3.Connection) -> list[Pair]:
            kinds = [kind for (kind,) in c.execute("SELECT kind FROM flash_pairs ORDER BY kind")]
            return [_pair(c, kind) for kind in kinds]

        return self._database.read(read)

    def pair(self, kind: str) -> Pair:
        """Return the pair of a kind; a fresh one when nothing was ever flashed of it."""
        return self._database.read(lambda c: _pair(c, kind))

    def manifest(self, kind: str, slot: str) -> bytes:
        """Return the manifest of what is in a slot; NotFoundError when it is empty."""
        query = "SELECT manifest FROM flash_slots WHERE kind = ? AND name = ? AND state <> 'empty'"
        row = self._database.read(lambda c: c.execute(query, (kind, slot)).fetchone())
        if row is None:
            raise NotFoundError("there is nothing in this slot")
        return bytes(row[0])

    def version(self, kind: str, slot: str) -> str:
        """Return the version of what is in a slot; NotFoundError when it is empty."""
        return read_manifest(self.manifest(kind, slot)).version

    def save(self, before: Pair, after: Pair, step: Step, manifest: bytes | None = None) -> int:
        """Replace a pair, with its step and its evidence; StaleRevisionError changes nothing."""

        def write(c: sqlite3.Connection) -> int:
            _replace(c, before, after)
            if manifest is not None:
                changed = c.execute(
                    "UPDATE flash_slots SET manifest = ? WHERE kind = ? AND name = ?",
                    (manifest, step.kind, step.slot),
                ).rowcount
                if changed != 1:
                    raise InvalidInputError("a manifest belongs to the slot that changes")
            entry = -1 if step.what in _QUIET else self._record(c, _event(step))
            _note(c, step, entry)
            return entry

        return self._database.write(write)

    def charge(self, before: Pair, after: Pair) -> None:
        """Replace a pair that only lost a try; durable when it returns. StaleRevisionError."""
        self._database.write(lambda c: _replace(c, before, after))

    def unapplied(self) -> list[str]:
        """Return the kinds whose serving slot the box does not act on yet."""
        query = "SELECT kind FROM flash_pairs WHERE applied = 0 ORDER BY kind"
        return self._database.read(lambda c: [kind for (kind,) in c.execute(query)])

    def applied(self, kind: str, serving: Pair) -> None:
        """The box acts on what this pair serves; nothing when it has changed since."""
        query = "UPDATE flash_pairs SET applied = 1 WHERE kind = ? AND active = ?"
        self._database.write(lambda c: c.execute(query, (kind, serving.active)) and None)

    def steps(self, *, kind: str = "", limit: int = 100) -> list[Step]:
        """Return what was flashed, newest first."""
        query = f"SELECT {_STEP} FROM flash_steps WHERE ?1 IN ('', kind) ORDER BY seq DESC LIMIT ?2"  # noqa: S608  columns
        rows = self._database.read(lambda c: c.execute(query, (kind, limit)).fetchall())
        return [_step(row) for row in rows]

    def tell(self) -> int:
        """Write evidence of what the launcher did; returns how many entries."""

        def write(c: sqlite3.Connection) -> int:
            found = c.execute(
                f"SELECT seq, {_STEP} FROM flash_steps WHERE entry IS NULL ORDER BY seq"  # noqa: S608  columns
            ).fetchall()
            for seq, *row in found:
                entry = self._record(c, _event(_step(tuple(row))))
                c.execute("UPDATE flash_steps SET entry = ? WHERE seq = ?", (entry, seq))
            return len(found)

        return self._database.write(write)


def _pair(c: sqlite3.Connection, kind: str) -> Pair:
    row = c.execute(
        "SELECT active, floor, lowest FROM flash_pairs WHERE kind = ?", (kind,)
    ).fetchone()
    if row is None:
        return fresh(kind)
    query = f"SELECT {_SLOT} FROM flash_slots WHERE kind = ?"  # noqa: S608  columns
    slots = {found[0]: _slot(found) for found in c.execute(query, (kind,))}
    try:
        return Pair(
            kind=kind,
            a=slots["a"],
            b=slots["b"],
            active=row[0],
            floor=row[1],
            lowest=row[2],
        )
    except (KeyError, InvalidInputError) as cause:
        raise DamagedObjectError("a stored pair of slots cannot be") from cause


def _slot(row: tuple[str, str, str, int, int, int, int, str]) -> Slot:
    name, state, digest, counter, least, tries, deadline, reason = row
    return Slot(
        name=name,
        state=SlotState(state),
        digest=digest,
        release_counter=counter,
        min_counter=least,
        tries=tries,
        deadline=deadline,
        reason=reason,
    )


def _replace(c: sqlite3.Connection, before: Pair, after: Pair) -> None:
    if before.kind != after.kind or _pair(c, before.kind) != before:
        raise Stale("what is flashed was changed meanwhile")
    if before == after:  # a step that changed nothing: a refusal
        return
    kind = after.kind
    c.execute("INSERT OR IGNORE INTO flash_pairs (kind) VALUES (?)", (kind,))
    for old, new in ((before.a, after.a), (before.b, after.b)):
        c.execute("INSERT OR IGNORE INTO flash_slots (kind, name) VALUES (?, ?)", (kind, new.name))
        if old != new:
            c.execute(
                """UPDATE flash_slots SET state = ?3, digest = ?4, release_counter = ?5,
                     min_counter = ?6, tries = ?7, deadline = ?8, reason = ?9
                   WHERE kind = ?1 AND name = ?2""",
                (
                    *(kind, new.name, new.state.value, new.digest, new.release_counter),
                    *(new.min_counter, new.tries, new.deadline, new.reason),
                ),
            )
            if new.state is SlotState.EMPTY:
                c.execute(
                    "UPDATE flash_slots SET manifest = x'' WHERE kind = ? AND name = ?",
                    (kind, new.name),
                )
    moved = before.active != after.active
    c.execute(
        """UPDATE flash_pairs SET active = ?2, floor = ?3, lowest = ?4,
             applied = CASE WHEN ?5 THEN 0 ELSE applied END WHERE kind = ?1""",
        (kind, after.active, after.floor, after.lowest, moved),
    )


def _note(c: sqlite3.Connection, step: Step, entry: int) -> None:
    values = (step.kind, step.slot, step.what, step.digest, step.release_counter, step.reason)
    c.execute(
        f"INSERT INTO flash_steps ({_STEP}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  columns
        (*values, step.actor, step.at, step.body, entry),
    )


def _step(row: tuple[str, str, str, str, int, str, str, int, bytes | None, int | None]) -> Step:
    kind, name, what, digest, counter, reason, actor, at, body, entry = row
    return Step(
        kind=kind,
        slot=name,
        what=what,
        digest=digest,
        release_counter=counter,
        reason=reason,
        actor=actor,
        at=at,
        body=body,
        entry=-1 if entry is None else entry,
    )


def _event(step: Step) -> Event:
    refs: dict[str, int | str] = {
        "what": as_ref(step.what),
        "slot": as_ref(f"{step.kind}/{step.slot}"),
        "counter": step.release_counter,
    }
    if step.digest:
        refs["package"] = step.digest
    if step.reason:
        refs["code"] = as_ref(step.reason)
    if step.body is not None:
        refs["record"] = hashlib.sha256(step.body).hexdigest()
    return Event(
        kind=Kind.ACCEPTANCE if step.what in _ACCEPTED else Kind.UPDATE_STEP,
        actor=as_actor(step.actor),
        payload=step.body,
        refs=refs,
    )
