"""Restore drills: what they found, told to the evidence log, and an alarm when none was for long.

A drill runs beside the box, in another process and another folder. Its report waits in
`<state>/drills/` with a MAC under the box key until the box (or the command, when no box runs)
takes it: log entry and date are one transaction, the file goes after it. A report taken twice,
because of a cut in between, is an entry twice and changes nothing else.
"""

import json
import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bedside_core.errors import InvalidBackupError, StoreUnavailableError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports import KeyStore
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.store.database import Database
from bedside_edge.store.objects import sync_folder

FOLDER: Final = "drills"
OVERDUE: Final = "drill-overdue"
_LABEL: Final = "restore drill"
_LAST, _TOLD = "drill_last", "drill_told"
_DAY_MS: Final = 86_400_000
_MOST: Final = 4096  # bytes of a report


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """What a drill found.

    Attributes:
        at: when it ended, milliseconds since 1970, UTC.
        made: when the backup was made.
        outcome: `passed`, or the code of what stopped it.
        objects: objects that were restored, all hashed.
        opened: objects that were decrypted with the restored keys.
        entries: entries of the evidence log that were recomputed.
        erasures: erasures the restored box knows.
        keys: `export` when the keys came from an export, `box` when from the box itself.
    """

    at: int
    made: int
    outcome: str
    objects: int
    opened: int
    entries: int
    erasures: int
    keys: str


class Drills:
    """Reports of drills over a state folder."""

    def __init__(self, database: Database, keys: KeyStore, record: Record, state: Path) -> None:
        self._database, self._keys, self._record = database, keys, record
        self._folder = state / FOLDER

    def take(self) -> int:
        """Tell the log of every report that waits; return how many. Forged ones are removed."""
        taken = 0
        for path in sorted(self._folder.glob("*.json")):
            try:
                report = _read(path, self._keys)
            except InvalidBackupError:
                path.unlink()
                continue
            self._database.write(lambda c, report=report: self._keep(c, report))  # type: ignore[misc]
            path.unlink()
            taken += 1
        return taken

    def overdue(self, now: int, days: int) -> bool:
        """Raise the alarm, once in `days`, when no drill passed for so long; tell whether so."""

        def look(c: sqlite3.Connection) -> bool:
            held = dict(c.execute("SELECT name, value FROM meta WHERE name LIKE 'drill_%'"))
            if _LAST not in held:  # a new box: counted from its first day
                _put(c, _LAST, now)
                return False
            since = max(int(held[_LAST]), int(held.get(_TOLD, b"0")))
            if now - since < days * _DAY_MS:
                return False
            _put(c, _TOLD, now)
            self._record(c, Event(kind=Kind.ALARM, actor=BOX, refs={"what": OVERDUE}))
            return True

        return self._database.write(look)

    def _keep(self, c: sqlite3.Connection, report: DrillReport) -> None:
        if report.outcome == "passed":
            _put(c, _LAST, report.at)
        refs = {"what": "restore-drill"} | {
            name: value for name, value in asdict(report).items() if name != "at"
        }
        refs["made"] = report.made // 1000
        self._record(c, Event(kind=Kind.REPORT, actor=BOX, refs=refs))


def leave(state: Path, report: DrillReport, keys: KeyStore) -> Path:
    """Put a report where the box finds it; StoreUnavailableError."""
    body = asdict(report)
    text = json.dumps(body | {"mac": keys.mac(_LABEL, _canonical(body)).hex()}, sort_keys=True)
    path = state / FOLDER / f"{report.at}.json"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_suffix(".part")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        raise StoreUnavailableError("the report of the drill cannot be written") from cause
    return path


def _read(path: Path, keys: KeyStore) -> DrillReport:
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_MOST))
        mac = bytes.fromhex(body.pop("mac"))
        if keys.mac(_LABEL, _canonical(body)) != mac:
            raise InvalidBackupError("the report of a drill is not of this box")
        return DrillReport(**body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InvalidBackupError("the report of a drill cannot be read") from cause


def _canonical(body: dict[str, int | str]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _put(c: sqlite3.Connection, name: str, value: int) -> None:
    c.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value).encode()))
