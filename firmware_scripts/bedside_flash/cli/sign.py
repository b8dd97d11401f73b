"""`bedside-flash build` and `sign`: a folder becomes a package, its owner's role names it."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_core.errors import InvalidInputError, InvalidTargetError
from bedside_flash.cli.common import (
    EXISTING,
    FOLDER,
    json_option,
    passphrase,
    passphrase_option,
    read_small,
    say,
)
from bedside_sync.secagg.bodies import decode

if TYPE_CHECKING:
    from bedside_sync.distribution.signers import PrivateKey

_NEED = re.compile(r"(app|profile|policy|model)(?:/([a-z0-9.-]+))?:(\d+)-(\d*)")


@click.command()
@click.argument("content", type=FOLDER)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["profile", "model", "policy", "app"]), required=True)
@click.option("--name", required=True, help="Board, model, policy or app")
@click.option("--version", required=True, help="For people; the counter decides")
@click.option("--counter", type=click.IntRange(1), required=True, help="Grows with every release")
@click.option("--min-counter", type=click.IntRange(0), default=0, help="Nothing older may return")
@click.option("--vendor", default="", help="Of a profile")
@click.option("--hardware", multiple=True, help="Profile id it is made for; repeat it")
@click.option("--engine", default="", help="openvino, onnxruntime")
@click.option("--precision", default="", help="f32, bf16, f16, int8")
@click.option("--sbom", default="", help="File of CONTENT: bill of materials")
@click.option("--card", default="", help="File of CONTENT: model card")
@click.option("--acceptance", multiple=True, help="File of CONTENT: golden cases; repeat it")
@click.option("--intended-use", default="", help="What it is for, in a sentence")
@click.option("--dp-policy", default="", help="Version of the privacy policy it was trained under")
@click.option("--requires", multiple=True, help="What it needs: app:3-9, model/chest:2-; repeat it")
@click.option("--key", "key_path", type=EXISTING, help="Also sign for outsiders (model.sig)")
@passphrase_option
@json_option
def build(
    content: Path,
    out: Path,
    key_path: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401  fields of the manifest
) -> None:
    """Make a package of the files in CONTENT in the new folder OUT: a manifest and chunks.

    With --key an OpenSSF model-signing bundle over all files is put in as model.sig, for those who
    have none of our tools. Of a profile, --vendor and --name are those its one TOML file says.

    \b
    Examples:
      bedside-flash build board/ board-3 --kind profile --name orin-nx --vendor acme \\
        --version 3 --counter 3 --key acme.key
      bedside-flash build chest/ chest-1.2.0 --kind model --name chest --version 1.2.0 \\
        --counter 12 --card card.md --sbom sbom.json --acceptance golden.json --requires app:3-
    """
    from bedside_sync.distribution.packages import build_package

    if out.exists():
        raise InvalidInputError(f"{out} is there already; a package is built in a new folder")
    if given["kind"] == "profile":
        _check_profile(content, given["vendor"], given["name"])
    facts = {
        "kind": given["kind"],
        "name": given["name"],
        "version": given["version"],
        "vendor": given["vendor"],
        "release_counter": given["counter"],
        "min_counter": given["min_counter"],
        "hardware": given["hardware"],
        "engine": given["engine"],
        "precision": given["precision"],
        "sbom": _digest(content, given["sbom"]),
        "card": _digest(content, given["card"]),
        "acceptance": tuple(_digest(content, path) for path in given["acceptance"]),
        "intended_use": given["intended_use"],
        "dp_policy": given["dp_policy"],
        "requires": tuple(_need(text) for text in given["requires"]),
    }
    private = _private(key_path, passphrase_file) if key_path else None
    made = build_package(content, out, facts, private).manifest
    answer = {
        "package": str(out),
        "path": made.path,
        "digest": made.digest,
        "files": len(made.files),
        "bytes": made.size,
        "bundle": private is not None,
    }
    say(as_json, answer)


def _check_profile(content: Path, vendor: str, name: str) -> None:
    """Refuse here what every box would refuse when it tries the package."""
    from bedside_core.hardware.profile import parse_profile

    found = sorted(content.rglob("*.toml"))
    if len(found) != 1:
        raise InvalidInputError("the package of a profile has exactly one TOML file")
    profile = parse_profile(read_small(found[0])).profile
    if (profile.vendor, profile.id) != (vendor, name):
        raise InvalidInputError(
            f"the profile is {profile.vendor}/{profile.id}: --vendor and --name have to say so"
        )


def _digest(content: Path, name: str) -> str:
    from hashlib import file_digest

    if not name:
        return ""
    path = content / name
    if not path.is_file():
        raise InvalidInputError(f"{name} is not in {content}")
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _need(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  imported late
    from bedside_sync.distribution.manifest import Requirement

    found = _NEED.fullmatch(text)
    if found is None:
        raise click.BadParameter("write app:3-9, or model/chest:2-", param_hint="--requires")
    kind, name, least, most = found.groups()
    return Requirement(kind=kind, name=name or "", least=int(least), most=int(most or 0))  # type: ignore[arg-type]


def _private(path: Path, passphrase_file: Path | None) -> "PrivateKey":
    from bedside_sync.distribution.signers import SignerFile, open_signer

    return open_signer(decode(SignerFile, read_small(path)), passphrase(passphrase_file))


@click.command()
@click.argument("package", type=FOLDER)
@click.option("--role", "role_path", type=EXISTING, help="The role's metadata, from the hub")
@click.option("--key", "key_path", type=EXISTING, required=True, help="The owner's key file")
@click.option("--yes", is_flag=True, help="Sign without asking")
@passphrase_option
@json_option
def sign(
    package: Path,
    role_path: Path | None,
    key_path: Path,
    yes: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign PACKAGE as its owner: the role's next version names it. Needs no network.

    ROLE is the newest metadata of your role, as the hub's operator hands it out (`bedside-hub
    publish role`). A second signer of the same role leaves --role out: the package already holds
    the version the first one made.

    \b
    Examples:
      bedside-flash sign board-3/ --role vendor-acme.json --key acme.key
      bedside-flash sign chest-1.2.0/ --key safety.key
    """
    from bedside_sync.distribution import roles
    from bedside_sync.distribution.assignment import owner_of
    from bedside_sync.distribution.disk import write_durably
    from bedside_sync.distribution.packages import ROLE, check_package_content, read_package

    found = read_package(package)
    check_package_content(found)  # nobody signs for content that is not whole
    role = owner_of(found.manifest.path)
    if role_path is not None:
        base = read_small(role_path, 5_000_000)
        data = roles.add_package(base, int(time.time()), role, found.manifest)
    elif found.role_data is not None:
        data = found.role_data
    else:
        raise InvalidTargetError("nobody has signed yet: name the role's metadata with --role")
    facts = roles.told(data, role)
    if not as_json:
        say(False, facts)
    if not yes:
        click.confirm("Sign this?", abort=True, err=True)
    write_durably(package / ROLE, roles.sign(data, _private(key_path, passphrase_file)))
    say(as_json, facts | {"package": str(package)}, [f"signed; hand {package} to the hub"])
