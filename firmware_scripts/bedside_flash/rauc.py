"""Images of the operating system, by RAUC behind our own gate.

`rauc info` proves the signature only: a bundle with a byte flipped in its payload passes it (Debian
1.8, measured). So a bundle is verified by `rauc extract`, which reads every byte, and the images
that came out are hashed against the bundle's manifest once more. Bundles of the format `plain` are
refused: their payload is not covered block by block when it is mounted.

Installing, status and mark-good ask the running RAUC service. Which bundle may follow which is
ours: the version is a counter that never falls.
"""

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bedside_core.errors import (
    FlashRefusedError,
    InvalidInputError,
    InvalidPackageError,
    RollbackRefusedError,
    UnavailableError,
    UntrustedSignatureError,
)

_MANIFEST: Final = "manifest.raucm"
_TIMEOUT_S: Final = 1800.0  # an image of some GB on a slow disk
_BAD_SIGNATURE: Final = "signature verification failed"
_UNREADABLE: Final = ("payload is corrupted", "Invalid bundle format", "exceeds bundle size")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What a bundle says of itself, after every byte of it was verified."""

    compatible: str
    version: int
    images: Mapping[str, str]  # class of the slot -> SHA-256 of its image
    size: int  # bytes of the bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One root file system of the machine."""

    name: str
    bootname: str
    state: str  # booted, active, inactive
    boot_status: str  # good or bad
    version: int  # 0 when RAUC has not written it


@dataclass(frozen=True, slots=True, kw_only=True)
class OsStatus:
    """What RAUC says of this machine."""

    compatible: str
    booted: str  # bootname
    slots: tuple[Slot, ...]

    @property
    def version(self) -> int:
        """The version that is booted; 0 when unknown."""
        return max((slot.version for slot in self.slots if slot.bootname == self.booted), default=0)


