"""Moving the secret files of a stopped box from one protection to another.

Whatever is cut, the next start finds one whole set: `sealed.json` is replaced by a rename, and the
plain files are destroyed after it is in place, or written before it goes (see key_files).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bedside_core.errors import InvalidInputError, StoreUnavailableError
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.key_protection import Protection, Sealer
from bedside_edge.system import key_files

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """How the secret files are kept."""

    protection: Protection
    files: tuple[str, ...]  # under that protection
    plain: tuple[str, ...]  # lying there in plain, sealed or not
    recovery: bool  # whether a recovery recipient can open them


def status(folder: Path) -> KeyStatus:
    """Return how the secret files of a key folder are kept.

    Raises:
        StoreUnavailableError: the folder cannot be read.
    """
    with _mapped():
        found = key_files.read_sealed(folder)
        plain = tuple(name for name in key_files.SECRET_FILES if (folder / name).exists())
    if found is None:
        return KeyStatus(protection=Protection.FILE, files=plain, plain=plain, recovery=False)
    return KeyStatus(
        protection=found.protection,
        files=tuple(sorted(found.files)),
        plain=plain,
        recovery=bool(found.recovery),
    )


def secret_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every secret file there is, opened.

    Raises:
        KeysSealedError: they do not open on this machine.
        StoreUnavailableError: damaged, exposed or unreadable.
    """
    with _mapped():
        names = [n for n in key_files.SECRET_FILES if key_files.exists(folder / n)]
        return {name: key_files.read(folder / name, f"the file {name}") for name in names}


def prepare(folder: Path, sealer: Sealer, recipient: str, random: RandomBytes) -> None:
    """Make an empty sealed file in a new key folder: no key of it ever lies there in plain.

    Raises:
        KeysSealedError: nothing on this machine seals so.
        StoreUnavailableError: it cannot be written.
    """
    with _mapped():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        sealed = key_files.new_sealed(sealer, {}, recipient, random)
        key_files.write_sealed(folder, sealed, random)
        key_files.sync(folder.parent)


def seal(
    folder: Path,
    sealer: Sealer,
    recipient: str,
    random: RandomBytes,
    step: Step = lambda _: None,
    *,
    files: dict[str, bytes] | None = None,
) -> None:
    """Keep the secret files under `sealer`, whatever they are kept under now.

    Args:
        folder: the key folder of a stopped box.
        sealer: what hides them from now on.
        recipient: age recipient of the second copy; empty makes none.
        random: where keys and nonces come from.
        step: told each thing done.
        files: their content, when what seals them now does not open them any more.

    Raises:
        InvalidInputError: there are no keys, or the recipient is none.
        KeysSealedError: the old sealing does not open, or the new one does not seal.
        StoreUnavailableError: the folder cannot be read or written.
    """
    found = secret_files(folder) if files is None else files
    if not found:
        raise InvalidInputError("there are no keys in that folder")
    with _mapped():
        sealed = key_files.new_sealed(sealer, found, recipient, random)
        step("sealed, and opened once more to see that it opens")
        key_files.write_sealed(folder, sealed, random)
        step(f"{key_files.SEALED_FILE} is in place")
    if secret_files(folder) != found:  # reads what is on the disk, and destroys the plain files
        raise StoreUnavailableError("what was sealed is not what was there")
    with _mapped():
        key_files.sweep(folder)
    step("plain files are destroyed")


def unseal(
    folder: Path,
    random: RandomBytes,
    step: Step = lambda _: None,
    *,
    files: dict[str, bytes] | None = None,
) -> None:
    """Keep the secret files as plain files of mode 0600 again.

    Args:
        folder: the key folder of a stopped box.
        random: for temporary names.
        step: told each thing done.
        files: their content, when what seals them does not open them any more.

    Raises:
        KeysSealedError: the sealing does not open.
        StoreUnavailableError: the folder cannot be read or written.
    """
    found = secret_files(folder) if files is None else files
    with _mapped():
        for name, content in found.items():
            key_files.write_plain(folder / name, content, random)
        step("plain files are in place")
        if (folder / key_files.SEALED_FILE).exists():
            key_files.destroy(folder / key_files.SEALED_FILE)
        key_files.sweep(folder)
        step(f"{key_files.SEALED_FILE} is gone")


def recover(folder: Path, identity: str) -> dict[str, bytes]:
    """Return the secret files, opened by the recovery recipient's identity.

    Raises:
        InvalidInputError: nothing is sealed, or the identity is not the recipient's.
        StoreUnavailableError: damaged or unreadable.
    """
    with _mapped():
        found = key_files.read_sealed(folder)
    if found is None:
        raise InvalidInputError("the keys are not sealed: there is nothing to recover")
    return key_files.opened(found, key_files.by_recovery(found, identity))


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise StoreUnavailableError("the key folder cannot be read or written") from cause
