"""The evidence log in SQLite: an entry is a row of the transaction that it tells of.

`record` runs inside any store's write function; the entry, its nodes and the business rows are
committed or taken back together. A checkpoint is durable before it is handed out: a power cut
between would turn an honest box into one that signed two histories.
"""

import hmac
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from bedside_core.errors import (
    DamagedObjectError,
    EvidenceGapError,
    NotFoundError,
    NotReadyError,
)
from bedside_core.evidence.checkpoint import Checkpoint, sign_checkpoint, signed_note
from bedside_core.evidence.entry import (
    KEY_BYTES,
    NONCE_BYTES,
    Entry,
    Kind,
    TimeSource,
    commit_payload,
    commit_subject,
    parse_entry,
)
from bedside_core.evidence.merkle import Frontier, consistency_proof, leaf_hash
from bedside_core.evidence.note import NoteSignature, SignatureType, VerifierKey, parse_note
from bedside_core.evidence.tiles import Tile
from bedside_edge.ports import Clock, KeyStore, RandomBytes
from bedside_edge.ports.evidence import Event, Kept, LogSigner
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.sealing import Box

LOG: Final = "service:log"  # the actor of entries the log makes about itself
_NONCE: Final = 12
_STEP_S: Final = 60  # a wall clock that moves so far against the monotonic one was set by somebody
_PADS_AT_ONCE: Final = 4096

# (connection, study id, subject id) -> subject id and commitment key, None when there is neither
SubjectKey = Callable[[sqlite3.Connection, str, str], tuple[str, bytes] | None]


def no_subjects(c: sqlite3.Connection, study_id: str, subject_id: str) -> tuple[str, bytes] | None:
    """Say that nothing is about a patient: for a log without patients."""
    return None


