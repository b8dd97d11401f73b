"""The box's end: python-tuf's client, and what it leaves open.

- Memory is handed in and out as values; the caller keeps it in its database. The client itself
  works in a scratch folder that may vanish at any instant.
- Version floors per role, held beside the client's own checks: a floor begins anew only when the
  metadata above changes that role's keys.
- Time floor: no refresh while the clock stands before a time this box has proof of.
- Owners own: `targets` names no file itself, and no owner hands its folder on.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, Targets
from tuf.ngclient import Updater as TufUpdater
from tuf.ngclient import UpdaterConfig

from bedside_core.errors import (
    BedsideError,
    ChunkMismatchError,
    HubUnavailableError,
    InvalidMetadataError,
    MetadataExpiredError,
    MetadataMismatchError,
    MetadataRollbackError,
    MetadataUntrustedError,
    NotFoundError,
    TargetNotSignedError,
    TimeFloorError,
)
from bedside_sync.distribution import roles
from bedside_sync.distribution.assignment import (
    Assignment,
    Signed,
    assignment_path,
    check_assignment,
    owner_of,
    read_assignment,
)
from bedside_sync.distribution.chunks import ChunkStore, Progress
from bedside_sync.distribution.disk import disk
from bedside_sync.distribution.fetcher import BASE, SourceFetcher
from bedside_sync.distribution.manifest import MAX_MANIFEST, TargetManifest
from bedside_sync.distribution.memory import Floor, Memory
from bedside_sync.distribution.sources import Source

CHUNK_TRIES: Final = 3
CLOCK_SLACK_S: Final = 5  # a clock set right may step back that far
_TOP: Final = ("root", "timestamp", "snapshot", "targets")


class Refresh:
    """One refresh: at most one per object, in one scratch folder. See `opened`."""

    def __init__(
        self, source: Source, memory: Memory, root: bytes, now: int, scratch: Path
    ) -> None:
        self._before = self._memory = memory
        self._now, self._fresh, self._poisoned = now, False, False
        self._fallen: set[str] = set()  # owners whose metadata came older than its floor
        self._metadata, self._got = scratch / "metadata", scratch / "targets"
        with disk():
            (self._metadata / "root_history").mkdir(parents=True)
            self._got.mkdir()
            for name, data in memory.metadata.items():
                (self._metadata / name).write_bytes(data)
        with _named_errors():
            self._tuf = TufUpdater(
                str(self._metadata),
                f"{BASE}metadata/",
                str(self._got),
                f"{BASE}targets/",
                fetcher=SourceFetcher(source),
                config=UpdaterConfig(max_delegations=8),
                bootstrap=root,
            )
        # One clock for all checks: the client would ask the machine's own
        self._tuf._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)

    def refresh(self) -> None:
        """Fetch and check the top roles.

        Raises:
            MetadataUntrustedError, MetadataRollbackError, MetadataExpiredError,
            MetadataMismatchError, InvalidMetadataError: refused; nothing that came is believed.
            HubUnavailableError: the source does not answer.
        """
        with _named_errors():
            self._tuf.refresh()
        targets = roles.read_role(self._file("targets"), Targets)
        if targets.targets:
            raise InvalidMetadataError("targets names a file itself; every path has an owner")
        self._check(_TOP)
        self._fresh = True

    def target(self, path: str, limit: int = MAX_MANIFEST) -> Signed | None:
        """Return what the owning role names under a path; None when it names nothing.

        What is wrong with one owner's metadata stops what it owns and nothing else.

        Raises:
            InvalidTargetError: no role owns the path.
            As `refresh`; MetadataMismatchError also when the target is longer than `limit`.
        """
        with _named_errors():
            info = self._tuf.get_targetinfo(path)
            self._check((owner_of(path),))
            if info is None:
                return None
            if info.length > limit or set(info.hashes) != {"sha256"}:
                raise MetadataMismatchError(f"{path} is longer than it may be, or oddly hashed")
            file = Path(self._tuf.download_target(info))
        return Signed(sha256=info.hashes["sha256"], data=file.read_bytes())

    def assignment(self, site: str) -> Assignment:
        """Return this site's assignment.

        Raises:
            TargetNotSignedError: the repository has none for this site.
            InvalidTargetError, ForeignAssignmentError, StaleAssignmentError; as `refresh`.
        """
        signed = self.target(assignment_path(site))
        if signed is None:
            raise TargetNotSignedError("the repository holds no assignment for this site")
        assignment = read_assignment(signed.data)
        check_assignment(assignment, site, self._memory.serial)
        self._memory = replace(self._memory, serial=assignment.serial)
        return assignment

    def memory(self) -> Memory:
        """Return what to remember: all that was checked, also when a later step failed.

        A root or timestamp that was once seen is never forgotten because what followed it failed.
        After a version below its floor nothing that came is kept.
        """
        if self._poisoned:
            return self._before
        files = {
            path.relative_to(self._metadata).as_posix(): path.read_bytes()
            for path in sorted(self._metadata.rglob("*.json"))
            if path.is_file() and not path.is_symlink()
        }
        for role in self._fallen:
            name = f"{role}.json"
            files.pop(name, None)
            if name in self._before.metadata:
                files[name] = self._before.metadata[name]
        floor = max(self._memory.time_floor, self._now if self._fresh else 0)
        return replace(self._memory, metadata=files, time_floor=floor)

    # --- floors --------------------------------------------------------------------------------

    def _file(self, role: str) -> bytes:
        try:
            return (self._metadata / f"{role}.json").read_bytes()
        except OSError as cause:
            raise NotFoundError(f"no metadata of {role}") from cause

    def _check(self, names: Sequence[str]) -> None:
        """Hold roles that are here to their floors, and raise the floors in the memory."""
        floors = dict(self._memory.floors)
        for role in names:
            if not (self._metadata / f"{role}.json").is_file():
                continue  # not delegated, or never asked for
            signed = roles.parsed(self._file(role)).signed
            if role not in _TOP and isinstance(signed, Targets) and signed.delegations:
                raise InvalidMetadataError(f"{role} hands its folder on; an owner may not")
            try:
                keys = _keys(self._file("root" if role in _TOP else "targets"), role)
            except NotFoundError:
                continue  # a cached role that is no longer delegated
            held = floors.get(role)
            if held and held.keys == keys and signed.version < held.version:
                if role in _TOP:
                    self._poisoned = True
                self._fallen.add(role)
                raise MetadataRollbackError(
                    f"{role} is at version {signed.version}, this box has seen {held.version}"
                )
            floors[role] = Floor(keys=keys, version=signed.version)
        self._memory = replace(self._memory, floors=floors)


def _keys(delegator: bytes, role: str) -> str:
    """Digest of a role's keys. Snapshot and timestamp go together: new keys of either restart both.

    Source: TUF specification 1.0.34, section 5.3.11 (fast-forward recovery).
    """
    if role == "root":
        return "root"  # versions of root count up one by one; nothing restarts them
    pair = ("snapshot", "timestamp")
    named = pair if role in pair else (role,)
    held = [(one, *roles.keys_of(delegator, one)) for one in named]
    return sha256(json.dumps(held).encode("ascii")).hexdigest()


@contextmanager
def opened(
    source: Source, memory: Memory, *, root: bytes, now: int, scratch: Path
) -> Iterator[Refresh]:
    """Lend one refresh in a fresh scratch folder, which is gone afterwards.

    Args:
        source: hub or stick.
        memory: what the box remembers.
        root: the root built into the box; never what a cache holds.
        now: the box's clock, seconds since the epoch.
        scratch: folder to work in, on a disk of the box.

    Raises:
        TimeFloorError: the clock stands below the floor; nothing is asked.
        MetadataUntrustedError, InvalidMetadataError: the root built in is none.
    """
    if now + CLOCK_SLACK_S < memory.time_floor:
        raise TimeFloorError("the clock stands before the last refresh this box made")
    with disk():
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in scratch.iterdir():  # of a process that was cut
            shutil.rmtree(old, ignore_errors=True)
        work = Path(tempfile.mkdtemp(dir=scratch))
    try:
        yield Refresh(source, memory, root, now, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Give python-tuf's errors our codes; texts say the role, never what was sent."""
    try:
        yield
    except tuf_errors.UnsignedMetadataError as cause:
        raise MetadataUntrustedError(str(cause)[:200]) from cause
    except tuf_errors.BadVersionNumberError as cause:
        raise MetadataRollbackError(str(cause)[:200]) from cause
    except tuf_errors.ExpiredMetadataError as cause:
        raise MetadataExpiredError(str(cause)[:200]) from cause
    except tuf_errors.LengthOrHashMismatchError as cause:
        raise MetadataMismatchError(str(cause)[:200]) from cause
    except tuf_errors.DownloadLengthMismatchError as cause:
        raise MetadataMismatchError("a file is longer than the metadata says") from cause
    except tuf_errors.RepositoryError as cause:
        raise InvalidMetadataError(str(cause)[:200]) from cause
    except tuf_errors.DownloadHTTPError as cause:
        raise InvalidMetadataError("a file the metadata names is not there") from cause
    except tuf_errors.DownloadError as cause:
        below: Any = cause.__cause__
        if isinstance(below, BedsideError) and below.exit_code != HubUnavailableError.exit_code:
            raise below from cause
        raise HubUnavailableError("the repository cannot be read now") from cause


