"""The box in its consortium, in SQLite: membership, roster, records, charges, agreements, nights.

Charges follow the privacy ledger's laws: durable before anything that depends on them, one for a
patient and round, never changed; who has no room is left out by what stands here and nothing else.
A charge becomes void when the round's record shows a quorum's digest without this box: nothing of
it was or ever will be opened. The charge rows of an erased patient stay, under a keyed hash.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bedside_core.errors import (
    AlreadyExistsError,
    LedgerLockedError,
    NotFoundError,
    SealedError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind, as_actor
from bedside_core.incident import STOPPED
from bedside_edge.ports import KeyStore
from bedside_edge.ports.evidence import Event
from bedside_edge.ports.sync import Agreement, Caps, Charged, Member, NightEvent, Price
from bedside_edge.store.box_state import incident_state
from bedside_edge.store.database import Database
from bedside_edge.store.learning import free_batch
from bedside_edge.store.sync_journal import (
    ACTOR,
    JournalParts,
    SqliteJournal,
    count_up,
    sweep_files,
    writes,
)
from bedside_sync.agent import Told
from bedside_sync.secagg.machines import Box

_DAY_MS: Final = 86_400_000
_FRESH: Final = "fresh-after"
_OWED: Final = "owed"  # units that whoever comes may have paid in rounds a backup does not know
_WRITES_A_ROUND: Final = 3  # charge, manifest, report: fewer were written of none that left
_SPENT: Final = """
  SELECT coalesce(sum(r.cost), 0), coalesce(sum(CASE WHEN r.at > ?2 THEN r.cost ELSE 0 END), 0)
  FROM sync_charges AS c JOIN sync_rounds AS r USING (round) WHERE c.patient = ?1 AND r.void = 0"""
_LAST: Final = """
  SELECT max(coalesce((SELECT max(at) FROM sync_facts), 0),
    coalesce((SELECT max(at) FROM sync_rounds), 0), coalesce((SELECT max(at) FROM sync_records), 0))
