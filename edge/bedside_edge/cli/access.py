"""`bedside-edge accounts` and `bedside-edge token`: who may ask, with or without a running box.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box, which takes a token that may manage accounts.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

import click

from bedside_core.access import PERSONS_ONLY, Action, Role
from bedside_core.errors import NotFoundError, StoreUnavailableError
from bedside_edge.cli.token_file import read_token
from bedside_edge.config import Config, load_config
from bedside_edge.logs import set_up_logging

Json = dict[str, Any]

# What to add to a command that should have asked the running box.
ASK_THE_BOX = "--url http://127.0.0.1:8642 --token-file FILE"
Command = Callable[..., None]

_ROLE = click.Choice([role.value for role in Role])
_ACTION = click.Choice([action.value for action in Action if action not in PERSONS_ONLY])


class Where(TypedDict):
    """Whose accounts: the options of `where_options`."""

    config_path: Path | None
    state: Path | None
    url: str
    token: str
    token_file: Path | None


class Asking(Protocol):
    """The accounts of a box, as its API tells them: method, path below /api/v1, body -> answer."""

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer."""
        ...


# Opens a box's folder and lends the way to ask what is in it
Offliner = Callable[[Config, Path], AbstractContextManager[Asking]]


def where_options(command: Command) -> Command:
    """Add the options that say whose accounts: of a folder, or of a running box."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings"),
        click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it"),
        click.option(
            "--url", envvar="BEDSIDE_URL", default="", help="Running box [env: BEDSIDE_URL]"
        ),
        click.option(
            "--token", envvar="BEDSIDE_TOKEN", default="", help="With --url [env: BEDSIDE_TOKEN]"
        ),
        click.option("--token-file", type=click.Path(path_type=Path), help="File with the token"),
        click.option("--json", "as_json", is_flag=True, help="Print JSON"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def accounts() -> None:
    """People who may log in, and what they are."""


@accounts.command("list")
@where_options
def list_accounts(as_json: bool, **where: Unpack[Where]) -> None:
    """List the accounts.

    \b
    Examples:
      bedside-edge accounts list --state /var/lib/bedside
      bedside-edge accounts list --url http://127.0.0.1:8642 --token-file admin.token
    """
    with _asking(**where) as (ask, _):
        found = ask("GET", "/accounts")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["accounts"]:
        notes = [] if one["password_set"] else ["no password yet"]
        notes += ["disabled"] if one["disabled"] else []
        words = f"  ({', '.join(notes)})" if notes else ""
        click.echo(f"{one['login']}  {one['name']}  {', '.join(one['roles'])}{words}")


@accounts.command("add")
@click.argument("login")
@click.argument("name")
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=_ROLE)
@where_options
def add_account(
    login: str, name: str, roles: tuple[str, ...], as_json: bool, **where: Unpack[Where]
) -> None:
    """Add an account for LOGIN and print the link with which its owner sets a password.

    NAME is a DICOM person name, Family^Given: it stands in signed reports. The link holds for 24
    hours and works once.

    \b
    Examples:
      bedside-edge accounts add wang 'Wang^Min' radiologist --state /var/lib/bedside
      bedside-edge accounts add dpo 'Meier^Eva' privacy-officer auditor
    """
    with _asking(create=True, **where) as (ask, base):
        body = {"login": login, "name": name, "roles": list(roles)}
        _say_link(ask("POST", "/accounts", body), base, as_json)


@accounts.command("roles")
@click.argument("login")
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=_ROLE)
@where_options
def set_roles(login: str, roles: tuple[str, ...], as_json: bool, **where: Unpack[Where]) -> None:
    """Give LOGIN these roles instead of the ones it has; its log-ins end.

    \b
    Examples:
      bedside-edge accounts roles wang radiologist auditor
    """
    with _asking(**where) as (ask, _):
        path = f"/accounts/{_id(ask, login)}/roles"
        _say(ask("PUT", path, {"roles": list(roles)}), as_json)


@accounts.command("disable")
@click.argument("login")
@click.option("--enable", is_flag=True, help="Enable it again")
@where_options
def disable_account(login: str, enable: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Disable LOGIN: its log-ins end and its tokens fail at once.

    \b
    Examples:
      bedside-edge accounts disable wang
      bedside-edge accounts disable wang --enable
    """
    with _asking(**where) as (ask, _):
        path = f"/accounts/{_id(ask, login)}/disabled"
        _say(ask("PUT", path, {"disabled": not enable}), as_json)


