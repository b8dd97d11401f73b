"""A repository with its people, and boxes that read it: everything real but the paper."""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bedside_core.errors import BedsideError, HubRefusedError, UnavailableError
from bedside_sync.distribution.assignment import Assignment
from bedside_sync.distribution.chunks import ChunkStore, package_files
from bedside_sync.distribution.gateway import Gateway
from bedside_sync.distribution.manifest import TargetManifest
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.repository import Repository
from bedside_sync.distribution.roles import Holders, sign
from bedside_sync.distribution.signers import PrivateKey, make_private, public_of
from bedside_sync.distribution.updater import Refresh, opened
from bedside_sync.wire import Message, read_message, write_message

START = int(dt.datetime(2027, 3, 1, tzinfo=dt.UTC).timestamp())
DAY = 86_400
SITES = {"box-1": "s0001", "box-2": "s0002"}
PEOPLE = {
    "root": ("ada", "bo", "cy"),
    "targets": ("di", "ed"),
    "models": ("trainer", "safety", "quality"),
    "app": ("release",),
    "policies": ("board",),
}
THRESHOLDS = {"root": 2, "targets": 2, "models": 2, "app": 1, "policies": 1}


class Direct:
    """Carries questions to a gateway as bytes, in this process."""

    def __init__(self, gateway: Gateway, peer: str = "box-1") -> None:
        self.gateway, self.peer = gateway, peer
        self.asked: list[str] = []

    def ask(self, request: Message) -> Message:
        read = read_message(write_message(request))
        self.asked.append(read.text("path"))
        try:
            return read_message(write_message(self.gateway.answer(self.peer, read)))
        except UnavailableError:
            raise
        except BedsideError as error:
            raise HubRefusedError(error.code, str(error)) from error


@dataclass
class House:
    """A repository whose people sign when told to."""

    folder: Path
    now: int = START
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = Repository(self.folder / "repository")
        self.gateway = Gateway(self.repository.folder, lambda peer: SITES[peer])

    def key(self, name: str) -> PrivateKey:
        if name not in self.keys:
            self.keys[name] = make_private()
        return self.keys[name]

    def holders(self, names: Iterable[str], threshold: int = 1) -> Holders:
        halves = [public_of(name, self.key(name)) for name in names]
        return Holders(keys=halves, threshold=threshold)

    def begin(self) -> "House":
        people = {role: self.holders(who, THRESHOLDS[role]) for role, who in PEOPLE.items()}
        self.repository.begin(people, self.now)
        self.commit()
        return self

    def sign(self, *names: str) -> None:
        """Every draft is signed by those of `names` it awaits (all people when none is named)."""
        for draft in self.repository.drafts():
            data = draft.path.read_bytes()
            for name in draft.standing.awaited:
                if name in self.keys and (not names or name in names):
                    data = sign(data, self.keys[name])
            draft.path.write_bytes(data)

    def commit(self, *names: str) -> None:
        self.sign(*names)
        self.repository.commit(self.now)

    def add_vendor(self, vendor: str) -> None:
        self.repository.add_vendor(vendor, self.holders([vendor]), self.now)
        self.commit()

    def package(
        self, files: Mapping[str, bytes], **facts: object
    ) -> tuple[TargetManifest, ChunkStore]:
        number = len(list(self.folder.glob("package-*")))
        folder = self.folder / f"package-{number}"
        for name, data in files.items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store = ChunkStore(folder / "chunks")
        held = package_files(folder / "files", store)
        given = {"kind": "model", "name": "chest", "version": "1.0.0", "release_counter": 1}
        return TargetManifest(files=held, **(given | facts)), store

    def publish(self, files: Mapping[str, bytes], **facts: object) -> TargetManifest:
        manifest, store = self.package(files, **facts)
        self.repository.add(manifest, store, None, self.now)
        self.commit()
        return manifest

    def assign(self, *manifests: TargetManifest, site: str = "s0001") -> Assignment:
        return self.repository.assign(site, [one.path for one in manifests], self.now)

    @property
    def root(self) -> bytes:
        return self.repository.root()

    def refresh(self, folder: Path, memory: Memory | None = None, **given: object) -> "Seen":
        """One night of a box: refresh, assignment, items; what it keeps and what stopped it."""
        return look(
            given.pop("source"),
            memory or Memory(),
            root=given.pop("root", None) or self.root,
            now=given.pop("now", self.now),
            folder=folder,
            **given,
        )


@dataclass
class Seen:
    """What a box saw in one refresh."""

    memory: Memory
    code: str = ""
    assignment: Assignment | None = None
    signed: dict = field(default_factory=dict)


def look(source, memory, *, root, now, folder, site="s0001", paths=()):
    """Refresh and read this site's assignment and its items, as a box does."""
    seen = Seen(memory=memory)
    refresh: Refresh | None = None
    try:
        with opened(source, memory, root=root, now=now, scratch=folder / "scratch") as refresh:
            try:
                refresh.refresh()
                if site:
                    seen.assignment = refresh.assignment(site)
                wanted = paths or [item.path for item in (seen.assignment or NOTHING).items]
                for path in wanted:
                    seen.signed[path] = refresh.target(path)
            finally:
                seen.memory = refresh.memory()
    except BedsideError as error:
        seen.code = error.code
    return seen


class _Nothing:
    items = ()


NOTHING = _Nothing()


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same for one seed."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)
