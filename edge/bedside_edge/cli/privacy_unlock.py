"""`bedside-edge privacy unlock` and `renew`: what two people decide at a stopped box."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside_core.access import Action
from bedside_core.errors import InvalidInputError, NotPermittedError
from bedside_edge.cli.people import persons
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.services.budget import BudgetService

DAY_MS = 86_400_000
_PATH = click.Path(path_type=Path)


@click.command("unlock")
@click.option("--login", required=True, help="Who decides: a privacy officer, or the other is one")
@click.option("--with", "other", required=True, help="The second person, who manages incidents")
@click.option("--config", "config_path", type=_PATH, help="Settings")
@click.option("--state", type=_PATH, help="State folder, no box on it")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def unlock(
    login: str, other: str, config_path: Path | None, state: Path | None, as_json: bool
) -> None:
    """Write off what is left of the epoch, and release again under a ledger that was set back.

    For a box whose privacy ledger is locked because a backup was restored: what was spent after
    the backup is unknown, so all of it counts as spent, and what arrived until now is not asked
    for again. Stop the box first. Where a witness locked the log, `evidence continue` does it too.

    \b
    Examples:
      bedside-edge privacy unlock --login ada --with bert --state /var/lib/bedside
    """
    with _two(login, other, config_path, state) as (budget, first, second):
        before = budget.epoch()
        budget.unlock(first, second)
    burned = before.number if before is not None and not before.closed else None
    if as_json:
        click.echo(json.dumps({"burned_epoch": burned}))
        return
    words = "no epoch was open" if burned is None else f"epoch {burned} is written off"
    click.echo(f"unlocked: {words}; close it when it is over and open the next one")


@click.command("renew")
@click.option("--login", required=True, help="Who decides: a privacy officer, or the other is one")
@click.option("--with", "other", required=True, help="The second person, who manages incidents")
@click.option("--from", "starts", help="Day the epoch begins, YYYY-MM-DD  [default: today]")
@click.option("--days", default=365, type=click.IntRange(1, 3660), show_default=True)
@click.option("--config", "config_path", type=_PATH, help="Settings")
@click.option("--state", type=_PATH, help="State folder, no box on it")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def renew(
    login: str,
    other: str,
    starts: str | None,
    days: int,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Open the next epoch on the word of two people, where no witness tells the time.

    The epoch before has to be closed and over by the clock; two people say that the clock is right.

    \b
    Examples:
      bedside-edge privacy renew --login ada --with bert --from 2027-01-01 --state /var/lib/bedside
    """
    first_ms = day_ms(starts)
    with _two(login, other, config_path, state) as (budget, first, second):
        epoch = budget.open_epoch(first_ms, first_ms + days * DAY_MS, first, second)
    said = {"number": epoch.number, "starts": epoch.starts, "ends": epoch.ends}
    click.echo(json.dumps({"epoch": said}) if as_json else f"epoch {epoch.number} is open")


def day_ms(text: str | None) -> int:
    """Return the start of a day, UTC, milliseconds since 1970; today's without a text."""
    try:
        day = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as cause:
        raise InvalidInputError("a day is YYYY-MM-DD") from cause
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


@contextmanager
def _two(
    login: str, other: str, config_path: Path | None, state: Path | None
) -> "Iterator[tuple[BudgetService, str, str]]":
    """Lend the budgets of a stopped box and the ids of two people who are who they say."""
    from bedside_edge.cli.privacy_offline import offline_budget

    set_up_logging(level="error", style="plain")
    config, folder = load_config(config_path)
    with offline_budget(config, state or folder) as (budget, access):
        found = persons(access, (login, other), Action.MANAGE_INCIDENT)
        if not any(Action.RELEASE in actor.actions for actor in found):
            raise NotPermittedError("one of the two has to be a privacy officer")
        yield budget, found[0].actor_id, found[1].actor_id
