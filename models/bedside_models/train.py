"""Training: teachers on the labels, a student on the teachers, early stopping on validation.

The test split is not read here; nothing in this module can see it.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bedside_core.errors import InvalidInputError
from bedside_core.imaging import PipelineSpec
from bedside_models.augment import views
from bedside_models.checkpoint import Checkpoint, of_network
from bedside_models.data import Dataset, canvases, data_card, sample_weights, tensors
from bedside_models.metrics import auc
from bedside_models.network import Network, multiply_adds
from bedside_models.recipe import Recipe

Step = Callable[[str, int, int], None]  # stage, done, total: draws the progress bar
_EVALUATE_EVERY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Training and validation images in memory."""

    canvas: Tensor = field(repr=False)
    extent: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    strata: Tensor = field(repr=False)
    held_out: Tensor = field(repr=False)
    held_out_labels: NDArray[np.int64] = field(repr=False)
    held_out_strata: NDArray[np.int64] = field(repr=False)


def load_material(dataset: Dataset, recipe: Recipe) -> Material:
    """Read the train and val splits; test stays on the disk."""
    train, val = dataset.indices("train"), dataset.indices("val")
    if train.size < recipe.batch or val.size == 0:
        raise InvalidInputError("need at least one batch of training images and a validation image")
    canvas, extent = canvases(dataset, train, recipe.canvas)
    held_out, _ = tensors(dataset, val, PipelineSpec(size=recipe.architecture.input_size))
    names = sorted({row.stratum for row in dataset.rows})
    strata = np.array([names.index(row.stratum) for row in dataset.rows], np.int64)
    labels = dataset.labels()
    return Material(
        canvas=torch.from_numpy(canvas),
        extent=torch.from_numpy(extent),
        labels=torch.from_numpy(labels[train]).float(),
        weights=torch.from_numpy(_weights(dataset, train, recipe)),
        strata=torch.from_numpy(strata[train]),
        held_out=torch.from_numpy(held_out),
        held_out_labels=labels[val],
        held_out_strata=strata[val],
    )


def _weights(dataset: Dataset, index: NDArray[np.int64], recipe: Recipe) -> NDArray[np.float32]:
    return sample_weights(dataset, index, recipe.other_weight, recipe.balance)


