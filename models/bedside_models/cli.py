"""`bedside-models`: train, export, quantise, evaluate, package and inspect a model package.

The commands read the data folder and the work folder and print; torch, onnx and nncf are loaded
by the command that needs them, so `inspect` runs where only the box is installed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from bedside_core.errors import BedsideError, UnavailableError
from bedside_core.manifest import MANIFEST_NAME
from bedside_models.package import read_package

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA = click.option(
    "--data",
    type=_FOLDER,
    required=True,
    help="Folder with labels.csv and images/ (layout in docs/models.md). Never written to.",
)
_WORK = click.argument("work", type=_FOLDER)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class MissingExtraError(click.ClickException):
    """A command of the training side was run without the packages it needs."""

    exit_code = UnavailableError.exit_code


@click.group(
    epilog="A whole run: train, export, quantise, evaluate --final, package.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(metadata.version("bedside"), prog_name="bedside-models")
def cli() -> None:
    """Make model packages for Bedside: train centrally, ship only what was checked."""


def main() -> None:
    """Run the command line; deliberate errors become one line and their exit code."""
    try:
        cli(standalone_mode=True)
    except BedsideError as error:
        click.echo(f"{error.code}: {error}", err=True)
        sys.exit(error.exit_code)


@contextmanager
def _training_side() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as cause:
        if cause.name in ("torch", "onnx", "nncf", "matplotlib"):
            raise MissingExtraError(
                f"this command needs {cause.name}: install the extra, `make train-env`"
            ) from cause
        raise


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield step


def _say(as_json: bool, answer: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(answer, sort_keys=True) if as_json else text)


@cli.command(
    epilog="Example: bedside-models train --data DATA --out work --seed 7 --teachers 2",
)
@_DATA
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Work folder to write checkpoint.npz and training.jsonl into.",
)
@click.option("--seed", type=int, default=None, help="Seed of the whole run.")
@click.option(
    "--teachers",
    type=click.IntRange(0, 16),
    default=None,
    help="Networks whose mean the shipped one learns; 0 trains on labels alone.",
)
@click.option("--teacher-epochs", type=click.IntRange(1), default=None)
@click.option(
    "--epochs",
    "student_epochs",
    type=click.IntRange(1),
    default=None,
    help="Epochs of the shipped network.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    help="CPU threads; another number changes the last digits.",
)
@_JSON
def train(data: Path, out: Path, threads: int | None, as_json: bool, **changes: int | None) -> None:
    """Train the reference network on DATA's train split, early stopping on val."""
    with _training_side():
        import torch

        from bedside_models.checkpoint import save_checkpoint
        from bedside_models.data import load_dataset
        from bedside_models.recipe import Recipe
        from bedside_models.train import train as run
        from bedside_models.workflow import CHECKPOINT_NAME

        torch.set_num_threads(threads or min(8, os.cpu_count() or 1))
        given: dict[str, Any] = {k: v for k, v in changes.items() if v is not None}
        recipe = replace(Recipe(), **given)
        out.mkdir(parents=True, exist_ok=True)
        with _progress(as_json) as step:
            checkpoint = run(load_dataset(data), recipe, out, step)
        save_checkpoint(checkpoint, out / CHECKPOINT_NAME)
    facts = checkpoint.training
    answer = {
        "checkpoint": checkpoint.digest(),
        "parameters": facts["parameters"],
        "best_epoch": facts["best_epoch"],
        "validation_within_strata": facts["best_validation"],
        "wall_s": facts["wall_s"],
    }
    _say(
        as_json,
        answer,
        f"kept epoch {facts['best_epoch']}, validation AUC within view and size "
        f"{facts['best_validation']:.3f}, {facts['parameters']:,} parameters",
    )


