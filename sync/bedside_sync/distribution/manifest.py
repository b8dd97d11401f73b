"""A package's manifest: what a role signs. The content is chunks, named here by their digests.

The manifest is the TUF target; it is small, so whoever signs can read it. It says for what it is
made, what it needs beside it, and how far back one may go from it. Nothing here reads a file.
"""

import re
from hashlib import sha256
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bedside_core.errors import InvalidMessageError, InvalidTargetError
from bedside_sync.secagg.bodies import HEX_32, Body, decode

CHUNK: Final = 4 << 20  # bytes; the last chunk of a file is shorter
MAX_MANIFEST: Final = 1 << 20  # bytes
MAX_FILES: Final = 4096
MAX_PACKAGE: Final = 64 << 30  # bytes
_MAX_DEPTH: Final = 16
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127}")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")

Kind = Literal["app", "model", "profile", "policy"]
Hex32 = Annotated[str, Field(pattern=HEX_32)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$")]
Counter = Annotated[int, Field(ge=1, le=2**53 - 1)]
Text = Annotated[str, Field(max_length=500)]


def safe_path(path: str) -> str:
    """Return a file's path when it is relative, plain and means one file on every system.

    Raises:
        ValueError: absolute, with a `..`, a hidden or empty part, a backslash, a device's name.
    """
    parts = path.split("/")
    if len(path) > 240 or len(parts) > _MAX_DEPTH:
        raise ValueError("the path is too long")
    for part in parts:
        if not _SEGMENT.fullmatch(part) or part.endswith(".") or _RESERVED.fullmatch(part.lower()):
            raise ValueError("the path is not plain")
    return path


class PackagedFile(Body):
    """One file of a package."""

    path: Annotated[str, AfterValidator(safe_path)]
    size: Annotated[int, Field(ge=0, le=MAX_PACKAGE)]
    sha256: Hex32
    chunks: tuple[Hex32, ...]
    executable: Annotated[int, Field(ge=0, le=1)] = 0

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if len(self.chunks) != -(-self.size // CHUNK):
            raise ValueError("a file has as many chunks as its size needs")
        if len(self.chunks) == 1 and self.chunks[0] != self.sha256:
            raise ValueError("a file of one chunk has that chunk's digest")
        if not self.chunks and self.sha256 != sha256(b"").hexdigest():
            raise ValueError("an empty file has the digest of nothing")
        return self

    def chunk_size(self, index: int) -> int:
        """Return the bytes of the chunk at `index`."""
        return min(CHUNK, self.size - index * CHUNK)


class Requirement(Body):
    """What has to run beside a package: a range of release counters, both ends included.

    `most` 0 means no upper end. For a model the name is the model's; otherwise it is empty, or
    the name of the profile or policy that is meant.
    """

    kind: Kind
    name: Name | Literal[""] = ""
    least: Annotated[int, Field(ge=0, le=2**53 - 1)]
    most: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0

    @property
    def slot(self) -> str:
        """The slot that must hold it: `app`, `profile`, `policy` or `model/<name>`."""
        return slot_of(self.kind, self.name)


class TargetManifest(Body):
    """What a package is. The path it is signed under follows from it (`path`).

    Attributes:
        vendor: who made a profile, the role that signs it; empty for the other kinds.
        release_counter: grows with every release of this thing; versions are for people.
        min_counter: once this is in service, nothing below this counter may be gone back to.
        hardware: profile ids it is made for; empty when it does not matter.
        engine: engine it was exported for, and `precision`; empty when it does not matter.
        sbom: digest of the bill of materials among the files.
        card: digest of the model card among the files; empty for other kinds.
        acceptance: digests of the acceptance or golden cases, in their order.
        dp_policy: version of the privacy policy a model was trained under.
    """

    format: Literal["bedside-target/1"] = "bedside-target/1"
    kind: Kind
    name: Name
    version: Version
    vendor: Name | Literal[""] = ""
    release_counter: Counter
    min_counter: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    files: Annotated[tuple[PackagedFile, ...], Field(min_length=1, max_length=MAX_FILES)]
    hardware: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    engine: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,32}$")] = ""
    precision: Annotated[str, Field(pattern=r"^[a-z0-9]{0,16}$")] = ""
    sbom: Hex32 | Literal[""] = ""
    card: Hex32 | Literal[""] = ""
    acceptance: Annotated[tuple[Hex32, ...], Field(max_length=256)] = ()
    intended_use: Text = ""
    dp_policy: Annotated[str, Field(max_length=64)] = ""
    requires: Annotated[tuple[Requirement, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.vendor) != (self.kind == "profile"):
            raise ValueError("a profile, and nothing else, names its vendor")
        if self.min_counter > self.release_counter:
            raise ValueError("a release may not forbid itself")
        if self.size > MAX_PACKAGE:
            raise ValueError("the package is too large")
        if list(self.files) != sorted(self.files, key=lambda one: one.path):
            raise ValueError("files are listed in the order of their paths")
        _no_collision([one.path for one in self.files])
        digests = {one.sha256 for one in self.files}
        if {self.sbom, self.card} - {""} - digests:
            raise ValueError("a bill of materials and a card are files of the package")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(one.size for one in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as it is signed, hex."""
        return sha256(self.encode()).hexdigest()

    @property
    def slot(self) -> str:
        """The slot it goes into: `app`, `profile`, `policy` or `model/<name>`."""
        return slot_of(self.kind, self.name)

    @property
    def path(self) -> str:
        """The TUF target path this manifest has to stand under."""
        return {
            "app": f"app/{self.name}-{self.version}.json",
            "model": f"models/{self.name}/{self.version}.json",
            "policy": f"policies/{self.name}-{self.version}.json",
            "profile": f"hw_profiles/{self.vendor}/{self.name}-{self.version}.json",
        }[self.kind]

    def chunk_sizes(self) -> dict[str, int]:
        """Return every chunk's digest with its size in bytes, each once, in order of the files."""
        return {
            chunk: one.chunk_size(index)
            for one in self.files
            for index, chunk in enumerate(one.chunks)
        }

    def file(self, path: str) -> PackagedFile:
        """Return the file at a path; InvalidTargetError when there is none."""
        for one in self.files:
            if one.path == path:
                return one
        raise InvalidTargetError("the package has no such file")


def slot_of(kind: Kind, name: str) -> str:
    """Return the slot a thing goes into."""
    return f"model/{name}" if kind == "model" else kind


def _no_collision(paths: list[str]) -> None:
    """Refuse paths that would be one file, or a file and a folder, on some file system."""
    spellings: dict[str, str] = {}
    files = {path.lower() for path in paths}
    if len(files) != len(paths):
        raise ValueError("two files have one name")
    for path in paths:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder.lower() in files or spellings.setdefault(folder.lower(), folder) != folder:
                raise ValueError("a folder has the name of something else")


def read_manifest(data: bytes, path: str = "") -> TargetManifest:
    """Return the manifest in `data`.

    Args:
        data: bytes of the target, at most 1 MiB.
        path: target path it was signed under; empty when it is not signed yet.

    Raises:
        InvalidTargetError: malformed, or it stands under the path of something else.
    """
    try:
        manifest = decode(TargetManifest, data, MAX_MANIFEST)
    except InvalidMessageError as cause:
        raise InvalidTargetError(str(cause)) from cause
    if path and manifest.path != path:
        raise InvalidTargetError("the manifest is of another package than its path says")
    return manifest
