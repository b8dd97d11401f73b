"""`bedside-edge backup`: a copy without keys, the keys apart, and the way back."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from bedside_core.errors import InvalidBackupError, InvalidInputError, StoreUnavailableError
from bedside_edge.cli.evidence import progress_bar
from bedside_edge.config import Config, load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.store.backup import Backup

Command = Callable[..., None]

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _folder_options(command: Command) -> Command:
    """Add the options that say which state folder, and how to answer."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option("--config", "config_path", type=_PATH, help="Settings"),
        click.option("--state", type=_PATH, help="State folder"),
        click.option("--json", "as_json", is_flag=True, help="Print JSON; no progress bar"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def backup() -> None:
    """Copies of the state folder, its keys apart, and the way back."""


@backup.command("create")
@click.argument("folder", metavar="DIR|FILE", type=_PATH)
@click.option("--recipient", default="", help="age1...: one encrypted FILE [default: config]")
@_folder_options
def create_backup(
    folder: Path, recipient: str, config_path: Path | None, state: Path | None, as_json: bool
) -> None:
    """Copy database and objects into DIR, which must be empty. The box may run meanwhile.

    With a recipient the copy is one FILE that only the holder of its age identity opens. Without
    the keys nothing in it can be read; `backup keys` exports them, afterwards.

    \b
    Examples:
      bedside-edge backup create /mnt/backup/2026-11-24
      bedside-edge backup create /mnt/backup/2026-11-24.age --recipient age1...
      bedside-edge backup keys /mnt/safe/keys-2026-11-24
    """
    from bedside_edge.store import backup as copies
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.keys import open_box_keys
    from bedside_edge.system.random_os import OsRandom

    config, source = settings(config_path, state)
    keys = open_box_keys(source / "keys", OsRandom(), create=False)
    recipient = recipient or config.backup.recipient
    with (
        plain_copy(folder, recipient) as target,
        progress_bar("objects", shown=not as_json) as progress,
    ):
        made = copies.create(source, target, keys, SystemClock().now(), progress)
    _say(made, f"{folder}: {made.objects} objects, {made.size} bytes", as_json)


@backup.command("verify")
@click.argument("folder", metavar="DIR", type=_PATH)
@_folder_options
def verify_backup(
    folder: Path, config_path: Path | None, state: Path | None, as_json: bool
) -> None:
    """Check every file of a backup; where the box key is at hand, also that it is this box's.

    \b
    Examples:
      bedside-edge backup verify /mnt/backup/2026-11-24
    """
    from bedside_edge.store import backup as copies
    from bedside_edge.system.keys import open_box_keys
    from bedside_edge.system.random_os import OsRandom

    _, source = settings(config_path, state)
    try:
        keys = open_box_keys(source / "keys", OsRandom(), create=False)
    except StoreUnavailableError:
        keys = None
    with progress_bar("objects", shown=not as_json) as progress:
        found = copies.verify(folder, keys, progress)
    whose = "of this box" if keys else "without the box key: whose it is was not checked"
    _say(found, f"{folder}: {found.objects} objects, whole, {whose}", as_json)


@backup.command("keys")
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--recipient", default="", help="age1...; otherwise under a passphrase")
@click.option("--passphrase-file", type=_FILE, help="Instead of being asked")
@_folder_options
def export_keys(
    file: Path,
    recipient: str,
    passphrase_file: Path | None,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Write box key, key slots and log keys into FILE, for the recipient or under a passphrase.

    Make it after `backup create`: it must know every key slot the copy uses. Make a new one after
    every erasure and destroy the old one: it still holds what was erased since.

    \b
    Examples:
      bedside-edge backup keys /mnt/safe/box-1.keys
    """
    from bedside_edge.system import key_export
    from bedside_edge.system.random_os import OsRandom

    _, source = settings(config_path, state)
    if recipient:
        data = key_export.export_for(source / "keys", recipient)
    else:
        passphrase = _passphrase(passphrase_file, confirm=True)
        data = key_export.export_keys(source / "keys", passphrase, OsRandom())
    try:
        with file.open("xb") as out:
            file.chmod(0o600)
            out.write(data)
    except OSError as cause:
        raise InvalidInputError(f"{file} cannot be written: {cause.strerror}") from cause
    click.echo(json.dumps({"bytes": len(data)}) if as_json else f"wrote {file}")


@backup.command("restore")
@click.argument("folder", metavar="DIR|FILE", type=_PATH)
@click.option("--identity", type=_FILE, help="AGE-SECRET-KEY file, for what is encrypted with age")
@click.option("--keys", "keys_file", type=_FILE, help="Export of the keys; not if keys/ is there")
@click.option("--passphrase-file", type=_FILE, help="Instead of being asked")
@click.option(
    "--journal", "journals", multiple=True, type=_FILE, help="Newer slots.journal; repeat"
)
@_folder_options
def restore_backup(
    folder: Path,
    identity: Path | None,
    keys_file: Path | None,
    passphrase_file: Path | None,
    journals: tuple[Path, ...],
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Put a backup into a state folder that has no database; erasures since are applied again.

    A `keys` folder that survived is used as it is: it knows every erasure. With `--keys` the
    erasures after the export are known only from copies of `slots.journal`; give the newest.
    Where no privacy counter survived, nothing is released or sent to rounds until two people
    unlock it: see `privacy unlock` and `sync recover`.

    \b
    Examples:
      bedside-edge backup restore /mnt/backup/2026-11-24 --state /var/lib/bedside
      bedside-edge backup restore /mnt/backup/2026-11-24 --keys /mnt/safe/box-1.keys
      bedside-edge backup restore 2026-11-24.age --keys box-1.keys --identity /media/recovery.txt
    """
    config, target = settings(config_path, state)
    if keys_file is not None:
        put_keys(target, keys_file, identity, passphrase_file)
    found = restore(folder, target, identity, journals, shown=not as_json)
    locked = _lock_budgets(config, target)
    again = _opened(config, target)
    words = f"{target}: {found.objects} objects restored, {again} erasures applied again"
    if as_json:
        told = {"objects": found.objects, "erased_again": again, "budgets_locked": locked}
        click.echo(json.dumps(told))
        return
    click.echo(words)
    if locked:
        click.echo(
            "what was spent of privacy since the backup is unknown: releases and rounds wait for"
            " `bedside-edge privacy unlock` and `bedside-edge sync recover`"
        )


def put_keys(target: Path, file: Path, identity: Path | None, passphrase_file: Path | None) -> None:
    """Put exported keys into a state folder; whether age or a passphrase opens them, they say."""
    from bedside_edge.system import key_export
    from bedside_edge.system.age_files import is_age, read_identity

    if is_age(file):
        if identity is None:
            raise InvalidInputError("the keys are encrypted with age: give --identity")
        files = key_export.open_export_of(_bytes(file), read_identity(identity))
    else:
        passphrase = _passphrase(passphrase_file, confirm=False)
        files = key_export.open_export(_bytes(file), passphrase)
    key_export.put_keys(target / "keys", files)


def restore(
    source: Path, target: Path, identity: Path | None, journals: Sequence[Path], *, shown: bool
) -> "Backup":
    """Put a backup, a folder or an age file, into a state folder that has its keys."""
    from bedside_edge.store import backup as copies
    from bedside_edge.system.keys import open_box_keys
    from bedside_edge.system.random_os import OsRandom

    keys = open_box_keys(target / "keys", OsRandom(), create=False)
    with (
        opened_copy(source, target, identity) as folder,
        progress_bar("objects", shown=shown) as progress,
    ):
        return copies.restore(folder, target, keys, [_bytes(path) for path in journals], progress)


@contextmanager
def plain_copy(target: Path, recipient: str) -> Iterator[Path]:
    """Lend the folder to copy into; with a recipient it is packed into `target`, then removed."""
    if not recipient:
        yield target
        return
    from bedside_edge.system.age_files import check_recipient
    from bedside_edge.system.backup_age import pack

    check_recipient(recipient)
    if target.exists():
        raise InvalidBackupError(f"{target} exists")
    with _scratch(target.parent) as scratch:
        yield scratch / "copy"
        pack(scratch / "copy", target, recipient)


@contextmanager
def opened_copy(source: Path, beside: Path, identity: Path | None) -> Iterator[Path]:
    """Lend a backup as a folder, opened on the disk of `beside` and removed afterwards."""
    from bedside_edge.system.age_files import is_age, read_identity
    from bedside_edge.system.backup_age import unpack

    if not is_age(source):
        yield source
        return
    if identity is None:
        raise InvalidInputError("the backup is encrypted with age: give --identity")
    secret = read_identity(identity)
    with _scratch(beside) as scratch:
        unpack(source, scratch / "copy", secret)
        yield scratch / "copy"


@contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    try:
        with TemporaryDirectory(prefix=".backup-", dir=beside) as name:
            yield Path(name)
    except FileNotFoundError as cause:
        raise InvalidInputError(f"there is no folder {beside}") from cause


def _lock_budgets(config: Config, folder: Path) -> bool:
    """Lock the budgets of privacy whose counter did not survive; return whether one is locked."""
    from bedside_edge.state_folder import privacy_counter
    from bedside_edge.store.counter_file import distrust
    from bedside_edge.store.state import rounds_counter

    counter = privacy_counter(config, folder)
    made = [distrust(path) for path in (counter, rounds_counter(counter))]
    return any(made)


def _opened(config: Config, folder: Path) -> int:
    """Open the restored folder once, so that nothing is served before erasures are applied."""
    from bedside_edge.state_folder import open_folder
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    state = open_folder(config, folder, SystemClock(), OsRandom())
    try:
        return sum(one.reason == "restored" for one in state.erasure.erasures(limit=1000))
    finally:
        state.close()


def settings(config_path: Path | None, state: Path | None) -> tuple[Config, Path]:
    """Return the settings and the state folder meant."""
    set_up_logging(level="error", style="plain")
    config, folder = load_config(config_path)
    return config, state or folder


def _say(found: "Backup", words: str, as_json: bool) -> None:
    click.echo(json.dumps(asdict(found), sort_keys=True) if as_json else words)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InvalidBackupError(f"{path} cannot be read: {cause.strerror}") from cause


def _passphrase(path: Path | None, *, confirm: bool) -> str:
    if path is None:
        answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
        return answer
    try:
        return path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidInputError("the passphrase file cannot be read") from cause
