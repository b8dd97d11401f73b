"""Erasures in SQLite; the order of steps is the service's (services/erasure.py)."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from bedside_core.erasure import Destroyed, refs_of, rows
from bedside_core.errors import LegalHoldError, NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.erasure import (
    Elsewhere,
    Erasure,
    ErasurePlan,
    ErasureScope,
    ErasureState,
)
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.slots import KeySlots
from bedside_edge.store import erasable
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.reslot import keep_mark, mark_of
from bedside_edge.store.rules import new_id

Forget = Callable[[sqlite3.Connection, str, str], object]
"""Destroy what the log keeps outside itself about (study id, subject id), one of them empty."""

_QUICK_BYTES: Final = 256 << 20  # writers wait two or three seconds at most
_SELECT: Final = """
  SELECT erasure_id, scope, target, state, reason, actor, at, done_at, studies, slots, objects,
         elsewhere, entry FROM erasures """
_COUNTS: Final = """
  WITH wanted (id) AS (SELECT value FROM json_each(?1)),
       files (size) AS (SELECT size FROM instances WHERE study_id IN wanted
                        UNION ALL SELECT size FROM outputs WHERE study_id IN wanted)
  SELECT (SELECT count(*) FROM files), (SELECT coalesce(sum(size), 0) FROM files),
         (SELECT count(*) FROM results WHERE study_id IN wanted),
         (SELECT count(*) FROM jobs WHERE study_id IN wanted
          AND state IN ('collecting', 'ready', 'running')),
         (SELECT count(*) FROM deliveries WHERE study_id IN wanted AND state = 'waiting')"""
_FILES: Final = """
  SELECT object_name FROM instances WHERE study_id IN (SELECT value FROM json_each(?1))
  UNION ALL SELECT object_name FROM outputs WHERE study_id IN (SELECT value FROM json_each(?1))"""
_SENT: Final = """
  SELECT d.destination, d.state = 'delivered', o.study_id, o.output_id, o.header
  FROM deliveries AS d JOIN outputs AS o USING (output_id)
  WHERE o.study_id IN (SELECT value FROM json_each(?1)) AND d.attempts > 0
  ORDER BY d.destination, d.seq"""
_SLOTS: Final = "SELECT slot FROM studies WHERE study_id IN (SELECT value FROM json_each(?1))"
_HELD: Final = """
  SELECT DISTINCT study_id FROM holds
  WHERE study_id IN (SELECT value FROM json_each(?1)) AND released_at = 0"""
_THERE: Final = """
  SELECT study_id FROM studies WHERE study_id IN (SELECT value FROM json_each(?1)) ORDER BY 1"""
_ALONE: Final = """
  SELECT subject_id FROM subjects AS p WHERE p.identified = 0
  AND p.subject_id IN (SELECT subject_id FROM studies
                       WHERE study_id IN (SELECT value FROM json_each(?1)))
  AND NOT EXISTS (SELECT 1 FROM studies AS s WHERE s.subject_id = p.subject_id
                  AND s.study_id NOT IN (SELECT value FROM json_each(?1)))"""
_STOP_JOBS: Final = """
  UPDATE jobs SET state = 'cancelled', lease = '', updated = ?2
  WHERE study_id = ?1 AND state IN ('collecting', 'ready', 'running')"""
_STOP_DELIVERIES: Final = """
  UPDATE deliveries SET state = 'withdrawn', updated = ?2
  WHERE study_id = ?1 AND state = 'waiting'"""
_STOP_PUBLICATIONS: Final = """
  UPDATE publications SET state = 'dead', reason = 'erased' WHERE state = 'waiting'
  AND result_id IN (SELECT result_id FROM results WHERE study_id = ?)"""


class SqliteErasures:
    """`ErasureStore` over the database."""

    def __init__(
        self,
        database: Database,
        slots: KeySlots,
        key_of: KeyOf,
        random: RandomBytes,
        *,
        record: Record,
        forget: Forget,
        drop_keys: Callable[[Sequence[str], str], None],
    ) -> None:
        """Open erasures over a database.

        Args:
            database: where they and everything else stand.
            slots: where the keys lie.
            key_of: a study's data key inside a transaction.
            random: where ids come from.
            record: appends to the evidence log inside a transaction.
            forget: see `Forget`.
            drop_keys: drops the unwrapped keys of (studies, subject or empty) from memory.
        """
        self._database, self._slots, self._key_of = database, slots, key_of
        self._random, self._record = random, record
        self._forget, self._drop_keys = forget, drop_keys

    # --- before ----------------------------------------------------------------------------------

    def plan(self, scope: ErasureScope, target: str, studies: Sequence[str] = ()) -> ErasurePlan:
        """Say what an erasure would destroy; NotFoundError."""

        def look(c: sqlite3.Connection) -> ErasurePlan:
            named = _studies(c, scope, target, studies)
            wanted = (json.dumps(named),)
            objects, size, results, jobs, deliveries = c.execute(_COUNTS, wanted).fetchone()
            return ErasurePlan(
                scope=scope,
                target=target,
                studies=tuple(named),
                objects=objects,
                size=size,
                results=results,
                open_jobs=jobs,
                open_deliveries=deliveries,
                elsewhere=self._sent(c, named),
                held=tuple(study for (study,) in c.execute(_HELD, wanted)),
            )

        return self._database.read(look)

    def intend(
        self, plan: ErasurePlan, *, reason: str, actor: str, at: int, despite_holds: bool = False
    ) -> Erasure:
        """Begin: cut the studies off from what arrives, cancel their jobs and deliveries."""
        refs_of((), studies=0, reason=reason)  # a reason nobody knows is refused before anything
        subject = plan.target if plan.scope is ErasureScope.SUBJECT else ""

        def begin(c: sqlite3.Connection) -> str:
            named = _studies(c, plan.scope, plan.target, plan.studies)
            wanted = (json.dumps(named),)
            # one erasure, one entry: whoever comes second finds the study cut off
            if any(erasable.is_cut_off(c, study_id) for study_id in named):
                raise WrongStateError("an erasure of it is under way")
            if not set(named) <= set(plan.studies):
                raise WrongStateError("another study came meanwhile; nobody was asked about it")
            if not despite_holds and c.execute(_HELD, wanted).fetchone():
                raise LegalHoldError("a study is under legal hold; release it first")
            if plan.scope is ErasureScope.RETENTION and reason == "retention":
                _refuse_changed(c, plan, wanted)
            slots = [slot for (slot,) in c.execute(_SLOTS, wanted)]
            alone = _alone(c, named) if not subject else [subject]
            for name in alone:
                slots += c.execute(
                    "SELECT slot FROM subjects WHERE subject_id = ?", (name,)
                ).fetchone()
                c.execute(
                    "UPDATE subjects SET lookup = 'erased ' || subject_id WHERE subject_id = ?",
                    (name,),
                )
            sent = [[e.destination, e.count, e.arrived] for e in self._sent(c, named)]
            for study_id in named:
                erasable.cut_off(c, study_id)
                c.execute(_STOP_JOBS, (study_id, at))
                c.execute(_STOP_DELIVERIES, (study_id, at))
                c.execute(_STOP_PUBLICATIONS, (study_id,))
            erasure_id = new_id(self._random)
            c.execute(
                "INSERT INTO erasures (erasure_id, scope, target, state, reason, actor, at,"
                " studies, slots, elsewhere) VALUES (?, ?, ?, 'intended', ?, ?, ?, ?, ?, ?)",
                (
                    erasure_id,
                    plan.scope,
                    plan.target,
                    reason,
                    actor,
                    at,
                    json.dumps(named),
                    json.dumps(sorted(slots)),
                    json.dumps(sent),
                ),
            )
            return erasure_id

        begun = self.erasure(self._database.write(begin))
        self._drop_keys(begun.studies, subject)
        return begun

    def files(self, erasure_id: str) -> list[str]:
        """Return the names of the files of an erasure whose rows are still there."""

        def look(c: sqlite3.Connection) -> list[str]:
            wanted = (json.dumps(_one(c, erasure_id).studies),)
            return sorted(name for (name,) in c.execute(_FILES, wanted))

        return self._database.read(look)

    # --- the point of no return ------------------------------------------------------------------

    def remove(self, erasure_id: str, objects: Sequence[Destroyed], at: int) -> Erasure:
        """Delete every row of the studies and write the log's entry, in one transaction."""
        mark = self._slots.mark()

        def delete(c: sqlite3.Connection) -> None:
            erasure = _one(c, erasure_id)
            if erasure.state is not ErasureState.INTENDED:
                return
            alone = _alone(c, erasure.studies)
            for study_id in erasure.studies:
                self._forget(c, study_id, "")
                erasable.delete_study(c, study_id)
            gone = [erasure.target] if erasure.scope is ErasureScope.SUBJECT else alone
            for subject_id in gone:
                self._forget(c, "", subject_id)
                erasable.delete_subject(c, subject_id)
            refs = refs_of(objects, studies=len(erasure.studies), reason=erasure.reason)
            entry = self._record(c, Event(kind=Kind.ERASURE, actor=erasure.actor, refs=refs))
            c.execute(
                "UPDATE erasures SET state = 'removed', objects = ?, entry = ?"
                " WHERE erasure_id = ?",
                (json.dumps(rows(objects)), entry, erasure_id),
            )
            keep_mark(c, mark)

        self._database.write(delete)
        return self.erasure(erasure_id)

    def scrub(self) -> bool:
        """Leave nothing of deleted rows in the database's files; False: a reader is in the way."""
        return self._database.scrub()

    def compact(self, *, always: bool = False) -> bool:
        """Write the database anew if that is quick, or always; see `Database.compact`."""
        if not always and self._database.size() > _QUICK_BYTES:
            return False
        return self._database.compact()

    def end(self, erasure_id: str, at: int) -> Erasure:
        """Everything is gone."""
        self._database.write(
            lambda c: c.execute(
                "UPDATE erasures SET state = 'done', done_at = ? WHERE erasure_id = ?"
                " AND state = 'removed'",
                (at, erasure_id),
            )
        )
        return self.erasure(erasure_id)

    # --- afterwards, and after a restore ---------------------------------------------------------

    def unfinished(self) -> list[Erasure]:
        """Return erasures that are not done, oldest first."""
        return self._list("WHERE state <> 'done' ORDER BY seq", ())

    def erasure(self, erasure_id: str) -> Erasure:
        """Return one erasure; NotFoundError."""
        return self._database.read(lambda c: _one(c, erasure_id))

    def erasures(self, *, target: str = "", limit: int = 100) -> list[Erasure]:
        """Return erasures, newest first."""
        where = "WHERE ?1 = '' OR target = ?1 ORDER BY seq DESC LIMIT ?2"
        return self._list(where, (target, max(0, limit)))

    def out_of_step(self) -> bool:
        """Tell whether database and key slots were not written by the same past (a restore)."""
        return self._database.read(mark_of) != self._slots.mark()

    def destroyed_slots(self) -> list[int]:
        """Return the slots the database knows to be destroyed."""
        known = self._list("WHERE state <> 'intended'", ())
        return sorted({slot for erasure in known for slot in erasure.slots})

    def without_key(self) -> tuple[list[str], list[str]]:
        """Return studies and subjects whose slot is destroyed while their rows are here."""

        def look(c: sqlite3.Connection) -> tuple[list[str], list[str]]:
            gone = self._slots.is_destroyed
            studies = c.execute("SELECT study_id, slot FROM studies ORDER BY created, study_id")
            subjects = c.execute("SELECT subject_id, slot FROM subjects ORDER BY created")
            return [n for n, slot in studies if gone(slot)], [n for n, s in subjects if gone(s)]

        return self._database.read(look)

    def in_step(self) -> None:
        """Note that database and key slots agree."""
        mark = self._slots.mark()
        self._database.write(lambda c: keep_mark(c, mark))

    # --- inside ----------------------------------------------------------------------------------

    def _list(self, where: str, values: tuple[Any, ...]) -> list[Erasure]:
        found = self._database.read(lambda c: c.execute(_SELECT + where, values).fetchall())
        return [_erasure(row) for row in found]

    def _sent(self, c: sqlite3.Connection, studies: Sequence[str]) -> tuple[Elsewhere, ...]:
        """Return what went to archives; UIDs where the key still opens them."""
        sent: dict[tuple[str, bool], list[str]] = {}
        for destination, arrived, study_id, output_id, header in c.execute(
            _SENT, (json.dumps(list(studies)),)
        ).fetchall():
            try:
                plain = self._key_of(c, study_id).open(header, f"output {output_id}")
                uid = str(json.loads(plain)["instance"])
            except NotFoundError:
                uid = ""
            sent.setdefault((destination, bool(arrived)), []).append(uid)
        return tuple(
            Elsewhere(
                destination=destination,
                arrived=arrived,
                count=len(uids),
                objects=tuple(uid for uid in uids if uid),
            )
            for (destination, arrived), uids in sent.items()
        )


