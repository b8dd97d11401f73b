"""`bedside-edge seal`, `unseal` and `incident`: stop all use at once, open again by two people.

With `--url` the commands ask the running box: with a token, or with `--login` as a person, which
opening a sealed box and signing a notice need. Without it they work on the folder of a stopped
box.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Unpack

import click

from bedside_core.access import Action
from bedside_core.errors import StoreUnavailableError
from bedside_core.incident import PARTS, Cause
from bedside_core.uses import Incident
from bedside_edge.cli.access import ASK_THE_BOX, Asking, Where, over_http, where_options
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

Json = dict[str, Any]

_CAUSE = click.Choice([cause.value for cause in Cause])
_login = click.option("--login", default="", help="Ask as this person; the password is asked for")


@click.command()
@click.option("--cause", type=_CAUSE, default="leak", show_default=True)
@click.option("--reason", default="", help="What happened, in a sentence")
@click.option("--shutdown", is_flag=True, help="Shut down instead (stopped box, or two people)")
@_login
@where_options
def seal(
    cause: str, reason: str, shutdown: bool, login: str, as_json: bool, **where: Unpack[Where]
) -> None:
    """Seal the box: nothing comes in, is read by a model, changed or sent. What it holds is kept.

    \b
    Examples:
      bedside-edge seal --url http://127.0.0.1:8642 --token-file admin.token --reason "disk stolen"
      bedside-edge seal --state /var/lib/bedside --cause tampering
    """
    with _asking(login, **where) as ask:
        if shutdown and where["url"]:
            made = ask("POST", "/incidents:unseal", {"state": "shutdown", "reason": reason})
            _say_ask(made, as_json)
            return
        body: Json = {"cause": cause, "reason": reason}
        if shutdown:
            body["shutdown"] = True
        made = ask("POST", "/incidents:seal", body)
    if as_json:
        click.echo(json.dumps(made, sort_keys=True))
        return
    # which one: without --url the folder of the settings is meant, not a box that runs elsewhere
    which = where["url"] or where["state"] or load_config(where["config_path"])[1]
    click.echo(f"the box is {made['state']}: {which}")


@click.command()
@click.argument("ask_id", required=False, default="")
@click.option("--reason", default="", help="Why it may be opened; whoever asks first says it")
@click.option("--to", type=click.Choice(["normal", "patching"]), default="normal")
@click.option("--login", default="", help="Ask or confirm as this person")
@click.option("--with", "other", default="", help="Stopped box: the other person")
@where_options
def unseal(
    ask_id: str,
    reason: str,
    to: str,
    login: str,
    other: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Open a sealed box: one person asks, another one confirms ASK_ID. Checks have to be green.

    A box that was shut down is opened at the box, by two people: it is sealed then.

    \b
    Examples:
      bedside-edge unseal --url http://127.0.0.1:8642 --login ada --reason "disk found, clean"
      bedside-edge unseal q7ae6xd3k2 --url http://127.0.0.1:8642 --login bert
      bedside-edge unseal --state /var/lib/bedside --login ada --with bert --reason "clean"
    """
    if not login:
        raise click.UsageError("--login: only persons open a sealed box")
    if not where["url"]:
        _unseal_here(to, login, other, reason, as_json, **where)
        return
    with _asking(login, **where) as ask:
        if ask_id:
            made = ask("POST", f"/incidents/asks/{ask_id}:confirm")
            words = json.dumps(made, sort_keys=True) if as_json else f"the box is {made['state']}"
            click.echo(words)
            return
        _say_ask(ask("POST", "/incidents:unseal", {"state": to, "reason": reason}), as_json)


@click.group()
def incident() -> None:
    """Incidents: what happened, which clocks run, what has to be told to whom."""


