"""`bedside-edge privacy verify` and `rates`: what needs no box, only a file or public numbers."""

import json
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidInputError, UntrustedSignatureError
from bedside_core.release_check import Verified, verify_nights, verify_release
from bedside_core.release_page import interval_words, noise_words, price_words, release_page
from bedside_core.release_picture import said
from bedside_core.release_words import WORDS
from bedside_core.statistics.strata import GRADES, sampling_rate
from bedside_edge.cli.evidence import read_keys

Json = dict[str, Any]
_FILE = click.Path(path_type=Path)


@click.command("verify")
@click.argument("files", metavar="FILE...", type=_FILE, nargs=-1, required=True)
@click.option(
    "--vkey",
    "vkeys",
    multiple=True,
    required=True,
    help="Key of the box's log, or a file with one a line",
)
@click.option("--witness", "witnesses", multiple=True, help="Key of a witness, or a file of keys")
@click.option("--quorum", default=0, type=click.IntRange(0), help="Witness keys that must sign")
@click.option("--page", type=_FILE, help="Write the readable page (HTML) here")
@click.option("--language", type=click.Choice(sorted(WORDS)), default="en", show_default=True)
@click.option("--open", "show", is_flag=True, help="With --page: open it in a browser")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
def verify(
    files: tuple[Path, ...],
    vkeys: tuple[str, ...],
    witnesses: tuple[str, ...],
    quorum: int,
    page: Path | None,
    language: str,
    show: bool,
    as_json: bool,
) -> None:
    """Verify a release FILE offline: no server, no state, nothing but the keys given.

    Shows that the box signed it, that its log holds it, and that price, intervals and figures
    follow from the question and the released integers. Exits 0 when all of that holds, 3 when a
    signature or proof fails, 4 when the file cannot be read or something in it does not follow.
    Of a running total give the files of all nights: the last one's totals are derived from them.

    \b
    Examples:
      bedside-edge privacy verify release.json --vkey log.vkeys
      bedside-edge privacy verify release.json --vkey log.vkeys --page release.html --language zh
      bedside-edge privacy verify night-*.json --vkey log.vkeys
    """
    keys, trusted = read_keys(vkeys), read_keys(witnesses)
    names = {key.name for key in keys}
    if len(names) != 1:
        raise InvalidInputError("--vkey takes the keys of one log, all under its name")
    held, origin = [_read(path) for path in files], names.pop()
    if len(held) == 1:
        found = verify_release(held[0], origin, keys, trusted)
    else:
        found = verify_nights(held, origin, keys, trusted)
    cosigned = sum(signer.key in trusted for signer in found.proven.opened.signers)
    if cosigned < quorum:
        raise UntrustedSignatureError(f"{cosigned} witness keys signed, {quorum} are asked for")
    document = dict(found.checked.document)
    if page is not None:
        _write(page, release_page(document, language))
        if show:
            webbrowser.open(page.resolve().as_uri())
    if as_json:
        facts: Json = {"verified": True, "entry": found.proven.index, "cosigned": cosigned}
        click.echo(json.dumps(facts | {"document": document}, sort_keys=True))
        return
    _print(found, cosigned)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be read: {cause.strerror}") from cause


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be written: {cause.strerror}") from cause


def _print(found: Verified, cosigned: int) -> None:
    tree = found.proven.opened.checkpoint
    click.echo(f"verified: entry {found.proven.index} of {tree.size} in {tree.origin}")
    print_document(dict(found.checked.document))
    click.echo(f"witnesses that cosigned the tree: {cosigned}")
    if not found.checked.complete:
        click.echo("note: totals were not derived again; give the files of all nights before, too")


def print_document(document: Json) -> None:
    """Print a release as tables: values, figures, price, what is left."""
    words = WORDS["en"]
    names = ", ".join(one["name"] for one in document["statistics"])
    identity = document["identity"]
    table = Table(title=f"{names}: {identity['dataset']}, epoch {identity['epoch']}")
    for name in ("value", "shown", "95 % interval"):
        table.add_column(name, justify="left" if name == "value" else "right")
    rows = [(one["cell"], one) for one in document["cells"]] + list(document["figures"].items())
    for name, one in rows:
        shown = words["not_reported"] if one["shown"] is None else said(one["shown"])
        style = "bright_black" if one.get("grey") else None
        table.add_row(name, shown, interval_words(one, words), style=style)
    Console().print(table)
    if "grades" in document:
        _print_grades(document["grades"])
    click.echo(
        f"at most {document['truncation']['c']} studies of a patient count; "
        f"{document['truncation']['note']}"
    )
    click.echo(f"noise: {noise_words(document['noise'])}")
    click.echo(f"price: {price_words(document['cost'])}")
    for one in document["remaining"]:
        click.echo(f"left of {one['kind']} {one['name']}: {price_words(one['left'])}")
    for name, value in document["not_the_gate"].items():
        click.echo(f"not the gate, {name}: epsilon {value:.4g} at delta 1e-6")
    click.echo(f"fingerprint {identity['fingerprint']}")


