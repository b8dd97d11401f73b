"""`bedside-flash verify`: everything about a stick or a package, checked without a network."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_core.errors import InvalidInputError, NotFoundError, TargetNotSignedError
from bedside_flash.cli.common import EXISTING, FOLDER, bar, json_option, read_small, say
from bedside_flash.cli.keys import read_half

if TYPE_CHECKING:
    from bedside_sync.distribution.chunks import ChunkStore
    from bedside_sync.distribution.manifest import TargetManifest


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--root", type=EXISTING, help="The first root, of a source you trust; for a stick")
@click.option("--key", type=EXISTING, help="Public half that signed model.sig; for a package")
@json_option
def verify(folder: Path, root: Path | None, key: Path | None, as_json: bool) -> None:
    """Check FOLDER: a stick, or a package made by `build`. Exit 0 only when all of it holds.

    A stick is read as a box reads it: signatures, thresholds, versions, expiry, owners, and every
    chunk by its digest. A package: manifest, every chunk, the bill of materials against the files,
    and with --key the bundle in model.sig.

    \b
    Examples:
      bedside-flash verify /media/usb --root root.json
      bedside-flash verify board-3/ --key acme.key.pub
    """
    if (folder / "metadata").is_dir():
        if root is None:
            raise click.UsageError("a stick is checked against a root: --root root.json")
        facts = _stick(folder, read_small(root, 512_000), as_json)
    elif (folder / "manifest.json").is_file():
        facts = _package(folder, key)
    else:
        raise InvalidInputError("neither a stick (metadata/) nor a package (manifest.json)")
    lines = [
        f"{one['path']}  {one['bytes']:,} bytes, counter {one['counter']}" for one in facts["items"]
    ]
    say(as_json, facts, [*lines, *facts.get("notes", []), "everything holds"])


def _package(folder: Path, key: Path | None) -> dict[str, Any]:
    from bedside_sync.distribution.packages import check_package_content, read_package

    found = read_package(folder)
    bundle = check_package_content(found, read_half(key).public if key else "")
    notes = ["model.sig is signed by this key" if bundle else "model.sig was not checked (--key)"]
    notes.append(_bill(found.manifest, found.chunks))
    item = {
        "path": found.manifest.path,
        "digest": found.manifest.digest,
        "counter": found.manifest.release_counter,
        "bytes": found.manifest.size,
    }
    return {"ok": True, "bundle": bundle, "items": [item], "notes": notes}


def _bill(manifest: "TargetManifest", chunks: "ChunkStore") -> str:
    """Check the bill of materials of a package against its files; say what was found."""
    from bedside_core.errors import InvalidPackageError
    from bedside_core.model_bom import BOM_NAME
    from bedside_flash.bom import LOCK_NAME, MOST_BYTES, check_listed

    files = {one.path: one for one in manifest.files}
    named = [p for p, one in files.items() if one.sha256 == manifest.sbom]
    names = named or [path for path in (BOM_NAME,) if path in files]
    if not names:
        return "no bill of materials in it"

    def content(path: str) -> bytes:
        if files[path].size > MOST_BYTES:  # before it is read: a package may have 64 GiB
            raise InvalidPackageError(f"{path} is too large for a bill of materials")
        return b"".join(chunks.read(digest, keep=True) for digest in files[path].chunks)

    lock = content(LOCK_NAME).decode() if LOCK_NAME in files else ""
    digests = {path: one.sha256 for path, one in files.items()}
    model = (manifest.name, manifest.version) if manifest.kind == "model" else None
    checked = check_listed(content(names[0]), names[0], digests, lock, model)
    return f"{names[0]}: {checked.kind}, {checked.components} components, as they are here"


def _stick(folder: Path, root: bytes, quiet: bool) -> dict[str, Any]:
    from bedside_sync.distribution.assignment import read_assignment
    from bedside_sync.distribution.chunks import ChunkStore
    from bedside_sync.distribution.manifest import read_manifest
    from bedside_sync.distribution.memory import Memory
    from bedside_sync.distribution.sources import FolderSource
    from bedside_sync.distribution.updater import opened

    source, sites, manifests = FolderSource(folder), [], []
    with (
        tempfile.TemporaryDirectory() as scratch,
        opened(source, Memory(), root=root, now=int(time.time()), scratch=Path(scratch)) as refresh,
    ):
        refresh.refresh()
        for path in _targets(folder):
            signed = refresh.target(path)
            if signed is None:
                raise TargetNotSignedError(f"{path} is on the stick and its owner does not name it")
            if path.startswith("assign/"):
                sites.append(read_assignment(signed.data))
            else:
                manifests.append(read_manifest(signed.data, path))
    if not (folder / "chunks").is_dir():
        raise NotFoundError("the stick holds no chunks")
    chunks = ChunkStore(folder / "chunks")
    total, done = sum(one.size for one in manifests), 0
    with bar("chunks", quiet) as tell:
        for manifest in manifests:
            for digest, size in manifest.chunk_sizes().items():
                chunks.read(digest, keep=True)
                done += size
                tell(done, total)
    items = [
        {"path": m.path, "digest": m.digest, "counter": m.release_counter, "bytes": m.size}
        for m in manifests
    ]
    bills = [f"{one.path}: {_bill(one, chunks)}" for one in manifests]
    notes = [f"for {one.site}, serial {one.serial}, {len(one.items)} items" for one in sites]
    return {
        "ok": True,
        "items": items,
        "notes": bills + notes,
        "sites": [one.site for one in sites],
    }


def _targets(folder: Path) -> list[str]:
    """Return the target paths of a stick: `<folder>/<sha256>.<name>` is `<folder>/<name>`.

    Whether the owner's digest is that of the file is checked when it is read.
    """
    found = set()
    for path in sorted((folder / "targets").rglob("*")):
        if not path.is_dir():
            name = path.name.partition(".")[2]
            found.add(path.relative_to(folder / "targets").with_name(name).as_posix())
    return sorted(found)
