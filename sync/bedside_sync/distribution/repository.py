"""The repository on the hub: metadata, targets and chunks as files, drafts that await signatures.

metadata/   <version>.<role>.json, timestamp.json     what boxes fetch
targets/    <path's folder>/<sha256>.<name>           manifests and assignments
chunks/     <aa>/<sha256>                             content
drafts/     <version>.<role>.json                     carried to the people who sign, and back
online/     snapshot, timestamp, assign: the keys the hub itself signs with (mode 600)

Everything is durable before the timestamp that leads to it, so a cut leaves the old state or the
new one. One process changes it at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from tuf.api.metadata import Snapshot, Targets, Timestamp

from bedside_core.errors import (
    AlreadyExistsError,
    InvalidConfigError,
    InvalidInputError,
    InvalidMetadataError,
    NotFoundError,
    StaleAssignmentError,
    TargetNotSignedError,
)
from bedside_sync.distribution import roles
from bedside_sync.distribution.assignment import (
    Assignment,
    Item,
    Window,
    assignment_path,
    owner_of,
)
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.disk import alone, read_plain, write_durably
from bedside_sync.distribution.manifest import TargetManifest
from bedside_sync.distribution.repository_files import LARGEST, TOP, Draft, RepositoryFiles
from bedside_sync.distribution.roles import ONLINE, Holders
from bedside_sync.distribution.signers import (
    PrivateKey,
    make_private,
    private_pem,
    public_of,
    read_private,
)

_DAY: Final = 86_400
_TIMESTAMP_EVERY: Final = _DAY // 2  # boxes see a fresh one well before it is a day old
_WANTED: Final = {  # keys at least, threshold at least
    "root": (3, 2),
    "targets": (2, 2),
    "models": (3, 2),
    "app": (1, 1),
    "policies": (1, 1),
}


class Repository(RepositoryFiles):
    """One hub's repository. Methods that change it hold its lock."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it may not exist yet."""
        super().__init__(folder)
        self.chunks = ChunkStore(folder / "chunks") if folder.is_dir() else None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with alone(self.folder / "lock"):
            yield

    # --- beginning -----------------------------------------------------------------------------

    def begin(self, holders: Mapping[str, Holders], now: int) -> list[Draft]:
        """Make online keys and the first drafts; boxes see nothing before they are signed.

        Args:
            holders: of `root`, `targets`, `models`, `app`, `policies`.
            now: seconds since the epoch.

        Raises:
            AlreadyExistsError: there is a repository here.
            InvalidInputError: a role needs other numbers of keys than given.
        """
        if self.exists:
            raise AlreadyExistsError("there is a repository here; `keys rotate` changes keys")
        _must_be_enough(holders)
        with self._turn():
            keys = {role: make_private() for role in ONLINE}
            online = {
                role: Holders(keys=[public_of(f"hub-{role}", key)], threshold=1)
                for role, key in keys.items()
            }
            for role, key in keys.items():
                write_durably(self.folder / "online" / f"{role}.pem", private_pem(key), 0o600)
            known = {**holders, **online}
            top = {role: known[role] for role in TOP}
            self._draft("root", 1, roles.make_root(1, now, top))
            handed = {role: holders[role] for role in ("models", "app", "policies")}
            handed["assign"] = online["assign"]
            self._draft("targets", 1, roles.make_targets(1, now, handed))
            for role in ("models", "app", "policies"):
                self._draft(role, 1, roles.make_role(1, now, role))
            first = roles.sign(roles.make_role(1, now, "assign"), keys["assign"])
            self._draft("assign", 1, first)
            self.chunks = ChunkStore(self.folder / "chunks")
            return self.drafts()

    def _draft(self, role: str, version: int, data: bytes) -> Path:
        path = self.folder / "drafts" / f"{version}.{role}.json"
        for old in self._draft_files(role):
            if old != path:
                old.unlink()
        write_durably(path, data)
        return path

    # --- drafts --------------------------------------------------------------------------------

    def signed(self, data: bytes, role: str) -> Draft:
        """Take back a draft that people have signed elsewhere.

        Raises:
            NotFoundError: no such draft awaits signatures.
            InvalidInputError: it says something else than the draft.
        """
        with self._turn():
            version = roles.parsed(data).signed.version
            path = self.folder / "drafts" / f"{version}.{role}.json"
            if path not in self._draft_files(role):
                raise NotFoundError(f"no draft {version} of {role} awaits signatures")
            write_durably(path, roles.merge(read_plain(path, LARGEST), data))
            return self._read_draft(path)

    # --- keys ----------------------------------------------------------------------------------

    def add_vendor(self, vendor: str, holders: Holders, now: int) -> list[Draft]:
        """Draft the delegation of a vendor's folder, and the vendor's first, empty role."""
        role = f"vendor-{vendor}"
        with self._turn():
            if role in roles.delegated(self._newest("targets")):
                raise AlreadyExistsError(f"{vendor} is delegated already; rotate changes its keys")
            self._change_targets(now, {role: holders})
            version = self._version(role) + 1  # a vendor who comes back goes on from where it was
            self._draft(role, version, roles.make_role(version, now, role))
            return self.drafts()

    def revoke_vendor(self, vendor: str, now: int) -> list[Draft]:
        """Draft `targets` without a vendor; all others stay as they are."""
        role = f"vendor-{vendor}"
        with self._turn():
            self._change_targets(now, {role: None})
            for path in self._draft_files(role):
                path.unlink()
            return self.drafts()

    def rotate(self, role: str, holders: Holders, now: int) -> list[Draft]:
        """Draft new keys for a role; old keys sign the change, new ones what comes after.

        Raises:
            InvalidInputError: the role's keys lie on the hub: `rotate_online`.
        """
        if role in ONLINE:
            raise InvalidInputError("an online role gets its new key from the hub itself")
        with self._turn():
            if role in ("root", "targets"):
                self._change_root(now, {role: holders})
            else:
                self._change_targets(now, {role: holders})
            if role != "root" and self._version(role):
                self._redraft(role, now)
            return self.drafts()

    def rotate_online(self, role: str, now: int) -> list[Draft]:
        """Make a new online key and draft the change that names it; used once that is signed."""
        with self._turn():
            key = make_private()
            holders = Holders(keys=[public_of(f"hub-{role}", key)], threshold=1)
            write_durably(self.folder / "online" / f"{role}.next.pem", private_pem(key), 0o600)
            if role == "assign":
                self._change_targets(now, {role: holders})
            else:
                self._change_root(now, {role: holders})
            return self.drafts()

    def renew(self, role: str, now: int, days: int = 0) -> Draft:
        """Draft a role again as it is, with a new date of expiry."""
        with self._turn():
            if role == "root":
                self._change_root(now, {})
            elif role == "targets":
                self._change_targets(now, {})
            else:
                self._redraft(role, now, days)
            return next(one for one in self.drafts() if one.role == role)

    def _redraft(self, role: str, now: int, days: int = 0) -> None:
        if role == "targets":
            self._change_targets(now, {})
        else:
            data = roles.change_role(self._newest(role), now, role, days=days)
            self._draft(role, self._version(role) + 1, data)

    def _change_root(self, now: int, changes: Mapping[str, Holders]) -> None:
        version = self._version("root") + 1
        data = roles.change_root(self._coming("root"), now, changes, version=version)
        self._draft("root", version, data)

    def _change_targets(self, now: int, changes: Mapping[str, Holders | None]) -> None:
        data = roles.change_targets(self._newest("targets"), now, changes)
        self._draft("targets", self._version("targets") + 1, data)

    # --- packages ------------------------------------------------------------------------------

    def add(
        self, manifest: TargetManifest, source: ChunkStore, role_data: bytes | None, now: int
    ) -> Draft:
        """Take in a package and its content; the owning role's draft then names it.

        Args:
            manifest: of the package.
            source: holds its chunks.
            role_data: metadata of the owning role that names it, signed by its owner elsewhere;
                None drafts it here, to be signed.
            now: seconds since the epoch.

        Raises:
            TargetNotSignedError: no role owns the path, or `role_data` does not name it.
            NotFoundError, ChunkMismatchError: a chunk is missing or wrong.
        """
        role, store = owner_of(manifest.path), self._store()
        if role not in roles.delegated(self._coming("targets")):
            raise TargetNotSignedError(f"{role} is not delegated here")
        for digest in store.missing(manifest):
            store.put(digest, source.read(digest))
        with self._turn():
            self._write_target(manifest.path, manifest.encode())
            if role_data is None:
                data = roles.add_package(self._coming(role), now, role, manifest)
                version = self._version(role) + 1
                data = _numbered(data, version)
            else:
                data, version = self._owners_own(role, role_data, manifest)
            return self._read_draft(self._draft(role, version, data))

    def _owners_own(self, role: str, data: bytes, manifest: TargetManifest) -> tuple[bytes, int]:
        targets = roles.read_role(data, Targets)
        named = targets.targets.get(manifest.path)
        if named is None or named.hashes.get("sha256") != manifest.digest:
            raise TargetNotSignedError("the role's metadata does not name this package")
        if targets.version <= self._version(role):
            raise InvalidMetadataError(
                f"{role} is at version {self._version(role)} here; sign the next one"
            )
        if targets.delegations is not None:
            raise InvalidMetadataError("an owner may not hand its folder on")
        for path, other in targets.targets.items():
            if not self.target_file(path, other.hashes["sha256"]).is_file():
                raise NotFoundError(f"{path} is named and not here; add that package first")
        return data, targets.version

    # --- assignments ---------------------------------------------------------------------------

    def assign(
        self,
        site: str,
        paths: Sequence[str],
        now: int,
        *,
        window: Window | None = None,
        group: str = "",
        days: int = 0,
    ) -> Assignment:
        """Sign and publish what a site is to run: paths that the owning roles have published.

        Raises:
            TargetNotSignedError: a path is not published by its owner.
        """
        items = [self._item(path) for path in paths]
        held = self.assignment(site)
        made = Assignment(
            site=site,
            serial=(held.serial if held else 0) + 1,
            window=window or (held.window if held else Window()),
            group=group or (held.group if held else ""),
            items=tuple(items),
        )
        self.publish_assignments([made], now, days=days)
        return made

    def publish_assignments(
        self, assignments: Sequence[Assignment], now: int, *, days: int = 0
    ) -> None:
        """Sign and publish assignments of several sites as one revision.

        Raises:
            StaleAssignmentError: a serial is not above the one published.
        """
        with self._turn():
            added: dict[str, bytes] = {}
            for one in assignments:
                held = self.assignment(one.site)
                if held is not None and one.serial <= held.serial:
                    raise StaleAssignmentError("an assignment's serial has to grow")
                path = assignment_path(one.site)
                added[path] = one.encode()
                self._write_target(path, added[path])
            data = roles.change_role(self._newest("assign"), now, "assign", add=added, days=days)
            self._publish("assign", roles.sign(data, self._online("assign")))
            self._state(now)

    def _item(self, path: str) -> Item:
        role = owner_of(path)
        named = roles.read_role(self._newest(role), Targets).targets.get(path)
        if named is None or role not in roles.delegated(self._newest("targets")):
            raise TargetNotSignedError(f"{role} has not published {path}")
        digest = named.hashes["sha256"]
        manifest = self.manifest(path, digest)
        return Item(
            kind=manifest.kind,
            path=path,
            sha256=digest,
            release_counter=manifest.release_counter,
        )

    def _write_target(self, path: str, data: bytes) -> None:
        write_durably(self.target_file(path, sha256(data).hexdigest()), data)

    # --- publishing ----------------------------------------------------------------------------

    def commit(self, now: int) -> tuple[list[Draft], list[Draft]]:
        """Publish every draft that is signed; returns what was, and what still waits.

        Root comes first, then `targets`, then the owners: each is held to what is above it.
        """
        done: list[Draft] = []
        with self._turn():
            for draft in self.drafts():
                again = self._read_draft(draft.path)
                above = () if again.role == "root" else ("root",) if again.role in TOP else TOP[:2]
                waits = {one.role for one in self.drafts()} & set(above)
                if again.standing.missing or waits:
                    continue
                self._publish(again.role, read_plain(again.path, LARGEST))
                self._take_new_keys()
                again.path.unlink()
                done.append(again)
            if done and self._version("targets") and self._version("root"):
                self._state(now)
            return done, self.drafts()

    def _take_new_keys(self) -> None:
        """Use an online key made by `rotate_online` once the metadata in force names it."""
        for path in sorted((self.folder / "online").glob("*.next.pem")):
            role = path.name.removesuffix(".next.pem")
            half = public_of(role, read_private(path.read_bytes()))
            above = self._newest("targets" if role == "assign" else "root")
            if roles.keys_of(above, role)[0] == (half.key_id,):
                path.rename(path.with_name(f"{role}.pem"))

    def _publish(self, role: str, data: bytes) -> None:
        version = roles.parsed(data).signed.version
        if version <= self._version(role):
            raise InvalidMetadataError(f"{role} is at version {self._version(role)} already")
        write_durably(self.folder / "metadata" / f"{version}.{role}.json", data)

    def _state(self, now: int, days: int = 0) -> None:
        """Sign what belongs together now, and when: from here on boxes see it."""
        published = {
            role: self._version(role)
            for role in ("targets", *self._owners())
            if self._version(role)
        }
        snapshot = b""
        if self._version("snapshot"):
            snapshot = self._newest("snapshot")
            held = roles.read_role(snapshot, Snapshot)
            same = {name: one.version for name, one in held.meta.items()} == {
                f"{role}.json": version for role, version in published.items()
            }
            left = int(held.expires.timestamp()) - now
            wanted = max(days, roles.DAYS["snapshot"] / 2) * _DAY
            if not same or left < wanted or self._standing("snapshot", snapshot).missing:
                snapshot = b""
        if not snapshot:
            version = self._version("snapshot") + 1
            key = self._online("snapshot")
            snapshot = roles.make_snapshot(version, now, published, key, days)
            self._publish("snapshot", snapshot)
        self._timestamp(now, snapshot, days)

    def _timestamp(self, now: int, snapshot: bytes, days: int = 0) -> None:
        path = self.folder / "metadata" / "timestamp.json"
        version = 1
        if path.is_file():
            version = roles.read_role(read_plain(path, LARGEST), Timestamp).version + 1
        data = roles.make_timestamp(version, now, snapshot, self._online("timestamp"), days)
        write_durably(path, data)

    def keep_fresh(self, now: int) -> bool:
        """Sign timestamp, snapshot and assignments again when they are due; whether any was.

        Raises:
            UpdateRunningError: a command changes the repository; ask again later.
        """
        path = self.folder / "metadata" / "timestamp.json"
        if not path.is_file():
            return False
        with self._turn():
            held = roles.read_role(read_plain(path, LARGEST), Timestamp)
            made = int(held.expires.timestamp()) - roles.DAYS["timestamp"] * _DAY
            if now - made < _TIMESTAMP_EVERY:
                return False
            assign = roles.read_role(self._newest("assign"), Targets)
            if int(assign.expires.timestamp()) - now < roles.DAYS["assign"] * _DAY // 2:
                again = roles.change_role(self._newest("assign"), now, "assign")
                self._publish("assign", roles.sign(again, self._online("assign")))
            self._state(now)
            return True

    def stick(self, now: int, days: int, copy: Callable[[], None]) -> None:
        """Sign a state good for `days`, let it be copied, then go on with a short-lived one.

        The stick's timestamp stands between the versions online, so a box that has seen a later
        one refuses the stick, as it should.
        """
        if not 1 <= days <= roles.MAX_STICK_DAYS:
            raise InvalidInputError(f"a stick is good for 1 to {roles.MAX_STICK_DAYS} days")
        with self._turn():
            again = roles.change_role(self._newest("assign"), now, "assign", days=days)
            self._publish("assign", roles.sign(again, self._online("assign")))
            self._state(now, days)
            copy()
            self._timestamp(now, self._newest("snapshot"))

    def _online(self, role: str) -> PrivateKey:
        path = self.folder / "online" / f"{role}.pem"
        try:
            return read_private(path.read_bytes())
        except OSError as cause:
            raise InvalidConfigError("the hub's online keys are missing") from cause

    def _store(self) -> ChunkStore:
        if self.chunks is None or not self.exists:
            raise NotFoundError("there is no repository here; `keys ceremony` begins one")
        return self.chunks


def _numbered(data: bytes, version: int) -> bytes:
    """A draft that is changed again keeps its number; its signatures are gone."""
    targets = roles.read_role(data, Targets)
    targets.version = version
    return roles.written(targets)


def _must_be_enough(holders: Mapping[str, Holders]) -> None:
    wanted = {
        "root": (3, 2),
        "targets": (2, 2),
        "models": (3, 2),
        "app": (1, 1),
        "policies": (1, 1),
    }
    for role, (keys, threshold) in wanted.items():
        held = holders.get(role)
        if held is None or len(held.keys) < keys or held.threshold < threshold:
            raise InvalidInputError(f"{role} takes {threshold} of at least {keys} keys")
