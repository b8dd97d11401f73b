"""The repository's files as they are: published metadata, drafts, packages, assignments.

Nothing here changes a file; `repository.py` does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuf.api.metadata import Root, Targets

from bedside_core.errors import InvalidTargetError, NotFoundError
from bedside_sync.distribution import roles
from bedside_sync.distribution.assignment import Assignment, assignment_path, read_assignment
from bedside_sync.distribution.disk import read_plain
from bedside_sync.distribution.manifest import TargetManifest, read_manifest
from bedside_sync.distribution.roles import Standing

REPOSITORY: Final = "repository"  # in the hub's folder
LARGEST: Final = 5_000_000  # bytes of any metadata, as python-tuf limits it
TOP: Final = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Metadata that awaits signatures."""

    role: str
    version: int
    path: Path
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStatus:
    """A published role: its version, when it expires, whether its keys still are its keys."""

    role: str
    version: int
    expires: int
    valid: bool


class RepositoryFiles:
    """Reads one hub's repository."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read yet."""
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether a ceremony has begun here."""
        return (self.folder / "online").is_dir()

    # --- drafts --------------------------------------------------------------------------------

    def drafts(self) -> list[Draft]:
        """Return what awaits signatures, in the order it is published."""
        found = [self._read_draft(path) for path in self._draft_files("*")]
        order = {"root": 0, "targets": 1}
        return sorted(found, key=lambda one: (order.get(one.role, 2), one.role))

    def _draft_files(self, role: str) -> list[Path]:
        return sorted((self.folder / "drafts").glob(f"[0-9]*.{role}.json"))

    def _read_draft(self, path: Path) -> Draft:
        role, data = role_of(path), read_plain(path, LARGEST)
        version = roles.parsed(data).signed.version
        return Draft(role=role, version=version, path=path, standing=self._standing(role, data))

    def _standing(self, role: str, data: bytes) -> Standing:
        if role == "root":
            before = self._newest("root") if roles.read_role(data, Root).version > 1 else b""
            return roles.standing(data, role, data, before)
        above = "root" if role in TOP else "targets"
        return roles.standing(data, role, self._coming(above))

    def _coming(self, role: str) -> bytes:
        """The draft of a role when there is one, else what is published."""
        files = self._draft_files(role)
        return read_plain(files[-1], LARGEST) if files else self._newest(role)

    # --- packages and assignments --------------------------------------------------------------

    def assignment(self, site: str) -> Assignment | None:
        """Return a site's published assignment."""
        path = assignment_path(site)
        named = roles.read_role(self._newest("assign"), Targets).targets.get(path)
        if named is None:
            return None
        file = self.target_file(path, named.hashes["sha256"])
        return read_assignment(read_plain(file, LARGEST))

    def sites(self) -> list[str]:
        """Return the sites that have an assignment."""
        named = roles.read_role(self._newest("assign"), Targets).targets
        return sorted(path.removeprefix("assign/").removesuffix(".json") for path in named)

    def packages(self) -> dict[str, str]:
        """Return what is published, by path, with the manifest's digest."""
        return {
            path: target.hashes["sha256"]
            for role in roles.delegated(self._newest("targets"))
            if role != "assign" and self._version(role)
            for path, target in roles.read_role(self._newest(role), Targets).targets.items()
        }

    def manifest(self, path: str, digest: str) -> TargetManifest:
        """Return a package's manifest; NotFoundError."""
        return read_manifest(read_plain(self.target_file(path, digest), LARGEST), path)

    def target_file(self, path: str, digest: str) -> Path:
        """Return where a target lies."""
        folder, _, name = path.rpartition("/")
        return self.folder / "targets" / folder / f"{digest}.{name}"

    # --- roles ---------------------------------------------------------------------------------

    def status(self) -> list[RoleStatus]:
        """Return every published role."""
        found = []
        for role in ("root", "targets", "snapshot", "timestamp", *self._owners()):
            if role == "timestamp":
                path = self.folder / "metadata" / "timestamp.json"
                data = read_plain(path, LARGEST) if path.is_file() else b""
            else:
                data = self._newest(role) if self._version(role) else b""
            if data:
                signed = roles.parsed(data).signed
                expires = int(signed.expires.timestamp())
                found.append(
                    RoleStatus(
                        role=role,
                        version=signed.version,
                        expires=expires,
                        valid=self._in_force(role, data),
                    )
                )
        return found

    def _in_force(self, role: str, data: bytes) -> bool:
        above = self._newest("root" if role in TOP else "targets")
        try:
            return roles.standing(data, role, above).missing == 0
        except NotFoundError:
            return False

    def root(self) -> bytes:
        """Return the first root: what boxes are told to trust."""
        return read_plain(self.folder / "metadata" / "1.root.json", LARGEST)

    def role_data(self, role: str) -> bytes:
        """Return a published role's metadata, for its owner to go on from; NotFoundError."""
        return self._newest(role)

    def _owners(self) -> list[str]:
        """Every role that ever published, delegated or not: a snapshot may not forget one."""
        found = {role_of(path) for path in (self.folder / "metadata").glob("[0-9]*.json")}
        return sorted(found - set(TOP))

    def _version(self, role: str) -> int:
        files = (self.folder / "metadata").glob(f"[0-9]*.{role}.json")
        return max((int(path.name.split(".")[0]) for path in files), default=0)

    def _newest(self, role: str) -> bytes:
        version = self._version(role)
        if not version:
            raise NotFoundError(f"{role} is not published yet")
        return read_plain(self.folder / "metadata" / f"{version}.{role}.json", LARGEST)


def role_of(path: Path) -> str:
    """Return the role a metadata file is of: `<version>.<role>.json`; InvalidTargetError."""
    version, _, rest = path.name.partition(".")
    if not version.isdigit() or not rest.endswith(".json"):
        raise InvalidTargetError("metadata files are named <version>.<role>.json")
    return rest.removesuffix(".json")
