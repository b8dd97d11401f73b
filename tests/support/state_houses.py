"""A place where a state lives and can be opened again: the real folder, or the simulator's disk.

Contract tests take a house and must not care which one it is.
"""

import hashlib
import importlib.resources
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside_edge.ports import Arrival, Header, KeyStore, Sealed, Way
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.slots import open_slots
from bedside_edge.store.state import State, open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.fake_clock import FakeClock, SeededBytes
from support.memory_store import MemoryDisk, MemoryKeys, MemoryState

T0 = 1_700_000_000_000
# a development machine's disk may be fuller than a box's may be
ANY_DISK = DiskLimits(high_watermark=1.0, min_free_bytes=0)


class FolderHouse:
    """`bedside_edge.store` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"

    def open(
        self, *, completion: CompletionRules | None = None, retries: RetryRules | None = None
    ) -> State:
        return open_state(
            self.folder,
            FakeClock(T0),
            OsRandom(),
            open_box_keys,
            completion=completion,
            retries=retries,
            disk=ANY_DISK,
        )

    def keys(self, box: str) -> KeyStore:
        """Return the key store of the box called `box`; the same name is the same box."""
        folder = self.folder.parent / box
        return open_box_keys(folder, OsRandom(), not folder.exists())

    def damage(self, name: str) -> None:
        """Change one byte of a sealed object."""
        path = self.folder / "objects" / name[:2] / name
        sealed = bytearray(path.read_bytes())
        sealed[len(sealed) // 2] ^= 1
        path.write_bytes(sealed)


class MemoryHouse:
    """The simulators of tests/support/memory_store.py."""

    def __init__(self, _folder: Path) -> None:
        self.disk = MemoryDisk()

    def open(
        self, *, completion: CompletionRules | None = None, retries: RetryRules | None = None
    ) -> MemoryState:
        state = MemoryState(self.disk, completion=completion, retries=retries)
        state.jobs.recover(T0)
        return state

    def keys(self, box: str) -> KeyStore:
        return MemoryKeys(box.encode(), SeededBytes(box))

    def damage(self, name: str) -> None:
        key, data = self.disk.objects[name]
        self.disk.objects[name] = (bytes(len(key)), data)


House = FolderHouse | MemoryHouse
HOUSES = {"folder": FolderHouse, "memory": MemoryHouse}


@contextmanager
def opened(
    house: House,
    *,
    completion: CompletionRules | None = None,
    retries: RetryRules | None = None,
) -> Iterator[State | MemoryState]:
    """Open the house's state and close it in order."""
    state = house.open(completion=completion, retries=retries)
    try:
        yield state
    finally:
        state.close()


def digest_of(data: bytes) -> str:
    """Return the digest that `sealed` gives to an object of these bytes."""
    return hashlib.sha256(data + b"1.2.840.10008.1.2.1").hexdigest()


def sealed(state: State | MemoryState, data: bytes = b"pixels", digest: str = "") -> Sealed:
    """Put an object into the state, durable; its digest defaults to `digest_of(data)`."""
    sink = state.objects.create()
    sink.write(data)
    done = sink.seal(digest or digest_of(data))
    state.objects.flush()
    return done


def arrival(
    state: State | MemoryState,
    uid: str = "1.2.3.1",
    *,
    study: str = "1.2.3",
    data: bytes = b"pixels",
    patient: str = "P1",
    at: int = T0,
    source: str = "CT1",
    expected: int = 0,
    priority: str = "",
) -> Arrival:
    """Return a sealed instance ready to be filed."""
    header = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        study_uid=study,
        series_uid=f"{study}.9",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id=patient,
        patient_name="Muster^Ada",
        image_type=("ORIGINAL", "PRIMARY"),
        expected_instances=expected,
        requested_priority=priority,
    )
    return Arrival(header=header, sealed=sealed(state, data), way=Way.DIMSE, source=source, at=at)


def put_back_to_version_3(folder: Path) -> None:
    """Turn a closed state folder into one as version 0.2 wrote it: no slots, no subjects.

    Data keys lie under the box key alone, and the database has the first three schema files.
    """
    keys = open_box_keys(folder / "keys", OsRandom(), create=False)
    slots = open_slots(folder / "keys", keys, OsRandom(), create=False)
    new, old = sqlite3.connect(folder / "bedside.db"), sqlite3.connect(folder / "old.db")
    scripts = importlib.resources.files("bedside_edge.store") / "schema"
    for number in ("0001_state", "0002_outputs", "0003_models"):
        old.executescript((scripts / f"{number}.sql").read_text())
    for table in ("studies", "instances", "jobs", "results", "alarms", "outputs", "deliveries"):
        columns = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = new.execute(f"SELECT {names} FROM {table}").fetchall()  # noqa: S608
        old.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608
    for study_id, slot, wrapped in new.execute("SELECT study_id, slot, data_key FROM studies"):
        context = b"study " + study_id.encode()
        data_key = keys.wrap(slots.unwrap(slot, wrapped, context), context)
        old.execute("UPDATE studies SET data_key = ? WHERE study_id = ?", (data_key, study_id))
    (proof,) = new.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
    old.execute("INSERT INTO meta VALUES ('key', ?)", (proof,))
    old.execute("PRAGMA user_version = 3")
    old.execute(f"PRAGMA application_id = {0x42454453}")
    old.execute("PRAGMA journal_mode = WAL")
    old.commit()
    old.close()
    new.close()
    slots.close()
    for name in ("bedside.db-wal", "bedside.db-shm", "keys/slots", "keys/slots.journal"):
        (folder / name).unlink(missing_ok=True)
    (folder / "old.db").replace(folder / "bedside.db")
