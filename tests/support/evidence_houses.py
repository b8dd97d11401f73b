"""Places where an evidence log lives and can be opened again, with one study of one patient."""

from pathlib import Path

from bedside_edge.ports.evidence import EvidenceLog
from bedside_edge.store.database import Database
from bedside_edge.store.evidence import SqliteEvidence
from bedside_edge.store.sealing import Box
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN
from support.fake_clock import FakeClock, SeededBytes
from support.memory_evidence import NO_CONNECTION, MemoryEvidence, MemoryRows
from support.memory_store import MemoryKeys

STUDY, PATIENT = "study7", "patient7"
_SIGNERS = [LOG_ED, LOG_ML]


class SqliteHouse:
    """`bedside_edge.store.evidence` over a database file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "box.db"
        self.clock = FakeClock()
        self._random = SeededBytes("sqlite house")
        self._keys = MemoryKeys(b"box", SeededBytes("keys"))
        self._box = Box(bytes(32))
        self.databases: list[Database] = []

    def open(self, *, signing: bool = True, nightly_quota: int = 0) -> SqliteEvidence:
        """Open the log; what was open before is closed, as a restart would."""
        self.close()
        self.databases.append(Database(self.path))
        return SqliteEvidence(
            self.databases[-1],
            self._keys,
            lambda c, study_id: self._box,
            self._random,
            self.clock,
            subject_key=lambda c, study, subject: (
                (PATIENT, self.subject_key())
                if PATIENT in (study.replace(STUDY, PATIENT), subject)
                else None
            ),
            origin=ORIGIN,
            signers=_SIGNERS if signing else (),
            nightly_quota=nightly_quota,
        )

    def subject_key(self) -> bytes:
        """The patient's commitment key."""
        return PATIENT.encode().ljust(32, b"\0")

    def forget(self, log: EvidenceLog, **whom: str) -> int:
        """Forget in a transaction of its own."""
        return self.databases[-1].write(lambda c: log.forget(c, **whom))

    def close(self) -> None:
        for database in self.databases:
            database.close()


class MemoryHouse:
    """The simulator."""

    def __init__(self, _: Path) -> None:
        self.clock = FakeClock()
        self._rows = MemoryRows()

    def open(self, *, signing: bool = True, nightly_quota: int = 0) -> MemoryEvidence:
        return MemoryEvidence(
            self.clock,
            rows=self._rows,
            subjects={STUDY: PATIENT},
            signing=signing,
            nightly_quota=nightly_quota,
        )

    def subject_key(self) -> bytes:
        return PATIENT.encode().ljust(32, b"\0")

    def forget(self, log: EvidenceLog, **whom: str) -> int:
        return log.forget(NO_CONNECTION, **whom)

    def close(self) -> None:
        """Nothing is open."""


HOUSES = {"sqlite": SqliteHouse, "memory": MemoryHouse}