@accounts.command("reset-link")
@click.argument("login")
@where_options
def reset_link(login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Print a link with which LOGIN sets a new password; until then the old one holds.

    Works without any password, for whoever may read the state folder.

    \b
    Examples:
      bedside-edge accounts reset-link administrator --state /var/lib/bedside
    """
    with _asking(**where) as (ask, base):
        _say_link(ask("POST", f"/accounts/{_id(ask, login)}:reset-link"), base, as_json)


@click.group()
def token() -> None:
    """API tokens for programs: PACS, modalities, monitoring."""


@token.command("create")
@click.argument("label")
@click.argument("actions", metavar="ACTION...", nargs=-1, required=True, type=_ACTION)
@click.option("--owner", default="", help="Login name; the token then may no more than its owner")
@click.option("--days", type=click.FloatRange(0, 3660, min_open=True), help="Life [default: ever]")
@where_options
def create_token(
    label: str,
    actions: tuple[str, ...],
    owner: str,
    days: float | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Print a new token that may do the ACTIONs; it is shown this once.

    No token may sign off: that needs a person. docs/access.md lists the actions.

    \b
    Examples:
      bedside-edge token create pacs store view-result > pacs.token
      bedside-edge token create prometheus monitor --days 365
      bedside-edge token create me analyze view-result view-worklist --state /var/lib/bedside
    """
    with _asking(create=True, **where) as (ask, _):
        body: Json = {"label": label, "actions": list(actions), "days": days}
        body |= {"owner": _id(ask, owner)} if owner else {}
        found = ask("POST", "/tokens", body)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    click.echo(found["secret"])  # alone on standard output, so that it can go into a file
    click.echo(f"token {found['token']['id']} ({label}) may {', '.join(actions)}", err=True)


@token.command("list")
@where_options
def list_tokens(as_json: bool, **where: Unpack[Where]) -> None:
    """List the tokens; nobody can show their secrets again.

    \b
    Examples:
      bedside-edge token list --state /var/lib/bedside
    """
    with _asking(**where) as (ask, _):
        found = ask("GET", "/tokens")
        names = {one["id"]: one["login"] for one in ask("GET", "/accounts")["accounts"]}
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["tokens"]:
        ends = "revoked" if one["revoked"] else "no end"
        if one["expires"] and not one["revoked"]:
            ends = f"until {_day(one['expires'])}"
        used = f"used {_day(one['last_used'])}" if one["last_used"] else "never used"
        owner = names.get(one["owner"], "system")
        click.echo(
            f"{one['id']}  {one['label']}  {owner}  {ends}  {used}  {' '.join(one['actions'])}"
        )


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@where_options
def revoke_token(token_id: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Revoke the token ID: the next request with it is refused.

    \b
    Examples:
      bedside-edge token revoke a3f01c2b4d5e6f701
    """
    with _asking(**where) as (ask, _):
        ask("DELETE", f"/tokens/{token_id}")
    click.echo(json.dumps({"revoked": token_id}) if as_json else f"{token_id} revoked")


@contextmanager
def _asking(*, create: bool = False, **where: Unpack[Where]) -> Iterator[tuple[Asking, str]]:
    """Lend the way to ask, and the address in front of links.

    Only who adds the first account or token makes a state folder; a question makes none.
    """
    set_up_logging(level="error", style="plain")
    if where["url"]:
        yield over_http(where), where["url"].rstrip("/")
        return
    from bedside_edge.cli.access_offline import Offline
    from bedside_edge.state_folder import offline_access  # the store: only when it is needed

    config, folder = load_config(where["config_path"])
    with ExitStack() as stack:
        with while_a_box_runs():
            lent = offline_access(config, where["state"] or folder, create=create)
            access = stack.enter_context(lent)
        yield Offline(access), f"http://{config.http.host}:{config.http.port}"


@contextmanager
def asking(offline: Callable[[], Offliner], where: Where) -> Iterator[Asking]:
    """Lend the way to ask: the running box, or its folder through what `offline` imports.

    Raises:
        StoreUnavailableError: a box has the folder open; the text says how to ask it.
    """
    set_up_logging(level="error", style="plain")
    if where["url"]:
        yield over_http(where)
        return
    config, default = load_config(where["config_path"])
    with ExitStack() as stack:
        with while_a_box_runs():
            ask = stack.enter_context(offline()(config, where["state"] or default))
        yield ask


@contextmanager
def while_a_box_runs() -> Iterator[None]:
    """Add to a folder that is locked how to ask the box that has it open."""
    try:
        yield
    except StoreUnavailableError as cause:
        words = f"{cause}; while a box runs, ask it: {ASK_THE_BOX}"
        raise StoreUnavailableError(words) from cause


def over_http(where: Where) -> Asking:
    """Return the way to ask the box that runs at an address."""
    from bedside_edge import remote

    url, secret = where["url"], where["token"]
    if where["token_file"]:
        secret = read_token(where["token_file"])

    def ask(method: str, path: str, body: Json | None = None) -> Json:
        return remote.ask(method, url, f"/api/v1{path}", secret, body)

    return ask


def _id(ask: Asking, login: str) -> str:
    for one in ask("GET", "/accounts")["accounts"]:
        if one["login"] == login.strip().casefold():
            return str(one["id"])
    raise NotFoundError("no account of that login name")


def _say(account: Json, as_json: bool) -> None:
    words = f"{account['login']}: {', '.join(account['roles'])}"
    words += " (disabled)" if account["disabled"] else ""
    click.echo(json.dumps(account, sort_keys=True) if as_json else words)


def _say_link(found: Json, base: str, as_json: bool) -> None:
    link = base + found["link"]
    if as_json:
        click.echo(json.dumps(found | {"link": link}, sort_keys=True))
        return
    click.echo(f"{found['account']['login']} sets a password here, once, within 24 hours:")
    click.echo(f"  {link}")


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))