"""
_SUBJECT: Final = "SELECT lookup, identified, created FROM subjects WHERE subject_id = ?"
_AGREEMENTS: Final = """
  SELECT agreement_id, title, purposes, same_region, document, starts, ends, actor, at, ended_at
  FROM sync_agreements ORDER BY at DESC, agreement_id"""


class SqliteSync:
    """`SyncStore` over the database. Methods may be called from any thread."""

    def __init__(
        self, parts: JournalParts, keys: KeyStore, *, locked: Callable[[], bool] = lambda: False
    ) -> None:
        """Take what it stands on; files that a kill left without a row are removed.

        Args:
            parts: database, evidence, slots, counter.
            keys: wraps this box's keys; hashes patients as the privacy ledger does.
            locked: whether the privacy ledger takes no charge.
        """
        self._p, self._keys, self._locked = parts, keys, locked
        self._database: Database = parts.database
        self.facts, self.help_facts = SqliteJournal(parts, "box"), SqliteJournal(parts, "helper")
        self._night = 0
        sweep_files(parts.database, parts.folder)

    def close(self) -> None:
        """Let go of the counter."""
        self._p.counter.close()

    # --- membership ----------------------------------------------------------------------------

    def member(self) -> Member | None:
        """Return the membership; None before keys were made."""
        query = (
            "SELECT box, organisation, helper, identity, transport, pending, request, welcome"
            " FROM sync_member"
        )
        row = self._database.read(lambda c: c.execute(query).fetchone())
        if row is None:
            return None
        box, organisation, helper, identity, transport, pending, request, welcome = row
        return Member(
            box=box,
            organisation=organisation,
            helper=bool(helper),
            identity=self._keys.unwrap(identity, b"sync identity"),
            transport=self._keys.unwrap(transport, b"sync transport"),
            pending=self._keys.unwrap(pending, b"sync pending") if pending else b"",
            request=request or b"",
            welcome=welcome or b"",
        )

    def keep_member(self, member: Member, actor: str, what: str) -> None:
        """Keep the membership; `what` says in the evidence what changed."""
        wrap = self._keys.wrap
        values = (
            *(member.box, member.organisation, int(member.helper)),
            wrap(member.identity, b"sync identity"),
            wrap(member.transport, b"sync transport"),
            wrap(member.pending, b"sync pending") if member.pending else None,
            member.request or None,
            member.welcome or None,
        )
        refs = {"what": what, "box": member.box, "organisation": member.organisation}

        def write(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT OR REPLACE INTO sync_member VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", values
            )
            self._record(c, actor, refs)

        self._database.write(write)

    def note(self, actor: str, what: str, round_name: str) -> None:
        """Leave evidence that somebody decided something about a round."""
        refs: dict[str, int | str] = {"what": what, "round": round_name}
        self._database.write(lambda c: self._record(c, actor, refs))

    # --- roster and records (Diary) ------------------------------------------------------------

    def roster(self) -> list[bytes]:
        """Return the roster's entries so far."""
        query = "SELECT entry FROM sync_roster ORDER BY seq"
        return [bytes(entry) for (entry,) in self._database.read(lambda c: _all(c, query))]

    def extend_roster(self, start: int, entries: Sequence[bytes]) -> None:
        """Append checked entries from number `start` on; the same again is no news."""

        def write(c: sqlite3.Connection) -> None:
            for number, entry in enumerate(entries, start):
                row = c.execute("SELECT entry FROM sync_roster WHERE seq = ?", (number,)).fetchone()
                if row is not None and bytes(row[0]) != entry:
                    raise WrongStateError("the roster holds another entry at this place")
                if row is None:
                    c.execute("INSERT INTO sync_roster VALUES (?, ?)", (number, entry))
                    refs = {"what": "roster", "fact": hashlib.sha256(entry).hexdigest()}
                    self._record(c, ACTOR, refs)

        self._database.write(write)

    def records(self) -> tuple[int, bytes]:
        """Return how many records of the chain were checked, and the hash of the last."""
        query = "SELECT seq, hash FROM sync_records ORDER BY seq DESC LIMIT 1"
        row = self._database.read(lambda c: c.execute(query).fetchone())
        return (0, bytes(32)) if row is None else (row[0] + 1, bytes(row[1]))

    def file_record(self, seq: int, name: str, after: bytes, state: Box) -> None:
        """Note that record `seq` was checked; an excluded round's charges become void with it."""
        void = state is Box.EXCLUDED

        def write(c: sqlite3.Connection) -> int:
            if c.execute("SELECT 1 FROM sync_records WHERE seq = ?", (seq,)).fetchone():
                return writes(c)
            values = (seq, name, after, state.value, self._p.clock.now())
            c.execute("INSERT INTO sync_records VALUES (?, ?, ?, ?, ?)", values)
            voided = 0
            if void:
                query = "UPDATE sync_rounds SET void = 1 WHERE round = ? AND void = 0"
                voided = c.execute(query, (name,)).rowcount
                free_batch(c, name)
            refs = {"what": f"record-{state.value}", "round": name, "record": after.hex()}
            self._record(c, ACTOR, refs | ({"charges": "void"} if voided else {}))
            return count_up(c)

        self._p.counter.saw(self._database.write(write))

    # --- charges -------------------------------------------------------------------------------

    def set_back(self) -> bool:
        """Whether the database is older than what was seen of it: a restored backup."""
        return self._p.counter.seen() > self._database.read(writes)

    def recover(self, actor: str, second: str, caps: Caps) -> None:
        """Believe the database as it is; patients who came before now take part no more.

        What they paid in rounds the backup does not know is lost, so they pay with all they have.
        Who comes from now on may be one of them, erased and sent again, or one who came after the
        backup. Each of those owes what the lost rounds can have cost at most: the cap of a day for
        each day since the last write the backup knows, and for each round the lost writes allow.
        """

        def write(c: sqlite3.Connection) -> int:
            now = self._p.clock.now()
            days = max(0, now - c.execute(_LAST).fetchone()[0]) // _DAY_MS + 1
            rounds = max(0, self._p.counter.seen() - writes(c)) // _WRITES_A_ROUND
            owed = self._mark(c, _OWED) + caps.day * min(days, rounds)
            for name, value in ((_FRESH, now), (_OWED, min(caps.lifetime, owed))):
                c.execute("INSERT OR REPLACE INTO sync_marks VALUES (?, ?)", (name, value))
            refs = {"what": "recovered", "second": as_actor(second), "rho": owed}
            self._record(c, as_actor(actor), refs)
            return count_up(c)

        self._p.counter.reset(self._database.write(write))

    def charge(self, price: Price, subjects: Sequence[str], caps: Caps) -> int:
        """Charge a round to those of the patients who have room; see `SyncStore`."""
        if self._locked() or self.set_back():
            raise LedgerLockedError("the box's charges are older than what was seen of them")

        def write(c: sqlite3.Connection) -> tuple[int, int]:
            if incident_state(c) in STOPPED:
                raise SealedError("the box is sealed; it takes part in no round")
            row = c.execute(
                "SELECT cost, void FROM sync_rounds WHERE round = ?", (price.round,)
            ).fetchone()
            if row is None:
                self._charge(c, price, subjects, caps)
            elif row[1] or row[0] != price.cost:
                raise WrongStateError(
                    "the round was charged at another cost, or its charge is void"
                )
            count = "SELECT count(*) FROM sync_charges WHERE round = ?"
            return c.execute(count, (price.round,)).fetchone()[0], count_up(c)

        charged, number = self._database.write(write)
        self._p.counter.saw(number)
        return int(charged)

    def _charge(
        self, c: sqlite3.Connection, price: Price, subjects: Sequence[str], caps: Caps
    ) -> None:
        newest = c.execute("SELECT coalesce(max(at), 0) FROM sync_rounds").fetchone()[0]
        at = max(self._p.clock.now(), newest)  # a clock set back makes no day longer
        owed = self._mark(c, _OWED)
        chosen: dict[str, None] = {}
        for subject_id in subjects:
            if len(chosen) == price.most:
                break
            patient = self._patient(c, subject_id)
            if patient is None or patient in chosen:
                continue
            whole, day = c.execute(_SPENT, (patient, at - _DAY_MS)).fetchone()
            if owed + whole + price.cost <= caps.lifetime and day + price.cost <= caps.day:
                chosen[patient] = None
        rows = json.dumps(sorted(chosen)).encode()
        entry = self._record(
            c,
            ACTOR,
            {
                "what": "charged",
                "round": price.round,
                "rho": price.cost,
                "honest": price.honest,
                "charges": hashlib.sha256(rows).hexdigest(),
            },
        )
        c.execute(
            "INSERT INTO sync_rounds (round, cost, at, entry) VALUES (?, ?, ?, ?)",
            (price.round, price.cost, at, entry),
        )
        c.executemany(
            "INSERT INTO sync_charges VALUES (?, ?)", [(price.round, one) for one in chosen]
        )

    def _patient(self, c: sqlite3.Connection, subject_id: str) -> str | None:
        """Return the keyed hash a patient is charged under; None of one who takes no part."""
        row = c.execute(_SUBJECT, (subject_id,)).fetchone()
        if row is None or not row[1] or row[2] <= self._mark(c, _FRESH):
            return None
        return self._keys.lookup("privacy", row[0].encode())

    def _mark(self, c: sqlite3.Connection, name: str) -> int:
        row = c.execute("SELECT value FROM sync_marks WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def charged(self, round_name: str, subjects: Sequence[str]) -> list[str]:
        """Return those of the patients who were charged for a round, in the order given."""

        def look(c: sqlite3.Connection) -> list[str]:
            rows = _all(c, "SELECT patient FROM sync_charges WHERE round = ?", round_name)
            paid = {patient for (patient,) in rows}
            return [one for one in subjects if self._patient(c, one) in paid]

        return self._database.read(look)

    def charges(self, limit: int = 100) -> list[Charged]:
        """Return charged rounds, newest first."""
        query = """
          SELECT r.round, r.cost, r.at, r.void,
            (SELECT count(*) FROM sync_charges AS c WHERE c.round = r.round)
          FROM sync_rounds AS r ORDER BY r.at DESC, r.round LIMIT ?"""
        return [
            Charged(round=name, cost=cost, at=at, void=bool(void), patients=count)
            for name, cost, at, void, count in self._database.read(lambda c: _all(c, query, limit))
        ]

    # --- agreements ----------------------------------------------------------------------------

    def agreements(self) -> list[Agreement]:
        """Return all agreements, newest first."""
        return [
            Agreement(
                agreement_id=row[0],
                title=row[1],
                purposes=tuple(json.loads(row[2])),
                same_region=bool(row[3]),
                document=bytes(row[4]),
                starts=row[5],
                ends=row[6],
                actor=row[7],
                at=row[8],
                ended_at=row[9],
            )
            for row in self._database.read(lambda c: _all(c, _AGREEMENTS))
        ]

    def agree(self, agreement: Agreement) -> None:
        """Record an agreement; AlreadyExistsError."""
        one = agreement
        values = (
            *(one.agreement_id, one.title, json.dumps(one.purposes), int(one.same_region)),
            *(one.document, one.starts, one.ends, one.actor, one.at),
        )

        def write(c: sqlite3.Connection) -> None:
            taken = "SELECT 1 FROM sync_agreements WHERE agreement_id = ?"
            if c.execute(taken, (one.agreement_id,)).fetchone():
                raise AlreadyExistsError("an agreement has this name")
            c.execute(
                "INSERT INTO sync_agreements (agreement_id, title, purposes, same_region, document,"
                " starts, ends, actor, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            self._record(c, one.actor, {"what": "agreement", "document": one.document.hex()})

        self._database.write(write)

    def end_agreement(self, agreement_id: str, actor: str, at: int) -> None:
        """End an agreement; NotFoundError, WrongStateError when it has ended."""

        def write(c: sqlite3.Connection) -> None:
            query = "SELECT document, ended_at FROM sync_agreements WHERE agreement_id = ?"
            row = c.execute(query, (agreement_id,)).fetchone()
            if row is None:
                raise NotFoundError("no agreement of that name")
            if row[1]:
                raise WrongStateError("the agreement has ended already")
            c.execute(
                "UPDATE sync_agreements SET ended_at = ?, ended_by = ? WHERE agreement_id = ?",
                (at, actor, agreement_id),
            )
            self._record(c, actor, {"what": "agreement-ended", "document": bytes(row[0]).hex()})

        self._database.write(write)

    # --- nights --------------------------------------------------------------------------------

    def begin_night(self, at: int) -> None:
        """What is told from now on belongs to a night that began at `at` (ms)."""
        self._night = at

    def tell(self, what: Told) -> None:
        """Add to the night's timeline; the same trouble again makes its line longer."""
        night = self._night
        same = (night, what.step, what.round, what.outcome, what.code)

        def write(c: sqlite3.Connection) -> None:
            row = c.execute(
                "SELECT seq FROM sync_events WHERE night = ? AND step = ? AND round = ?"
                " AND outcome = ? AND code = ? AND outcome <> 'done'",
                same,
            ).fetchone()
            if row is not None:
                c.execute(
                    "UPDATE sync_events SET ended = ? WHERE seq = ?", (what.ended * 1000, row[0])
                )
                return
            c.execute(
                "INSERT INTO sync_events (night, step, round, task, started, ended, outcome, code)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(night, what.step, what.round, what.task),
                    *(what.started * 1000, what.ended * 1000, what.outcome, what.code),
                ),
            )

        self._database.write(write)

    def nights(self, limit: int = 14) -> list[int]:
        """Return when the newest nights began, newest first."""
        query = "SELECT DISTINCT night FROM sync_events ORDER BY night DESC LIMIT ?"
        return [night for (night,) in self._database.read(lambda c: _all(c, query, limit))]

    def events(self, night: int) -> list[NightEvent]:
        """Return a night's events in order."""
        query = (
            "SELECT seq, night, step, round, task, started, ended, outcome, code FROM sync_events"
            " WHERE night = ? ORDER BY seq"
        )
        names = ("seq", "night", "step", "round", "task", "started", "ended", "outcome", "code")
        rows = self._database.read(lambda c: _all(c, query, night))
        return [NightEvent(**dict(zip(names, row, strict=True))) for row in rows]

    # --- inside --------------------------------------------------------------------------------

    def _record(self, c: sqlite3.Connection, actor: str, refs: Mapping[str, int | str]) -> int:
        return self._p.record(c, Event(kind=Kind.SYNC_ROUND, actor=as_actor(actor), refs=refs))


def _all(c: sqlite3.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return c.execute(query, values).fetchall()
