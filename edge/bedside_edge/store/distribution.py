"""What the box remembers of the repository, in SQLite: cache, floors and evidence together."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from bedside_core.errors import DamagedObjectError, InvalidTargetError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports.distribution import Looked, Wanted
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.store.database import Database
from bedside_sync.distribution.assignment import Assignment, read_assignment
from bedside_sync.distribution.manifest import read_manifest
from bedside_sync.distribution.memory import Floor, Memory

_ITEM: Final = "path, sha256, manifest, code, reason, fetched"


class SqliteDistribution:
    """`DistributionStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def memory(self) -> Memory:
        """Return what was remembered last."""

        def read(c: sqlite3.Connection) -> Memory:
            time_floor, serial = c.execute("SELECT time_floor, serial FROM tuf_seen").fetchone()
            return Memory(
                metadata=dict(c.execute("SELECT name, body FROM tuf_md ORDER BY name")),
                floors={
                    role: Floor(keys=keys, version=version)
                    for role, keys, version in c.execute("SELECT * FROM tuf_floors")
                },
                time_floor=time_floor,
                serial=serial,
            )

        return self._database.read(read)

    def looked(self) -> Looked:
        """Return how the last look ended, and what this site is to run."""

        def read(c: sqlite3.Connection) -> Looked:
            checked, tried, code, assignment = c.execute(
                "SELECT checked_at, tried_at, code, assignment FROM tuf_seen"
            ).fetchone()
            items = c.execute(f"SELECT {_ITEM} FROM tuf_items ORDER BY position")  # noqa: S608
            return Looked(
                checked_at=checked,
                tried_at=tried,
                code=code,
                assignment=read_assignment(assignment) if assignment else None,
                items=tuple(_wanted(row) for row in items),
            )

        try:
            return self._database.read(read)
        except InvalidTargetError as cause:
            raise DamagedObjectError("a row of the distribution is damaged") from cause

    def refreshed(
        self, memory: Memory, assignment: Assignment, items: Sequence[Wanted], actor: str, at: int
    ) -> None:
        """Keep a refresh that ended well, with what was decided of each item."""

        def write(c: sqlite3.Connection) -> None:
            _remember(c, memory)
            held = dict(c.execute("SELECT sha256, fetched FROM tuf_items"))
            before = c.execute("SELECT path, sha256, code FROM tuf_items").fetchall()
            c.execute("DELETE FROM tuf_items")
            for position, item in enumerate(items):
                body = item.manifest.encode() if item.manifest else b""
                c.execute(
                    f"INSERT INTO tuf_items (position, {_ITEM}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (
                        position,
                        item.path,
                        item.sha256,
                        body,
                        item.code,
                        item.reason,
                        held.get(item.sha256, 0),
                    ),
                )
            c.execute(
                "UPDATE tuf_seen SET checked_at = ?, tried_at = ?, code = '', assignment = ?",
                (at, at, assignment.encode()),
            )
            self._tell(c, actor, "refresh", {"serial": assignment.serial, "items": len(items)})
            for item in items:
                # A refusal is told once, not every night it stands
                if item.code and (item.path, item.sha256, item.code) not in before:
                    self._tell(c, actor, "refused", {"code": item.code, "manifest": item.sha256})

        self._database.write(write)

    def refused(self, memory: Memory, code: str, actor: str, at: int) -> None:
        """Keep what was still checked before a refresh was refused, and why it was."""

        def write(c: sqlite3.Connection) -> None:
            _remember(c, memory)
            c.execute("UPDATE tuf_seen SET tried_at = ?, code = ?", (at, code))
            self._tell(c, actor, "refused", {"code": code})

        self._database.write(write)

    def fetched(self, item: Wanted, size: int, actor: str) -> None:
        """Note that the content of an item is here; `size` bytes came for it."""

        def write(c: sqlite3.Connection) -> None:
            changed = c.execute(
                "UPDATE tuf_items SET fetched = 1 WHERE sha256 = ? AND fetched = 0", (item.sha256,)
            ).rowcount
            if changed:
                self._tell(c, actor, "fetched", {"manifest": item.sha256, "bytes": size})

        self._database.write(write)

    def _tell(
        self, c: sqlite3.Connection, actor: str, what: str, refs: dict[str, int | str]
    ) -> None:
        self._record(c, Event(kind=Kind.UPDATE_STEP, actor=actor, refs={"what": what} | refs))


def _remember(c: sqlite3.Connection, memory: Memory) -> None:
    c.execute("DELETE FROM tuf_md")
    c.executemany("INSERT INTO tuf_md VALUES (?, ?)", memory.metadata.items())
    c.executemany(
        "INSERT INTO tuf_floors VALUES (?, ?, ?) ON CONFLICT (role) DO UPDATE"
        " SET keys = excluded.keys, version = excluded.version",
        [(role, floor.keys, floor.version) for role, floor in memory.floors.items()],
    )
    c.execute(
        "UPDATE tuf_seen SET time_floor = max(time_floor, ?), serial = max(serial, ?)",
        (memory.time_floor, memory.serial),
    )


def _wanted(row: tuple[str, str, bytes, str, str, int]) -> Wanted:
    path, digest, manifest, code, reason, fetched = row
    return Wanted(
        path=path,
        sha256=digest,
        manifest=read_manifest(manifest, path) if manifest else None,
        code=code,
        reason=reason,
        fetched=bool(fetched),
    )
