"""What people ask of a released vector: shares, means, rates, AUC, each with its interval.

All of it is made from cells that were noised already and costs nothing.
"""

from collections.abc import Callable, Mapping
from typing import Final

from bedside_core.statistics import rates
from bedside_core.statistics.query import group_names
from bedside_core.statistics.reading import Answer, Estimate, shares
from bedside_core.statistics.spec import Kind, Number, StatSpec

Figures = dict[str, Estimate]


def figures(read: Answer) -> Figures:
    """Return every derived number of the answer's statistics by name, in release order."""
    found: Figures = {}
    for spec in read.query.specs:
        make = _MAKERS.get(spec.kind)
        if make is not None:
            found |= make(read, spec)
    return found


def _prevalence(read: Answer, spec: StatSpec) -> Figures:
    return {"share decided present": rates.prevalence(read)}


def _shares(read: Answer, spec: StatSpec) -> Figures:
    named = shares(read, group_names(spec.by))
    return {f"share of {name}": one for name, one in named.items()}


def _numbered(make: Callable[[Answer, Number], Estimate], word: str) -> "Maker":
    def figure(read: Answer, spec: StatSpec) -> Figures:
        assert spec.number is not None  # noqa: S101  every spec of these kinds has one
        return {f"{word} of {spec.number.field}": make(read, spec.number)}

    return figure


def _brier(read: Answer, spec: StatSpec) -> Figures:
    return {"Brier score": rates.brier(read)}


def _confusion(read: Answer, spec: StatSpec) -> Figures:
    groups = rates.rates(read, spec.by)
    found: Figures = {}
    for one in groups:
        of = f" of {one.group}" if one.group else ""
        found[f"sensitivity{of}"] = one.sensitivity
        found[f"specificity{of}"] = one.specificity
        found[f"false positive rate{of}"] = one.false_positive_rate
        found[f"share undetermined{of}"] = one.undetermined
    first = groups[0].group
    for group, gap in rates.gaps(groups).items():
        found[f"sensitivity of {group} minus {first}"] = gap
    return found


def _calibration(read: Answer, spec: StatSpec) -> Figures:
    found: Figures = {"expected calibration error": rates.calibration_error(read, spec.bins)}
    for place, gap in enumerate(rates.calibration(read, spec.bins)):
        found[f"score minus rate, bin {place}"] = gap
    return found


def _auc(read: Answer, spec: StatSpec) -> Figures:
    return {"area under the ROC curve": rates.auc(read, spec.bins)}


Maker = Callable[[Answer, StatSpec], Figures]
_MAKERS: Final[Mapping[Kind, Maker]] = {
    Kind.PREVALENCE: _prevalence,
    Kind.KEYS: _shares,
    Kind.MEAN: _numbered(rates.mean, "mean"),
    Kind.VARIANCE: _numbered(rates.variance, "variance"),
    Kind.BRIER: _brier,
    Kind.CONFUSION: _confusion,
    Kind.CALIBRATION: _calibration,
    Kind.LABEL_BINS: _auc,
}
