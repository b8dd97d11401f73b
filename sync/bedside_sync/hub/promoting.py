"""Whether a joint validation speaks for a package, and the promotion that says so."""

from typing import Final

import numpy as np

from bedside_core.errors import RoundRefusedError
from bedside_sync.hub.heads import ReadPackage
from bedside_sync.hub.sums import OpenedSum
from bedside_sync.promotion import WHOLE, Gate, GroupFigure, Promotion, figures_of, require_fit
from bedside_sync.secagg.bodies import decode
from bedside_sync.tasks.judge import Validation, read_validation
from bedside_sync.tasks.judging import ValidateSettings

_GRID: Final = 0.05  # a round's threshold is rounded to the grid of its bins


def promotion_of(
    package: ReadPackage,
    validation: OpenedSum,
    before: OpenedSum | None,
    gate: Gate,
    made: int,
) -> Promotion:
    """Return the promotion of a package, unsigned.

    Args:
        package: that is to be served.
        validation: sum of the round that validated it.
        before: sum of the round that validated the model before, with the same settings.
        gate: the rules.
        made: seconds since the epoch.

    Raises:
        RoundRefusedError: the round validated another package, or does not speak for this one.
    """
    if validation.manifest.model != package.digest:
        raise RoundRefusedError("the round validated another package than this one")
    reading = validation.reading()
    if reading is None or reading["task"] != "validate":
        raise RoundRefusedError("the round is no joint validation")
    if reading["finding"] != package.manifest.finding.code:
        raise RoundRefusedError("the round validated another finding than the package's")
    if abs(reading["threshold"] - package.manifest.decision.threshold) > _GRID:
        raise RoundRefusedError("the round validated another threshold than the package's")
    whole = whole_figure(validation)
    require_fit(reading, whole, _held(before), gate)
    groups, unknown = figures_of(reading)
    return Promotion(
        model=package.manifest.name,
        model_version=package.manifest.version,
        package=package.digest,
        round=validation.manifest.round,
        record=validation.record.body.hash.hex(),
        against="" if before is None else before.manifest.round,
        organisations=len(validation.organisations),
        figures=[*([whole] if whole is not None else []), *groups],
        unknown=unknown,
        made=made,
    )


def whole_figure(validation: OpenedSum) -> GroupFigure | None:
    """Return the area under the curve over all groups, or None when noise leaves none."""
    settings = decode(ValidateSettings, validation.settings)
    task = settings.task
    cells = validation.total[:-1].reshape(len(task.groups), 2 * task.bins)
    one = Validation(groups=(WHOLE,), bins=task.bins, most=task.most, scale=task.scale)
    found, _ = read_validation(
        one,
        np.append(cells.sum(axis=0), validation.total[-1]),
        validation.variance * len(task.groups),
        settings.threshold_permille / 1000,
    )
    auc = found[WHOLE].auc
    if auc.value is None:
        return None
    return GroupFigure(
        group=WHOLE,
        value=round(1000 * auc.value),
        lower=round(1000 * auc.lower),
        upper=round(1000 * auc.upper),
    )


def _held(before: OpenedSum | None) -> dict[str, GroupFigure]:
    reading = None if before is None else before.reading()
    if before is None or reading is None:
        return {}
    whole = whole_figure(before)
    groups = {one.group: one for one in figures_of(reading)[0]}
    return groups | ({WHOLE: whole} if whole is not None else {})
