"""A box's slots over a real database and real folders; the gate says what the test tells it to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bedside_core.errors import BedsideError
from bedside_edge.ports.evidence import Event
from bedside_edge.ports.flashing import Candidate, Way
from bedside_edge.services.flashing import FlashingService
from bedside_edge.store.database import Database
from bedside_edge.store.flashing import SqliteFlashing
from bedside_edge.store.slot_folders import FlashFolders
from bedside_sync.distribution.chunks import ChunkStore, package_files
from bedside_sync.distribution.manifest import TargetManifest
from support.fake_clock import FakeClock

TRIAL_S = 600


class ScriptedGate:
    """`Gate`: passes unless told what to raise; remembers what it saw of the candidate's files."""

    def __init__(self) -> None:
        self.answers: list[BedsideError | None] = []
        self.seen: list[dict[str, bytes]] = []
        self.seconds: list[float] = []
        self.on_call = lambda: None

    def __call__(self, candidate: Candidate, seconds: float) -> dict:
        self.on_call()
        self.seconds.append(seconds)
        self.seen.append(files_in(candidate.folder))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return {"golden_cases": 2}

    def stop(self) -> None:
        pass


@dataclass
class Use:
    """What acts on what serves: keeps the version, or raises."""

    versions: list[str] = field(default_factory=list)
    error: BedsideError | None = None
    needed: set[str] = field(default_factory=set)

    def __call__(self, kind: str, candidate: Candidate | None) -> None:
        if self.error is not None:
            raise self.error
        self.versions.append(candidate.manifest.version if candidate else "")

    def holds(self, candidate: Candidate) -> bool:
        return candidate.manifest.version in self.needed


class FlashHouse:
    """Open, use, close, open again: the folder is what stays."""

    def __init__(self, folder: Path, *, check=lambda: ["database"]) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.gate, self.use, self.events = ScriptedGate(), Use(), []
        self.check = check
        self.chunks = ChunkStore(folder / "slots" / "chunks")

    def record(self, _connection, event: Event) -> int:
        self.events.append(event)
        return len(self.events) - 1

    def open(self) -> FlashingService:
        self.database = Database(self.folder / "bedside.db")
        self.store = SqliteFlashing(self.database, self.record)
        self.folders = FlashFolders(self.folder / "slots", self.chunks)
        way = Way(gate=self.gate, apply=self.use, in_use=self.use.holds)
        service = FlashingService(
            self.store,
            self.folders,
            {
                "model": way,
                "policy": way,
                "profile": Way(gate=self.gate, apply=None),
                "app": Way(gate=None, apply=None),
            },
            lambda: self.check(),
            self.clock,
            trial_s=TRIAL_S,
        )
        service.start()
        return service

    def close(self) -> None:
        self.database.close()

    def package(self, counter: int, files: Mapping[str, bytes] | None = None, **facts):
        """A manifest whose chunks this box has; every counter has other bytes."""
        place = (
            self.folder / f"package-{hashlib.sha256(repr((counter, facts)).encode()).hexdigest()}"
        )
        given = files or {"model.bin": b"%d" % counter * 3000, "in/card.md": b"card %d" % counter}
        for name, data in given.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        fields = {
            "kind": "model",
            "name": "chest",
            "version": f"{counter}.0.0",
            "release_counter": counter,
        }
        return TargetManifest(files=package_files(place, self.chunks), **(fields | facts))

    def whole(self) -> list[str]:
        """What serves, by kind, with its files as the manifest has them; fails when it is not."""
        found = []
        for pair in self.store.pairs():
            if pair.active:
                held = self.store.manifest(pair.kind, pair.active)
                manifest = TargetManifest.model_validate_json(held)
                self.folders.verify(pair.kind, pair.active, manifest)
                found.append(f"{pair.kind} {manifest.version}")
        return found


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
