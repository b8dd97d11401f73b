"""A release folder: everything `install.sh` needs on a machine, with the digest of each file.

bedside-<version>-...whl   the five packages
requirements.txt           the part of the lock that an install needs; no test tools
bedside.cdx.json           bill of materials
install.sh, systemd/       from firmware_scripts/
SHA256SUMS                 of all of it; what is signed is the folder as a TUF target
"""

import hashlib
import re
import shutil
from pathlib import Path

from bedside_core.errors import InvalidInputError
from bedside_flash.bom import LOCK_NAME, app_bom, normal, runtime

SUMS = "SHA256SUMS"
BILL = "bedside.cdx.json"


def write_release(wheel: Path, lock: Path, scripts: Path, out: Path) -> list[str]:
    """Put a release together; return the names in it.

    Args:
        wheel: the built wheel.
        lock: requirements.txt with hashes, test tools included.
        scripts: folder with install.sh and systemd/.
        out: the folder to make; must not exist or be empty.

    Raises:
        InvalidInputError: something is missing, `out` holds something, or what is installed here
            is not what is locked.
    """
    if out.exists() and any(out.iterdir()):
        raise InvalidInputError(f"{out} is not empty")
    text = lock.read_text(encoding="utf-8")
    needed = box_lock(text)
    bill = app_bom(needed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel, out / wheel.name)
        shutil.copy(scripts / "install.sh", out / "install.sh")
        shutil.copytree(scripts / "systemd", out / "systemd")
    except OSError as cause:
        raise InvalidInputError(f"the release cannot be written: {cause.strerror}") from cause
    (out / LOCK_NAME).write_text(needed, encoding="utf-8")
    (out / BILL).write_bytes(bill)
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    sums = [f"{_sha256(out / name)}  {name}\n" for name in names]
    (out / SUMS).write_text("".join(sums), encoding="ascii")
    return [*names, SUMS]


def box_lock(text: str) -> str:
    """Return the blocks of a lock that an install of the application needs."""
    wanted = runtime_names()
    blocks = re.split(r"\n(?=\S)", text.strip())
    kept = [block for block in blocks if normal(block.partition("==")[0]) in wanted]
    return "\n".join(kept) + "\n"


def runtime_names() -> set[str]:
    """Return the distributions an install needs on this machine, without its own."""
    from importlib import metadata

    return set(runtime("bedside", metadata.metadata)) - {"bedside"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
