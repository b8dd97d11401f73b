"""A stick for sites without a network: the repository's own tree, cut to what they need.

The box reads it with the code it reads the hub with. A stick is good until its timestamp expires.
"""

from collections.abc import Sequence
from pathlib import Path

from tuf.api.metadata import Snapshot, Targets

from bedside_core.errors import NotFoundError
from bedside_sync.distribution import roles
from bedside_sync.distribution.assignment import assignment_path
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.disk import read_plain, write_durably
from bedside_sync.distribution.repository import Repository
from bedside_sync.distribution.repository_files import LARGEST


def export(
    repository: Repository, stick: Path, sites: Sequence[str], now: int, days: int
) -> dict[str, int | str]:
    """Write what sites are assigned to a stick; returns counts and bytes.

    Args:
        repository: of the hub.
        stick: an existing folder.
        sites: site ids; only their assignments are written.
        now: seconds since the epoch.
        days: how long the stick is good for, 1 to 31.

    Raises:
        NotFoundError: a site has no assignment.
        InvalidInputError: `days` is out of range.
        DiskFullError, StoreUnavailableError: the stick cannot be written.
    """
    wanted: dict[str, str] = {}
    for site in sites:
        held = repository.assignment(site)
        if held is None:
            raise NotFoundError(f"{site} has no assignment")
        path = assignment_path(site)
        wanted[path] = (
            roles.read_role(repository.role_data("assign"), Targets).targets[path].hashes["sha256"]
        )
        wanted |= {item.path: item.sha256 for item in held.items}
    counts: dict[str, int | str] = {"sites": len(sites), "targets": len(wanted)}

    def copy() -> None:
        for one in _metadata(repository):
            write_durably(stick / "metadata" / one.name, read_plain(one, LARGEST))
        for path, digest in wanted.items():
            file = repository.target_file(path, digest)
            place = stick / file.relative_to(repository.folder)
            write_durably(place, read_plain(file, LARGEST))
        counts["bytes"] = _chunks(repository, stick, wanted)

    repository.stick(now, days, copy)
    return counts | {"days": days}


def _metadata(repository: Repository) -> list[Path]:
    """Every root, and of all other roles what the newest snapshot names."""
    folder = repository.folder / "metadata"
    snapshot = roles.read_role(repository.role_data("snapshot"), Snapshot)
    named = [f"{meta.version}.{name}" for name, meta in snapshot.meta.items()]
    own = [f"{snapshot.version}.snapshot.json", "timestamp.json"]
    return [*folder.glob("[0-9]*.root.json"), *(folder / name for name in (*named, *own))]


def _chunks(repository: Repository, stick: Path, wanted: dict[str, str]) -> int:
    source, target = ChunkStore(repository.folder / "chunks"), ChunkStore(stick / "chunks")
    written = 0
    for path, digest in wanted.items():
        if path.startswith("assign/"):
            continue
        for chunk in target.missing(manifest := repository.manifest(path, digest)):
            target.put(chunk, source.read(chunk))
        written += manifest.size
    return written
