"""The evidence log of a folder or a copy of its database, read without changing a byte of it.

Works beside a running box, on a stopped one's folder, and on a copy on a read-only medium.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bedside_core.errors import NotFoundError, StoreUnavailableError
from bedside_core.evidence.checkpoint import parse_checkpoint_text
from bedside_core.evidence.note import parse_note
from bedside_core.evidence.tiles import WIDTH, Tile, tiles_of
from bedside_edge.store import evidence_rows as rows

_DATABASE: Final = "bedside.db"
_NEWEST: Final = "checkpoint"


@contextlib.contextmanager
def open_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the log of a state folder, or of a database file, for reading; one state throughout.

    Raises:
        StoreUnavailableError: no database there, or one without an evidence log.
    """
    database = path / _DATABASE if path.is_dir() else path
    if not database.is_file():
        raise StoreUnavailableError(f"there is no {_DATABASE} in {path}")
    connection = _connect(database)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM entry LIMIT 1").fetchone()
        yield connection
    except sqlite3.Error as cause:
        raise StoreUnavailableError("the database has no evidence log that can be read") from cause
    finally:
        connection.close()


def export(
    c: sqlite3.Connection, folder: Path, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Write the log as tiles, entry bundles and the newest checkpoint.

    What is there already is not written again, so the same folder can be brought up to date; the
    checkpoint is replaced last, so a reader never finds one whose tiles are missing.

    Returns:
        The log's size and how many files were written.

    Raises:
        NotFoundError: nothing was signed yet.
        StoreUnavailableError: the folder cannot be written.
    """
    era = rows.eras(c)[-1]
    found = rows.latest_checkpoint(c, era)
    if found is None:
        raise NotFoundError("no checkpoint was signed yet: `bedside-edge evidence checkpoint`")
    size, note = found[0] - era.base, found[1]
    tiles = list(tiles_of(size, _exported(folder, size)))
    try:
        written = 0
        for done, tile in enumerate(tiles):
            if done % 64 == 0:
                progress(done, len(tiles))
            written += _write_new(folder, tile, c, era.base)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_NEWEST}.part"
        partial.write_bytes(note)
        partial.replace(folder / _NEWEST)
    except OSError as cause:
        raise StoreUnavailableError(f"the folder cannot be written: {cause.strerror}") from cause
    progress(len(tiles), len(tiles))
    return size, written


def _exported(folder: Path, size: int) -> int:
    """Return the size of the last complete export there, down to full tiles; 0 for none."""
    try:
        text = parse_note((folder / _NEWEST).read_bytes()).text
    except OSError:
        return 0
    return min(parse_checkpoint_text(text).size, size) // WIDTH * WIDTH


def _write_new(folder: Path, tile: Tile, c: sqlite3.Connection, base: int) -> bool:
    path = folder / tile.path
    if path.is_file():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(rows.tile(c, tile, base))
    partial.replace(path)
    return True


def _connect(database: Path) -> sqlite3.Connection:
    """Read-only; a file in a folder that cannot be written is opened as one nobody writes to."""
    name = f"file:{quote(str(database.absolute()))}?mode=ro"
    try:
        connection = sqlite3.connect(name, uri=True, isolation_level=None)
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError as cause:
        if database.with_name(f"{database.name}-wal").exists():
            raise StoreUnavailableError("the database cannot be read") from cause
        connection = sqlite3.connect(f"{name}&immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error as cause:
        raise StoreUnavailableError("the file is not a Bedside database") from cause
    return connection
