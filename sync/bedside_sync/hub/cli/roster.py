"""`bedside-hub roster`: who belongs, and how a box comes to belong."""

import datetime
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.hashes import SHA256

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_sync.hub import authority
from bedside_sync.hub.cli.admin import entry_facts
from bedside_sync.hub.cli.common import (
    EXISTING,
    FILE,
    folder_option,
    json_option,
    opened,
    read_small,
    say,
    table,
)
from bedside_sync.hub.folder import Hub, write_file
from bedside_sync.hub.plan import utc
from bedside_sync.hub.process import now
from bedside_sync.hub.service import HubService
from bedside_sync.joining import SignedRequest, Welcome, check_request, fingerprint
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.roster import Change, Entry, Member, Roster, SignedEntry


@click.group()
def roster() -> None:
    """Members: requests, proposals, approval by two administrators, renewal, revocation."""


@roster.command("show")
@click.argument("request_path", metavar="REQUEST", type=EXISTING)
@json_option
def roster_show(request_path: Path, as_json: bool) -> None:
    """Check a box's REQUEST and print the fingerprint to compare over the phone.

    \b
    Examples:
      bedside-hub roster show box-1.request.json
    """
    signed = decode(SignedRequest, read_small(request_path))
    check_request(signed)
    request = signed.request
    facts = {
        "box": request.box,
        "organisation": request.organisation,
        "helper": "asks to serve as helper" if request.helper else "no helper",
        "key": request.key,
        "fingerprint": fingerprint(request),
    }
    say(as_json, facts)


@roster.command("propose")
@click.argument("request_path", metavar="REQUEST", type=EXISTING)
@click.option("--out", type=FILE, required=True, help="Entry that two administrators sign")
@folder_option
@json_option
def roster_propose(request_path: Path, out: Path, folder: Path, as_json: bool) -> None:
    """Make the roster entry a REQUEST asks for; a member's request is a renewal.

    The transport certificate is made now and stays revoked until the entry is approved.

    \b
    Examples:
      bedside-hub roster propose box-1.request.json --out box-1.entry.json
    """
    signed = decode(SignedRequest, read_small(request_path))
    csr = check_request(signed)
    request = signed.request
    with opened(folder) as (hub, service):
        held = service.roster.members.get(request.box)
        change = Change.RENEW if held else Change.JOIN
        certificate = hub.authority.issue_member(csr, now())
        entry = Entry(
            seq=service.roster.size,
            previous=service.roster.head.hex(),
            change=change,
            box=request.box,
            organisation=request.organisation,
            key=request.key,
            certificate=certificate.fingerprint(SHA256()).hex(),
            helper=request.helper,
        )
        _must_fit(service.roster, entry)
        authority.keep_issued(service.store, request.box, certificate, now())
    _write_draft(out, entry, as_json, fingerprint(request))


@roster.command("revoke")
@click.argument("box")
@click.option("--out", type=FILE, required=True, help="Entry that two administrators sign")
@folder_option
@json_option
def roster_revoke(box: str, out: Path, folder: Path, as_json: bool) -> None:
    """Make the entry that takes BOX off the roster for good; its name never comes back.

    \b
    Examples:
      bedside-hub roster revoke box-1 --out revoke.json
    """
    with opened(folder) as (_, service):
        held = service.roster.members.get(box)
        if held is None:
            raise NotFoundError("the roster has no such box")
        entry = Entry(
            seq=service.roster.size,
            previous=service.roster.head.hex(),
            change=Change.REVOKE,
            box=box,
            organisation=held.organisation,
            key=held.key.raw.hex(),
            certificate=held.certificate.hex(),
            helper=int(held.helper),
        )
    _write_draft(out, entry, as_json, "")


