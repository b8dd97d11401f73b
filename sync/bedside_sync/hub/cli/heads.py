"""`bedside-hub head` and `promote`: from a package to training rounds, a new head, and its release.

The hub works on files: `bedside-models head` makes the package, away from the hub.
"""

from pathlib import Path

import click

from bedside_core.errors import RoundRefusedError
from bedside_sync.hub import promoting
from bedside_sync.hub.cli.admin import promotion_facts
from bedside_sync.hub.cli.common import FILE, folder_option, json_option, opened, say
from bedside_sync.hub.folder import write_file
from bedside_sync.hub.heads import read_package, settings_for, trained_head
from bedside_sync.hub.process import now
from bedside_sync.hub.sums import open_sum
from bedside_sync.promotion import Gate, SignedPromotion

PACKAGE = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def head() -> None:
    """Heads trained jointly: settings of the rounds, and the solution of their sums."""


@head.command("plan")
@click.argument("package_path", metavar="PACKAGE", type=PACKAGE)
@click.option("--reduced", type=click.IntRange(1, 256), default=32, show_default=True)
@click.option("--out", type=FILE, required=True, help="Settings file for ROUND.toml to name")
@json_option
def head_plan(package_path: Path, reduced: int, out: Path, as_json: bool) -> None:
    """Write the settings of training rounds on PACKAGE's features, and say what the plan needs.

    Features are projected onto the main directions of the package's own training images: public,
    the same for every site. Fewer directions bear less noise.

    \b
    Examples:
      bedside-hub head plan models/packages/cxr-opacity/1.0.0 --out train.settings.json
    """
    package, settings = settings_for(package_path, reduced)
    write_file(out, settings.encode() + b"\n")
    facts = {
        "task": "train",
        "model": package.digest,
        "settings_file": out.name,
        "words": settings.layout.length,
    }
    lines = [f'{key} = "{facts[key]}"' for key in ("task", "model", "settings_file")]
    say(as_json, facts, [*lines, f"# {facts['words']} words; the rest follows from the settings"])


@head.command("solve")
@click.argument("rounds", nargs=-1, required=True, metavar="ROUND...")
@click.option("-o", "--out", type=FILE, required=True, help="File for `bedside-models head`")
@click.option("--finding", default="", help="Which one, when the rounds trained several")
@folder_option
@json_option
def head_solve(
    rounds: tuple[str, ...], out: Path, finding: str, folder: Path, as_json: bool
) -> None:
    """Solve the sums of one or several nights (ROUND...) for a head, with where it comes from.

    A ridge problem on noisy sums: no iterations, no further privacy. Exit 3 when the noise leaves
    no head; add nights then.

    \b
    Examples:
      bedside-hub head solve train-1 train-2 -o head.json
    """
    with opened(folder) as (_, service):
        found = trained_head([open_sum(service, name) for name in rounds], finding)
    write_file(out, found.document())
    facts = {
        "finding": found.finding,
        "model": found.model,
        "rounds": ", ".join(one.round for one in found.rounds),
        "patients": f"about {found.patients:.0f}, {found.positives:.0f} with the finding",
        "ridge": found.ridge,
        "epsilon": f"{found.epsilon:.3f} at delta {found.rounds[0].delta:g}, one round a patient",
        "head": str(out),
    }
    say(as_json, facts)


@click.command()
@click.argument("package_path", metavar="PACKAGE", type=PACKAGE)
@click.argument("name", metavar="ROUND")
@click.option("--against", default="", help="Validation round of the model that serves now")
@click.option("--least", type=click.FloatRange(0.5, 1), default=0.7, show_default=True)
@click.option(
    "--gap",
    type=click.FloatRange(0, 1),
    default=0.15,
    show_default=True,
    help="Most a group may lie below the whole, its interval in its favour",
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 1),
    default=0.03,
    show_default=True,
    help="Most it may fall below the model before",
)
@click.option("--out", type=FILE, required=True, help="Promotion that two administrators sign")
@folder_option
@json_option
def promote(
    package_path: Path,
    name: str,
    against: str,
    least: float,
    gap: float,
    loss: float,
    out: Path,
    folder: Path,
    as_json: bool,
) -> None:
    """Write the promotion of PACKAGE that its joint validation ROUND speaks for.

    Exit 3 when a site vetoes, the figures are missing or too low, or a group is left behind or
    reads worse than before. Two administrators sign what is written (`admin sign`); a box checks
    their signatures and the package before it serves it (`bedside-edge models activate`).

    \b
    Examples:
      bedside-hub promote packages/cxr-opacity/1.1.0 validate-2 --against validate-1 \\
        --out cxr-opacity-1.1.0.promotion.json
    """
    package = read_package(package_path)
    gate = Gate(least=round(1000 * least), gap=round(1000 * gap), loss=round(1000 * loss))
    with opened(folder) as (_, service):
        validation = open_sum(service, name)
        before = open_sum(service, against) if against else None
    if before is not None and before.manifest.settings != validation.manifest.settings:
        raise RoundRefusedError("the two validations have other settings: they do not compare")
    found = promoting.promotion_of(package, validation, before, gate, now())
    draft = SignedPromotion(promotion=found, signatures=[])
    write_file(out, draft.encode() + b"\n")
    say(as_json, promotion_facts(draft) | {"to_sign": str(out)})