@incident.command("state")
@click.argument("to", required=False, type=click.Choice(["normal", "alarm", "patching", "drill"]))
@click.option("--reason", default="")
@_login
@where_options
def box_state(
    to: str | None, reason: str, login: str, as_json: bool, **where: Unpack[Where]
) -> None:
    """Say how the box is and was, or change it to what one person may choose.

    \b
    Examples:
      bedside-edge incident state --state /var/lib/bedside
      bedside-edge incident state drill --url http://127.0.0.1:8642 --token-file admin.token
    """
    with _asking(login, **where) as ask:
        if to:
            ask("POST", "/incidents:state", {"state": to, "reason": reason})
        found = ask("GET", "/incidents/state")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["states"]:
        people = " and ".join(filter(None, (one["actor"], one["second"])))
        click.echo(f"{_time(one['at'])}  {one['state']}  {people}")


@incident.command("open")
@click.argument("cause", type=_CAUSE)
@click.option("--fact", "facts", multiple=True, help="PART=WORDS; parts: " + ", ".join(PARTS))
@click.option("--aware-at", default=0, help="When it was noticed, ms since 1970 [default: now]")
@click.option("--earliest", default=0, help="Earliest moment it can have been, ms")
@click.option("--drill", is_flag=True, help="Mark everything as a drill")
@_login
@where_options
def open_incident(
    cause: str,
    facts: tuple[str, ...],
    aware_at: int,
    earliest: int,
    drill: bool,
    login: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Open an incident without sealing: its clocks start.

    \b
    Examples:
      bedside-edge incident open leak --fact "causes=a list was left in the canteen"
    """
    body = {
        "cause": cause,
        "facts": _facts(facts),
        "aware_at": aware_at,
        "earliest": earliest,
        "drill": drill,
    }
    with _asking(login, **where) as ask:
        _say(ask("POST", "/incidents", body), as_json)


@incident.command("list")
@where_options
def list_incidents(as_json: bool, **where: Unpack[Where]) -> None:
    """List incidents, newest first.

    \b
    Examples:
      bedside-edge incident list --state /var/lib/bedside
    """
    with _asking("", **where) as ask:
        found = ask("GET", "/incidents")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["incidents"]:
        state = "closed" if one["closed_at"] else "open"
        drill = "  drill" if one["drill"] else ""
        click.echo(f"{one['id']}  {one['cause']}  {_time(one['aware_at'])}  {state}{drill}")


@incident.command("show")
@click.argument("incident_id")
@where_options
def show_incident(incident_id: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Show an incident and its clocks.

    \b
    Examples:
      bedside-edge incident show h2hcsufxadeqeit6ysis5c62im
    """
    with _asking("", **where) as ask:
        _say(ask("GET", f"/incidents/{incident_id}"), as_json)


@incident.command("facts")
@click.argument("incident_id")
@click.argument("facts", nargs=-1, required=True)
@_login
@where_options
def learn(
    incident_id: str, facts: tuple[str, ...], login: str, as_json: bool, **where: Unpack[Where]
) -> None:
    """Add what is known, as PART=WORDS; empty words take a part away.

    \b
    Examples:
      bedside-edge incident facts h2hcsufxadeqeit6ysis5c62im "number=about 200"
    """
    with _asking(login, **where) as ask:
        _say(ask("PATCH", f"/incidents/{incident_id}", {"facts": _facts(facts)}), as_json)


@incident.command("notice")
@click.argument("incident_id")
@click.argument("duty_id")
@click.option("--sign", is_flag=True, help="Sign it as --login; the box sends nothing")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the text here")
@_login
@where_options
def notice(
    incident_id: str,
    duty_id: str,
    sign: bool,
    output: Path | None,
    login: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Write the notice for a duty from what is known; sending it is a person's work.

    \b
    Examples:
      bedside-edge incident notice h2hcsufxadeqeit6ysis5c62im cn-pipl-57 -o notice.md
    """
    path = f"/incidents/{incident_id}/notices/{duty_id}"
    with _asking(login, **where) as ask:
        found = ask("POST", f"{path}:sign") if sign else ask("GET", path)
    if output is not None:
        output.write_text(found["text"], encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    if output is None:
        click.echo(found["text"])
    if found["digest"]:
        click.echo(f"signed: sha256 {found['digest']}", err=True)


@incident.command("close")
@click.argument("incident_id")
@_login
@where_options
def close(incident_id: str, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Close an incident whose notices are signed.

    \b
    Examples:
      bedside-edge incident close h2hcsufxadeqeit6ysis5c62im
    """
    with _asking(login, **where) as ask:
        _say(ask("POST", f"/incidents/{incident_id}:close"), as_json)


# --- inside --------------------------------------------------------------------------------------


def _facts(facts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in facts:
        part, equals, words = one.partition("=")
        if not equals or part not in PARTS:
            raise click.UsageError(f"PART=WORDS with one of {', '.join(PARTS)}")
        found[part] = words
    return found


def _say(one: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one, sort_keys=True))
        return
    drill = ", a drill" if one["drill"] else ""
    click.echo(f"{one['id']}: {one['cause']}{drill}, known since {_time(one['aware_at'])}")
    for part, words in sorted(one["facts"].items()):
        click.echo(f"  {part}: {words}")
    for clock in one["clocks"]:
        done = "signed" if clock["signed_at"] else f"{clock['alarmed']} % alarm"
        click.echo(f"  {_time(clock['due'])}  {done}  {clock['duty']} ({clock['words']})")
        click.echo(f"    legal text: {clock['mark']}")
    if one["closed_at"]:
        click.echo(f"  closed {_time(one['closed_at'])}")


def _say_ask(made: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(made, sort_keys=True))
        return
    click.echo(f"another person confirms within the hour: bedside-edge unseal {made['id']}")


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at / 1000))


