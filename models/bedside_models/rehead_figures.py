"""A package's new head judged on labelled images: int8 exports again, figures beside the base's."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside_core.errors import ExportRefusedError, InvalidInputError
from bedside_core.imaging import PipelineSpec
from bedside_models.data import Dataset, Split, tensors
from bedside_models.decisions import Operating
from bedside_models.draws import seeded
from bedside_models.evaluate import groups_of
from bedside_models.graphs import convert_to_ir
from bedside_models.metrics import auc, bootstrap, brier, sensitivity_at, sigmoid, specificity_at
from bedside_models.package import EXPORTS, ExportFile, judge
from bedside_models.quantise import refit_head
from bedside_models.runtimes import open_runner

LOSS: Final = 0.03  # of AUC over all validation images that a new head may have against the base
GROUP_LOSS: Final = 0.10  # in a group; groups are small
_LEAST: Final = 20  # images of a group that is held against a head
_CALIBRATION: Final = 200  # training images the int8 head is fitted on


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Labelled images and how to draw from them."""

    dataset: Dataset = field(repr=False)
    spec: PipelineSpec
    draws: int = 1000
    seed: int = 1

    def int8(
        self,
        base: Path,
        work: Path,
        operating: Operating,
        put: Callable[[Path], None],
    ) -> tuple[tuple[ExportFile, ...], dict[str, str]]:
        """Make the int8 exports anew from the base's int8 backbone, and keep those that pass.

        Args:
            base: package whose int8 file has the backbone.
            work: folder with the new float exports; the int8 ones are written there.
            operating: calibration and rule, to count decisions by.
            put: writes the new head into an ONNX file.

        Returns:
            exports that passed, and why the others did not.
        """
        plain, inter = (one for one in EXPORTS if one.precision == "int8")
        if not (base / plain.path).is_file():
            return (), dict.fromkeys((plain.key, inter.key), "the base has none")
        shutil.copyfile(base / plain.path, work / plain.path)
        put(work / plain.path)
        train = self.dataset.indices("train")
        chosen = np.sort(train[seeded(self.seed).permutation(train.size)[:_CALIBRATION]])
        images, _ = tensors(self.dataset, chosen, self.spec)
        refit_head(work / EXPORTS[0].path, work / plain.path, images)
        convert_to_ir(work / plain.path, work / inter.path)
        val, _ = tensors(self.dataset, self.dataset.indices("val"), self.spec)
        wanted = open_runner("onnxruntime", work / EXPORTS[0].path).run(val).logit
        kept, left_out = [], {}
        for export in (plain, inter):
            found = open_runner(export.engine, work / export.path).run(val).logit
            try:
                judge(export, wanted, found, operating)
                kept.append(export)
            except ExportRefusedError as why:
                left_out[export.key] = str(why)
        return tuple(kept), left_out

    def judge(self, base: Path, work: Path, operating: Operating) -> dict[str, Any]:
        """Return the figures of validation and test split beside the base's.

        Raises:
            ExportRefusedError: on validation the new head reads worse than the base by more than
                LOSS, or by more than GROUP_LOSS in one group.
            InvalidInputError: there are no validation images.
        """
        splits: tuple[Split, ...] = ("val", "test")
        out: dict[str, Any] = {"draws": self.draws, "seed": self.seed, "data": self.dataset.digest}
        for split in splits:
            index = self.dataset.indices(split)
            if not index.size:
                raise InvalidInputError(f"the data folder has no {split} images")
            images, _ = tensors(self.dataset, index, self.spec)
            held, new = (
                open_runner("onnxruntime", folder / EXPORTS[0].path).run(images).logit
                for folder in (base, work)
            )
            labels, patients = self.dataset.labels()[index], self.dataset.patients()[index]
            calibration, rule = operating.calibration, operating.rule
            sure = sigmoid(calibration.scale * new + calibration.offset)
            groups = groups_of(self.dataset.rows[i] for i in index.tolist())
            out[split] = {}
            for name, members in groups.items():
                mask = np.array(members, bool)
                about = (labels[mask], patients[mask], self.draws)
                out[split][name] = {
                    "images": int(mask.sum()),
                    "positive": int(labels[mask].sum()),
                    "auc": _estimate(auc, new[mask], *about, self.seed),
                    "auc_base": _estimate(auc, held[mask], *about, self.seed),
                    "brier": _estimate(brier, sure[mask], *about, self.seed),
                    "sensitivity": _estimate(
                        sensitivity_at(rule.threshold), sure[mask], *about, self.seed
                    ),
                    "specificity": _estimate(
                        specificity_at(rule.threshold), sure[mask], *about, self.seed
                    ),
                }
        _require_no_worse(out["val"])
        return out


def _estimate(metric: Any, values: Any, labels: Any, patients: Any, draws: int, seed: int) -> Any:  # noqa: ANN401
    return bootstrap(metric, labels, values, patients, draws, seeded(seed)).rounded()


def _require_no_worse(groups: dict[str, Any]) -> None:
    for name, found in groups.items():
        new, held = found["auc"][0], found["auc_base"][0]
        room = LOSS if name == "all" else GROUP_LOSS
        if new is None or held is None or (name != "all" and found["images"] < _LEAST):
            continue
        if new < held - room:
            raise ExportRefusedError(
                f"the new head reads worse than the base on validation, {name}: AUC {new:.3f} "
                f"against {held:.3f}"
            )