def _studies(
    c: sqlite3.Connection, scope: ErasureScope, target: str, studies: Sequence[str]
) -> list[str]:
    """Return the studies of a target that exist; NotFoundError when the target does not."""
    if scope is ErasureScope.SUBJECT:
        if not c.execute("SELECT 1 FROM subjects WHERE subject_id = ?", (target,)).fetchone():
            raise NotFoundError("no patient of that id")
        query, values = "SELECT study_id FROM studies WHERE subject_id = ? ORDER BY 1", target
        return [study for (study,) in c.execute(query, (values,))]
    wanted = [target] if scope is ErasureScope.STUDY else sorted(set(studies))
    found = [study for (study,) in c.execute(_THERE, (json.dumps(wanted),))]
    if found != wanted:
        raise NotFoundError("no study of that id")
    return found


def _refuse_changed(c: sqlite3.Connection, plan: ErasurePlan, wanted: tuple[str]) -> None:
    """Refuse a batch that got an image, a job or a delivery since somebody looked."""
    objects, size, results, jobs, deliveries = c.execute(_COUNTS, wanted).fetchone()
    planned = (plan.objects, plan.size, plan.results, 0, 0)
    if (objects, size, results, jobs, deliveries) != planned:
        raise WrongStateError("a study changed meanwhile")


