"""A package on its way from its maker to the hub: a folder that holds everything about it.

manifest.json      what the owning role signs
chunks/            the content
role.json          metadata of the owning role that names the manifest, once it is signed
model.sig          among the content: the bundle outsiders check
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bedside_core.errors import InvalidEnvelopeError, InvalidTargetError, NotFoundError
from bedside_sync.distribution.bundle import BUNDLE_NAME, MAX_BUNDLE, check_bundle, sign_bundle
from bedside_sync.distribution.chunks import ChunkStore, package_files
from bedside_sync.distribution.disk import disk, read_plain, write_durably
from bedside_sync.distribution.manifest import (
    MAX_MANIFEST,
    PackagedFile,
    TargetManifest,
    read_manifest,
)
from bedside_sync.distribution.signers import PrivateKey

MANIFEST: Final = "manifest.json"
ROLE: Final = "role.json"
_MAX_ROLE: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package folder as read."""

    folder: Path
    manifest: TargetManifest
    chunks: ChunkStore
    role_data: bytes | None


def read_package(folder: Path) -> Package:
    """Return a package folder; content is checked when it is read.

    Raises:
        NotFoundError: no manifest in it. InvalidTargetError: it is malformed.
        ForbiddenPathError: a link, or a file that is too long.
    """
    data = read_plain(folder / MANIFEST, MAX_MANIFEST)
    manifest = read_manifest(data)
    if not (folder / "chunks").is_dir():
        raise NotFoundError("the package holds no chunks")
    try:
        role = read_plain(folder / ROLE, _MAX_ROLE)
    except NotFoundError:
        role = None
    return Package(
        folder=folder, manifest=manifest, chunks=ChunkStore(folder / "chunks"), role_data=role
    )


def build_package(
    content: Path, out: Path, facts: Mapping[str, Any], private: PrivateKey | None = None
) -> Package:
    """Make a package folder of a folder of files.

    Args:
        content: every file below it becomes part of the package.
        out: new folder.
        facts: fields of the manifest beside its files.
        private: signs the bundle for outsiders; None leaves it out.

    Raises:
        InvalidTargetError: a path no package may have, or facts no manifest may have.
        ForbiddenPathError: a link or device among the files.
    """
    with disk():
        out.mkdir(parents=True)
    store = ChunkStore(out / "chunks")
    try:
        files = package_files(content, store)
        if private is not None:
            files = (*(one for one in files if one.path != BUNDLE_NAME),)
            digests = {one.path: one.sha256 for one in files}
            bundle = sign_bundle(str(facts["name"]), digests, private)
            files = tuple(sorted((*files, _small(bundle, store)), key=lambda one: one.path))
        # strict models take tuples from Python, lists from JSON: facts come from people's files
        manifest = TargetManifest.model_validate(dict(facts) | {"files": files})
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidTargetError(f"not usable: {where}: {first['msg']}") from cause
    write_durably(out / MANIFEST, manifest.encode())
    return read_package(out)


def _small(data: bytes, store: ChunkStore) -> PackagedFile:
    digest = sha256(data).hexdigest()
    store.put(digest, data)
    return PackagedFile(path=BUNDLE_NAME, size=len(data), sha256=digest, chunks=(digest,))


def check_package_content(package: Package, public: str = "") -> bool:
    """Read every chunk back and compare; returns whether a bundle was checked too.

    Args:
        package: as read.
        public: PEM of the key the bundle has to be signed with; empty leaves the bundle alone.

    Raises:
        NotFoundError, ChunkMismatchError: content is missing or changed.
        InvalidEnvelopeError, UntrustedSignatureError, ProofMismatchError: of the bundle.
    """
    for digest in package.manifest.chunk_sizes():
        package.chunks.read(digest, keep=True)
    if not public:
        return False
    one = package.manifest.file(BUNDLE_NAME)
    if one.size > MAX_BUNDLE:
        raise InvalidEnvelopeError("the bundle is too long")
    data = b"".join(package.chunks.read(digest, keep=True) for digest in one.chunks)
    others = {f.path: f.sha256 for f in package.manifest.files if f.path != BUNDLE_NAME}
    check_bundle(data, others, public)
    return True
