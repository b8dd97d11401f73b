"""`bedside-flash os`: images of the operating system, through RAUC behind our gate."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from bedside_core.errors import InvalidInputError
from bedside_flash.rauc import BundleFacts, Rauc

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON")
_conf = click.option("--conf", type=_FILE, help="RAUC's system.conf [default: /etc/rauc]")
_keyring = click.option(
    "--keyring", type=_FILE, required=True, help="PEM certificates of whoever may sign"
)


@click.group("os")
def os_image() -> None:
    """Operating system images: pack, verify, install, look. Needs the program rauc."""


@os_image.command("build")
@click.argument("image", type=_FILE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--compatible", required=True, help="Kind of machine, as in its system.conf")
@click.option("--version", type=click.IntRange(1), required=True, help="Counter; never falls")
@click.option("--cert", type=_FILE, required=True, help="PEM certificate of the signer")
@click.option("--key", type=_FILE, required=True, help="PEM private key")
@_json
def build(
    image: Path, bundle: Path, compatible: str, version: int, cert: Path, key: Path, as_json: bool
) -> None:
    """Pack the root file system IMAGE into a signed BUNDLE.

    \b
    Examples:
      bedside-flash os build rootfs.img os-12.raucb --compatible bedside-x86 --version 12 \\
        --cert release.pem --key release.key
    """
    Rauc().build(image, bundle, compatible=compatible, version=version, cert=cert, key=key)
    size = bundle.stat().st_size
    facts = {"bundle": str(bundle), "bytes": size}
    click.echo(json.dumps(facts) if as_json else f"wrote {bundle}: {size} bytes")


@os_image.command("verify")
@click.argument("bundle", type=_FILE)
@_keyring
@click.option("--scratch", type=click.Path(path_type=Path), help="Room for the images")
@_json
def verify(bundle: Path, keyring: Path, scratch: Path | None, as_json: bool) -> None:
    """Read every byte of BUNDLE: `rauc info` looks at the signature only.

    \b
    Examples:
      bedside-flash os verify os-12.raucb --keyring release-ca.pem
    """
    _say(Rauc().verify(bundle, keyring, scratch), as_json)


@os_image.command("install")
@click.argument("bundle", type=_FILE)
@_keyring
@_conf
@_json
def install(bundle: Path, keyring: Path, conf: Path | None, as_json: bool) -> None:
    """Verify BUNDLE, then write it into the slot that is not booted. Never an older version.

    \b
    Examples:
      bedside-flash os install os-12.raucb --keyring /etc/bedside/os-ca.pem
    """
    quiet = (lambda _: None) if as_json else (lambda words: click.echo(f"  {words}"))
    _say(Rauc(conf).install(bundle, keyring, quiet), as_json)


@os_image.command("status")
@_conf
@_json
def status(conf: Path | None, as_json: bool) -> None:
    """Say which slot is booted, and what is in the others.

    \b
    Examples:
      bedside-flash os status
    """
    found = Rauc(conf).status()
    if as_json:
        click.echo(json.dumps(asdict(found), sort_keys=True))
        return
    click.echo(f"{found.compatible}, booted from {found.booted}")
    for slot in found.slots:
        version = f"version {slot.version}" if slot.version else "version not recorded"
        click.echo(f"  {slot.bootname or slot.name}: {slot.state}, {slot.boot_status}, {version}")


@os_image.command("mark-good")
@click.option("--url", default="http://127.0.0.1:8642", show_default=True, help="The box")
@_conf
def mark_good(url: str, conf: Path | None) -> None:
    """Keep the booted system once the box on it is ready; otherwise it falls back by itself.

    \b
    Examples:
      bedside-flash os mark-good
    """
    Rauc(conf).mark_good(lambda: _ready(url))
    click.echo("the booted system is kept")


def _ready(url: str) -> bool:
    import httpx

    if not url.startswith(("http://127.0.0.1", "http://localhost", "https://")):
        raise InvalidInputError("the box is asked on this machine, or over TLS")
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def _say(facts: BundleFacts, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(facts) | {"images": dict(facts.images)}, sort_keys=True))
        return
    click.echo(f"{facts.compatible}, version {facts.version}, {facts.size} bytes, verified")
    for name, digest in facts.images.items():
        click.echo(f"  {name}  sha256 {digest}")
