"""`bedside-hub keys`: who signs what boxes may run. Keys are made and used away from the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside_core.errors import BedsideError
from bedside_sync.hub.cli.common import (
    EXISTING,
    FILE,
    folder_option,
    json_option,
    passphrase,
    passphrase_option,
    read_small,
    say,
    table,
)
from bedside_sync.hub.folder import write_file
from bedside_sync.hub.process import now
from bedside_sync.secagg.bodies import decode

if TYPE_CHECKING:
    from bedside_sync.distribution.repository import Repository
    from bedside_sync.distribution.repository_files import Draft
    from bedside_sync.distribution.roles import Holders

_KEY = click.option(
    "--key", "halves", multiple=True, required=True, type=EXISTING, help="Public half; repeat it"
)
_LARGEST = 5_000_000


@click.group()
def keys() -> None:
    """Who signs what boxes run: make keys, begin a repository, sign, rotate, revoke.

    \b
    Begin:   keys new (each person), keys ceremony, keys sign (each), publish commit
    Vendor:  keys add-vendor, keys sign (two of targets), publish commit
    """


def opened(folder: Path) -> "Repository":
    """Return the repository of a hub's folder."""
    from bedside_sync.distribution.repository import Repository
    from bedside_sync.distribution.repository_files import REPOSITORY

    return Repository(folder / REPOSITORY)


def holders(paths: tuple[Path, ...], threshold: int) -> "Holders":
    """Return a role's keys from their public halves."""
    from bedside_sync.distribution.roles import Holders
    from bedside_sync.distribution.signers import SignerPublic

    halves = [decode(SignerPublic, read_small(path)) for path in paths]
    return Holders(keys=halves, threshold=threshold)


def tell(as_json: bool, drafts: "list[Draft]") -> None:
    """Print what awaits whose signature, and how to go on."""
    rows = [
        {
            "role": one.role,
            "version": one.version,
            "file": str(one.path),
            "signed": list(one.standing.signed),
            "awaited": list(one.standing.awaited) if one.standing.missing else [],
            "missing": one.standing.missing,
        }
        for one in drafts
    ]
    if as_json:
        say(True, {"drafts": rows})
        return
    lines = [
        (
            str(row["file"]),
            ", ".join(one.standing.signed) or "nobody",
            f"{one.standing.missing} of {', '.join(one.standing.awaited)}"
            if one.standing.missing
            else "nothing: `publish commit`",
        )
        for row, one in zip(rows, drafts, strict=True)
    ]
    table(("draft", "signed by", "still needs"), lines, "nothing awaits signatures")
    if any(one.standing.missing for one in drafts):
        click.echo(
            "\nCarry a draft to each of them: `bedside-hub keys sign DRAFT --key NAME.key`.\n"
            "Bring it back: `bedside-hub publish commit DRAFT`."
        )


