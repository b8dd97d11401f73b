"""`EvidenceLog` in memory, over the rules of the core; keys from tests/support/evidence_log.py."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bedside_core.errors import InvalidTileError, NotFoundError, NotReadyError
from bedside_core.evidence.checkpoint import Checkpoint, signed_note
from bedside_core.evidence.entry import (
    Entry,
    Kind,
    TimeSource,
    commit_payload,
    commit_subject,
)
from bedside_core.evidence.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from bedside_core.evidence.note import VerifierKey, parse_note
from bedside_core.evidence.proof import ProofFile
from bedside_core.evidence.tiles import WIDTH, Tile, bundle_bytes, tile_bytes
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import Event, Kept
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN
from support.fake_clock import FakeClock, SeededBytes

_LOG = "service:log"
NO_CONNECTION = cast("sqlite3.Connection", None)


@dataclass
class MemoryRows:
    """What survives a restart."""

    kept: list[Kept] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    lines: dict[int, list[bytes]] = field(default_factory=dict)
    outgoing: int = 0


class MemoryEvidence:
    """The log as the port describes it, without a database; patients have keys made of their id."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        rows: MemoryRows | None = None,
        subjects: dict[str, str] | None = None,
        signing: bool = True,
        nightly_quota: int = 0,
    ) -> None:
        self._rows = rows or MemoryRows()
        self._clock = clock or FakeClock()
        self._random = SeededBytes(f"evidence {len(self._rows.kept)}")
        self._subjects = {} if subjects is None else subjects  # study id -> subject id
        self._signing, self._quota = signing, nightly_quota
        self._anchor = (self._clock.now() // 1000, self._clock.monotonic())
        self._doubtful = False
        self.origin = ORIGIN
        self.keys: tuple[VerifierKey, ...] = (LOG_ED.key, LOG_ML.key)

    @property
    def locked(self) -> bool:
        return False  # no witness ever speaks to the simulator

    def record(self, connection: sqlite3.Connection, event: Event) -> int:
        ts, ts_src = self._time()
        subject_id = event.subject_id or self._subjects.get(event.study_id, "")
        nonce, salt = self._random(16), self._random(32)
        has = event.payload is not None
        key = subject_id.encode().ljust(32, b"\0")[:32]
        entry = Entry(
            kind=event.kind,
            ts=ts,
            ts_src=ts_src,
            actor=event.actor,
            subject=commit_subject(key, nonce, subject_id.encode()) if subject_id else None,
            nonce=nonce.hex(),
            payload=commit_payload(salt, event.payload or b"") if has else None,
            refs=event.refs,
        )
        return self._add(
            entry,
            study_id=event.study_id,
            subject_id=subject_id,
            salt=salt if has else None,
            payload=event.payload,
        )

    def append(self, event: Event) -> int:
        return self.record(NO_CONNECTION, event)

    def size(self) -> int:
        return len(self._rows.kept)

    def entry(self, index: int) -> Kept:
        if not 0 <= index < self.size():
            raise NotFoundError("no such entry")
        return self._rows.kept[index]

    def entries(self, start: int, end: int) -> list[Kept]:
        return [_bare(one) for one in self._rows.kept[start:end]]

    def newest(
        self, *, limit: int = 100, before: int | None = None, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        wanted = set(kinds)
        found = reversed(self._rows.kept[:before])
        return [_bare(one) for one in found if not wanted or one.entry.kind in wanted][:limit]

    def between(
        self, since: int, until: int, *, limit: int, after: int = -1, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        wanted = set(kinds)
        return [
            _bare(one)
            for one in self._rows.kept
            if since <= one.entry.ts < until
            and one.index > after
            and (not wanted or one.entry.kind in wanted)
        ][:limit]

    def about(self, *, study_id: str = "", subject_id: str = "") -> list[int]:
        return [
            one.index
            for one in self._rows.kept
            if (study_id and one.study_id == study_id)
            or (subject_id and one.subject_id == subject_id)
        ]

    def checkpoint(self) -> bytes:
        size = self.size()
        if size not in self._rows.checkpoints:
            if not self._signing:
                raise NotReadyError("no keys")
            head = Checkpoint(origin=ORIGIN, size=size, root=root_at(size, self._node))
            time = self._clock.now() // 1000
            lines = [LOG_ED.signs(head), LOG_ML.signs(head, time)]
            self._rows.checkpoints[size] = signed_note(head, lines)
        return self._rows.checkpoints[size]

    def outgoing_checkpoint(self) -> bytes:
        if self._quota:
            steps = max(-(-self.size() // self._quota), self._rows.outgoing // self._quota + 1)
            ts, ts_src = self._time()
            while self.size() < steps * self._quota:
                nonce = self._random(16).hex()
                self._add(Entry(kind=Kind.PAD, ts=ts, ts_src=ts_src, actor=_LOG, nonce=nonce))
        note = self.checkpoint()
        self._rows.outgoing = self.size()
        return note

    def latest_checkpoint(self) -> bytes | None:
        return self._with_lines(max(self._rows.checkpoints, default=None))

    def proof(self, index: int) -> bytes:
        kept = self.entry(index)
        covering = [size for size in self._rows.checkpoints if size > index]
        if not covering:
            self.checkpoint()
            covering = [self.size()]
        size = max([size for size in covering if size in self._rows.lines] or covering)
        path = tuple(inclusion_proof(index, size, self._node))
        note = self._with_lines(size) or b""
        return ProofFile(index=index, path=path, checkpoint=note, extra=kept.data).encode()

    def consistency(self, old: int, new: int) -> list[bytes]:
        if new > self.size():
            raise NotFoundError("the log is not that large")
        return consistency_proof(old, new, self._node)

    def tile(self, tile: Tile) -> bytes:
        try:
            if tile.level is not None:
                return tile_bytes(tile, self._node)
            start = tile.index * WIDTH
            found = [one.data for one in self._rows.kept[start : start + tile.width]]
            if len(found) == tile.width:
                return bundle_bytes(found)
        except InvalidTileError as cause:
            raise NotFoundError("no such tile") from cause
        raise NotFoundError("no such tile")

    def cosigned(self, size: int, lines: Sequence[bytes]) -> None:
        if size not in self._rows.checkpoints:
            raise NotFoundError("no checkpoint of that size")
        text = parse_note(self._rows.checkpoints[size]).text.encode()
        for line in lines:
            parse_note(text + b"\n" + line)
            held = self._rows.lines.setdefault(size, [])
            if line not in held:
                held.append(line)

    def forget(
        self, connection: sqlite3.Connection, *, study_id: str = "", subject_id: str = ""
    ) -> int:
        gone = self.about(study_id=study_id, subject_id=subject_id)
        for index in gone:
            one = self._rows.kept[index]
            self._rows.kept[index] = replace(_bare(one), study_id="", subject_id="")
        return len(gone)

    def _with_lines(self, size: int | None) -> bytes | None:
        if size is None:
            return None
        return self._rows.checkpoints[size] + b"".join(self._rows.lines.get(size, []))

    def _add(self, entry: Entry, **known: Any) -> int:
        index = self.size()
        self._rows.kept.append(Kept(index=index, data=entry.encode(), entry=entry, **known))
        return index

    def _node(self, level: int, n: int) -> bytes:
        end = (n + 1) << level
        if end > self.size():
            raise NotFoundError("no such node")
        frontier = Frontier()
        for one in self._rows.kept[n << level : end]:
            frontier.append(leaf_hash(one.data))
        return frontier.root()

    def _time(self) -> tuple[int, TimeSource]:
        now, ticks = self._clock.now() // 1000, self._clock.monotonic()
        moved = abs((now - self._anchor[0]) - (ticks - self._anchor[1])) > 60
        self._anchor = (now, ticks)
        last = self._rows.kept[-1].entry.ts if self._rows.kept else 0
        doubtful = moved or now < last
        ts_src = TimeSource.DOUBTFUL if doubtful else TimeSource.LOCAL
        ts = max(now, last)
        if doubtful and (moved or not self._doubtful):
            refs = {"last": last, "clock": max(0, now)}
            self._add(Entry(kind=Kind.CLOCK, ts=ts, ts_src=ts_src, actor=_LOG, refs=refs))
        self._doubtful = doubtful
        return ts, ts_src


def _bare(one: Kept) -> Kept:
    return replace(one, salt=None, payload=None)
