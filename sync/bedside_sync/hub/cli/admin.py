"""`bedside-hub admin`: keys of the two who decide, used away from the hub."""

from pathlib import Path

import click

from bedside_core.errors import InvalidInputError
from bedside_sync.hub import admin_keys
from bedside_sync.hub.cli.common import (
    EXISTING,
    FILE,
    json_option,
    passphrase,
    passphrase_option,
    read_small,
    say,
)
from bedside_sync.hub.folder import write_file
from bedside_sync.hub.plan import told, utc
from bedside_sync.promotion import SignedPromotion
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import SignedManifest
from bedside_sync.secagg.roster import SignedEntry


@click.group()
def admin() -> None:
    """Administrators: make a key, sign a roster entry or a round. Needs no hub and no network."""


@admin.command("key")
@click.argument("name")
@click.option("--organisation", required=True, help="Whose administrator this is")
@click.option("--out", type=FILE, required=True, help="Key file; its public half is put beside it")
@passphrase_option
@json_option
def admin_key(
    name: str, organisation: str, out: Path, passphrase_file: Path | None, as_json: bool
) -> None:
    """Make an administrator's key, wrapped under a passphrase.

    The public half goes to OUT with `.pub` appended: hand it to whoever makes the hub.

    \b
    Examples:
      bedside-hub admin key anna --organisation university-hospital --out anna.key
    """
    wrapped = admin_keys.make_admin_key(
        name, organisation, passphrase(passphrase_file, confirm=True)
    )
    public = out.with_name(out.name + ".pub")
    write_file(out, wrapped.encode() + b"\n", 0o600, fresh=True)
    write_file(public, wrapped.public.encode() + b"\n")
    facts = {"name": name, "organisation": organisation, "key": wrapped.key, "public": str(public)}
    say(as_json, facts)


@admin.command("sign")
@click.argument("path", metavar="FILE", type=EXISTING)
@click.option(
    "--key", "key_path", type=EXISTING, required=True, help="The administrator's key file"
)
@click.option("--yes", is_flag=True, help="Sign without asking")
@passphrase_option
@json_option
def admin_sign(
    path: Path, key_path: Path, yes: bool, passphrase_file: Path | None, as_json: bool
) -> None:
    """Add a signature to FILE, a roster entry, a round or a promotion that waits for it.

    Read what is printed before saying yes: a signature cannot be taken back.

    \b
    Examples:
      bedside-hub admin sign box-1.entry.json --key anna.key
    """
    draft = admin_keys.read_draft(read_small(path))
    wrapped = decode(admin_keys.WrappedKey, read_small(key_path))
    facts = draft_facts(draft)
    if not as_json:
        say(False, facts)
    if not yes:
        click.confirm("Sign this?", abort=True, err=True)
    private = admin_keys.open_admin_key(wrapped, passphrase(passphrase_file))
    signed = admin_keys.sign_draft(draft, wrapped, private)
    write_file(path, signed.encode() + b"\n")
    by = [one.by for one in signed.signatures]
    say(as_json, facts | {"signed_by": by}, [f"signed by {', '.join(by)}"])


def draft_facts(draft: admin_keys.Draft) -> dict[str, str]:
    """Return what a person should read before signing."""
    match draft:
        case SignedEntry():
            return entry_facts(draft)
        case SignedManifest():
            return told(draft.manifest)
        case SignedPromotion():
            return promotion_facts(draft)


def promotion_facts(signed: SignedPromotion) -> dict[str, str]:
    """Return what a person should read about a promotion."""
    one = signed.promotion
    figures = ", ".join(
        f"{f.group} {f.value / 1000:.3f} ({f.lower / 1000:.3f} to {f.upper / 1000:.3f})"
        for f in one.figures
    )
    return {
        "promotion": f"{one.model} {one.model_version}, package {one.package[:16]}...",
        "validated": f"{one.round}, {one.organisations} organisations, {utc(one.made)}",
        "AUC": figures,
        "no figure": ", ".join(one.unknown) or "for no group",
        "compared": one.against or "with no model before: nobody looked for regressions",
    }


def entry_facts(signed: SignedEntry) -> dict[str, str]:
    """Return what a person should read about a roster entry."""
    entry = signed.entry
    if not entry.box:
        raise InvalidInputError("the entry names no box")
    return {
        "entry": f"{entry.seq}: {entry.change.value} {entry.box} of {entry.organisation}",
        "key": entry.key,
        "certificate": entry.certificate,
        "helper": "may serve as helper" if entry.helper else "no helper",
        "follows": entry.previous,
    }