def fetch_chunks(
    source: Source,
    store: ChunkStore,
    manifest: TargetManifest,
    progress: Progress | None = None,
) -> int:
    """Fetch the chunks of a package that are not here; returns the bytes fetched.

    Each is checked and durable before the next counts; cut at any point, it goes on with what is
    missing.

    Raises:
        UpdateTooLargeError, DiskFullError: it does not fit; nothing was fetched.
        ChunkMismatchError: a chunk came wrong three times.
        HubUnavailableError: the source does not answer; call again to go on.
        NotFoundError: the source does not have a chunk.
    """
    store.must_fit(manifest)
    sizes, fetched = manifest.chunk_sizes(), 0
    total = sum(sizes.values())
    done = total - store.bytes_missing(manifest)
    if progress is not None:
        progress(done, total)
    for _ in range(CHUNK_TRIES):
        wanted = {digest: sizes[digest] for digest in store.missing(manifest)}
        if not wanted:
            return fetched
        for digest, data in source.chunks(wanted):
            try:
                store.put(digest, data)
            except ChunkMismatchError:
                continue  # asked for again in the next turn
            fetched += len(data)
            done += len(data)
            if progress is not None:
                progress(done, total)
    if store.missing(manifest):
        raise ChunkMismatchError(f"a chunk came wrong {CHUNK_TRIES} times")
    return fetched


def root_digest(root: bytes) -> str:
    """Return the fingerprint of a root, to be read out; InvalidMetadataError when it is none."""
    roles.read_role(root, Root)
    return sha256(root).hexdigest()


def root_made_at(root: bytes) -> int:
    """Return when a root was made, seconds: a clock before that is wrong."""
    made = roles.read_role(root, Root).expires.timestamp()
    return int(made) - roles.DAYS["root"] * 86_400
