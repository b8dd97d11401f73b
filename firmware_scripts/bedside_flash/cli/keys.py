"""`bedside-flash keys`: a vendor's signing key, made and used without a network."""

from pathlib import Path

import click

from bedside_flash.cli.common import (
    EXISTING,
    FILE,
    json_option,
    passphrase,
    passphrase_option,
    read_small,
    say,
)
from bedside_sync.secagg.bodies import decode


@click.group()
def keys() -> None:
    """Signing keys: make one, show its public half."""


@keys.command("new")
@click.argument("name")
@click.option("--out", type=FILE, required=True, help="Key file; its public half is put beside it")
@passphrase_option
@json_option
def new(name: str, out: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a signing key (EC P-256), wrapped under a passphrase.

    OUT.pub goes to the consortium, which delegates hw_profiles/NAME/ to it. OUT stays with you.

    \b
    Examples:
      bedside-flash keys new acme --out acme.key
    """
    from bedside_core.errors import AlreadyExistsError
    from bedside_sync.distribution.disk import write_durably
    from bedside_sync.distribution.signers import make_signer

    if out.exists():
        raise AlreadyExistsError(f"{out.name} is there already; it is not written over")
    made = make_signer(name, passphrase(passphrase_file, confirm=True))
    public = out.with_name(out.name + ".pub")
    write_durably(out, made.encode() + b"\n", 0o600)
    write_durably(public, made.half.encode() + b"\n")
    say(as_json, {"name": name, "key_id": made.half.key_id, "public": str(public)})


@keys.command("show")
@click.argument("path", metavar="FILE", type=EXISTING)
@click.option("--pem", is_flag=True, help="Print the public key as PEM, for other tools")
@json_option
def show(path: Path, pem: bool, as_json: bool) -> None:
    """Show the public half of a key file, or of its .pub; asks for no passphrase.

    \b
    Examples:
      bedside-flash keys show acme.key
      bedside-flash keys show acme.key.pub --pem
    """
    half = read_half(path)
    if pem and not as_json:
        click.echo(half.public, nl=False)
        return
    facts = {"name": half.name, "key_id": half.key_id}
    say(as_json, facts | ({"public": half.public} if as_json else {}))


def read_half(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201  imported late
    """Return the public half in a key file or its `.pub`; InvalidMessageError."""
    from bedside_core.errors import InvalidMessageError
    from bedside_sync.distribution.signers import SignerFile, SignerPublic

    data = read_small(path)
    try:
        return decode(SignerPublic, data)
    except InvalidMessageError:
        return decode(SignerFile, data).half