@keys.command("new")
@click.argument("name")
@click.option("--out", type=FILE, required=True, help="Key file; its public half is put beside it")
@passphrase_option
@json_option
def new(name: str, out: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a signer's key, wrapped under a passphrase. Needs no hub and no network.

    Make it on a machine that stays offline. Hand OUT.pub to whoever runs the hub; keep OUT.

    \b
    Examples:
      bedside-hub keys new ada --out ada.key
    """
    from bedside_sync.distribution.signers import make_signer

    made = make_signer(name, passphrase(passphrase_file, confirm=True))
    public = out.with_name(out.name + ".pub")
    write_file(out, made.encode() + b"\n", 0o600, fresh=True)
    write_file(public, made.half.encode() + b"\n")
    say(as_json, {"name": name, "key_id": made.half.key_id, "public": str(public)})


@keys.command("ceremony")
@click.option("--root", "root", multiple=True, required=True, type=EXISTING, help="Three or more")
@click.option("--targets", multiple=True, required=True, type=EXISTING, help="Two")
@click.option(
    "--models", multiple=True, required=True, type=EXISTING, help="Trainer, safety officer, quality"
)
@click.option("--app", multiple=True, required=True, type=EXISTING, help="Release team")
@click.option("--policies", multiple=True, required=True, type=EXISTING, help="Policy board")
@folder_option
@json_option
def ceremony(folder: Path, as_json: bool, **given: tuple[Path, ...]) -> None:
    """Begin the repository: drafts that everybody present signs.

    Each option takes a public half (NAME.key.pub) and is repeated. Root and models take two of
    their keys, targets both, app and policies one.

    \b
    Examples:
      bedside-hub keys ceremony --root ada.key.pub --root bo.key.pub --root cy.key.pub \\
        --targets di.key.pub --targets ed.key.pub --models trainer.key.pub \\
        --models safety.key.pub --models quality.key.pub --app release.key.pub \\
        --policies board.key.pub
    """
    thresholds = {"root": 2, "targets": 2, "models": 2, "app": 1, "policies": 1}
    people = {
        role: holders(paths, min(thresholds[role], len(paths))) for role, paths in given.items()
    }
    tell(as_json, opened(folder).begin(people, now()))


@keys.command("sign")
@click.argument("draft", type=EXISTING)
@click.option("--key", "key_path", type=EXISTING, required=True, help="The signer's key file")
@click.option("--yes", is_flag=True, help="Sign without asking")
@passphrase_option
@json_option
def sign(
    draft: Path, key_path: Path, yes: bool, passphrase_file: Path | None, as_json: bool
) -> None:
    """Add a signature to DRAFT. Needs no hub and no network.

    Read what is printed before saying yes: a signature cannot be taken back.

    \b
    Examples:
      bedside-hub keys sign 1.root.json --key ada.key
    """
    from bedside_sync.distribution import roles
    from bedside_sync.distribution.repository_files import role_of
    from bedside_sync.distribution.signers import SignerFile, open_signer

    data, role = read_small(draft, _LARGEST), role_of(draft)
    facts = roles.told(data, role)
    if not as_json:
        say(False, facts)
    if not yes:
        click.confirm("Sign this?", abort=True, err=True)
    file = decode(SignerFile, read_small(key_path))
    signed = roles.sign(data, open_signer(file, passphrase(passphrase_file)))
    write_file(draft, signed)
    say(as_json, facts | {"signed_by": file.name}, [f"signed by {file.name}"])


@keys.command("add-vendor")
@click.argument("vendor")
@_KEY
@click.option("--threshold", type=click.IntRange(1, 9), default=1, show_default=True)
@folder_option
@json_option
def add_vendor(
    vendor: str, halves: tuple[Path, ...], threshold: int, folder: Path, as_json: bool
) -> None:
    """Draft a vendor's folder: it may sign hw_profiles/VENDOR/* and nothing else.

    \b
    Examples:
      bedside-hub keys add-vendor acme --key acme.key.pub
    """
    tell(as_json, opened(folder).add_vendor(vendor, holders(halves, threshold), now()))


@keys.command("revoke-vendor")
@click.argument("vendor")
@folder_option
@json_option
def revoke_vendor(vendor: str, folder: Path, as_json: bool) -> None:
    """Draft the end of a vendor's folder: nothing in it installs any more. Others go on.

    \b
    Examples:
      bedside-hub keys revoke-vendor acme
    """
    tell(as_json, opened(folder).revoke_vendor(vendor, now()))


@keys.command("rotate")
@click.argument("role")
@click.option("--key", "halves", multiple=True, type=EXISTING, help="New public half; repeat it")
@click.option("--threshold", type=click.IntRange(1, 9), default=1, show_default=True)
@folder_option
@json_option
def rotate(
    role: str, halves: tuple[Path, ...], threshold: int, folder: Path, as_json: bool
) -> None:
    """Draft new keys for ROLE. Without --key: a new key for snapshot, timestamp or assign.

    Who signs: for root the old and the new keys, for targets, snapshot and timestamp those of
    root, for all others those of targets.

    \b
    Examples:
      bedside-hub keys rotate models --key t2.key.pub --key s2.key.pub --key q2.key.pub \\
        --threshold 2
      bedside-hub keys rotate timestamp
    """
    repository = opened(folder)
    if halves:
        tell(as_json, repository.rotate(role, holders(halves, threshold), now()))
    else:
        tell(as_json, repository.rotate_online(role, now()))


@keys.command("renew")
@click.argument("role")
@folder_option
@json_option
def renew(role: str, folder: Path, as_json: bool) -> None:
    """Draft ROLE again as it is, before it expires.

    \b
    Examples:
      bedside-hub keys renew models
    """
    repository = opened(folder)
    repository.renew(role, now())
    tell(as_json, repository.drafts())


@keys.command("status")
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show every role, when it expires, and what awaits signatures.

    \b
    Examples:
      bedside-hub keys status
    """
    repository, at = opened(folder), now()
    held = repository.status()
    if as_json:
        rows = [
            {"role": r.role, "version": r.version, "expires": r.expires, "valid": r.valid}
            for r in held
        ]
        drafts = [{"role": d.role, "missing": d.standing.missing} for d in repository.drafts()]
        say(True, {"roles": rows, "drafts": drafts})
        return
    lines = [
        (
            one.role,
            str(one.version),
            _left(one.expires - at),
            "" if one.valid else "not signed by the keys in force",
        )
        for one in held
    ]
    table(("role", "version", "expires", ""), lines, "no repository; `keys ceremony` begins one")
    click.echo("")
    tell(False, repository.drafts())


def _left(seconds: int) -> str:
    if seconds <= 0:
        return "EXPIRED"
    days, hours = seconds // 86_400, seconds % 86_400 // 3600
    return f"in {days} d {hours} h" if days < 7 else f"in {days} d"


def quietly(repository: "Repository", path: Path) -> None:
    """Take a signed copy back, naming its file in the error."""
    from bedside_sync.distribution.repository_files import role_of

    try:
        repository.signed(read_small(path, _LARGEST), role_of(path))
    except BedsideError as error:
        error.args = (f"{path.name}: {error}",)
        raise
