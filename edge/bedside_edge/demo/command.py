"""`python -m bedside_edge.demo`: starts the box, tells the story, writes the report."""

import json
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console

from bedside_core.errors import BedsideError
from bedside_core.result import NOTICE
from bedside_edge.demo.claims import judge
from bedside_edge.demo.client import BoxClient
from bedside_edge.demo.picture import unmarked
from bedside_edge.demo.plain import search_plain
from bedside_edge.demo.problem import DemoError
from bedside_edge.demo.report import render_report
from bedside_edge.demo.samples import Delivery, again, deliveries
from bedside_edge.demo.screen import console, print_summary
from bedside_edge.demo.service import RunningBox
from bedside_edge.demo.story import Story, as_document, digests

Json = dict[str, Any]

_FAILED = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for the report, the pictures and the summary",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON")
@click.option(
    "--keep", is_flag=True, help="Keep the box's state folder and log in the output folder"
)
def demo(out: Path, as_json: bool, keep: bool) -> None:
    r"""Start a real box on loopback, send it real studies, show what it made of them.

    Nothing leaves this machine. Exits 1 when a promise did not hold or the box did not work.

    \b
    Examples:
      python -m bedside_edge.demo
      python -m bedside_edge.demo --out /tmp/bedside --json
    """
    began = time.perf_counter()
    progress = Console(stderr=as_json, highlight=False, soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bedside-demo-"))
    try:
        summary, pictures = _tell(scratch, progress)
        summary["kept"] = keep
    finally:
        if keep:
            _keep(scratch, out)
        shutil.rmtree(scratch)
    summary["took_s"] = time.perf_counter() - began
    summary["removed"] = not scratch.exists()
    _write(out, summary, pictures)
    if as_json:
        click.echo(json.dumps(as_document(summary), sort_keys=True))
    else:
        print_summary(console(), summary, out)
    if not summary["held"]:
        broken = [claim["promise"] for claim in summary["claims"] if not claim["held"]]
        raise DemoError("not as promised: " + "; ".join(broken))


def main() -> None:
    """Run the demonstration; whatever ends it early is said in a sentence."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the box is stopped, too
    try:
        demo(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as usage:
        usage.show()
        sys.exit(usage.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (DemoError, BedsideError) as problem:
        click.echo(f"demo: {problem}", err=True)
        sys.exit(_FAILED)


def _tell(scratch: Path, progress: Console) -> tuple[Json, dict[str, bytes]]:
    """Run the box, send everything, return the summary and the pictures by file name."""
    planned = deliveries(scratch)
    began = time.perf_counter()

    def say(line: str) -> None:
        progress.print(f"[dim]{time.perf_counter() - began:6.1f} s[/dim]  {line}")

    say("starting the box on loopback with a throw-away state folder")
    with RunningBox(scratch) as box, progress.status("working"):
        addresses = box.wait_until_ready()
        ready_s = time.perf_counter() - began
        say(f"ready: DICOM {addresses.ae_title} on port {addresses.dicom_port}, {addresses.http}")
        client = BoxClient(addresses.http, addresses.token)
        story = Story(addresses, client, say)
        try:
            seen = _play(story, client, planned)
        except (DemoError, httpx.HTTPError) as cause:
            said = str(cause) if isinstance(cause, DemoError) else "the box stopped answering"
            raise DemoError(f"{said}.\n{box.last_lines()}") from cause
        finally:
            client.close()
        say("looking for names and UIDs on the disk")
        sent = [sample.path for delivery in planned for sample in delivery.samples]
        plain = search_plain(box.state, sent)
        say("stopping the box")
        stopped = box.stop()
    if stopped != 0:
        raise DemoError(f"the box stopped with status {stopped}.\n{box.last_lines()}")
    studies = seen["studies"]
    pictures = _pictures(planned, studies, story.overlays)
    claims = judge(studies, seen["repeated"], seen["alarms"], plain)
    summary: Json = seen | {
        "format": "bedside-demo/1",
        "notice": NOTICE,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bedside": version("bedside"),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "digests": digests(studies),
        "ready_s": ready_s,
        "claims": [asdict(claim) for claim in claims],
        "held": all(claim.held for claim in claims),
        "state": {"files": plain["files"], "bytes": plain["bytes"]},
    }
    return summary, pictures


def _play(story: Story, client: BoxClient, planned: Sequence[Delivery]) -> Json:
    """Send everything once and the first study twice; return what the box made of it."""
    studies = [story.deliver(delivery) for delivery in planned]
    return {
        "studies": studies,
        "repeated": story.repeat(again(planned[0]), studies[0]),
        "model": client.model(),
        "readiness": client.readiness(),
        "alarms": len(client.alarms()),
    }


def _pictures(
    planned: list[Delivery], studies: list[Json], overlays: dict[str, bytes]
) -> dict[str, bytes]:
    """Return the pictures by file name, and name them in the studies' rows."""
    pictures: dict[str, bytes] = {}
    for delivery, study in zip(planned, studies, strict=True):
        if delivery.key not in overlays:
            continue
        path = next(s.path for s in delivery.samples if s.path.name == study["shown"])
        study["pictures"] = {
            "unmarked": f"{delivery.key}.png",
            "overlay": f"{delivery.key}-overlay.png",
        }
        pictures[study["pictures"]["unmarked"]] = unmarked(path)
        pictures[study["pictures"]["overlay"]] = overlays[delivery.key]
    return pictures


def _keep(scratch: Path, out: Path) -> None:
    for name in ("state", "service.log"):
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        if (scratch / name).exists():
            shutil.move(scratch / name, target)


def _write(out: Path, summary: Json, pictures: dict[str, bytes]) -> None:
    saved = as_document(summary)
    for name, picture in pictures.items():
        (out / name).write_bytes(picture)
    (out / "summary.json").write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    (out / "report.html").write_text(render_report(summary, pictures), encoding="utf-8")