class Rauc:
    """The program, with the settings it is run under."""

    def __init__(self, conf: Path | None = None) -> None:
        """Take the system configuration; None is RAUC's own, /etc/rauc/system.conf."""
        self._conf = conf

    def build(
        self, image: Path, out: Path, *, compatible: str, version: int, cert: Path, key: Path
    ) -> None:
        """Pack a root file system image into a signed bundle of the format `verity`.

        Args:
            image: of the root file system.
            out: the bundle; must not exist.
            compatible: the kind of machine, as in its system.conf.
            version: counter, larger than that of every release before.
            cert: PEM certificate of the signer.
            key: PEM private key.

        Raises:
            InvalidInputError: a name cannot be used, or a file is missing or there already.
            UnavailableError: RAUC is not installed, or it failed.
        """
        if not compatible or set(compatible) & set("\n\r=[]") or version < 1:
            raise InvalidInputError("compatible is one line, version at least 1")
        if out.exists():
            raise InvalidInputError(f"{out} exists")
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as name:
            content = Path(name) / "content"
            content.mkdir()
            _link(image, content / "rootfs.img")
            (content / _MANIFEST).write_text(
                f"[update]\ncompatible={compatible}\nversion={version}\n\n"
                "[bundle]\nformat=verity\n\n[image.rootfs]\nfilename=rootfs.img\n"
            )
            built = Path(name) / "out.raucb"
            self._run("bundle", f"--cert={cert}", f"--key={key}", str(content), str(built))
            built.replace(out)

    def verify(self, bundle: Path, keyring: Path, scratch: Path | None = None) -> BundleFacts:
        """Read every byte of a bundle and return what it is.

        Args:
            bundle: the file.
            keyring: PEM certificates of whoever may sign.
            scratch: folder with room for the images; the bundle's own when None.

        Raises:
            UntrustedSignatureError: nobody of the keyring signed, or the signature is damaged.
            InvalidPackageError: the payload is changed, cut off, or not ours in form.
        """
        with tempfile.TemporaryDirectory(dir=scratch or bundle.parent, prefix=".verify-") as name:
            content = Path(name) / "content"
            self._run("extract", f"--keyring={keyring}", str(bundle), str(content))
            return BundleFacts(size=bundle.stat().st_size, **_read_manifest(content))

    def install(self, bundle: Path, keyring: Path, step: Callable[[str], None]) -> BundleFacts:
        """Verify a bundle, then let RAUC write it into the slot that is not booted.

        Raises:
            FlashRefusedError: it is for another kind of machine.
            RollbackRefusedError: it is not newer than what is booted.
            UntrustedSignatureError, InvalidPackageError: see `verify`.
            UnavailableError: RAUC did not install it; the booted slot is untouched.
        """
        facts = self.verify(bundle, keyring)
        step(f"every byte of version {facts.version} is as it was signed")
        now = self.status()
        if facts.compatible != now.compatible:
            raise FlashRefusedError(
                f"the bundle is for {facts.compatible}, this machine is {now.compatible}"
            )
        if facts.version <= now.version:
            raise RollbackRefusedError(
                f"the bundle is version {facts.version}, {now.version} is booted"
            )
        step(f"{now.compatible}: version {now.version} is booted from {now.booted}")
        self._run("install", str(bundle))
        step("written into the other slot; it is tried at the next start")
        return facts

    def mark_good(self, gate: Callable[[], bool]) -> None:
        """Keep the booted system if our own health gate passes; otherwise it falls back by itself.

        Raises:
            FlashRefusedError: the gate did not pass.
        """
        if not gate():
            raise FlashRefusedError("the health gate did not pass: the system is not kept")
        self._run("status", "mark-good", "booted")

    def status(self) -> OsStatus:
        """Return which slot is booted and which may be; UnavailableError."""
        out = self._run("status", "--detailed", "--output-format=json")
        try:
            found = json.loads(out)
            slots = tuple(_slot(name, one) for row in found["slots"] for name, one in row.items())
            return OsStatus(compatible=found["compatible"], booted=found["booted"], slots=slots)
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise UnavailableError("what RAUC says of this machine cannot be read") from cause

    def _run(self, command: str, *words: str) -> str:
        program = shutil.which("rauc")
        if program is None:
            raise UnavailableError("RAUC is not installed (Debian package rauc)")
        conf = [f"--conf={self._conf}"] if self._conf else []
        try:
            done = subprocess.run(  # noqa: S603  words of this module and paths, no shell
                [program, *conf, command, *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as cause:
            raise UnavailableError("RAUC did not answer") from cause
        if done.returncode == 0:
            return done.stdout
        told = done.stderr.strip().splitlines()
        last = told[-1] if told else "no reason given"
        if _BAD_SIGNATURE in last:
            raise UntrustedSignatureError("nobody of the keyring signed the bundle as it is")
        if any(word in last for word in _UNREADABLE):
            raise InvalidPackageError(f"the bundle is damaged: {last}")
        raise UnavailableError(f"rauc {command}: {last}")


def _read_manifest(content: Path) -> dict[str, Any]:
    """Return what the manifest says, with every image hashed; InvalidPackageError."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string((content / _MANIFEST).read_text(encoding="utf-8"))
        images = {s.removeprefix("image."): parser[s] for s in parser if s.startswith("image.")}
        if parser["bundle"]["format"] != "verity" or not images:
            raise InvalidPackageError("the bundle is not of the format verity, or empty")
        for one in images.values():
            path = content / one["filename"]
            if path.parent != content or path.is_symlink() or _sha256(path) != one["sha256"]:
                raise InvalidPackageError("an image is not the one the bundle's manifest names")
        return {
            "compatible": parser["update"]["compatible"],
            "version": int(parser["update"]["version"]),
            "images": {name: one["sha256"] for name, one in images.items()},
        }
    except (OSError, configparser.Error, KeyError, ValueError) as cause:
        raise InvalidPackageError("the bundle's manifest cannot be read") from cause


def _slot(name: str, one: Mapping[str, Any]) -> Slot:
    written = (one.get("slot_status") or {}).get("bundle") or {}
    told = str(written.get("version") or "")
    return Slot(
        name=name,
        bootname=one.get("bootname") or "",
        state=one.get("state") or "",
        boot_status=one.get("boot_status") or "",
        version=int(told) if told.isdecimal() else 0,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(strict=True), target)
    except FileNotFoundError as cause:
        raise InvalidInputError(f"{source} does not exist") from cause
    except OSError:  # another file system
        shutil.copyfile(source, target)