class SqliteEvidence:
    """`EvidenceLog` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        random: RandomBytes,
        clock: Clock,
        *,
        subject_key: SubjectKey = no_subjects,
        origin: str = "",
        signers: Sequence[LogSigner] = (),
        nightly_quota: int = 0,
        base: int = 0,
    ) -> None:
        """Take what the log stands on.

        Args:
            database: the box's one file.
            keys: wraps salts and payloads of what is about no study.
            key_of: a study's data key inside a transaction; seals what is about that study.
            random: nonces and salts.
            clock: when something happened.
            subject_key: a patient's commitment key inside a transaction.
            origin: name of the log and of its keys.
            signers: the log's own keys; without any, no checkpoint is signed.
            nightly_quota: outgoing sizes are multiples of it; 0 pads nothing.
            base: entry at which the log under this name starts; above 0 after a gap.
        """
        self._base = base
        self._database, self._box_keys, self._key_of = database, keys, key_of
        self._random, self._clock, self._subject_key = random, clock, subject_key
        self._origin, self._signers, self._quota = origin, tuple(signers), nightly_quota
        # Both follow the writing transaction and may be ahead of it after a rollback; they are
        # used only when their size is that of the table
        self._frontier = Frontier()  # of the entries from `base` on
        self._last = (0, 0)  # size, time of the newest entry in seconds
        self._anchor = (clock.now() // 1000, clock.monotonic())
        self._doubtful = False
        self._gap = database.read(_open_gap)

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._origin

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public halves of the keys that sign its checkpoints."""
        return tuple(signer.key for signer in self._signers)

    @property
    def base(self) -> int:
        """The entry at which the log under this name starts."""
        return self._base

    @property
    def locked(self) -> bool:
        """Whether a gap was found, so that nothing may be signed or released."""
        return self._gap

    def continued(self, origin: str, signers: Sequence[LogSigner]) -> "SqliteEvidence":
        """Return the log from its present size on under another name: for `witnessed.go_on`."""
        return SqliteEvidence(
            self._database,
            self._box_keys,
            self._key_of,
            self._random,
            self._clock,
            subject_key=self._subject_key,
            origin=origin,
            signers=signers,
            nightly_quota=self._quota,
            base=self.size(),
        )

    def found_gap(self) -> None:
        """Sign nothing any more: a gap is on the disk."""
        self._gap = True

    # --- writing -----------------------------------------------------------------------------

    def record(self, connection: sqlite3.Connection, event: Event) -> int:
        """Append inside the caller's transaction; return the entry's index.

        Raises:
            InvalidEntryError: an actor or ref that cannot stand in an entry.
            NotFoundError: no such study or subject.
        """
        return self._record(connection, event, *self._time(connection))

    def begin(self, connection: sqlite3.Connection, event: Event) -> int:
        """Append the first entry under a new name: no other may come before it."""
        now, last = self._clock.now() // 1000, self._last_ts(connection, self._base)
        source = TimeSource.DOUBTFUL if now < last else TimeSource.LOCAL
        self._gap = False  # the gap was the old name's, and ends in this transaction
        index = self._record(connection, event, self._base, max(now, last), source)
        self._sign(connection)
        return index

    def _record(
        self,
        connection: sqlite3.Connection,
        event: Event,
        size: int,
        ts: int,
        ts_src: TimeSource,
    ) -> int:
        found = self._subject_key(connection, event.study_id, event.subject_id)
        fresh = self._random(NONCE_BYTES + KEY_BYTES)
        nonce, salt = fresh[:NONCE_BYTES], fresh[NONCE_BYTES:]
        subject = commit_subject(found[1], nonce, found[0].encode()) if found else None
        made = Entry(
            kind=event.kind,
            ts=ts,
            ts_src=ts_src,
            actor=event.actor,
            subject=subject,
            nonce=nonce.hex(),
            payload=None if event.payload is None else commit_payload(salt, event.payload),
            refs=event.refs,
        )
        index = self._insert(connection, size, [made])
        sealed = None
        if event.payload is not None:
            plain = salt + event.payload
            sealed = self._seal(connection, index, event.study_id, found, plain)
        subject_id = found[0] if found else event.subject_id
        if sealed or event.study_id or subject_id:
            connection.execute(
                "INSERT INTO entry_about (i, study_id, subject_id, sealed) VALUES (?, ?, ?, ?)",
                (index, event.study_id, subject_id, sealed),
            )
        return index

    def append(self, event: Event) -> int:
        """Append an event that changes no other row; durable when it returns."""
        return self._database.write(lambda c: self.record(c, event))

    def forget(
        self, connection: sqlite3.Connection, *, study_id: str = "", subject_id: str = ""
    ) -> int:
        """Destroy payloads, salts and the local index of a study or patient; return how many."""
        return connection.execute(
            "DELETE FROM entry_about WHERE (?1 <> '' AND study_id = ?1)"
            " OR (?2 <> '' AND subject_id = ?2)",
            (study_id, subject_id),
        ).rowcount

    # --- checkpoints -------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """Return the signed checkpoint of the present size; durable before it is returned."""
        return self._database.write(lambda c: self._sign(c)[1])

    def outgoing_checkpoint(self) -> bytes:
        """Pad the log up to its public schedule, then return the checkpoint."""

        def out(c: sqlite3.Connection) -> bytes:
            last = c.execute("SELECT max(size) FROM cp_out").fetchone()[0] or 0
            self._refuse_gap()
            self._pad(c, max(0, last - self._base))
            size, note = self._sign(c)
            c.execute("INSERT OR IGNORE INTO cp_out VALUES (?)", (size,))
            return note

        return self._database.write(out)

    def cosigned(self, size: int, lines: Sequence[bytes]) -> None:
        """Keep the cosignature lines a witness returned for the checkpoint of `size`."""
        at = self._base + size

        def keep(c: sqlite3.Connection) -> None:
            row = c.execute("SELECT note FROM cp WHERE size = ?", (at,)).fetchone()
            if row is None:
                raise NotFoundError("no checkpoint of that size was signed")
            text = parse_note(row[0]).text.encode()
            for line in lines:
                (one,) = parse_note(text + b"\n" + line).signatures  # refuses what is none
                c.execute(
                    "INSERT OR IGNORE INTO cosig VALUES (?, ?, ?, ?)",
                    (at, one.name, one.key_id, line),
                )

        self._database.write(keep)

    def latest_checkpoint(self) -> bytes | None:
        """Return the newest signed checkpoint with the cosignatures it got; None before any."""
        found = self._database.read(rows.latest_checkpoint)
        return found[1] if found else None

    def proof(self, index: int) -> bytes:
        """Return the proof file of an entry; signs a checkpoint when none covers it yet."""
        made = self._database.read(lambda c: rows.proof(c, index))
        if made is None:
            self.checkpoint()
            made = self._database.read(lambda c: rows.proof(c, index))
        if made is None:
            raise NotFoundError(f"no checkpoint covers entry {index}")
        return made

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the hashes that show that the log at `new` begins with the log at `old`."""

        def prove(c: sqlite3.Connection) -> list[bytes]:
            if new > rows.size(c) - self._base:
                raise NotFoundError(f"the log has no {new} entries")
            return consistency_proof(old, new, rows.node_reader(c, self._base))

        return self._database.read(prove)

    # --- reading -----------------------------------------------------------------------------

    def size(self) -> int:
        """Return the number of entries."""
        return self._database.read(rows.size)

    def entry(self, index: int) -> Kept:
        """Return one entry with what it commits to, where that is still kept; NotFoundError."""

        def look(c: sqlite3.Connection) -> Kept:
            kept = rows.entry(c, index)
            row = c.execute("SELECT sealed FROM entry_about WHERE i = ?", (index,)).fetchone()
            if row is None or row[0] is None:
                return kept
            opened = self._unseal(c, kept, row[0])
            if not opened:
                return kept
            return replace(kept, salt=opened[:KEY_BYTES], payload=opened[KEY_BYTES:])

        return self._database.read(look)

    def entries(self, start: int, end: int) -> list[Kept]:
        """Return entries [start, end), fewer at the end of the log, without their payloads."""
        return self._database.read(lambda c: rows.entries(c, start, end))

    def newest(
        self, *, limit: int = 100, before: int | None = None, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        """Return entries newest first, without their payloads."""
        return self._database.read(lambda c: rows.newest(c, limit, before, kinds))

    def between(
        self, since: int, until: int, *, limit: int, after: int = -1, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        """Return entries of a time range (seconds, `until` excluded), oldest first."""
        return self._database.read(lambda c: rows.between(c, since, until, limit, after, kinds))

    def about(self, *, study_id: str = "", subject_id: str = "") -> list[int]:
        """Return the indices of what is known to be about a study or a patient."""
        return self._database.read(lambda c: rows.about(c, study_id, subject_id))

    def tile(self, tile: Tile) -> bytes:
        """Return a tile or bundle of the log; NotFoundError when the log is not that large."""
        return self._database.read(lambda c: rows.tile(c, tile, self._base))

    # --- inside a transaction ----------------------------------------------------------------

    def _insert(self, c: sqlite3.Connection, first: int, made: Sequence[Entry]) -> int:
        """Append entries to a log of `first` entries; return the index of the first of them."""
        frontier = self._frontier
        if frontier.size != first - self._base:
            frontier = Frontier.resume(first - self._base, rows.node_reader(c, self._base))
        values = []
        for index, entry in enumerate(made, start=first):
            data = entry.encode()
            nodes = b"".join(node.digest for node in frontier.append(leaf_hash(data)))
            values.append((index, data, nodes))
        c.executemany("INSERT INTO entry VALUES (?, ?, ?)", values)
        self._frontier = frontier
        self._last = (first + len(made), made[-1].ts)
        return first

    def _sign(self, c: sqlite3.Connection) -> tuple[int, bytes]:
        """Return size and note of the checkpoint at the present size, signing it once."""
        size = rows.size(c)
        row = c.execute("SELECT note FROM cp WHERE size = ?", (size,)).fetchone()
        if row is not None:
            return size, bytes(row[0])
        if not self._signers:
            raise NotReadyError("the evidence log was opened without its keys")
        self._refuse_gap()
        at = size - self._base
        root = Frontier.resume(at, rows.node_reader(c, self._base)).root()
        checkpoint = Checkpoint(origin=self._origin, size=at, root=root)
        note = signed_note(checkpoint, [self._line(checkpoint, signer) for signer in self._signers])
        c.execute("INSERT INTO cp VALUES (?, ?)", (size, note))
        return size, note

    def _refuse_gap(self) -> None:
        if self._gap:
            raise EvidenceGapError(
                "a witness saw another history of this log: `bedside-edge evidence continue`"
            )

    def _line(self, checkpoint: Checkpoint, signer: LogSigner) -> NoteSignature:
        plain = signer.key.kind is SignatureType.ED25519  # carries no time
        time = 0 if plain else max(1, self._clock.now() // 1000)
        return sign_checkpoint(checkpoint, signer.key, signer.sign, time)

    def _pad(self, c: sqlite3.Connection, last: int) -> None:
        """Fill up to the next multiple of the quota, and by one quota at least."""
        if not self._quota:
            return
        size = rows.size(c) - self._base
        target = max(-(-size // self._quota) * self._quota, (last // self._quota + 1) * self._quota)
        target += self._base
        size, ts, ts_src = self._time(c)
        while size < target:
            count = min(target - size, _PADS_AT_ONCE)
            self._insert(
                c,
                size,
                [
                    Entry(
                        kind=Kind.PAD,
                        ts=ts,
                        ts_src=ts_src,
                        actor=LOG,
                        nonce=self._random(NONCE_BYTES).hex(),
                    )
                    for _ in range(count)
                ],
            )
            size += count

    def _time(self, c: sqlite3.Connection) -> tuple[int, int, TimeSource]:
        """Return size and time of the next entry; it never falls, and says when it is in doubt.

        In doubt is a clock that is behind the last entry, and one that was moved against the
        monotonic clock since the last entry. The first such entry is preceded by a `clock` entry.
        """
        now, ticks = self._clock.now() // 1000, self._clock.monotonic()
        moved = abs((now - self._anchor[0]) - (ticks - self._anchor[1])) > _STEP_S
        self._anchor = (now, ticks)
        size = rows.size(c)
        last = self._last_ts(c, size)
        doubtful = moved or now < last
        ts = max(now, last)
        ts_src = TimeSource.DOUBTFUL if doubtful else TimeSource.LOCAL
        if doubtful and (moved or not self._doubtful):
            refs = {"last": last, "clock": max(0, now)}
            told = Entry(kind=Kind.CLOCK, ts=ts, ts_src=ts_src, actor=LOG, refs=refs)
            size = self._insert(c, size, [told]) + 1
        self._doubtful = doubtful
        return size, ts, ts_src

    def _last_ts(self, c: sqlite3.Connection, size: int) -> int:
        if size != self._last[0]:
            row = c.execute("SELECT data FROM entry WHERE i = ?", (size - 1,)).fetchone()
            self._last = (size, parse_entry(bytes(row[0])).ts if row else 0)
        return self._last[1]

    def _seal(
        self,
        c: sqlite3.Connection,
        index: int,
        study_id: str,
        subject: tuple[str, bytes] | None,
        plain: bytes,
    ) -> bytes:
        context = f"evidence {index}"
        if study_id:
            return self._key_of(c, study_id).seal(plain, context, self._random(_NONCE))
        if subject:
            return _subject_box(subject[1]).seal(plain, context, self._random(_NONCE))
        return self._box_keys.wrap(plain, context.encode())

    def _unseal(self, c: sqlite3.Connection, kept: Kept, sealed: bytes) -> bytes:
        """Return salt and payload, or nothing when the key they lie under was destroyed."""
        context = f"evidence {kept.index}"
        try:
            if kept.study_id:
                return self._key_of(c, kept.study_id).open(sealed, context)
            if subject := self._subject_key(c, "", kept.subject_id):
                return _subject_box(subject[1]).open(sealed, context)
            return self._box_keys.unwrap(sealed, context.encode())
        except (DamagedObjectError, NotFoundError):
            return b""


def _subject_box(key: bytes) -> Box:
    """The box that seals payloads about a patient and no one study."""
    return Box(hmac.digest(key, b"bedside evidence payload v1", "sha256"))


def _open_gap(c: sqlite3.Connection) -> bool:
    return c.execute("SELECT 1 FROM gaps WHERE continued_at = 0").fetchone() is not None