def _unseal_here(
    to: str, login: str, other: str, reason: str, as_json: bool, **where: Unpack[Where]
) -> None:
    if not other:
        raise click.UsageError("--with: two people open a box")
    from bedside_edge.state_folder import offline_incidents

    set_up_logging(level="error", style="plain")
    config, folder = load_config(where["config_path"])
    with offline_incidents(config, where["state"] or folder) as (incidents, access):
        first, second = (_person(access, one) for one in (login, other))
        now = incidents.store.state().state
        # who was shut down is sealed first: both steps are looked at
        wanted = Incident.SEALED if now is Incident.SHUTDOWN else Incident(to)
        incidents.together(wanted, first, second, reason)
        state = incidents.store.state().state
    click.echo(json.dumps({"state": state}) if as_json else f"the box is {state}")


def _person(access: Any, login: str) -> str:  # noqa: ANN401  AccessService, imported late
    password = click.prompt(f"Password of {login}", hide_input=True, err=True)
    session = access.log_in(login, password, "console")
    session.actor.must(Action.MANAGE_INCIDENT)
    access.log_out(session.secret)
    return str(session.actor.actor_id)


@contextmanager
def _asking(login: str, **where: Unpack[Where]) -> Iterator[Asking]:
    """Lend the way to ask: the running box, as a token or a person, or its folder."""
    set_up_logging(level="error", style="plain")
    with ExitStack() as stack:
        if where["url"]:
            if not login:
                yield over_http(where)
                return
            from bedside_edge import remote

            password = click.prompt(f"Password of {login}", hide_input=True, err=True)
            yield stack.enter_context(remote.person(where["url"], login, password))
            return
        from bedside_edge.cli.incident_offline import Offline
        from bedside_edge.services.access import CONSOLE
        from bedside_edge.state_folder import offline_incidents

        config, folder = load_config(where["config_path"])
        try:
            lent = offline_incidents(config, where["state"] or folder)
            incidents, access = stack.enter_context(lent)
        except StoreUnavailableError as cause:
            words = f"{cause}; while a box runs, ask it: {ASK_THE_BOX}"
            raise StoreUnavailableError(words) from cause
        actor = _person(access, login) if login else CONSOLE.actor_id
        yield Offline(incidents, actor)