def _print_grades(grades: list[Json]) -> None:
    """Print what was measured of each grade side by side, each with its own interval."""
    words = WORDS["en"]
    table = Table(title="by grade: shown, and 95 % interval", show_lines=True)
    table.add_column("value")
    for one in grades:
        head = f"grade {one['grade']}\nepsilon {one['cost']['epsilon']:.3g}"
        table.add_column(head, justify="right")
    for cells in zip(*(one["cells"] for one in grades), strict=True):
        numbers = [f"{said(cell['shown'])}\n{interval_words(cell, words)}" for cell in cells]
        table.add_row(cells[0]["cell"], *numbers)
    Console().print(table)


@click.command("rates")
@click.option("--sigma", default=2.0, show_default=True, type=click.FloatRange(0.1, 1000))
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1, 10**7))
@click.option("--delta", default=1e-5, show_default=True, type=click.FloatRange(1e-15, 0.1))
@click.option(
    "--epsilon",
    "epsilons",
    default="",
    help="Of grades 1 to 5, falling, commas between  [default: of the shipped grading rules]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def rates(sigma: float, steps: int, delta: float, epsilons: str, as_json: bool) -> None:
    """Sampling rate of each grade for DP-SGD: stricter grades are drawn less often.

    One noise multiplier for all; the rates make the loss of each grade's patients what that grade
    may cost. Rounded down to 1e-4. Reads no data.

    \b
    Examples:
      bedside-edge privacy rates --sigma 2 --steps 1000 --epsilon 8,8,3,1,0.5
    """
    found = sampling_rates(_epsilons(epsilons, delta), sigma, steps, delta)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    print_rates(found)


def sampling_rates(wanted: Sequence[float], sigma: float, steps: int, delta: float) -> Json:
    """Return the Poisson rate of each grade for an epsilon of each, and what it really spends."""
    from bedside_edge.system.accounting_dp import DpAccounting  # a second to load

    accountant = DpAccounting()
    found = []
    for grade, target in zip(GRADES, wanted, strict=True):
        rate = sampling_rate(lambda q: accountant.training_epsilon(q, sigma, steps, delta), target)
        spent = accountant.training_epsilon(rate, sigma, steps, delta)
        found.append({"grade": grade, "epsilon": target, "rate": rate, "spends": spent})
    return {"sigma": sigma, "steps": steps, "delta": delta, "grades": found}


def print_rates(found: Json) -> None:
    """Print the rates of the grades as a table."""
    sigma, steps, delta = found["sigma"], found["steps"], found["delta"]
    table = Table(title=f"DP-SGD: noise multiplier {sigma:g}, {steps} steps, delta {delta:g}")
    for name in ("grade", "epsilon allowed", "sampling rate", "epsilon spent"):
        table.add_column(name, justify="right")
    for one in found["grades"]:
        numbers = (f"{one['epsilon']:.4g}", f"{one['rate']:.4f}", f"{one['spends']:.4f}")
        table.add_row(str(one["grade"]), *numbers)
    Console().print(table)


def shipped_shares() -> Mapping[int, int]:
    """Return the rho of each grade in the grading rules the box is shipped with."""
    from bedside_core.grading import parse_grading
    from bedside_edge.system.policy_cedar import shipped_grading

    grading = parse_grading(shipped_grading())
    return {grade: grading.stratum(grade).rho for grade in GRADES}


def _epsilons(text: str, delta: float) -> list[float]:
    if not text:
        return [epsilon(rho, delta) for rho in shipped_shares().values()]
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as cause:
        raise InvalidInputError("--epsilon takes five numbers with commas between") from cause
    if len(found) != len(GRADES) or not all(0 < one <= 1000 for one in found):
        raise InvalidInputError("--epsilon takes five numbers above 0, one for each grade")
    if found != sorted(found, reverse=True):
        raise InvalidInputError("a stricter grade never spends more than a milder one")
    return found