@cli.command(epilog="Example: bedside-models export work")
@_WORK
@_JSON
def export(work: Path, as_json: bool) -> None:
    """Write WORK's checkpoint as ONNX (one file) and OpenVINO IR, float32."""
    with _training_side():
        from bedside_models.checkpoint import load_checkpoint
        from bedside_models.export import export as run
        from bedside_models.workflow import CHECKPOINT_NAME

        paths = run(load_checkpoint(work / CHECKPOINT_NAME), work)
    sizes = {path.name: path.stat().st_size for path in paths}
    _say(as_json, {"files": sizes}, "\n".join(f"{n}  {s / 1e6:.2f} MB" for n, s in sizes.items()))


@cli.command(epilog="Example: bedside-models quantise work --data DATA --openvino auto")
@_WORK
@_DATA
@click.option(
    "--openvino",
    "method",
    type=click.Choice(["auto", "qdq", "nncf"]),
    default="auto",
    show_default=True,
    help="How the OpenVINO int8 file is made.",
)
@click.option(
    "--images",
    type=click.IntRange(8),
    default=600,
    show_default=True,
    help="Training images to calibrate on, at most.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@_JSON
def quantise(work: Path, data: Path, method: str, images: int, seed: int, as_json: bool) -> None:
    """Write static int8 exports for both engines, calibrated on training images."""
    with _training_side():
        from bedside_models.data import load_dataset
        from bedside_models.workflow import quantise_step

        note = quantise_step(work, load_dataset(data), method, images, seed)
    lines = [
        f"openvino {name}: {t['changed_decisions']} of {t['images']} validation decisions changed, "
        f"{t['images_per_s']:.0f} images/s"
        for name, t in note["tried"].items()
    ]
    _say(as_json, note, "\n".join([*lines, f"kept {note['method']}"]))


@cli.command(epilog="Example: bedside-models evaluate work --data DATA --final")
@_WORK
@_DATA
@click.option(
    "--final",
    is_flag=True,
    help="Also read the test split: once, for the network that will be packaged.",
)
@click.option(
    "--draws",
    type=click.IntRange(100),
    default=2000,
    show_default=True,
    help="Bootstrap draws of patients.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--note", default="", help="Words for the card: what else was done with the splits.")
@_JSON
def evaluate(
    work: Path, data: Path, final: bool, draws: int, seed: int, note: str, as_json: bool
) -> None:
    """Calibrate, choose the threshold on val, and write every figure of the card."""
    with _training_side():
        from bedside_models.data import load_dataset
        from bedside_models.workflow import evaluate_step

        with _progress(as_json) as step:
            result = evaluate_step(
                work, load_dataset(data), final=final, draws=draws, seed=seed, note=note, step=step
            )
    lines = [f"{'split':6}{'group':22}{'images':>7}  AUC (95 %)          metadata alone"]
    for split, groups in result["splits"].items():
        for name, figures in groups.items():
            lines.append(
                f"{split:6}{name:22}{figures['images']:7}  {_text(figures['auc']):20}"
                f"{_text(figures['auc_metadata_only'])}"
            )
    for key, found in result["parity"].items():
        lines.append(
            f"{key:18} {found['changed_decisions']} of {found['images']} decisions changed, "
            f"{result['speed']['times_f32'][key]:.2f} x float32"
        )
    _say(as_json, result, "\n".join(lines))


def _text(estimate: list[float | None]) -> str:
    value, low, high = estimate
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.2f}-{high:.2f})"


@cli.command(
    epilog="Example: bedside-models bom models/packages/cxr-opacity/1.0.0 --checkpoint c.npz",
)
@click.argument("package", type=_FOLDER)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Adds the parameters of the training run.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Default: beside the package, <version>.cdx.json.",
)
@_JSON
def bom(package: Path, checkpoint: Path | None, output: Path | None, as_json: bool) -> None:
    """Write PACKAGE's bill of materials (CycloneDX 1.6 with model card), for one without."""
    from bedside_models.bom import package_bom, read_training

    made = package_bom(package, read_training(checkpoint) if checkpoint else {})
    target = output or package.with_name(f"{package.name}.cdx.json")
    target.write_bytes(made)
    _say(as_json, {"file": str(target), "bytes": len(made)}, f"wrote {target}")


