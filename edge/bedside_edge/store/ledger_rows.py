"""The privacy ledger's rows inside a transaction: reading, and comparing them with one another."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from bedside_core.errors import BedsideError, EvidenceDamagedError
from bedside_core.evidence.entry import Kind, parse_entry
from bedside_core.ledger.codec import decode
from bedside_core.ledger.entries import (
    Burned,
    ClockAlarm,
    Entry,
    EpochClosed,
    EpochOpened,
    Finished,
    PolicySet,
    Reserved,
    Voided,
    Witnessed,
)
from bedside_core.ledger.state import Ledger, fold
from bedside_core.release_check import parse_request
from bedside_edge.ports.privacy import Held, Release

# Which kind of evidence an entry of the ledger is
KINDS: Final[dict[type[Entry], Kind]] = {
    PolicySet: Kind.POLICY,
    EpochOpened: Kind.RELEASE,
    EpochClosed: Kind.RELEASE,
    Reserved: Kind.RELEASE,
    Finished: Kind.RELEASE,
    Voided: Kind.RELEASE,
    Burned: Kind.ALARM,
    Witnessed: Kind.RELEASE,
    ClockAlarm: Kind.CLOCK,
}
SEQ_REF: Final = "ledger"
BODY_REF: Final = "ledger_body"
ANSWER_REF: Final = "answer"
BURN_MARK: Final = "burned-until"  # of `privacy_marks`: when the ledger was last unlocked, ms

_HELD: Final = """
  SELECT r.fingerprint, r.state, r.cost, r.seq, e.at, e.body, r.request,
    (SELECT json_group_array(night) FROM
      (SELECT night FROM privacy_answers AS a WHERE a.fingerprint = r.fingerprint ORDER BY night))
  FROM privacy_releases AS r JOIN privacy_entries AS e USING (seq) """


def digest(body: bytes) -> str:
    """Return what evidence holds of an entry's body or of an answer: SHA-256, hex."""
    return hashlib.sha256(body).hexdigest()


def size(c: sqlite3.Connection) -> int:
    """Return the number of entries."""
    return int(c.execute("SELECT coalesce(max(seq), 0) FROM privacy_entries").fetchone()[0])


def entries(c: sqlite3.Connection, start: int, end: int) -> list[tuple[int, Entry, int]]:
    """Return (number, entry, evidence index) of entries [start, end), numbers from 1."""
    found = c.execute(
        "SELECT seq, body, entry FROM privacy_entries WHERE seq >= ? AND seq < ? ORDER BY seq",
        (start, end),
    )
    return [(seq, decode(bytes(body)), index) for seq, body, index in found]


def up_to_date(c: sqlite3.Connection, known: Ledger) -> Ledger:
    """Return the state as this transaction sees it, from a committed state of before."""
    held = size(c)
    if held == known.seq:
        return known
    if held < known.seq:
        raise EvidenceDamagedError("the privacy ledger has fewer entries than it had")
    return fold((entry for _, entry, _ in entries(c, known.seq + 1, held + 1)), known)


def answer(c: sqlite3.Connection, fingerprint: str, night: int) -> Release | None:
    """Return a stored answer."""
    row = c.execute(
        "SELECT document, signature, entry FROM privacy_answers"
        " WHERE fingerprint = ? AND night = ?",
        (fingerprint, night),
    ).fetchone()
    if row is None:
        return None
    return Release(
        fingerprint=fingerprint, night=night, document=row[0], signature=row[1], index=row[2]
    )


def held(c: sqlite3.Connection, where: str, values: Iterable[object]) -> list[Held]:
    """Return charged releases; `where` is a text of ours."""
    return [
        Held(
            fingerprint=fingerprint,
            state=state,
            cost=cost,
            seq=seq,
            at=at,
            requester=json.loads(body)["requester"],
            request=parse_request(json.loads(request)),
            answered=tuple(json.loads(nights)),
        )
        for fingerprint, state, cost, seq, at, body, request, nights in c.execute(
            _HELD + where, tuple(values)
        )
    ]


def check(c: sqlite3.Connection) -> Ledger:
    """Fold every entry anew and compare it with scopes, answers and the evidence log.

    Raises:
        EvidenceDamagedError: a row was changed or is missing.
    """
    count = size(c)
    found = entries(c, 1, count + 1)
    try:
        ledger = fold(entry for _, entry, _ in found)
    except BedsideError as cause:
        raise EvidenceDamagedError("the privacy ledger does not follow its own rules") from cause
    if [seq for seq, _, _ in found] != list(range(1, count + 1)):
        raise EvidenceDamagedError("entries of the privacy ledger are missing")
    _check_evidence(c, count)
    spent = {
        (kind, name): value
        for kind, name, value in c.execute("SELECT kind, name, spent FROM privacy_scopes")
    }
    wanted = {(str(scope.kind), scope.name): value for scope, value in ledger.spent.items()}
    if spent != wanted:
        raise EvidenceDamagedError("the privacy budgets are not what their entries add up to")
    _check_answers(c, ledger)
    return ledger


def _check_evidence(c: sqlite3.Connection, count: int) -> None:
    """Every entry stands in the log under its number and digest, and the log knows no other."""
    rows = c.execute(
        "SELECT p.seq, p.body, e.data FROM privacy_entries AS p"
        " LEFT JOIN entry AS e ON e.i = p.entry ORDER BY p.seq"
    )
    for seq, body, data in rows:
        refs = parse_entry(bytes(data)).refs if data is not None else {}
        if refs.get(SEQ_REF) != seq or refs.get(BODY_REF) != digest(bytes(body)):
            raise EvidenceDamagedError("an entry of the privacy ledger is not in the evidence log")
    last = c.execute("SELECT coalesce(max(entry), -1) FROM privacy_entries").fetchone()[0]
    later = c.execute(
        "SELECT 1 FROM entry WHERE i > ? AND instr(data, ?) > 0 LIMIT 1",
        (last, f'"{BODY_REF}":'.encode()),
    ).fetchone()
    if later is not None:
        raise EvidenceDamagedError(f"the log knows of more than {count} ledger entries")


def _check_answers(c: sqlite3.Connection, ledger: Ledger) -> None:
    wanted = {
        (fingerprint, night, answered)
        for fingerprint, charge in ledger.charges.items()
        for night, answered in charge.answers.items()
    }
    found = {
        (fingerprint, night, digest(bytes(document)))
        for fingerprint, night, document in c.execute(
            "SELECT fingerprint, night, document FROM privacy_answers"
        )
    }
    states = dict(c.execute("SELECT fingerprint, state FROM privacy_releases"))
    if found != wanted or states != {n: str(one.status) for n, one in ledger.charges.items()}:
        raise EvidenceDamagedError("a stored answer is not the one that was charged and logged")
