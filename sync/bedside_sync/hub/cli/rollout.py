"""`bedside-hub rollout`: a package to one group after the other, by what boxes report."""

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from bedside_core.errors import InvalidConfigError, RefusedError
from bedside_sync.hub.cli.common import EXISTING, folder_option, json_option, opened, say, table
from bedside_sync.hub.cli.keys import opened as repository_of
from bedside_sync.hub.process import now

if TYPE_CHECKING:
    from bedside_sync.hub.campaigns import Campaign, Judgement, Plan
    from bedside_sync.hub.inventories import Rollouts


@click.group()
def rollout() -> None:
    """Give a package to one group of boxes after the other; stop when too many fail.

    \b
    A plan (TOML):
      name = "chest-2"
      path = "models/chest/2.0.0.json"
      success_percent = 100      # of a group, before the next gets it
      error_percent = 0          # of the boxes reached: more failures stop it
      soak_hours = 24            # it must have served so long without an alarm
      [[groups]]
      name = "canary"
      boxes = ["box-1"]
    """


@rollout.command("create")
@click.argument("plan", type=EXISTING)
@click.option("--dry-run", is_flag=True, help="Read the plan; assign nothing")
@folder_option
@json_option
def create(plan: Path, dry_run: bool, folder: Path, as_json: bool) -> None:
    """Begin the rollout in PLAN: its first group is assigned the package.

    \b
    Examples:
      bedside-hub rollout create chest-2.toml --dry-run
      bedside-hub rollout create chest-2.toml
    """
    read = _read(plan)
    if dry_run:
        groups = [f"{group.name}: {', '.join(group.boxes)}" for group in read.groups]
        say(as_json, {"name": read.name, "groups": groups}, [f"{read.name} {read.path}", *groups])
        return
    with _rollouts(folder) as rollouts:
        _show(rollouts.create(read), None, as_json)


@rollout.command("list")
@folder_option
@json_option
def list_rollouts(folder: Path, as_json: bool) -> None:
    """List rollouts, the newest first.

    \b
    Examples:
      bedside-hub rollout list
    """
    from bedside_sync.hub.inventories import campaigns, summary

    with opened(folder) as (_, service):
        found = summary(campaigns(service.store))
    if as_json:
        say(True, {"rollouts": found})
        return
    rows = [
        (str(one["name"]), str(one["path"]), str(one["state"]), str(one["group"]), str(one["why"]))
        for one in found
    ]
    table(("name", "package", "state", "group", "why"), rows, "no rollouts")


@rollout.command("show")
@click.argument("name")
@folder_option
@json_option
def show(name: str, folder: Path, as_json: bool) -> None:
    """Show how every box that was reached stands, and what would follow.

    \b
    Examples:
      bedside-hub rollout show chest-2
    """
    with _rollouts(folder) as rollouts:
        _show(*rollouts.look(name), as_json)


@rollout.command("advance")
@click.argument("name")
@folder_option
@json_option
def advance(name: str, folder: Path, as_json: bool) -> None:
    """Do what follows from the reports: wait, next group, finish, or stop (exit 3).

    `bedside-hub serve` does so by itself; this is for a hub that is off.

    \b
    Examples:
      bedside-hub rollout advance chest-2
    """
    with _rollouts(folder) as rollouts:
        after, judgement = rollouts.advance(name)
    _show(after, judgement, as_json)
    if after.state == "stopped":
        sys.exit(RefusedError.exit_code)


@rollout.command("stop")
@click.argument("name")
@click.option("--why", required=True, help="Stands in the record")
@folder_option
@json_option
def stop(name: str, why: str, folder: Path, as_json: bool) -> None:
    """Stop at once: nobody else gets it, and who does not run it yet is assigned it no more.

    A box that runs it goes on: going back is its site's decision (`bedside-edge update rollback`),
    or that of a release with a higher counter.

    \b
    Examples:
      bedside-hub rollout stop chest-2 --why "two sites report false alarms"
    """
    with _rollouts(folder) as rollouts:
        _show(rollouts.stop(name, why), None, as_json)


@contextmanager
def _rollouts(folder: Path) -> Iterator["Rollouts"]:
    from bedside_sync.hub.inventories import Rollouts

    with opened(folder) as (_, service):
        yield Rollouts(
            store=service.store,
            repository=repository_of(folder),
            roster=lambda: service.roster,
            now=now,
        )


def _read(path: Path) -> "Plan":
    from bedside_sync.hub.campaigns import Plan

    try:
        facts = tomllib.loads(path.read_text())
        for group in facts.get("groups", []):
            group["boxes"] = tuple(group.get("boxes", ()))
        facts["groups"] = tuple(facts.get("groups", ()))
        return Plan.model_validate(facts)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as cause:
        raise InvalidConfigError("the plan of the rollout cannot be read") from cause
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidConfigError(f"the plan of the rollout: {where}: {first['msg']}") from cause


def _show(campaign: "Campaign", judgement: "Judgement | None", as_json: bool) -> None:
    plan = campaign.plan
    boxes = {} if judgement is None else {box: how.value for box, how in judgement.boxes.items()}
    facts: dict[str, Any] = {
        "name": plan.name,
        "path": plan.path,
        "state": campaign.state,
        "group": plan.groups[campaign.group].name,
        "reached": list(campaign.reached),
        "verdict": judgement.verdict.value if judgement else "",
        "why": judgement.why if judgement else campaign.why,
        "boxes": boxes,
    }
    lines = [
        f"{plan.name}: {campaign.state}, {plan.path}",
        f"  group {facts['group']} ({campaign.group + 1} of {len(plan.groups)})",
        *(f"  {box}: {how}" for box, how in boxes.items()),
    ]
    if facts["why"]:
        lines.append(f"  {facts['verdict'] or 'why'}: {facts['why']}")
    say(as_json, facts, lines)
