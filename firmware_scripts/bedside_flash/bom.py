"""Bills of materials (CycloneDX 1.6): of the app from its lock, and the check of any bill offline.

A bill that lists other files or versions than the folder beside it is worse than none: people
look up vulnerabilities in it. So `check_boms` compares every digest and every locked version.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import PackageMetadata
from pathlib import Path
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.markers import Marker
from packaging.requirements import Requirement

from bedside_core.errors import InvalidInputError, InvalidPackageError
from bedside_core.model_bom import BOM_NAME, SPEC_VERSION, serial_number

LOCK_NAME: Final = "requirements.txt"
_MODEL_MANIFEST: Final = "manifest.json"
_SIGNATURE: Final = "model.sig"  # added after the bill was written
MOST_BYTES: Final = 16 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;\s*([^\\\n]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of a lock: the version, and the digests of the files that may be installed."""

    name: str
    version: str
    sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBom:
    """A bill that agrees with what lies beside it."""

    path: Path
    kind: str  # `application` or `machine-learning-model`
    components: int  # libraries, or files of the model


def read_lock(text: str) -> dict[str, Pin]:
    """Return the pins of a requirements file with hashes, by normal name.

    Raises:
        InvalidInputError: a line is not pinned to one version with at least one digest.
    """
    pins = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        if block.startswith("#"):
            continue
        found, digests = _PIN.match(block), tuple(_DIGEST.findall(block))
        if found is None or not digests:
            raise InvalidInputError(f"not pinned with a digest: {block.splitlines()[0][:80]}")
        if found[3] and not Marker(found[3]).evaluate():
            continue  # for another Python or system than this
        name = normal(found[1])
        pins[name] = Pin(name=name, version=found[2], sha256=digests)
    return pins


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def runtime(root: str, read: Callable[[str], PackageMetadata]) -> dict[str, set[str]]:
    """Return what an install of `root` needs on this machine: name -> names it needs itself.

    Args:
        root: the distribution.
        read: metadata of an installed distribution.
    """
    found: dict[str, set[str]] = {}
    waiting = [(normal(root), frozenset[str]())]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        needs = found.setdefault(name, set())
        for line in read(name).get_all("Requires-Dist") or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in extras or {""}
            ):
                needs.add(normal(needed.name))
                waiting.append((normal(needed.name), frozenset(needed.extras)))
    return found


def app_bom(
    lock: str, root: str = "bedside", read: Callable[[str], PackageMetadata] = metadata.metadata
) -> bytes:
    """Return the bill of the application: what is locked, with digests, licences and who needs it.

    Args:
        lock: text of requirements.txt.
        root: the distribution.
        read: metadata of an installed distribution; for licences and dependencies.

    Raises:
        InvalidInputError: something the application needs is not in the lock, or is installed in
            another version: the bill would not be of what is served.
    """
    pins, needs = read_lock(lock), runtime(root, read)
    own = read(root)
    top = Component(name=root, version=own["Version"], type=ComponentType.APPLICATION, bom_ref=root)
    top.licenses.update(_licences(own))
    parts = {root: top}
    for name in sorted(set(needs) - {root}):
        found, pin = read(name), pins.get(name)
        if pin is None or found["Version"] != pin.version:
            raise InvalidInputError(
                f"{name} {found['Version']} is installed, the lock says "
                f"{pin.version if pin else 'nothing of it'}"
            )
        parts[name] = Component(
            name=name,
            version=pin.version,
            type=ComponentType.LIBRARY,
            bom_ref=name,
            purl=PackageURL("pypi", name=name, version=pin.version),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in pin.sha256],
            licenses=_licences(found),
        )
    bom = Bom(components=[part for name, part in parts.items() if name != root])
    bom.metadata.component = top
    for name, needed in needs.items():
        bom.register_dependency(parts[name], [parts[one] for one in sorted(needed)])
    return _written(bom)


