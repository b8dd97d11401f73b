"""Objects made and their deliveries in SQLite: an outbox that no kill can empty or fill twice.

Laws:
- A result stored while destinations are configured has a publication; it ends `done` or `dead`.
- An object and its deliveries are rows of one transaction.
- Objects of one study reach a destination in the order they were made; a dead letter lets the
  later ones pass.
- An attempt is counted before it is made: what was never attempted can be withdrawn, and what was
  attempted may have arrived.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bedside_core.errors import DamagedObjectError, NotFoundError, WrongStateError
from bedside_edge.ports import KeyStore, RandomBytes
from bedside_edge.ports.evidence import BOX, Record
from bedside_edge.services.outputs import (
    Delivery,
    DeliveryState,
    Kind,
    NewOutput,
    Occasion,
    Output,
    Pending,
    Routes,
    SendRules,
)
from bedside_edge.store import told
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.rules import new_id
from bedside_edge.store.sealing import Box

_NONCE: Final = 12
_SELECT: Final = """
  SELECT d.delivery_id, d.output_id, o.result_id, d.study_id, o.kind, o.occasion, d.destination,
         d.state, d.attempts, d.refusals, d.created, d.updated, d.due, d.since, d.reason
  FROM deliveries AS d JOIN outputs AS o USING (output_id) """
_LONGEST_WAIT_MS: Final = max(SendRules().refusal_waits_ms)
_SHORT_WAIT_MS: Final = 60_000
# Due now, or due later than anything is made to wait: that was dated by a clock that has been set
# back since, and would wait as long as that clock was ahead
_IS_DUE: Final = f"""(
  {{row}}.due <= ?2 OR {{row}}.due > ?2 +
  CASE {{row}}.refusals WHEN 0 THEN {_SHORT_WAIT_MS} ELSE {_LONGEST_WAIT_MS} END)"""
# waiting objects that no earlier one of their study holds up
_OPEN: Final = "EXISTS (SELECT 1 FROM box_open)"  # the box is not sealed
_FREE: Final = f"""
  {_OPEN} AND d.destination = ?1 AND d.state = 'waiting'
  AND NOT EXISTS (SELECT 1 FROM deliveries AS e
                  WHERE e.study_id = d.study_id AND e.destination = d.destination
                  AND e.seq < d.seq AND e.state = 'waiting'
                  AND NOT {_IS_DUE.format(row="e")})"""  # noqa: S608  constants
_DUE: Final = f"{_SELECT} WHERE {_FREE} AND {_IS_DUE.format(row='d')} ORDER BY d.seq LIMIT ?3"
_FILTER: Final = """(?1 = '[]' OR d.state IN (SELECT value FROM json_each(?1)))
  AND (?2 = '' OR d.destination = ?2) AND (?3 = '' OR d.study_id = ?3)
  AND (?4 = '' OR o.result_id = ?4)
  ORDER BY d.seq DESC LIMIT ?5"""
_LIST: Final = f"{_SELECT} WHERE {_FILTER}"
_OUTPUT: Final = """
  SELECT output_id, result_id, study_id, kind, occasion, object_name, object_key, header, size,
         created
  FROM outputs """
# the first moment at which neither an object nor an earlier one of its study backs off
_NEXT_DUE: Final = """
  SELECT min(max(d.due, coalesce((
    SELECT max(e.due) FROM deliveries AS e
    WHERE e.study_id = d.study_id AND e.destination = d.destination
    AND e.seq < d.seq AND e.state = 'waiting'), 0)))
  FROM deliveries AS d WHERE d.destination = ? AND d.state = 'waiting'
  AND EXISTS (SELECT 1 FROM box_open)"""
_WITHDRAW: Final = """
  UPDATE deliveries SET state = 'withdrawn', updated = ?1
  WHERE state = 'waiting' AND attempts = 0
  AND output_id IN (SELECT output_id FROM outputs WHERE result_id = ?2)"""
_WENT: Final = """
  SELECT DISTINCT d.destination FROM deliveries AS d JOIN outputs AS o USING (output_id)
  WHERE o.result_id = ? AND d.state <> 'withdrawn'"""
_KIND: Final = "SELECT kind FROM outputs WHERE output_id = ?"
# an image of the study that came in again, later, under another patient or study
_ELSEWHERE: Final = """
  SELECT 1 FROM instances AS mine JOIN instances AS other
  ON other.uid_hash = mine.uid_hash AND other.study_id <> mine.study_id AND other.seq > mine.seq
  WHERE mine.study_id = ? LIMIT 1"""


class SqliteOutputs:
    """`OutputStore` over the database; `key_of` gives a study's data key in a transaction."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        random: RandomBytes,
        record: Record,
    ) -> None:
        self._record = record
        self._database, self._keys = database, keys
        self._key_of, self._random = key_of, random

    # --- publications --------------------------------------------------------------------------

    def publish_results(self, *, wanted: bool) -> None:
        """Say whether results stored from now on are to be published."""
        value = b"1" if wanted else b"0"
        self._database.write(
            lambda c: c.execute("INSERT OR REPLACE INTO meta VALUES ('publish', ?)", (value,))
        )

    def pending(self, now: int, limit: int = 1) -> list[Pending]:
        """Return results whose publication is due, oldest first."""
        rows = self._database.read(
            lambda c: c.execute(
                "SELECT result_id, attempts FROM publications"
                " WHERE state = 'waiting' AND (due <= ? OR due > ?)"
                " AND EXISTS (SELECT 1 FROM box_open)"
                " ORDER BY seq LIMIT ?",
                (now, now + _SHORT_WAIT_MS, limit),
            ).fetchall()
        )
        return [Pending(result_id=result, attempts=attempts) for result, attempts in rows]

    def next_pending(self) -> int | None:
        """Return when the next publication is due, or None."""
        due: int | None = self._database.read(
            lambda c: c.execute(
                "SELECT min(due) FROM publications WHERE state = 'waiting'"
                " AND EXISTS (SELECT 1 FROM box_open)"
            ).fetchone()[0]
        )
        return due

    def published(
        self,
        result_id: str,
        made: Sequence[NewOutput],
        routes: Routes,
        now: int,
        *,
        again: Sequence[str] = (),
        withdraw: str = "",
        unfinished: bool = False,
    ) -> list[Output]:
        """File objects, queue their deliveries, end the publication: all or nothing.

        Args:
            result_id: whose objects they are.
            made: sealed and flushed objects.
            routes: where they go.
            now: when they were made.
            again: ids of kept objects that are to be sent along the same routes.
            withdraw: a result whose deliveries are withdrawn where none was attempted yet.
            unfinished: leave the publication waiting.

        Raises:
            NotFoundError: no such result.
            DiskFullError, StoreUnavailableError: nothing was filed.
        """

        def file(c: sqlite3.Connection) -> list[str]:
            study_id = _study_of(c, result_id)
            box = self._key_of(c, study_id)
            if withdraw:
                c.execute(_WITHDRAW, (now, withdraw))
            names = _names(c, routes)
            filed = [self._insert(c, box, study_id, result_id, one, now) for one in made]
            for output_id in (*again, *filed):
                kind = Kind(c.execute(_KIND, (output_id,)).fetchone()[0])
                for name in names:
                    if routes.takes(name, kind):
                        self._queue(c, output_id, study_id, name, now)
            if not unfinished:
                c.execute(
                    "UPDATE publications SET state = 'done', reason = '' WHERE result_id = ?",
                    (result_id,),
                )
            if filed or again or withdraw:
                made_as = list(zip(filed, made, strict=True))
                self._record(c, told.published(study_id, result_id, made_as, names))
            return filed

        return [self.output(output_id) for output_id in self._database.write(file)]

    def not_published(self, result_id: str, code: str, now: int, due: int | None) -> None:
        """Record a failed publication; `due` None ends the tries."""
        state = "dead" if due is None else "waiting"
        self._database.write(
            lambda c: c.execute(
                "UPDATE publications SET state = ?, attempts = attempts + 1, due = ?, reason = ?"
                " WHERE result_id = ?",
                (state, now if due is None else due, code, result_id),
            )
        )

    # --- objects -------------------------------------------------------------------------------

    def outputs(self, *, study_id: str = "", result_id: str = "") -> list[Output]:
        """Return objects of a study or a result in the order they were made."""

        def look(c: sqlite3.Connection) -> list[tuple[Box, Any]]:
            # one index or the other: with an OR in it SQLite would walk the whole table
            asked = [(n, v) for n, v in (("study_id", study_id), ("result_id", result_id)) if v]
            where = " AND ".join(f"{name} = ?" for name, _ in asked)
            query = _OUTPUT + (f"WHERE {where} " if where else "") + "ORDER BY seq"
            rows = c.execute(query, [value for _, value in asked]).fetchall()
            return [(self._key_of(c, row[2]), row) for row in rows]

        return [_output(box, row) for box, row in self._database.read(look)]

    def output(self, output_id: str) -> Output:
        """Return one object; NotFoundError."""

        def look(c: sqlite3.Connection) -> tuple[Box, Any]:
            row = c.execute(_OUTPUT + "WHERE output_id = ?", (output_id,)).fetchone()
            if row is None:
                raise NotFoundError("no object of that id")
            return self._key_of(c, row[2]), row

        return _output(*self._database.read(look))

    def with_uid(self, sop_instance_uid: str) -> list[Output]:
        """Return the object of a SOP Instance UID, if the box made one; found by keyed hash."""
        uid_hash = self._keys.lookup("instance", sop_instance_uid.encode())

        def look(c: sqlite3.Connection) -> list[tuple[Box, Any]]:
            rows = c.execute(_OUTPUT + "WHERE uid_hash = ?", (uid_hash,)).fetchall()
            return [(self._key_of(c, row[2]), row) for row in rows]

        return [_output(box, row) for box, row in self._database.read(look)]

    def earlier_result(self, study_id: str, result_id: str) -> str:
        """Return the newest other result of the study that has objects; empty if none."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT result_id FROM outputs WHERE study_id = ? AND result_id <> ?"
                " ORDER BY seq DESC LIMIT 1",
                (study_id, result_id),
            ).fetchone()
        )
        return str(row[0]) if row else ""

    def same_patient(self, study_id: str, issuer: str, patient_id: str, study_uid: str) -> bool:
        """Tell whether the study is still that patient's, by its key and by later arrivals.

        False when the key differs, or when an image of the study was received again later under
        another patient or study.
        """
        key = json.dumps([issuer, patient_id, study_uid]).encode()
        lookup = self._keys.lookup("study", key)

        def look(c: sqlite3.Connection) -> bool:
            row = c.execute("SELECT lookup FROM studies WHERE study_id = ?", (study_id,)).fetchone()
            return (
                row is not None
                and row[0] == lookup
                and c.execute(_ELSEWHERE, (study_id,)).fetchone() is None
            )

        return self._database.read(look)

    # --- deliveries ----------------------------------------------------------------------------

    def due(self, destination: str, now: int, limit: int) -> list[Delivery]:
        """Return deliveries to try now, in the order the objects were made."""
        rows = self._database.read(lambda c: c.execute(_DUE, (destination, now, limit)).fetchall())
        return [_delivery(row) for row in rows]

    def next_due(self, destination: str) -> int | None:
        """Return when the next delivery to the destination is due, or None."""
        due: int | None = self._database.read(
            lambda c: c.execute(_NEXT_DUE, (destination,)).fetchone()[0]
        )
        return due

    def attempt(self, delivery_id: str, now: int) -> int:
        """Count an attempt before it is made; return how many there are now.

        Raises:
            WrongStateError: it does not wait any more (withdrawn meanwhile): do not send it.
        """

        def count(c: sqlite3.Connection) -> int:
            done = c.execute(
                "UPDATE deliveries SET attempts = attempts + 1, updated = ?"
                " WHERE delivery_id = ? AND state = 'waiting'",
                (now, delivery_id),
            )
            if done.rowcount != 1:
                raise WrongStateError("the delivery does not wait any more")
            return _one(c, delivery_id).attempts

        return self._database.write(count)

    def delivered(self, delivery_id: str, now: int) -> None:
        """The destination has acknowledged the object."""

        def arrived(c: sqlite3.Connection) -> None:
            done = c.execute(
                "UPDATE deliveries SET state = 'delivered', updated = ?, reason = ''"
                " WHERE delivery_id = ? AND state <> 'delivered'",
                (now, delivery_id),
            )
            if done.rowcount:
                self._record(c, told.delivery(_one(c, delivery_id), "delivered"))

        self._database.write(arrived)

    def failed(
        self, delivery_id: str, code: str, now: int, due: int | None, *, refused: bool = False
    ) -> None:
        """Record a failure: try again at `due`, or (None) dead-letter it."""
        state = DeliveryState.DEAD if due is None else DeliveryState.WAITING

        def note(c: sqlite3.Connection) -> None:
            done = c.execute(
                "UPDATE deliveries SET state = ?, updated = ?, due = ?, reason = ?,"
                " refusals = refusals + ? WHERE delivery_id = ? AND state = 'waiting'",
                (state, now, now if due is None else due, code, int(refused), delivery_id),
            )
            if done.rowcount and due is None:
                one = _one(c, delivery_id)
                self._record(c, told.delivery(one, "delivery-dead", code=code))

        self._database.write(note)

    def expire(self, destination: str, before: int, code: str, now: int) -> int:
        """Dead-letter what has waited since before `before`; return how many."""

        def end(c: sqlite3.Connection) -> int:
            rows = c.execute(
                "UPDATE deliveries SET state = 'dead', updated = ?, reason = ?"
                " WHERE destination = ? AND state = 'waiting' AND since < ?"
                " RETURNING delivery_id",
                (now, code, destination, before),
            ).fetchall()
            for (delivery_id,) in rows:
                one = _one(c, delivery_id)
                self._record(c, told.delivery(one, "delivery-dead", code=code))
            return len(rows)

        return self._database.write(end)

    def replay(self, delivery_id: str, now: int, actor: str = BOX) -> Delivery:
        """Put a DEAD delivery back with all its tries; WrongStateError, NotFoundError."""

        def again(c: sqlite3.Connection) -> Delivery:
            if _one(c, delivery_id).state is not DeliveryState.DEAD:
                raise WrongStateError("only a dead delivery can be sent again")
            c.execute(
                "UPDATE deliveries SET state = 'waiting', due = ?1, since = ?1, updated = ?1,"
                " refusals = 0 WHERE delivery_id = ?2",
                (now, delivery_id),
            )
            back = _one(c, delivery_id)
            self._record(c, told.delivery(back, "delivery-replayed", actor))
            return back

        return self._database.write(again)

    def delivery(self, delivery_id: str) -> Delivery:
        """Return one delivery; NotFoundError."""
        return self._database.read(lambda c: _one(c, delivery_id))

    def deliveries(
        self,
        *,
        states: Iterable[DeliveryState] = (),
        destination: str = "",
        study_id: str = "",
        result_id: str = "",
        limit: int = 100,
    ) -> list[Delivery]:
        """Return deliveries, newest first."""
        wanted = json.dumps([str(state) for state in states])
        values = (wanted, destination, study_id, result_id, max(0, limit))
        rows = self._database.read(lambda c: c.execute(_LIST, values).fetchall())
        return [_delivery(row) for row in rows]

    def delivery_counts(self) -> dict[tuple[str, DeliveryState], int]:
        """Return how many deliveries each destination has in each state."""
        rows = self._database.read(
            lambda c: c.execute(
                "SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2"
            ).fetchall()
        )
        return {(name, DeliveryState(state)): count for name, state, count in rows}

    # --- inside a transaction ------------------------------------------------------------------

    def _insert(
        self,
        c: sqlite3.Connection,
        box: Box,
        study_id: str,
        result_id: str,
        one: NewOutput,
        now: int,
    ) -> str:
        output_id, sealed = new_id(self._random), one.sealed
        header = json.dumps({"class": one.sop_class_uid, "instance": one.sop_instance_uid})
        c.execute(
            "INSERT INTO outputs (output_id, result_id, study_id, kind, occasion, uid_hash,"
            " object_name, object_key, header, size, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                output_id,
                result_id,
                study_id,
                one.kind,
                one.occasion,
                self._keys.lookup("instance", one.sop_instance_uid.encode()),
                sealed.name,
                box.seal(sealed.object_key, f"object {sealed.name}", self._random(_NONCE)),
                box.seal(header.encode(), f"output {output_id}", self._random(_NONCE)),
                sealed.size,
                now,
            ),
        )
        return output_id

    def _queue(
        self, c: sqlite3.Connection, output_id: str, study_id: str, name: str, now: int
    ) -> None:
        c.execute(
            "INSERT OR IGNORE INTO deliveries (delivery_id, output_id, study_id, destination,"
            " state, created, updated, due, since)"
            " VALUES (?1, ?2, ?3, ?4, 'waiting', ?5, ?5, ?5, ?5)",
            (new_id(self._random), output_id, study_id, name, now),
        )


def held(c: sqlite3.Connection, uid_hash: str) -> tuple[str, str] | None:
    """Return (study id, object id) when an arriving UID is that of an object the box made."""
    row = c.execute(
        "SELECT study_id, output_id FROM outputs WHERE uid_hash = ?", (uid_hash,)
    ).fetchone()
    return None if row is None else (str(row[0]), str(row[1]))


def _study_of(c: sqlite3.Connection, result_id: str) -> str:
    row = c.execute("SELECT study_id FROM results WHERE result_id = ?", (result_id,)).fetchone()
    if row is None:
        raise NotFoundError("no result of that id")
    return str(row[0])


def _names(c: sqlite3.Connection, routes: Routes) -> list[str]:
    names = set(routes.kinds) if routes.everywhere else set()
    if routes.follow:
        names |= {name for (name,) in c.execute(_WENT, (routes.follow,))}
    return sorted(names)


def _one(c: sqlite3.Connection, delivery_id: str) -> Delivery:
    row = c.execute(_SELECT + "WHERE d.delivery_id = ?", (delivery_id,)).fetchone()
    if row is None:
        raise NotFoundError("no delivery of that id")
    return _delivery(row)


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(
        delivery_id=row[0],
        output_id=row[1],
        result_id=row[2],
        study_id=row[3],
        kind=Kind(row[4]),
        occasion=Occasion(row[5]),
        destination=row[6],
        state=DeliveryState(row[7]),
        attempts=row[8],
        refusals=row[9],
        created=row[10],
        updated=row[11],
        due=row[12],
        since=row[13],
        reason=row[14],
    )


def _output(box: Box, row: tuple[Any, ...]) -> Output:
    try:
        header = json.loads(box.open(row[7], f"output {row[0]}"))
        return Output(
            output_id=row[0],
            result_id=row[1],
            study_id=row[2],
            kind=Kind(row[3]),
            occasion=Occasion(row[4]),
            object_name=row[5],
            object_key=box.open(row[6], f"object {row[5]}"),
            sop_class_uid=header["class"],
            sop_instance_uid=header["instance"],
            size=row[8],
            created=row[9],
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise DamagedObjectError("a stored output cannot be read") from cause
