"""Rounds to come, and the keys their helpers announce for them.

A helper's key belongs to one round, so a helper must hear a round's name before there is a
manifest: the hub announces the name and whom it asks to help; each of them makes a key pair for
exactly that name, keeps it, and hands in the public half signed by its roster key. The manifest is
made of those. A key for a round that never comes is never used, and destroyed after 30 days; the
hub opens no round of a name older than that.
"""

from collections.abc import Sequence

from bedside_core.errors import NotFoundError, RoundRefusedError, WrongStateError
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import KEY_WAITS_S, Helper, helper_message
from bedside_sync.secagg.roster import Roster


def announce(
    store: HubStore, roster: Roster, name: str, helpers: Sequence[str], now: int
) -> list[str]:
    """Say that a round will come and whom it asks to help; returns whose keys are awaited.

    Raises:
        RoundRefusedError: somebody named is no helper of the roster, twice, or two are of one
            organisation. WrongStateError: the name was announced with other helpers.
    """
    members = [roster.members.get(box) for box in helpers]
    if any(member is None or not member.helper for member in members):
        raise RoundRefusedError("a helper is not on the roster as one")
    if len({member.organisation for member in members if member}) < len(helpers):
        raise RoundRefusedError("two helpers belong to one organisation")
    with store.write() as db:
        row = db.execute("SELECT helpers FROM upcoming WHERE round = ?", (name,)).fetchone()
        if row is None:
            db.execute("INSERT INTO upcoming VALUES (?, ?, ?)", (name, ",".join(helpers), now))
        elif row[0] != ",".join(helpers):
            raise WrongStateError("this round was announced with other helpers")
    return awaited(store, name)


def helpers_of(store: HubStore, name: str) -> list[str]:
    """Return whom a round asks to help, in their order; NotFoundError."""
    helpers: str = store.row("SELECT helpers FROM upcoming WHERE round = ?", name)[0]
    return helpers.split(",")


def awaited(store: HubStore, name: str) -> list[str]:
    """Return the helpers of a round whose keys are not here yet; NotFoundError."""
    there = {box for (box,) in store.rows("SELECT box FROM helper_key WHERE round = ?", name)}
    return [box for box in helpers_of(store, name) if box not in there]


def keys(store: HubStore, name: str, now: int) -> list[Helper]:
    """Return the entries of a round's helpers for its manifest, in the order announced.

    Raises:
        RoundRefusedError: a key is still awaited, or the helpers have destroyed theirs by now.
    """
    if _announced(store, name) + KEY_WAITS_S < now:
        raise RoundRefusedError("announced more than 30 days ago; take another name for this round")
    if missing := awaited(store, name):
        raise RoundRefusedError(f"the keys of {', '.join(missing)} are awaited")
    rows = store.rows("SELECT box, body FROM helper_key WHERE round = ?", name)
    held = {box: decode(Helper, data) for box, data in rows}
    return [held[box] for box in helpers_of(store, name)]


def names(store: HubStore) -> list[str]:
    """Return the rounds announced that have no manifest yet, oldest first."""
    rows = store.rows(
        "SELECT round FROM upcoming WHERE round NOT IN (SELECT name FROM round) ORDER BY at, round"
    )
    return [name for (name,) in rows]


def asked_of(store: HubStore, box: str, now: int) -> list[str]:
    """Return the rounds a box is asked to announce a key for: those that may still be opened."""
    young = [name for name in names(store) if now <= _announced(store, name) + KEY_WAITS_S]
    return [name for name in young if box in awaited(store, name)][:64]


def _announced(store: HubStore, name: str) -> int:
    at: int = store.row("SELECT at FROM upcoming WHERE round = ?", name)[0]
    return at


def take(store: HubStore, roster: Roster, box: str, name: str, entry: Helper) -> None:
    """Keep a helper's key for a round; the same again is no news, another is refused.

    Raises:
        RoundRefusedError: the round is not announced, the box is not asked, or its signature
            fails. WrongStateError: it has handed in another key.
    """
    try:
        asked = helpers_of(store, name)
    except NotFoundError as cause:
        raise RoundRefusedError("no such round is announced") from cause
    member = roster.members.get(box)
    if member is None or entry.box != box or box not in asked:
        raise RoundRefusedError("the box is not asked to help in this round")
    message = helper_message(name, bytes.fromhex(entry.round_key))
    if not member.key.accepts(message, bytes.fromhex(entry.signature)):
        raise RoundRefusedError("the round key is not signed by its helper")
    with store.write() as db:
        row = db.execute(
            "SELECT body FROM helper_key WHERE round = ? AND box = ?", (name, box)
        ).fetchone()
        if row is None:
            db.execute("INSERT INTO helper_key VALUES (?, ?, ?)", (name, box, entry.encode()))
        elif row[0] != entry.encode():
            raise WrongStateError("the helper has handed in another key for this round")
