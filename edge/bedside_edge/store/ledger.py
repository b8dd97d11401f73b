"""The privacy ledger in SQLite: every decision, its entry and its evidence are one transaction.

Laws:
- An entry of the ledger is an entry of the evidence log; neither exists without the other.
- A charge is durable before `reserve` returns, an answer before `finish` returns.
- Nothing is refunded or replaced: triggers and CHECK constraints hold that against the program too.
- State follows from the entries. What is kept in memory is a committed state of before, brought up
  to date inside each transaction, so several processes may stand on one file.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bedside_core.errors import ClockAlarmError, LedgerLockedError, SealedError
from bedside_core.evidence.entry import as_actor
from bedside_core.incident import STOPPED
from bedside_core.ledger import decide
from bedside_core.ledger.codec import encode, kind_of
from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import (
    Burned,
    ClockAlarm,
    Entry,
    Scope,
    Voided,
)
from bedside_core.ledger.state import Ledger, Status, apply
from bedside_core.release import ReleaseRequest, request_document
from bedside_edge.ports import Clock, KeyStore
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.privacy import BOX_ACTOR, Held, Release
from bedside_edge.store import ledger_rows as rows
from bedside_edge.store.box_state import incident_state
from bedside_edge.store.counter_file import Counter, NoCounter
from bedside_edge.store.database import Database

T = TypeVar("T")


class SqliteLedger:
    """`LedgerStore` over the database. Methods may be called from any thread."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        record: Record,
        clock: Clock,
        *,
        counter: Counter | None = None,
        evidence_locked: Callable[[], bool] = lambda: False,
        witness_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take what the ledger stands on.

        Args:
            database: the box's one file.
            keys: encrypts the exact vectors that running totals carry on.
            record: appends to the evidence log inside a transaction.
            clock: when something happened; it is never believed to go back.
            counter: outside the backup set; notices a ledger that was set back.
            evidence_locked: whether the log is behind what a witness cosigned.
            witness_ready: whether a witness will cosign an entry before its answer leaves.
        """
        self._database, self._keys, self._record, self._clock = database, keys, record, clock
        self._counter: Counter = counter or NoCounter()
        self.evidence_locked, self.witness_ready = evidence_locked, witness_ready
        self._known = Ledger()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the counter."""
        self._counter.close()

    # --- reading -----------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """Return the state that follows from all entries."""
        return self._learn(self._database.read(lambda c: rows.up_to_date(c, self._known)))

    def verify(self) -> int:
        """Fold every entry anew and compare; EvidenceDamagedError. Return how many there are."""
        return self._database.read(rows.check).seq

    def locked(self) -> bool:
        """Whether the ledger is behind what was seen of it, or its evidence log is."""
        return self.evidence_locked() or self._counter.seen() > self.ledger().seq

    def replay(self, fingerprint: str, night: int = 0) -> Release | None:
        """Return the stored answer; None when there is none. Costs nothing."""
        return self._database.read(lambda c: rows.answer(c, fingerprint, night))

    def held(self, fingerprint: str) -> Held | None:
        """Return a charged release."""
        found = self._database.read(
            lambda c: rows.held(c, "WHERE r.fingerprint = ?", (fingerprint,))
        )
        return found[0] if found else None

    def releases(self, *, limit: int = 100, before: int | None = None) -> list[Held]:
        """Return charged releases, newest first; `before` is a `seq`."""
        where = "WHERE ?1 IS NULL OR r.seq < ?1 ORDER BY r.seq DESC LIMIT ?2"
        return self._database.read(lambda c: rows.held(c, where, (before, limit)))

    def unfinished(self) -> tuple[str, ...]:
        """Return fingerprints reserved and not final, oldest first."""
        query = "SELECT fingerprint FROM privacy_releases WHERE state = 'reserved' ORDER BY seq"
        return self._database.read(lambda c: tuple(name for (name,) in c.execute(query)))

    def used(self, fingerprint: str) -> Mapping[str, int]:
        """Return each patient's studies that a running schedule has used up."""
        query = "SELECT patient, used FROM privacy_used WHERE fingerprint = ?"
        return self._database.read(lambda c: dict(c.execute(query, (fingerprint,)).fetchall()))

    def carried(self, fingerprint: str) -> list[tuple[int, ...]]:
        """Return the exact vectors of a running total's nights so far, in order."""
        query = "SELECT night, carry FROM privacy_answers WHERE fingerprint = ? ORDER BY night"
        found = self._database.read(lambda c: c.execute(query, (fingerprint,)).fetchall())
        return [
            tuple(json.loads(self._keys.unwrap(carry, _context(fingerprint, night))))
            for night, carry in found
            if carry is not None
        ]

    def entries(self, start: int, end: int) -> list[tuple[int, Entry, int]]:
        """Return (number from 1, entry, evidence index) of entries [start, end)."""
        return self._database.read(lambda c: rows.entries(c, start, end))

    def policy_document(self, version: str) -> bytes | None:
        """Return the text of a policy that came into force."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT document FROM privacy_policies WHERE version = ?", (version,)
            ).fetchone()
        )
        return None if row is None else bytes(row[0])

    def burned_until(self) -> int:
        """Return the time of the last unlocking, 0 for none."""
        query = "SELECT coalesce(max(value), 0) FROM privacy_marks WHERE name = ?"
        return int(self._database.read(lambda c: c.execute(query, (rows.BURN_MARK,)).fetchone()[0]))

    # --- charging and answering --------------------------------------------------------------

    def reserve(self, ask: Ask, request: ReleaseRequest) -> bool:
        """Charge a release; False when it is charged already. Durable when it returns."""

        def charge(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, bool]:
            self._refuse_when_locked(c, ledger)
            entry = decide.reserve(
                ledger, ask, self._clock.now(), witness_ready=self.witness_ready()
            )
            if entry is None:
                return ledger, False
            after, seq, _ = self._append(c, ledger, entry, ask.requester)
            c.execute(
                "INSERT INTO privacy_releases (fingerprint, state, cost, nights, snapshot, policy,"
                " request, seq) VALUES (?, 'reserved', ?, ?, ?, ?, ?, ?)",
                (
                    ask.fingerprint,
                    ask.cost,
                    ask.nights,
                    request.snapshot,
                    request.policy,
                    request_document(request),
                    seq,
                ),
            )
            return after, True

        # No counter yet: a charge that is lost before an answer left has told nobody anything
        return self._write(charge, counted=False)

    def finish(
        self,
        fingerprint: str,
        night: int,
        document: bytes,
        signature: bytes,
        used: Mapping[str, int],
        exact: Sequence[int] = (),
    ) -> Release:
        """Store an answer and return what is stored: another worker's if that one was first."""

        def store(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, Release]:
            self._refuse_when_locked(c, ledger)
            answered = rows.digest(document)
            entry = decide.finish(ledger, fingerprint, night, answered, self._clock.now())
            if entry is None:
                stored = rows.answer(c, fingerprint, night)
                if stored is None:
                    raise LedgerLockedError("an answer that was logged is not stored")
                return ledger, stored
            refs = {rows.ANSWER_REF: answered}
            after, _, index = self._append(c, ledger, entry, BOX_ACTOR, refs)
            carry = None
            if exact:
                plain = json.dumps(list(exact), separators=(",", ":")).encode()
                carry = self._keys.wrap(plain, _context(fingerprint, night))
            c.execute(
                "INSERT INTO privacy_answers (fingerprint, night, document, signature, entry,"
                " carry) VALUES (?, ?, ?, ?, ?, ?)",
                (fingerprint, night, document, signature, index, carry),
            )
            _use_up(c, fingerprint, used)
            if after.charges[fingerprint].status is Status.FINAL:
                _end(c, fingerprint, "final")
            return after, Release(
                fingerprint=fingerprint,
                night=night,
                document=document,
                signature=signature,
                index=index,
            )

        return self._write(store)

    # --- everything else ---------------------------------------------------------------------

    def append(self, entry: Entry, actor: str = BOX_ACTOR) -> int:
        """Append an entry that is no reservation and no answer; return its number, from 1."""

        def write(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, int]:
            self._refuse_when_locked(c, ledger)
            after, seq, _ = self._append(c, ledger, entry, actor)
            if isinstance(entry, Voided):
                _end(c, entry.fingerprint, "void")
            return after, seq

        return self._write(write)

    def keep_policy(self, entry: Entry, document: bytes, envelope: bytes, actor: str) -> int:
        """Append a `PolicySet` with the document it stands for; return its number."""

        def write(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, int]:
            self._refuse_when_locked(c, ledger)
            c.execute(
                "INSERT OR IGNORE INTO privacy_policies (version, document, envelope)"
                " VALUES (?, ?, ?)",
                (rows.digest(document), document, envelope),
            )
            refs = {"policy": rows.digest(document)}
            after, seq, _ = self._append(c, ledger, entry, actor, refs)
            return after, seq

        return self._write(write)

    def unlock(self, dataset: str, actor: str, second: str) -> None:
        """Count what lost entries may have spent, and believe the ledger from now on."""

        def write(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, None]:
            now = max(self._clock.now(), ledger.floor)
            _mark_burned(c, now)
            refs = {"second": as_actor(second)}
            lost = self._counter.seen() - ledger.seq
            entries = decide.write_off(ledger, dataset, now, lost) if dataset else ()
            for entry in entries:
                ledger = self._append(c, ledger, entry, actor, refs)[0]
            if not entries:  # nothing is left to write off
                self._record(c, Event(kind=rows.KINDS[Burned], actor=as_actor(actor), refs=refs))
            return ledger, None

        self._write(write)
        self._counter.reset(self.ledger().seq)

    def write_off(self, actor: str, second: str) -> None:
        """Burn whatever epoch is open: the log goes on after a witness knew more of it.

        Writes to a log that is locked, before it goes on under its new name; done again it burns
        nothing more.
        """

        def write(c: sqlite3.Connection, ledger: Ledger) -> tuple[Ledger, None]:
            now = max(self._clock.now(), ledger.floor)
            _mark_burned(c, now)
            refs = {"second": as_actor(second)}
            lost = self._counter.seen() - ledger.seq
            for dataset in ledger.epochs:
                for entry in decide.write_off(ledger, dataset, now, lost):
                    ledger = self._append(c, ledger, entry, actor, refs)[0]
            return ledger, None

        self._write(write)
        self._counter.reset(self.ledger().seq)

    # --- inside ------------------------------------------------------------------------------

    def _write(
        self,
        fn: Callable[[sqlite3.Connection, Ledger], tuple[Ledger, T]],
        *,
        counted: bool = True,
    ) -> T:
        """Run `fn` in a transaction with the state it sees; keep the state once it is durable.

        A clock that was set back leaves its alarm in the ledger, once, before the error comes out.
        """

        def run(c: sqlite3.Connection) -> tuple[Ledger, T | ClockAlarmError]:
            ledger = rows.up_to_date(c, self._known)
            try:
                return fn(c, ledger)
            except ClockAlarmError as alarm:
                return self._alarm(c, ledger), alarm

        after, found = self._database.write(run)
        self._learn(after)
        if counted:
            self._counter.saw(after.seq)
        if isinstance(found, ClockAlarmError):
            raise found
        return found

    def _alarm(self, c: sqlite3.Connection, ledger: Ledger) -> Ledger:
        last = rows.entries(c, ledger.seq, ledger.seq + 1)
        if last and isinstance(last[0][1], ClockAlarm):
            return ledger
        entry = ClockAlarm(at=ledger.floor, wrong=max(0, self._clock.now()))
        return self._append(c, ledger, entry, BOX_ACTOR)[0]

    def _append(
        self,
        c: sqlite3.Connection,
        ledger: Ledger,
        entry: Entry,
        actor: str,
        refs: Mapping[str, int | str] | None = None,
    ) -> tuple[Ledger, int, int]:
        """Append an entry with its evidence; return the state after it, its number and index."""
        after = apply(ledger, entry)
        body = encode(entry)
        event = Event(
            kind=rows.KINDS[type(entry)],
            actor=as_actor(actor),
            refs={rows.SEQ_REF: after.seq, rows.BODY_REF: rows.digest(body), **(refs or {})},
        )
        index = self._record(c, event)
        c.execute(
            "INSERT INTO privacy_entries (seq, kind, at, body, entry) VALUES (?, ?, ?, ?, ?)",
            (after.seq, kind_of(entry), entry.at, body, index),
        )
        for scope, spent in after.spent.items():
            if ledger.spent.get(scope) != spent:
                _keep_scope(c, after, scope)
        return after, after.seq, index

    def _refuse_when_locked(self, c: sqlite3.Connection, ledger: Ledger) -> None:
        """Refuse every entry of a ledger that was set back: it must not grow up to its counter."""
        if incident_state(c) in STOPPED:
            raise SealedError("the box is sealed; what it holds may be looked at")
        if self.evidence_locked():
            raise LedgerLockedError("the evidence log is behind what a witness has seen of it")
        decide.check_position(ledger, (self._counter.seen(),))

    def _learn(self, ledger: Ledger) -> Ledger:
        with self._lock:
            if ledger.seq > self._known.seq:
                self._known = ledger
        return ledger


