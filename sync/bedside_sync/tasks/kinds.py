"""Every task by name: its settings, its vector's layout, and what its sum says.

A hub plans and reads with these, a box checks a manifest with them before it looks for a patient.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.bodies import Body, decode
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.census import CollectSettings, FuseSettings
from bedside_sync.tasks.clean import CleanSettings
from bedside_sync.tasks.judging import AnnotateSettings, ValidateSettings
from bedside_sync.tasks.layout import Layout
from bedside_sync.tasks.sgd import StepSettings
from bedside_sync.tasks.train import TrainSettings

KINDS: Final[Mapping[str, type[Body]]] = MappingProxyType(
    {
        "collect": CollectSettings,
        "clean": CleanSettings,
        "fuse": FuseSettings,
        "annotate": AnnotateSettings,
        "validate": ValidateSettings,
        "train": TrainSettings,
        "train-sgd": StepSettings,
    }
)
# Whether a task's vector depends on the model: a late report of another model is of no use
OF_A_MODEL: Final = frozenset({"train", "train-sgd", "validate"})


class Settings(Protocol):
    """What every task's settings can say."""

    @property
    def layout(self) -> Layout:
        """Of the vector."""
        ...

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return what an opened sum says, as JSON values."""
        ...

    def encode(self) -> bytes:
        """Return the one spelling of the settings."""
        ...


def read_settings(task: str, data: bytes) -> Settings:
    """Return a task's settings.

    Raises:
        InvalidInputError: no such task, or settings that cannot be (InvalidMessageError: not this
            shape, or another spelling: keys sorted, no spaces).
    """
    kind = KINDS.get(task)
    if kind is None:
        raise InvalidInputError(f"no task is called {task}")
    found: Any = decode(kind, data)
    settings: Settings = found
    return settings


def check_fits(settings: Settings, manifest: Manifest) -> None:
    """Return when a manifest's arithmetic holds for these settings.

    Raises:
        InvalidInputError: other segments, or bounds below what a patient can bring.
    """
    layout = settings.layout
    named = tuple((segment.name, segment.length) for segment in manifest.segments)
    if named != layout.segments:
        raise InvalidInputError("the manifest's segments are not those of the task's settings")
    if manifest.sensitivity2 < layout.sensitivity2 or manifest.largest < layout.largest:
        raise InvalidInputError("a patient can bring more than the manifest's bounds say")


def plan_lines(settings: Settings) -> dict[str, Any]:
    """Return what ROUND.toml has to say of these settings."""
    layout = settings.layout
    return {
        "segments": [{"name": name, "length": words} for name, words in layout.segments],
        "scale": layout.scale,
        "sensitivity2": layout.sensitivity2,
        "largest": layout.largest,
    }


def reading(task: str, data: bytes, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
    """Return what an opened sum says.

    Args:
        task: name in the manifest.
        data: the settings it names.
        total: the sum, as signed integers.
        variance: of the noise in each word: boxes in the sum times the manifest's `sigma2`.
    """
    return {"task": task, **read_settings(task, data).read(total, variance)}


def words(found: Mapping[str, Any]) -> list[str]:
    """Return the lines in which a terminal shows a reading; long vectors are left to JSON."""
    task = found["task"]
    if task in ("collect", "fuse"):
        noise = f"the noise alone moves each count by up to {1.96 * found['deviation']:.1f} (95 %)"
        tables = [line for name, one in found["tables"].items() for line in _table(name, one)]
        return [*tables, noise]
    if task == "clean":
        return _clean(found)
    if task == "annotate":
        agreed = sum(one is not None for one in found["consensus"].values())
        return [
            f"{agreed} of {len(found['consensus'])} items have a consensus",
            f"kappa of two readers {_span(found['kappa'])}",
        ]
    if task == "validate":
        lines = [
            f"{name:<12} {one['positives']:.0f} with, {one['negatives']:.0f} without  "
            f"AUC {_span(one['auc'])}  sensitivity {_span(one['sensitivity'])}  "
            f"specificity {_span(one['specificity'])}"
            for name, one in found["groups"].items()
        ]
        return [*lines, "a site vetoes" if found["veto"] else "no site vetoes"]
    size = found.get("norms") or [found["moved"]]
    return [f"head for {', '.join(found['findings'])}; size {', '.join(f'{v:g}' for v in size)}"]


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    head = f"{name}: {' x '.join(table['axes'])}"
    cells = [f"  {' / '.join(one['keys']):<40} {one['count']:>10.1f}" for one in table["cells"]]
    return [head, *cells[:200], *(["  ..."] if len(cells) > 200 else [])]


def _clean(found: Mapping[str, Any]) -> list[str]:
    numbers = [
        f"{field:<22} fill {one['fill'] / 1e6:g} {one['unit']}, "
        f"usual {one['lower'] / 1e6:g} to {one['upper'] / 1e6:g}, "
        f"missing {one['missing_permille'] / 10:g} %"
        for field, one in found["numbers"].items()
    ]
    formats = [
        f"{field:<22} usual {one['usual'] or '(none is clear)'}: "
        + ", ".join(f"{key} {count}" for key, count in one["counts"].items())
        for field, one in found["formats"].items()
    ]
    return numbers + formats


def _span(figure: Mapping[str, float | None]) -> str:
    value, lower, upper = figure["value"], figure["lower"], figure["upper"]
    if value is None:
        return "not available"
    if lower is None or upper is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({lower:.3f} to {upper:.3f})"
