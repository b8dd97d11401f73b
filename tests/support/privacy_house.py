"""A small hospital whose statistics may leave: ledger, snapshots, gate and release service."""

import json
from pathlib import Path

from bedside_core.accounting import cap_units
from bedside_core.privacy_policy import PAYLOAD_TYPE
from bedside_core.signatures import seal_envelope
from bedside_core.statistics.rows import StudyRow
from bedside_core.uses import ActorKind, Asker
from bedside_edge.ports.privacy import Window
from bedside_edge.services.budget import BudgetService
from bedside_edge.services.release import Origin, ReleaseService
from bedside_edge.store.counter_file import FileCounter
from bedside_edge.store.database import Database
from bedside_edge.store.evidence import SqliteEvidence
from bedside_edge.store.ledger import SqliteLedger
from bedside_edge.store.sealing import Box
from bedside_edge.store.snapshots import SqliteSnapshots
from bedside_edge.system.noise_diffprivlib import SystemNoise
from bedside_edge.system.random_os import OsRandom
from support.evidence_log import HUB_ED, LOG_ED, LOG_ML, ORIGIN
from support.fake_clock import FakeClock
from support.memory_governance import MemoryGovernance
from support.memory_store import MemoryKeys

DAY = 86_400_000
T0 = 1_700_000_000_000 // DAY * DAY + DAY // 2  # noon
EPOCH = (T0 - 30 * DAY - DAY // 2, T0 + 370 * DAY - DAY // 2)
ONE = cap_units(1.0, 1e-6)
SHARES = {1: 500_000, 2: 500_000, 3: 250_000, 4: 125_000, 5: 31_250}  # rho of each grade
OFFICER = Asker(actor_id="person:anna", kind=ActorKind.PERSON, roles=frozenset({"privacy-officer"}))


def policy_text(epoch: int = ONE, lifetime: int = 10 * ONE, *, c: int = 3, **requesters) -> bytes:
    listed = {"person:anna": ONE * 10, "role:auditor": ONE, **requesters}
    lines = [f"{json.dumps(name)} = {cap}" for name, cap in listed.items()]
    return f"""format = "bedside-privacy-policy/1"
dataset = "studies"
[caps]
epoch = {epoch}
lifetime = {lifetime}
local = 4000000
[requesters]
{chr(10).join(lines)}
[purposes]
quality = {ONE * 10}
research = {ONE // 10}
[public]
c = {c}
devices = ["device-0", "device-1"]
age_bands = ["0-17", "18-39", "40-64", "65+"]
findings = ["opacity"]
minutes = 600
bins = 10
l2_cells = 1
""".encode()


def signed(document: bytes, *signers: str) -> bytes:
    """The document under the keys of two people, or of those named."""
    pairs = {"anna": LOG_ED, "bela": HUB_ED}
    return seal_envelope(PAYLOAD_TYPE, document, {n: pairs[n].sign for n in signers or pairs})


TRUSTED = {"anna": LOG_ED.key.public, "bela": HUB_ED.key.public}


def rows(count: int = 40) -> list[StudyRow]:
    return [
        StudyRow(
            patient=f"p{n // 2}",
            arrival=n,
            sex=("female", "male")[n % 2],
            age_band="18-39",
            device="device-0",
            decision="present" if n % 4 == 0 else "absent",
            label="positive" if n % 4 == 0 else "negative",
            score=0.9 if n % 4 == 0 else 0.1,
            minutes=30.0 + n,
            grade=1 + n // 2 % 5,
        )
        for n in range(count)
    ]


class Hospital:
    """The stack over one database file, without a box; `open` again stands for a restart."""

    def __init__(self, folder: Path, clock=None, *, noise=None) -> None:
        self.path, self.clock = folder / "box.db", clock or FakeClock(T0)
        self.counter_path = folder / "elsewhere" / "privacy.counter"
        self.keys = MemoryKeys(b"box", OsRandom())
        self.governance = MemoryGovernance(self.clock)
        self.noise = noise or SystemNoise()
        self.evidence_locked = False
        self.witness_ready = True
        self.database: Database | None = None
        self.open()

    def open(self, *, counter: bool = True) -> None:
        self.close()
        self.database = Database(self.path)
        self.evidence = SqliteEvidence(
            self.database,
            self.keys,
            lambda c, study_id: Box(bytes(32)),
            OsRandom(),
            self.clock,
            origin=ORIGIN,
            signers=[LOG_ED, LOG_ML],
        )
        self.counter = FileCounter(self.counter_path) if counter else None
        self.ledger = SqliteLedger(
            self.database,
            self.keys,
            self.evidence.record,
            self.clock,
            counter=self.counter,
            evidence_locked=lambda: self.evidence_locked,
            witness_ready=lambda: self.witness_ready,
        )
        self.snapshots = SqliteSnapshots(
            self.database, self.keys, lambda c, s: Box(bytes(32)), OsRandom(), self.clock
        )
        self.wire()

    def wire(self) -> None:
        self.budget = BudgetService(
            self.ledger, self.snapshots, lambda: TRUSTED, self.clock, SHARES
        )
        self.service = ReleaseService(
            self.ledger,
            self.snapshots,
            self.noise,
            LOG_ED,
            self.governance.gate,
            Origin(name=ORIGIN, proof=self.evidence.proof),
            self.clock,
        )

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.ledger.close()
            self.database = None

    def founded(self, document: bytes = b"") -> "Hospital":
        """With a policy signed by two and the first epoch open."""
        self.budget.activate(signed(document or policy_text()), "person:anna")
        self.budget.open_epoch(*EPOCH, "person:anna")
        return self

    def snapshot(self, studies: list[StudyRow] | None = None) -> str:
        epoch = self.budget.epoch()
        window = Window(dataset="studies", epoch=epoch.number, starts=epoch.starts, ends=epoch.ends)
        return self.snapshots.keep(window, rows() if studies is None else studies)

    def ask(self, *names: str, units: int = ONE // 100, snapshot: str = "", **more):
        return self.budget.request(
            names or ("volume",), units, snapshot or self.snapshot(), "quality", **more
        )

    def release(self, *names: str, **more):
        return self.service.release(self.ask(*names, **more), OFFICER)

    @property
    def spent(self) -> int:
        ledger = self.ledger.ledger()
        return max(ledger.spent.values(), default=0)