@cli.command(
    epilog="Example: bedside-models package work --data DATA "
    "--target models/packages/cxr-opacity/1.0.0",
)
@_WORK
@_DATA
@click.option(
    "--target",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Package folder, named by its version; replaced when the new one is complete.",
)
@click.option("--name", default="cxr-opacity", show_default=True)
@click.option(
    "--release",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Counts up with every published package.",
)
@_JSON
def package(work: Path, data: Path, target: Path, name: str, release: int, as_json: bool) -> None:
    """Gate every export on decisions, then write the package; exit 3 if one is refused."""
    with _training_side():
        from bedside_models.data import load_dataset
        from bedside_models.workflow import package_step

        manifest = package_step(
            work,
            load_dataset(data),
            target,
            name=name,
            version=target.name,
            release=release,
        )
    total = sum(entry.size for entry in manifest.files.values())
    answer = {"name": manifest.name, "version": manifest.version, "files": len(manifest.files)}
    _say(
        as_json,
        {**answer, "bytes": total},
        f"{manifest.name} {manifest.version}: {len(manifest.files)} files, {total / 1e6:.1f} MB",
    )


@cli.command(
    "head",
    epilog="Example: bedside-models head models/packages/cxr-opacity/1.0.0 head.json "
    "-o packages/cxr-opacity/1.1.0",
)
@click.argument("folder", metavar="PACKAGE", type=_FOLDER)
@click.argument(
    "head_path",
    metavar="HEAD",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "-o",
    "--out",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the new package, named by its version; replaced when the new one is complete.",
)
@click.option(
    "--data",
    type=_FOLDER,
    default=None,
    help="Labelled images to judge the head by and to make int8 exports with; never copied.",
)
@_JSON
def rehead(folder: Path, head_path: Path, target: Path, data: Path | None, as_json: bool) -> None:
    """Put a jointly trained HEAD (of `bedside-hub head solve`) into a new version of PACKAGE.

    Exit 3 when the head is not of this package, or reads worse than the package's own on DATA.
    Without DATA there are no int8 exports and no figures, and the card says so.
    """
    with _training_side():
        from bedside_core.trained_head import parse_head
        from bedside_models.rehead import package_digest
        from bedside_models.rehead import rehead as run

        figures = None
        if data is not None:
            from bedside_models.data import load_dataset
            from bedside_models.rehead_figures import Figures

            spec = read_package(folder).pipeline.spec()
            figures = Figures(dataset=load_dataset(data), spec=spec)
        manifest = run(folder, parse_head(head_path.read_bytes()), target, figures)
    exports = [f"{one.engine} {one.precision}" for one in manifest.variants]
    answer = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": package_digest(target),
        "exports": exports,
    }
    _say(
        as_json,
        answer,
        f"{manifest.name} {manifest.version}: {', '.join(exports)}; digest {answer['digest']}",
    )


@cli.command(epilog="Example: bedside-models inspect models/packages/cxr-opacity/1.0.0 --json")
@click.argument("folder", type=_FOLDER)
@_JSON
def inspect(folder: Path, as_json: bool) -> None:
    """Check every digest of the package in FOLDER and say what it is."""
    manifest = read_package(folder)
    answer, finding = manifest.model_dump(mode="json"), manifest.finding
    lines = [
        f"{manifest.name} {manifest.version} (release {manifest.release}), all digests match",
        f"digest     {hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()}",
        f"finding    {finding.meaning} ({finding.scheme} {finding.code})",
        f"pipeline   {manifest.pipeline.name}/{manifest.pipeline.revision}, "
        f"{manifest.pipeline.size} px, {manifest.pipeline.digest}",
        f"decision   threshold {manifest.decision.threshold:.4f}, undetermined "
        f"{manifest.decision.low:.4f}..{manifest.decision.high:.4f}",
        f"golden     {manifest.golden.cases} cases",
        *(
            f"export     {v.engine} {v.precision}: {v.path}, at most "
            f"{v.tolerance.changed_decisions_per_200:g} changed decisions per 200"
            for v in manifest.variants
        ),
        "not a medical device",
    ]
    _say(as_json, answer, "\n".join(lines))


if __name__ == "__main__":
    main()
