"""`bedside-hub`: the consortium's relay and adder, and the offline tools of its administrators."""

import json
import logging
import signal
import sys
import threading
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bedside_sync.console import run
from bedside_sync.hub.cli import admin as admin_cli
from bedside_sync.hub.cli import heads as heads_cli
from bedside_sync.hub.cli import keys as keys_cli
from bedside_sync.hub.cli import publish as publish_cli
from bedside_sync.hub.cli import rollout as rollout_cli
from bedside_sync.hub.cli import roster as roster_cli
from bedside_sync.hub.cli import rounds as rounds_cli
from bedside_sync.hub.cli import settings as settings_cli
from bedside_sync.hub.cli.common import (
    EXISTING,
    folder_option,
    json_option,
    read_small,
    say,
    table,
)
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import UNITS
from bedside_sync.secagg.roster import Root


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("bedside"), prog_name="bedside-hub")
def cli() -> None:
    """Run a consortium's hub: it adds masked vectors and can read none of them.

    \b
    A consortium begins:  admin key (twice), init, serve
    A site joins:         roster show, roster propose, admin sign (twice), roster approve
    A round:              round propose, admin sign (twice), round open, round show, round publish
    Packages:             keys ceremony, publish add, publish commit, publish assign
    """


@cli.command()
@click.argument("consortium")
@click.option(
    "--admin",
    "admins",
    multiple=True,
    required=True,
    type=EXISTING,
    help="Public half of an administrator's key; at least two, of different organisations",
)
@click.option("--server-name", required=True, help="Name boxes reach the hub by")
@click.option("--url", required=True, help="Address boxes dial, tls+tcp://name:port")
@folder_option
@json_option
def init(
    consortium: str,
    admins: tuple[Path, ...],
    server_name: str,
    url: str,
    folder: Path,
    as_json: bool,
) -> None:
    """Make a hub for CONSORTIUM: its root, its key and its transport authority.

    The root never changes: every box pins it. Read its fingerprint to the sites over the phone.

    \b
    Examples:
      bedside-hub init lungs --admin anna.key.pub --admin ben.key.pub \\
        --server-name hub.example.org --url tls+tcp://hub.example.org:7443
    """
    from pydantic import ValidationError

    from bedside_sync.hub.admin_keys import PublicHalf
    from bedside_sync.hub.folder import Place, make_hub
    from bedside_sync.hub.process import now
    from bedside_sync.joining import fingerprint

    halves = [decode(PublicHalf, read_small(path)) for path in admins]
    known = {half.name: half.administrator for half in halves}
    if len({one.organisation for one in known.values()}) < 2:
        raise click.UsageError("a consortium needs administrators of two organisations")
    try:
        root = Root(consortium=consortium, administrators=known)
        place = Place(url=url, server_name=server_name)
    except ValidationError as cause:
        wrong = cause.errors(include_url=False, include_input=False)[0]["loc"]
        raise click.UsageError(f"not usable: {'.'.join(map(str, wrong))}") from cause
    hub = make_hub(folder, root, place, now())
    facts = {
        "consortium": consortium,
        "folder": str(folder),
        "administrators": ", ".join(sorted(known)),
        "hub_key": hub.public_key,
        "consortium_fingerprint": fingerprint(root),
    }
    say(as_json, facts)


@cli.command()
@click.option("--listen", required=True, help="Address to listen on, tls+tcp://0.0.0.0:7443")
@click.option(
    "--status-port",
    type=click.IntRange(0, 65535),
    help="Show the rounds as a page on 127.0.0.1; 0 takes any free port",
)
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
@folder_option
@json_option
def serve(listen: str, status_port: int | None, threads: int, folder: Path, as_json: bool) -> None:
    """Serve boxes until interrupted. One process at a time per folder.

    \b
    Examples:
      bedside-hub serve --listen tls+tcp://0.0.0.0:7443 --status-port 7480
    """
    from bedside_sync.hub.process import JsonFormatter, Serving, run_hub

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger("bedside_sync").addHandler(handler)
    logging.getLogger("bedside_sync").setLevel(logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def ready(where: Serving) -> None:
        lines = [f"serving {where.url}"]
        if where.status_url:
            lines.append(f"rounds  {where.status_url}")
        say(as_json, asdict(where), lines)
        sys.stdout.flush()

    run_hub(folder, listen, status_port, stop, ready=ready, threads=threads)


@cli.command()
@click.option("--boxes", type=click.IntRange(4, 100_000), default=20, show_default=True)
@click.option("--words", type=click.IntRange(1, 10**8), default=10_000, show_default=True)
@click.option("--drop", type=click.FloatRange(0, 0.99), default=0.1, show_default=True)
@click.option("--helpers", type=click.IntRange(4, 16), default=4, show_default=True)
@click.option("--missing", type=click.IntRange(1, 5), default=1, show_default=True)
@click.option("--ring", type=click.Choice(["32", "64"]), default="32", show_default=True)
@click.option("--no-noise", is_flag=True, help="Leave the boxes' noise out")
@json_option
def simulate(
    boxes: int,
    words: int,
    drop: float,
    helpers: int,
    missing: int,
    ring: str,
    no_noise: bool,
    as_json: bool,
) -> None:
    """Run one round of many boxes on this machine and say whether the sum was exact.

    \b
    Examples:
      bedside-hub simulate --boxes 1000 --words 1000000 --drop 0.1
    """
    from bedside_sync.hub.simulate import simulate as run

    bar = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=as_json or not sys.stderr.isatty(),
        transient=True,
    )
    tasks = {}

    def tell(stage: str, done: int, of: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=of)
        bar.update(tasks[stage], completed=done)

    with bar:
        outcome = run(
            boxes,
            words=words,
            drop=drop,
            helpers=helpers,
            missing=missing,
            ring=int(ring),
            noise=not no_noise,
            progress=tell,
        )
    facts = asdict(outcome)
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
    else:
        rows = [
            ("sum", "exact" if outcome.exact else "WRONG"),
            ("boxes", f"{outcome.boxes - outcome.dropped} reported, {outcome.dropped} dropped"),
            ("box", f"{outcome.box_s * 1000:.1f} ms to mask and seal {words} words"),
            ("upload", f"{outcome.upload_bytes / 1e6:.3f} MB a box"),
            ("hub", f"{outcome.add_s:.2f} s adding, {outcome.hub_s:.3f} s opening"),
            ("helper", f"{outcome.helper_s:.3f} s, the slowest"),
            (
                "noise",
                "left out" if no_noise else f"{outcome.noise_variance:.4f} of the planned variance",
            ),
            ("rho", f"{outcome.rho / UNITS:.4g}"),
            ("in all", f"{outcome.total_s:.1f} s"),
        ]
        table(("", ""), rows, "")
    if not outcome.exact:
        sys.exit(1)


cli.add_command(admin_cli.admin)
cli.add_command(roster_cli.roster)
cli.add_command(rounds_cli.rounds)
cli.add_command(settings_cli.settings)
cli.add_command(keys_cli.keys)
cli.add_command(publish_cli.publish)
cli.add_command(heads_cli.head)
cli.add_command(heads_cli.promote)
cli.add_command(rollout_cli.rollout)


def main() -> None:
    """Run the command line; every deliberate error ends in its exit code."""
    run(cli, "bedside-hub")