def check_boms(folder: Path) -> tuple[CheckedBom, ...]:
    """Check every bill in or beside a package folder against the folder, offline.

    A model package must have one: `bom.cdx.json` in it, or `<folder>.cdx.json` beside it. In
    another folder a bill that is there must be right: files it lists have their digests, and the
    libraries are those of `requirements.txt` beside it.

    Raises:
        InvalidPackageError: a model has none, one cannot be read, or it does not agree.
    """
    places = (folder / BOM_NAME, folder.with_name(f"{folder.name}.cdx.json"))
    found = [path for path in places if path.is_file()]
    is_model = _is_model(folder)
    if is_model and not found:
        raise InvalidPackageError("the model package has no bill of materials")
    checked = []
    for path in found:
        document = read_bom(path)
        if is_model:
            checked.append(_check_model(folder, path, document))
        else:
            checked.append(_check_app(folder, path, document))
    return tuple(checked)


def check_listed(
    data: bytes,
    name: str,
    files: Mapping[str, str],
    lock: str = "",
    model: tuple[str, str] | None = None,
) -> CheckedBom:
    """Check a bill inside a package against the files the package's manifest signs for.

    Args:
        data: the bill.
        name: its path in the package.
        files: path -> SHA-256 of every file of the package.
        lock: text of the package's requirements.txt; empty without one.
        model: name and version when the package is a model's: the bill must be that model's.

    Raises:
        InvalidPackageError: it cannot be read, or does not agree.
    """
    document = parse_bom(data, name)
    path, parts = Path(name), document.get("components", [])
    of_model = len(parts) == 1 and parts[0]["type"] == "machine-learning-model"
    if model is not None and not of_model:
        raise InvalidPackageError(f"{name} is not the bill of a model with its card")
    if of_model:
        if model is not None and (parts[0]["name"], parts[0].get("version")) != model:
            raise InvalidPackageError(f"{name} is of another model")
        listed = _digests(path, parts[0].get("components", []))
        wanted = {p: d for p, d in files.items() if p not in (name, _MODEL_MANIFEST, _SIGNATURE)}
        if listed != wanted or "modelCard" not in parts[0]:
            raise InvalidPackageError(f"{name} does not list the package's files with the card")
        return CheckedBom(path=path, kind="machine-learning-model", components=len(listed))
    listed = _digests(path, [part for part in parts if part["type"] == "file"])
    if any(files.get(one) != digest for one, digest in listed.items()):
        raise InvalidPackageError(f"{name} lists files that are not in the package")
    _check_libraries(name, parts, lock)
    kind = str(document["metadata"]["component"]["type"])
    return CheckedBom(path=path, kind=kind, components=len(parts))


def read_bom(path: Path) -> dict[str, Any]:
    """Return the bill in a file; InvalidPackageError."""
    try:
        with path.open("rb") as file:
            return parse_bom(file.read(MOST_BYTES + 1), path.name)
    except OSError as cause:
        raise InvalidPackageError(f"{path.name} cannot be read") from cause