def _mark_burned(c: sqlite3.Connection, now: int) -> None:
    """What arrived until now is not asked for again."""
    c.execute(
        "INSERT INTO privacy_marks VALUES (?1, ?2) ON CONFLICT (name)"
        " DO UPDATE SET value = max(value, ?2)",
        (rows.BURN_MARK, now),
    )


def _keep_scope(c: sqlite3.Connection, ledger: Ledger, scope: Scope) -> None:
    budget = ledger.budget(scope)
    c.execute(
        "INSERT INTO privacy_scopes (kind, name, cap, spent) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (kind, name) DO UPDATE SET cap = ?3, spent = ?4",
        (str(scope.kind), scope.name, budget.cap, budget.spent),
    )


def _use_up(c: sqlite3.Connection, fingerprint: str, used: Mapping[str, int]) -> None:
    c.executemany(
        "INSERT INTO privacy_used (fingerprint, patient, used) VALUES (?1, ?2, ?3)"
        " ON CONFLICT (fingerprint, patient) DO UPDATE SET used = max(used, ?3)",
        [(fingerprint, patient, count) for patient, count in used.items() if count > 0],
    )


def _end(c: sqlite3.Connection, fingerprint: str, state: str) -> None:
    """Close a release: what only its further nights needed goes."""
    c.execute("UPDATE privacy_releases SET state = ? WHERE fingerprint = ?", (state, fingerprint))
    c.execute("DELETE FROM privacy_used WHERE fingerprint = ?", (fingerprint,))
    c.execute("UPDATE privacy_answers SET carry = NULL WHERE fingerprint = ?", (fingerprint,))


def _context(fingerprint: str, night: int) -> bytes:
    return f"privacy carry {fingerprint} {night}".encode()