def _alone(c: sqlite3.Connection, studies: Sequence[str]) -> list[str]:
    """Return patients without a patient id who are nothing but one of these studies."""
    return [subject for (subject,) in c.execute(_ALONE, (json.dumps(list(studies)),))]


def _one(c: sqlite3.Connection, erasure_id: str) -> Erasure:
    row = c.execute(_SELECT + "WHERE erasure_id = ?", (erasure_id,)).fetchone()
    if row is None:
        raise NotFoundError("no erasure of that id")
    return _erasure(row)


def _erasure(row: tuple[Any, ...]) -> Erasure:
    objects = [
        Destroyed(name=n, sha256=digest, size=size) for n, digest, size in json.loads(row[10])
    ]
    sent = [
        Elsewhere(destination=name, count=count, arrived=arrived)
        for name, count, arrived in json.loads(row[11])
    ]
    return Erasure(
        erasure_id=row[0],
        scope=ErasureScope(row[1]),
        target=row[2],
        state=ErasureState(row[3]),
        reason=row[4],
        actor=row[5],
        at=row[6],
        done_at=row[7],
        studies=tuple(json.loads(row[8])),
        slots=tuple(json.loads(row[9])),
        objects=tuple(objects),
        elsewhere=tuple(sent),
        entry=row[12],
    )