def parse_bom(data: bytes, called: str) -> dict[str, Any]:
    """Return a bill as far as its structure is what CycloneDX 1.6 asks.

    Raises:
        InvalidPackageError: it is not.
    """
    if len(data) > MOST_BYTES:
        raise InvalidPackageError(f"{called} is too large for a bill of materials")
    try:
        document = json.loads(data, object_pairs_hook=_once)
        whole = (document["bomFormat"], document["specVersion"], document["version"])
        top, parts = document["metadata"]["component"], document.get("components", [])
        parts = [*parts, *(inner for part in parts for inner in part.get("components", []))]
        named = all(part["name"] and part["type"] for part in [top, *parts])
        hashed = all(
            _SHA256.fullmatch(one["content"])
            for part in parts
            for one in part.get("hashes", [])
            if one["alg"] == "SHA-256"
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise InvalidPackageError(f"{called} is no bill of materials") from cause
    if whole != ("CycloneDX", SPEC_VERSION, 1) or not named or not hashed:
        raise InvalidPackageError(f"{called} is no CycloneDX {SPEC_VERSION} document")
    return dict(document)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice: two readers would see two bills."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _check_model(folder: Path, path: Path, document: Mapping[str, Any]) -> CheckedBom:
    (part,) = document["components"] if len(document["components"]) == 1 else ({},)
    if part.get("type") != "machine-learning-model" or "modelCard" not in part:
        raise InvalidPackageError(f"{path.name} is not the bill of a model with its card")
    listed = _digests(path, part.get("components", []))
    manifest = json.loads((folder / _MODEL_MANIFEST).read_bytes())
    if (part["name"], part.get("version")) != (manifest.get("name"), manifest.get("version")):
        raise InvalidPackageError(f"{path.name} is of another model")
    there = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()} - {
        BOM_NAME,
        _MODEL_MANIFEST,
    }
    if set(listed) != there:
        named = ", ".join(sorted(set(listed) ^ there)[:5])
        raise InvalidPackageError(f"{path.name} does not list the package's files: {named}")
    _compare(folder, path, listed)
    return CheckedBom(path=path, kind="machine-learning-model", components=len(listed))


def _check_app(folder: Path, path: Path, document: Mapping[str, Any]) -> CheckedBom:
    parts: Sequence[Mapping[str, Any]] = document.get("components", [])
    _compare(folder, path, _digests(path, [p for p in parts if p["type"] == "file"]))
    lock = folder / LOCK_NAME
    _check_libraries(path.name, parts, lock.read_text("utf-8") if lock.is_file() else "")
    kind = str(document["metadata"]["component"]["type"])
    return CheckedBom(path=path, kind=kind, components=len(parts))


def _check_libraries(called: str, parts: Sequence[Mapping[str, Any]], lock: str) -> None:
    if not lock:
        return
    pins = read_lock(lock)
    for part in (one for one in parts if one["type"] == "library"):
        pin = pins.get(normal(part["name"]))
        digests = {one["content"] for one in part.get("hashes", [])}
        if pin is None or pin.version != part.get("version") or digests != set(pin.sha256):
            raise InvalidPackageError(f"{called}: {part['name']} is not as it is locked")


def _digests(path: Path, parts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        digests = [one["content"] for one in part.get("hashes", []) if one["alg"] == "SHA-256"]
        if len(digests) != 1:
            raise InvalidPackageError(f"{path.name} has not one SHA-256 of {part['name']}")
        if str(part["name"]) in found:
            raise InvalidPackageError(f"{path.name} lists {part['name']} twice")
        found[str(part["name"])] = digests[0]
    return found


def _compare(folder: Path, path: Path, listed: Mapping[str, str]) -> None:
    for name, digest in listed.items():
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()) or not place.is_file():
            raise InvalidPackageError(f"{path.name} lists {name}, which is not there")
        with place.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise InvalidPackageError(f"{name} is not the file {path.name} lists")


def _is_model(folder: Path) -> bool:
    try:
        return bool(
            json.loads((folder / _MODEL_MANIFEST).read_bytes())["format"] == "bedside-model/1"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _licences(found: PackageMetadata) -> list[LicenseExpression | DisjunctiveLicense]:
    """Return what a distribution says of its licence: an expression, else classifiers, else a line.

    The old free field sometimes holds whole texts; one line is read as a name.
    """
    if "License-Expression" in found:
        return [LicenseExpression(found["License-Expression"])]
    start = "License :: "
    classifiers = [c for c in found.get_all("Classifier") or [] if c.startswith(start)]
    names = {c.rpartition(" :: ")[2] for c in classifiers} - {"OSI Approved"}
    line = (found.get_all("License") or [""])[0].strip()
    if not names and line and "\n" not in line:
        names = {line}
    return [DisjunctiveLicense(name=name) for name in sorted(names)]


def _written(bom: Bom) -> bytes:
    """Return the same bytes for the same content: no time, and a serial number that follows."""
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    document["serialNumber"] = serial_number(json.dumps(document, sort_keys=True).encode())
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
