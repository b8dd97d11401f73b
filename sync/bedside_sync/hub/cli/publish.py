"""`bedside-hub publish`: packages and assignments, and the state boxes see."""

import re
from pathlib import Path

import click

from bedside_core.errors import NotFoundError
from bedside_sync.hub.cli.common import (
    EXISTING,
    FILE,
    folder_option,
    json_option,
    opened,
    say,
    table,
)
from bedside_sync.hub.cli.keys import opened as repository_of
from bedside_sync.hub.cli.keys import quietly, tell
from bedside_sync.hub.folder import write_file
from bedside_sync.hub.process import now

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_SITE = re.compile(r"s[0-9a-f]{24}")


@click.group()
def publish() -> None:
    """What boxes run: take packages in, assign them to sites, let boxes see them.

    \b
    A package:  bedside-flash build, bedside-flash sign; publish add, publish commit
    A site:     publish assign
    """


@publish.command("add")
@click.argument("package", type=_FOLDER)
@folder_option
@json_option
def add(package: Path, folder: Path, as_json: bool) -> None:
    """Take in PACKAGE, a folder made by `bedside-flash build`.

    With the owner's signed role file in it nothing more has to be signed here. Without, the
    owning role's next version is drafted, for its people to sign.

    \b
    Examples:
      bedside-hub publish add chest-1.2.0/
    """
    from bedside_sync.distribution.packages import read_package

    found = read_package(package)
    repository = repository_of(folder)
    draft = repository.add(found.manifest, found.chunks, found.role_data, now())
    if not as_json:
        click.echo(f"{found.manifest.path}: {found.manifest.size} bytes, chunks held")
    tell(as_json, [draft])


@publish.command("commit")
@click.argument("signed", nargs=-1, type=EXISTING)
@folder_option
@json_option
def commit(signed: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Publish every draft with enough signatures. SIGNED: drafts brought back by their signers.

    \b
    Examples:
      bedside-hub publish commit
      bedside-hub publish commit /media/usb/3.models.json
    """
    repository = repository_of(folder)
    for path in signed:
        if path.resolve().parent != (repository.folder / "drafts").resolve():
            quietly(repository, path)
    done, waiting = repository.commit(now())
    names = [f"{one.role} {one.version}" for one in done]
    if as_json:
        say(True, {"published": names, "waiting": [one.role for one in waiting]})
        return
    click.echo(f"published: {', '.join(names)}" if names else "nothing was ready")
    if waiting:
        tell(False, waiting)


@publish.command("assign")
@click.argument("site")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--window", default="", help="When the site may change, HH:MM-HH:MM, UTC")
@click.option("--group", default="", help="Group of a staged rollout")
@folder_option
@json_option
def assign(
    site: str, paths: tuple[str, ...], window: str, group: str, folder: Path, as_json: bool
) -> None:
    """Say what SITE runs: everything it shall run, by path. Replaces what was assigned before.

    SITE is a box on the roster, or a site id. `publish status` lists the paths.

    \b
    Examples:
      bedside-hub publish assign box-1 models/chest/1.2.0.json --window 01:00-05:00
    """
    made = repository_of(folder).assign(
        site_id(folder, site), paths, now(), window=_window(window), group=group
    )
    facts = {
        "site": made.site,
        "serial": made.serial,
        "items": [f"{item.path} (counter {item.release_counter})" for item in made.items],
    }
    lines = [f"{made.site}, serial {made.serial}", *facts["items"]]  # type: ignore[misc]
    say(as_json, facts, lines)


def site_id(folder: Path, name: str) -> str:
    """Return the site id of a box on the roster, or the id itself; NotFoundError."""
    from bedside_sync.distribution.gateway import site_of

    if _SITE.fullmatch(name):
        return name
    with opened(folder) as (_, service):
        member = service.roster.members.get(name)
    if member is None:
        raise NotFoundError("no box of that name is on the roster")
    return site_of(member.key.raw.hex())


def _window(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  imported late
    from bedside_sync.distribution.assignment import Window

    if not text:
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise click.BadParameter("a window is HH:MM-HH:MM", param_hint="--window")
    first, second, third, fourth = map(int, found.groups())
    return Window(start=first * 60 + second, end=third * 60 + fourth)


@publish.command("status")
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """List the packages boxes may be assigned, and what each site is assigned.

    \b
    Examples:
      bedside-hub publish status
    """
    repository = repository_of(folder)
    packages = repository.packages()
    sites = [found for site in repository.sites() if (found := repository.assignment(site))]
    if as_json:
        facts = [
            {"site": one.site, "serial": one.serial, "items": [item.path for item in one.items]}
            for one in sites
        ]
        say(True, {"packages": packages, "sites": facts})
        return
    rows = []
    for path, digest in packages.items():
        manifest = repository.manifest(path, digest)
        rows.append((path, str(manifest.release_counter), f"{manifest.size:,}", digest[:16]))
    table(("package", "counter", "bytes", "manifest"), rows, "no packages")
    click.echo("")
    held = [
        (one.site, str(one.serial), one.group, ", ".join(item.path for item in one.items))
        for one in sites
    ]
    table(("site", "serial", "group", "runs"), held, "no assignments")


@publish.command("root")
@click.option("--out", type=FILE, required=True, help="Where the first root is written")
@folder_option
@json_option
def root(out: Path, folder: Path, as_json: bool) -> None:
    """Write the first root: what is built into a box, and all it has to trust.

    \b
    Examples:
      bedside-hub publish root --out root.json
    """
    from bedside_sync.distribution.updater import root_digest

    data = repository_of(folder).root()
    write_file(out, data)
    say(as_json, {"root": str(out), "sha256": root_digest(data)})


@publish.command("role")
@click.argument("role")
@click.option("--out", type=FILE, required=True, help="Where the role's metadata is written")
@folder_option
@json_option
def role(role: str, out: Path, folder: Path, as_json: bool) -> None:
    """Write a role's metadata, for its owner to go on from with `bedside-flash sign`.

    \b
    Examples:
      bedside-hub publish role vendor-acme --out vendor-acme.json
    """
    write_file(out, repository_of(folder).role_data(role))
    say(as_json, {"role": role, "file": str(out)})


@publish.command("export-usb")
@click.argument("stick", type=_FOLDER)
@click.option("--site", "sites", multiple=True, required=True, help="Box or site id; repeat it")
@click.option("--days", type=click.IntRange(1, 31), default=7, show_default=True)
@folder_option
@json_option
def export_usb(stick: Path, sites: tuple[str, ...], days: int, folder: Path, as_json: bool) -> None:
    """Write what SITES are assigned to STICK, signed to be good for some days.

    A box reads it with `bedside-edge update fetch --from STICK`.

    \b
    Examples:
      bedside-hub publish export-usb /media/usb --site box-1 --days 7
    """
    from bedside_sync.distribution.stick import export

    known = [site_id(folder, one) for one in sites]
    facts = export(repository_of(folder), stick, known, now(), days)
    say(as_json, facts)