@roster.command("approve")
@click.argument("entry_path", metavar="ENTRY", type=EXISTING)
@click.option("--out", type=FILE, help="Welcome file for the box; not needed to revoke")
@folder_option
@json_option
def roster_approve(entry_path: Path, out: Path | None, folder: Path, as_json: bool) -> None:
    """Append an ENTRY that administrators of two organisations signed.

    A serving hub takes it in within a second. Nobody else's files change.

    \b
    Examples:
      bedside-hub roster approve box-1.entry.json --out box-1.welcome.json
    """
    signed = decode(SignedEntry, read_small(entry_path))
    entry = signed.entry
    with opened(folder) as (hub, service):
        if entry.change is not Change.REVOKE and out is None:
            raise click.UsageError("--out is needed: the box waits for its welcome")
        grown = service.append(signed)
        facts: dict[str, Any] = entry_facts(signed) | {"roster": grown.head.hex()}
        if entry.change is not Change.REVOKE and out is not None:
            welcome = _welcome(hub, service, grown.members[entry.box])
            write_file(out, welcome.encode() + b"\n")
            facts |= {"welcome": str(out), "consortium_fingerprint": fingerprint(hub.root)}
    say(as_json, facts)


@roster.command("welcome")
@click.argument("box")
@click.option("--out", type=FILE, required=True, help="Where to write it")
@folder_option
@json_option
def roster_welcome(box: str, out: Path, folder: Path, as_json: bool) -> None:
    """Write a member's welcome once more.

    \b
    Examples:
      bedside-hub roster welcome box-1 --out box-1.welcome.json
    """
    with opened(folder) as (hub, service):
        held = service.roster.members.get(box)
        if held is None:
            raise NotFoundError("the roster has no such box")
        write_file(out, _welcome(hub, service, held).encode() + b"\n")
        facts = {"welcome": str(out), "consortium_fingerprint": fingerprint(hub.root)}
    say(as_json, facts)


@roster.command("list")
@folder_option
@json_option
def roster_list(folder: Path, as_json: bool) -> None:
    """Show the members and when their certificates end.

    \b
    Examples:
      bedside-hub roster list --json
    """
    with opened(folder) as (_, service):
        members = [_member_facts(service, one) for one in service.roster.members.values()]
        facts = {
            "size": service.roster.size,
            "head": service.roster.head.hex(),
            "members": members,
            "revoked": sorted(service.roster.gone),
        }
    if as_json:
        say(True, facts)
        return
    rows = [
        (one["box"], one["organisation"], one["helper"], one["expires"], one["renew"])
        for one in members
    ]
    columns = ("box", "organisation", "helper", "certificate ends", "")
    table(columns, rows, "no members yet: `bedside-hub roster propose` begins")
    click.echo(f"{facts['size']} entries, head {facts['head']}")
    if facts["revoked"]:
        click.echo(f"revoked: {', '.join(service.roster.gone)}")


def _must_fit(held: Roster, entry: Entry) -> None:
    """WrongStateError when no signature could make the entry good."""
    member = held.members.get(entry.box)
    if entry.box in held.gone:
        raise WrongStateError("this name was revoked and never comes back")
    if member and (member.key.raw.hex(), member.organisation) != (entry.key, entry.organisation):
        raise WrongStateError("a member renews under its own key and organisation")
    if not member and any(one.key.raw.hex() == entry.key for one in held.members.values()):
        raise WrongStateError("another member has this key")


def _write_draft(out: Path, entry: Entry, as_json: bool, shown: str) -> None:
    draft = SignedEntry(entry=entry, signatures=[])
    write_file(out, draft.encode() + b"\n")
    facts = entry_facts(draft) | ({"fingerprint": shown} if shown else {})
    say(as_json, facts | {"to_sign": str(out)})


def _welcome(hub: Hub, service: HubService, member: Member) -> Welcome:
    certificate = authority.issued(service.store, member.certificate)
    return Welcome(
        box=member.box,
        root=hub.root,
        hub_key=hub.public_key,
        url=hub.place.url,
        server_name=hub.place.server_name,
        authority=authority.pem(hub.authority.certificate),
        certificate=authority.pem(certificate),
    )


def _member_facts(service: HubService, member: Member) -> dict[str, str]:
    certificate = authority.issued(service.store, member.certificate)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    half = start + (end - start) / 2
    at = datetime.datetime.fromtimestamp(now(), datetime.UTC)
    return {
        "box": member.box,
        "organisation": member.organisation,
        "helper": "yes" if member.helper else "no",
        "certificate": member.certificate.hex(),
        "expires": utc(int(end.timestamp())),
        "renew": "renew now" if at >= half else "",
    }
