"""The statistics a hospital may release, by name. A name outside is refused.

`Public` is what the signed policy says: bounds, registries and c. Nothing in it comes from data and
nothing has a default, so a bound that is missing is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from bedside_core.errors import UnknownStatisticError
from bedside_core.statistics.query import LABELS
from bedside_core.statistics.rows import SPLIT
from bedside_core.statistics.spec import OTHER, KeySet, Kind, Number, StatSpec, Weight
from bedside_core.statistics.split import SPLITS

SCORE_GRID: Final = 10_000  # steps of 1e-4
SEXES: Final = ("female", "male")
QUARTILES: Final = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(19, 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """What is public about a hospital's statistics; part of the signed policy.

    Attributes:
        c: studies per patient and epoch.
        devices, age_bands, findings: registries; everything else counts as `other`.
        minutes: longest turnaround, an even number of minutes; longer ones count as that.
        bins: of score histograms. 10 up to about 1,000 patients, 20 above.
        l2_cells: the most findings of one study that count.
    """

    c: int
    devices: tuple[str, ...]
    age_bands: tuple[str, ...]
    findings: tuple[str, ...]
    minutes: int
    bins: int
    l2_cells: int


Maker = Callable[[str, Public], StatSpec]


def spec_of(name: str, public: Public, weight: Weight = Weight.STUDY) -> StatSpec:
    """Return a statistic of the catalogue under the public bounds.

    Raises:
        UnknownStatisticError: the catalogue has no such name.
        InvalidInputError: the bounds or the weight do not fit it.
    """
    if name not in CATALOGUE:
        raise UnknownStatisticError("the catalogue has no statistic of that name")
    spec = CATALOGUE[name](name, public)
    return spec if weight is Weight.STUDY else _weighted(spec, weight)


def _weighted(spec: StatSpec, weight: Weight) -> StatSpec:
    return StatSpec(
        name=spec.name,
        kind=spec.kind,
        c=spec.c,
        weight=weight,
        by=spec.by,
        number=spec.number,
        bins=spec.bins,
        probabilities=spec.probabilities,
        findings=spec.findings,
        l2_cells=spec.l2_cells,
    )


def _score(grid: int = SCORE_GRID) -> Number:
    return Number(field="score", lower=0, upper=1, grid=grid)


def _minutes(public: Public, grid: int) -> Number:
    return Number(field="minutes", lower=0, upper=public.minutes, grid=grid)


def _keys(field: str, words: tuple[str, ...]) -> KeySet:
    return KeySet(field=field, keys=(*words, OTHER))


def _plain(kind: Kind) -> Maker:
    return lambda name, public: StatSpec(name=name, kind=kind, c=public.c)


def _scored(kind: Kind, *, binned: bool = False) -> Maker:
    return lambda name, public: StatSpec(
        name=name, kind=kind, c=public.c, number=_score(), bins=public.bins if binned else 0
    )


def _timed(kind: Kind) -> Maker:
    # tenths of a minute: a finer grid would only blow up the squares
    return lambda name, public: StatSpec(
        name=name, kind=kind, c=public.c, number=_minutes(public, 10)
    )


def _grouped(kind: Kind, *fields: str) -> Maker:
    def make(name: str, public: Public) -> StatSpec:
        words = {"sex": SEXES, "age_band": public.age_bands, "device": public.devices}
        words |= {SPLIT: SPLITS, "label": LABELS}
        by = tuple(_keys(field, words[field]) for field in fields)
        found = public.findings if kind is Kind.FINDINGS else ()
        touch = public.l2_cells if found else 1
        return StatSpec(name=name, kind=kind, c=public.c, by=by, findings=found, l2_cells=touch)

    return make


def _quantiles(field: str) -> Maker:
    def make(name: str, public: Public) -> StatSpec:
        number = _score(100) if field == "score" else _minutes(public, 1)
        kind = Kind.QUANTILE
        return StatSpec(name=name, kind=kind, c=public.c, number=number, probabilities=QUARTILES)

    return make


CATALOGUE: Final[Mapping[str, Maker]] = MappingProxyType(
    {
        "volume": _plain(Kind.COUNT),
        "prevalence": _plain(Kind.PREVALENCE),
        "score-histogram": _scored(Kind.BINS, binned=True),
        "score-mean": _scored(Kind.MEAN),
        "score-variance": _scored(Kind.VARIANCE),
        "score-quantiles": _quantiles("score"),
        "turnaround-mean": _timed(Kind.MEAN),
        "turnaround-variance": _timed(Kind.VARIANCE),
        "turnaround-quantiles": _quantiles("minutes"),
        "device-counts": _grouped(Kind.KEYS, "device"),
        "sex-counts": _grouped(Kind.KEYS, "sex"),
        "age-counts": _grouped(Kind.KEYS, "age_band"),
        "group-counts": _grouped(Kind.KEYS, "sex", "age_band"),
        "finding-counts": _grouped(Kind.FINDINGS),
        "finding-counts-by-sex": _grouped(Kind.FINDINGS, "sex"),
        "confusion": _grouped(Kind.CONFUSION),
        "fairness-by-sex": _grouped(Kind.CONFUSION, "sex"),
        "fairness-by-age": _grouped(Kind.CONFUSION, "age_band"),
        "calibration": _scored(Kind.CALIBRATION, binned=True),
        "brier": _scored(Kind.BRIER),
        "auc": _scored(Kind.LABEL_BINS, binned=True),
        "split-counts": _grouped(Kind.KEYS, SPLIT),
        "split-labels": _grouped(Kind.KEYS, SPLIT, "label"),
        "split-sex": _grouped(Kind.KEYS, SPLIT, "sex"),
        "bound-hits": _plain(Kind.BOUND_HITS),
    }
)