def train(dataset: Dataset, recipe: Recipe, out: Path, step: Step) -> Checkpoint:
    """Train the reference model and write `training.jsonl` (one line per epoch) into `out`.

    Returns:
        The student of the epoch with the best validation figure, weights averaged.
    """
    started = time.perf_counter()
    material = load_material(dataset, recipe)
    with (out / "training.jsonl").open("w", encoding="utf-8") as stream:
        run = _Run(material=material, recipe=recipe, stream=stream, step=step)
        teachers = []
        for network, lines in _teachers(dataset, recipe, step):
            teachers.append(network)
            run.keep(lines)
        student = run.fit("student", recipe.seed, teachers)
    return of_network(
        student.network,
        {
            "recipe": recipe.describe(),
            "data": data_card(dataset),
            "history": run.history,
            "best_epoch": student.epoch,
            "best_validation": student.figure,
            "multiply_adds": multiply_adds(recipe.architecture),
            "parameters": sum(p.numel() for p in student.network.parameters()),
            "wall_s": round(time.perf_counter() - started, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    )


def _teachers(
    dataset: Dataset, recipe: Recipe, step: Step
) -> Iterator[tuple[Network, list[dict[str, Any]]]]:
    """Train the teachers side by side, each in its own process on one thread.

    One thread each is faster than taking turns on all of them, and makes a teacher's digits
    independent of how many cores the machine has.
    """
    if recipe.teachers == 0:
        return
    workers = min(recipe.teachers, torch.get_num_threads())
    numbers = range(1, recipe.teachers + 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_fit_teacher, dataset, recipe, number) for number in numbers]
        step("teachers", 0, recipe.teachers)
        for done, _ in enumerate(as_completed(jobs), start=1):
            step("teachers", done, recipe.teachers)
        for job in jobs:  # in order of their seeds, whoever was first
            arrays, lines = job.result()
            network = Network(recipe.architecture)
            network.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            yield network.eval(), lines


def _fit_teacher(
    dataset: Dataset, recipe: Recipe, number: int
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    torch.set_num_threads(1)
    run = _Run(
        material=load_material(dataset, recipe), recipe=recipe, stream=None, step=lambda *_: None
    )
    fitted = run.fit(f"teacher {number}", recipe.seed + number, [])
    return dict(of_network(fitted.network, {}).arrays), run.history


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained network, the epoch it is from, and its validation figure."""

    network: Network
    epoch: int
    figure: float


class _Run:
    """One call of `train`: the material, the log and the progress they share."""

    def __init__(
        self, *, material: Material, recipe: Recipe, stream: IO[str] | None, step: Step
    ) -> None:
        self.material, self.recipe, self.step = material, recipe, step
        self.history: list[dict[str, Any]] = []
        self._stream = stream

    def fit(self, stage: str, seed: int, teachers: list[Network]) -> Fitted:
        """Train one network; with teachers it is the student, stopped early on validation."""
        recipe, material = self.recipe, self.material
        is_student = stage == "student"
        epochs = recipe.student_epochs if is_student else recipe.teacher_epochs
        size = recipe.architecture.input_size if is_student else recipe.teacher_size
        torch.manual_seed(seed)  # initial weights; every later draw uses the generator
        generator = torch.Generator().manual_seed(seed + 1_000_003)
        network = Network(recipe.architecture).to(memory_format=torch.channels_last)
        averaged = copy.deepcopy(network).eval()
        batches = len(material.labels) // recipe.batch
        optimiser, schedule = _optimiser(network, recipe, epochs * batches)
        best = Fitted(network=averaged, epoch=0, figure=-1.0)
        for epoch in range(1, epochs + 1):
            network.train()
            order = torch.randperm(len(material.labels), generator=generator)
            total = 0.0
            for number in range(batches):
                rows = order[number * recipe.batch : (number + 1) * recipe.batch]
                loss = self._loss(network, rows, size, teachers, generator)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                total += float(loss.detach())
                _average(averaged, network, recipe.ema, (epoch - 1) * batches + number)
            self.step(stage, epoch, epochs)
            last = epoch == epochs
            if not (last or (is_student and epoch % _EVALUATE_EVERY == 0)):
                self._log({"stage": stage, "epoch": epoch, "loss": round(total / batches, 5)})
                continue
            figures = validation_figures(averaged, material)
            self._log(
                {"stage": stage, "epoch": epoch, "loss": round(total / batches, 5), **figures}
            )
            # An average over a warm-up is worth nothing: the first third cannot win.
            if figures["within_strata"] > best.figure and (last or 3 * epoch > epochs):
                kept = copy.deepcopy(averaged)
                best = Fitted(network=kept, epoch=epoch, figure=figures["within_strata"])
            if is_student and best.epoch and epoch - best.epoch >= recipe.patience:
                break
        return best

    def _loss(
        self,
        network: Network,
        rows: Tensor,
        size: int,
        teachers: list[Network],
        generator: torch.Generator,
    ) -> Tensor:
        recipe, material = self.recipe, self.material
        image = views(
            material.canvas[rows], material.extent[rows], size, recipe.strength, generator
        )
        target = material.labels[rows] * (1 - recipe.smoothing) + 0.5 * recipe.smoothing
        weight = material.weights[rows]
        if recipe.mixup > 0:
            image, target, weight = _mix(image, target, weight, recipe.mixup, generator)
        image = image.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(image)
        logits = logits.float()
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = (each * weight).sum() / weight.sum()
        if recipe.rank > 0:
            loss = loss + recipe.rank * _rank_loss(logits, target, material.strata[rows])
        if not teachers:
            return loss
        opinion = _opinion(teachers, image, recipe.teacher_size)
        agree = functional.binary_cross_entropy_with_logits(logits, opinion)
        return recipe.label_share * loss + (1 - recipe.label_share) * agree

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Add another process's lines to the log."""
        for line in lines:
            self._log(line)

    def _log(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        if self._stream is not None:
            self._stream.write(json.dumps(line, sort_keys=True) + "\n")
            self._stream.flush()


def _optimiser(network: Network, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=max(2, steps), pct_start=0.2
    )
    return optimiser, schedule


def _mix(
    image: Tensor, target: Tensor, weight: Tensor, beta: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each image with another of the batch (Zhang et al. 2018, arXiv:1710.09412)."""
    share = _beta(beta, generator)
    other = torch.randperm(len(image), generator=generator)
    return (
        share * image + (1 - share) * image[other],
        share * target + (1 - share) * target[other],
        share * weight + (1 - share) * weight[other],
    )


def _beta(shape: float, generator: torch.Generator) -> float:
    """Draw from Beta(shape, shape), folded to 0.5..1 (Johnk's rejection method)."""
    while True:
        first, second = (torch.rand(2, generator=generator) ** (1 / shape)).tolist()
        if 0 < first + second <= 1:
            return float(max(first, second) / (first + second))


def _rank_loss(logits: Tensor, target: Tensor, strata: Tensor) -> Tensor:
    gap = target[:, None] - target[None]
    pairs = (strata[:, None] == strata[None]) & (gap > 0.3)
    if not bool(pairs.any()):
        return logits.sum() * 0.0
    return functional.softplus(-(logits[:, None] - logits[None])[pairs]).mean()


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def _opinion(teachers: list[Network], image: Tensor, size: int) -> Tensor:
    small = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    small = small.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        answers = [teacher.logits(small).float() for teacher in teachers]
    return torch.stack(answers).mean(0).sigmoid()


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def _average(averaged: Network, network: Network, ema: float, done: int) -> None:
    decay = min(ema, (1 + done) / (10 + done))
    source = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(source[name], 1 - decay)
        else:
            value.copy_(source[name])


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def predict(network: Network, images: Tensor, batch: int = 32) -> NDArray[np.float64]:
    """Return the float32 logits (n,) of prepared tensors (n, 1, s, s)."""
    network.eval()
    parts = [network(images[i : i + batch])[0][:, 0] for i in range(0, len(images), batch)]
    return np.asarray(torch.cat(parts).numpy(), np.float64)


def validation_figures(network: Network, material: Material) -> dict[str, float]:
    """Return log loss, AUC overall and AUC over pairs of the same stratum."""
    logits = predict(network, material.held_out)
    labels, strata = material.held_out_labels, material.held_out_strata
    probability = np.clip(1 / (1 + np.exp(-logits)), 1e-6, 1 - 1e-6)
    loss = -np.where(labels == 1, np.log(probability), np.log(1 - probability)).mean()
    pairs = wins = 0.0
    for stratum in np.unique(strata):
        mine = strata == stratum
        count = float((labels[mine] == 1).sum() * (labels[mine] == 0).sum())
        if count:
            pairs += count
            wins += count * auc(labels[mine], logits[mine])
    return {
        "log_loss": round(float(loss), 5),
        "auc": round(auc(labels, logits), 5),
        "within_strata": round(wins / pairs, 5) if pairs else 0.0,
    }
