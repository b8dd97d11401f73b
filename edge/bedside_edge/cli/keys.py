"""`bedside-edge keys`: how the key files are kept, sealing them, and the way back in.

All of it works on the folder of a stopped box; `status` also while it runs.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from bedside_core.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from bedside_edge.config import Config, load_config
from bedside_edge.logs import set_up_logging

Command = Callable[..., None]

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TO = click.Choice(["tpm", "passphrase", "file"])


def _folder_options(command: Command) -> Command:
    """Add the options that say which state folder, and how to answer."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option("--config", "config_path", type=_PATH, help="Settings"),
        click.option("--state", type=_PATH, help="State folder"),
        click.option("--json", "as_json", is_flag=True, help="Print JSON"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def keys() -> None:
    """The key files of the box: plain, under a passphrase, or sealed to the machine's TPM."""


@keys.command("status")
@_folder_options
def show_status(config_path: Path | None, state: Path | None, as_json: bool) -> None:
    """Say how the key files are kept, and whether this machine has a TPM.

    \b
    Examples:
      bedside-edge keys status --state /var/lib/bedside
    """
    from bedside_edge.system.key_migration import status
    from bedside_edge.system.tpm2 import has_tpm

    config, folder = _settings(config_path, state)
    if not (folder / "keys").is_dir():
        raise NotFoundError(f"there are no keys in {folder}; name the box's folder with --state")
    found = status(folder / "keys")
    if as_json:
        click.echo(json.dumps(asdict(found) | {"tpm": has_tpm()}, sort_keys=True))
        return
    click.echo(f"kept by     {found.protection}")
    click.echo(f"files       {', '.join(found.files) or 'none yet'}")
    if found.protection != "file" and found.plain:
        click.echo(f"in plain    {', '.join(found.plain)}: destroyed at the next start")
    click.echo(f"recovery    {'by the recovery recipient' if found.recovery else 'none'}")
    click.echo(f"TPM         {'yes' if has_tpm() else 'none on this machine'}")
    if config.keys.protection and config.keys.protection != found.protection:
        click.echo(f"settings    want {config.keys.protection}: the box will not start")


@keys.command("seal")
@click.option("--to", type=_TO, required=True, help="What opens the keys from now on")
@click.option("--recovery-recipient", default="", help="age1...; needed for tpm [default: config]")
@click.option("--passphrase-file", type=_FILE, help="For passphrase, or to open it")
@_folder_options
def seal_keys(
    to: str,
    recovery_recipient: str,
    passphrase_file: Path | None,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Keep the keys of a stopped box otherwise: sealed to the TPM, under a passphrase, or plain.

    Before anything is sealed to a TPM, a second copy goes to the recovery recipient: a firmware
    update or a new board changes what the TPM measures. A cut at any step leaves the old keys or
    the new ones. To change the passphrase, go through `--to file`.

    \b
    Examples:
      bedside-edge keys seal --to tpm --recovery-recipient age1... --state /var/lib/bedside
      bedside-edge keys seal --to passphrase --passphrase-file passphrase.txt
      bedside-edge keys seal --to file
    """
    from bedside_edge.ports.key_protection import Protection
    from bedside_edge.system import key_migration
    from bedside_edge.system.key_files import sealer_for
    from bedside_edge.system.random_os import OsRandom

    config, folder = _settings(config_path, state)
    recipient = recovery_recipient or config.keys.recovery_recipient
    if to == "tpm" and not recipient:
        raise InvalidInputError("name --recovery-recipient: without it a new board loses all keys")
    _use(passphrase_file)
    protection = Protection(to)
    with _stopped(folder):
        if protection is Protection.FILE:
            key_migration.unseal(folder / "keys", OsRandom(), _step(as_json))
        else:
            sealer = sealer_for(protection)
            key_migration.seal(folder / "keys", sealer, recipient, OsRandom(), _step(as_json))
    _tell(config, folder, "keys-sealed", protection)
    _say(protection, as_json)


@keys.command("recover")
@click.option("--identity", type=_FILE, required=True, help="The recipient's AGE-SECRET-KEY file")
@click.option("--to", type=_TO, default="tpm", show_default=True, help="How to keep them now")
@click.option("--passphrase-file", type=_FILE, help="For passphrase")
@_folder_options
def recover_keys(
    identity: Path,
    to: str,
    passphrase_file: Path | None,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Open sealed keys with the recovery identity and seal them anew, to this machine as it is.

    \b
    Examples:
      bedside-edge keys recover --identity /media/safe/recovery.txt --state /var/lib/bedside
    """
    from bedside_edge.ports.key_protection import Protection
    from bedside_edge.system import key_migration
    from bedside_edge.system.age_files import read_identity, recipient_of
    from bedside_edge.system.key_files import sealer_for
    from bedside_edge.system.random_os import OsRandom

    config, folder = _settings(config_path, state)
    _use(passphrase_file)
    secret, protection = read_identity(identity), Protection(to)
    place = folder / "keys"
    with _stopped(folder):
        files = key_migration.recover(place, secret)
        if protection is Protection.FILE:
            key_migration.unseal(place, OsRandom(), _step(as_json), files=files)
        else:
            key_migration.seal(
                place,
                sealer_for(protection),
                recipient_of(secret),
                OsRandom(),
                _step(as_json),
                files=files,
            )
    _tell(config, folder, "keys-recovered", protection)
    _say(protection, as_json)


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    """Hold the lock a running box holds."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
    except OSError as cause:
        raise StoreUnavailableError("there is no box in that folder") from cause
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as cause:
        raise StoreUnavailableError("a box has the folder open: stop it first") from cause
    finally:
        os.close(lock)


def _tell(config: Config, folder: Path, what: str, protection: str) -> None:
    """Open the box once: the keys must fit, and its log says how they are kept now."""
    from bedside_core.evidence.entry import Kind
    from bedside_edge.ports.evidence import Event
    from bedside_edge.services.access import CONSOLE
    from bedside_edge.state_folder import open_folder
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    as_kept = config.model_copy(update={"keys": type(config.keys)()})
    state = open_folder(as_kept, folder, SystemClock(), OsRandom())
    try:
        refs = {"what": what, "keys_protection": str(protection)}
        state.evidence.append(Event(kind=Kind.ADMIN, actor=CONSOLE.actor_id, refs=refs))
    finally:
        state.close()


def _use(passphrase_file: Path | None) -> None:
    from bedside_edge.system.passphrase import FILE_VARIABLE

    if passphrase_file is not None:
        os.environ[FILE_VARIABLE] = str(passphrase_file)


def _step(as_json: bool) -> Callable[[str], None]:
    return (lambda _: None) if as_json else (lambda words: click.echo(f"  {words}"))


def _say(protection: str, as_json: bool) -> None:
    words = json.dumps({"protection": protection}) if as_json else f"kept by {protection} now"
    click.echo(words)


def _settings(config_path: Path | None, state: Path | None) -> tuple[Config, Path]:
    set_up_logging(level="error", style="plain")
    config, folder = load_config(config_path)
    return config, state or folder
