"""Compile statistics to one vector of integers whose sensitivity is known before any data is read.

A part is a run of cells; one study touches at most `touch` of them and moves each by at most
`bound`. Cell values are multiplied by a public integer scale, so that cells of different units
share one noise fairly. With M = max over studies of the sum over touched cells of (scale * bound)^2
a patient of at most c studies moves the vector by at most c * sqrt(M): L2SQ = c^2 * M. The
truncation cell, patients who reach c, adds its own scale squared once.

Columns are 64-bit integers below 2^41 in size; sums and scales are Python integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.rows import Flags, Ints, Kept
from bedside_core.statistics.spec import PATIENT_WEIGHT, KeySet, Kind, Number, StatSpec, Weight

POSITIVE, NEGATIVE = "positive", "negative"
LABELS = (NEGATIVE, POSITIVE)
PRESENT, ABSENT, UNDETERMINED = "present", "absent", "undetermined"
DECISIONS = (PRESENT, ABSENT, UNDETERMINED)

STUDIES = "studies"
BOUND_HITS = "patients at the bound"

_HALF = 24  # sums are taken in two halves of this many low bits and the rest
_MOST_CELLS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Touches:
    """What kept studies add: `study` (place among the kept), `cell`, and `value` (None: 1)."""

    study: Ints
    cell: Ints
    value: Ints | None = None


class Encoder(Protocol):
    """How a study becomes integers; a function of that study alone."""

    def touches(self, kept: Kept) -> Touches:
        """Return what the kept studies add."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Cells that belong together.

    Attributes:
        cells: public names, every one of them always released.
        bound: the most one study moves a touched cell, in grid steps.
        touch: the most cells one study touches.
        once: the most cells one patient touches when each cell counts a patient once.
        unit: grid steps of one natural unit; 1 for counts.
    """

    cells: tuple[str, ...]
    encoder: Encoder
    bound: int = 1
    touch: int = 1
    once: int = 1
    unit: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An integer vector query: cells, scales and what one patient can move.

    Attributes:
        cells: names, in release order; the truncation cell is the last one if there is one.
        scales: integer per cell; released integer = scale * (grid steps or studies).
        units: per cell, released integers of one natural unit (a study, a point of score).
        l1, l2sq: the most one patient's presence moves the vector: L1 norm, squared L2 norm.
    """

    specs: tuple[StatSpec, ...]
    parts: tuple[Part, ...]
    c: int
    weight: Weight
    truncation: bool
    cells: tuple[str, ...]
    scales: tuple[int, ...]
    units: tuple[int, ...]
    l1: int
    l2sq: int

    def exact(self, kept: Kept) -> tuple[int, ...]:
        """Return the exact vector. It may leave the box only with noise of this sensitivity.

        Raises:
            InvalidInputError: the studies were bounded by another c.
        """
        if kept.c != self.c:
            raise InvalidInputError(f"studies bounded by c = {kept.c}, the query by {self.c}")
        values: list[int] = []
        for part in self.parts:
            values += self._sums(part, kept)
        if self.truncation:
            values.append(kept.hits * (PATIENT_WEIGHT if self.weight is Weight.PATIENT else 1))
        scaled = zip(values, self._part_scales(), strict=True)
        return tuple(value * scale for value, scale in scaled)

    def grid_steps(self) -> tuple[int, ...]:
        """Return grid steps of one natural unit per cell: 1 where studies or patients count."""
        pairs = zip(self.units, self.scales, strict=True)
        return tuple(unit // scale for unit, scale in pairs)

    def _part_scales(self) -> Sequence[int]:
        if self.weight is Weight.PATIENT:  # W is in the values already
            return [scale // PATIENT_WEIGHT for scale in self.scales]
        return self.scales

    def _sums(self, part: Part, kept: Kept) -> list[int]:
        touched, size = part.encoder.touches(kept), len(part.cells)
        if self.weight is Weight.ONCE:
            return _patients(touched, kept, size)
        if self.weight is Weight.STUDY:
            return _sums(touched.cell, touched.value, size)
        share = PATIENT_WEIGHT // np.maximum(kept.studies_of, 1)
        weight = share[kept.patient][touched.study]
        return _sums(
            touched.cell, weight if touched.value is None else weight * touched.value, size
        )


def compile_query(specs: Sequence[StatSpec], *, truncation: bool = True) -> Query:
    """Compile statistics released together into one vector; equal cells are paid for once.

    Args:
        specs: of one c and one weight, no quantiles.
        truncation: add the cell of patients who reach c.

    Raises:
        InvalidInputError: nothing to compile, quantiles, or mixed bounds.
    """
    if not specs:
        raise InvalidInputError("a query has at least one statistic")
    if any(spec.kind is Kind.QUANTILE for spec in specs):
        raise InvalidInputError("a quantile is chosen, not summed: it has its own query")
    if len({(spec.c, spec.weight) for spec in specs}) != 1:
        raise InvalidInputError("statistics of one vector share c and weight")
    c, weight = specs[0].c, specs[0].weight
    parts = tuple(dict.fromkeys(part for spec in specs for part in parts_of(spec)))
    truncation = truncation or any(spec.kind is Kind.BOUND_HITS for spec in specs)
    cells = tuple(cell for part in parts for cell in part.cells)
    cells += (BOUND_HITS,) if truncation else ()
    if len(set(cells)) != len(cells) or len(cells) > _MOST_CELLS:
        raise InvalidInputError("two statistics name the same cell with different bounds")
    largest = max((part.bound for part in parts), default=1)
    base = PATIENT_WEIGHT if weight is Weight.PATIENT else 1
    steps = [largest // part.bound for part in parts]  # so that every cell moves about as far
    scales = [step * base for part, step in zip(parts, steps, strict=True) for _ in part.cells]
    units = [part.unit for part in parts for _ in part.cells]
    if truncation:
        scales.append(largest * base)
        units.append(1)
    l1, l2sq = _sensitivity(parts, steps, c, weight)
    extra = largest * base if truncation else 0
    return Query(
        specs=tuple(specs),
        parts=parts,
        c=c,
        weight=weight,
        truncation=truncation,
        cells=cells,
        scales=tuple(scales),
        units=tuple(scale * unit for scale, unit in zip(scales, units, strict=True)),
        l1=l1 + extra,
        l2sq=l2sq + extra * extra,
    )


def _sensitivity(
    parts: Sequence[Part], steps: Sequence[int], c: int, weight: Weight
) -> tuple[int, int]:
    """Return (L1, L2SQ) of one patient without the truncation cell."""
    pairs = list(zip(parts, steps, strict=True))
    if weight is Weight.ONCE:  # a 0/1 vector: as many cells as a patient can reach
        reached = sum(min(c * part.touch, part.once) for part in parts)
        return reached, reached
    l1 = sum(part.touch * step * part.bound for part, step in pairs)
    square = sum(part.touch * (step * part.bound) ** 2 for part, step in pairs)
    times = PATIENT_WEIGHT if weight is Weight.PATIENT else c  # sum of floor(W / k) is at most W
    return times * l1, times * times * square


def _sums(cell: Ints, value: Ints | None, size: int) -> list[int]:
    """Sum values per cell exactly: high and low bits apart, joined as Python integers."""
    if value is None:
        return [int(count) for count in np.bincount(cell, minlength=size)]
    high, low = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    np.add.at(high, cell, value >> _HALF)
    np.add.at(low, cell, value & ((1 << _HALF) - 1))
    return [(up << _HALF) + down for up, down in zip(high.tolist(), low.tolist(), strict=True)]


def _patients(touched: Touches, kept: Kept, size: int) -> list[int]:
    pairs = np.unique(kept.patient[touched.study] * size + touched.cell)
    return _sums(pairs % size, None, size)


# --- what each kind is made of -------------------------------------------------------------------


def parts_of(spec: StatSpec) -> tuple[Part, ...]:
    """Return the parts of a statistic; none for the bound hits, which are the truncation cell."""
    whole = Part(cells=(STUDIES,), encoder=_All())
    if spec.kind is Kind.COUNT:
        return (whole,)
    if spec.kind is Kind.PREVALENCE:
        return (whole, Part(cells=("positives",), encoder=_Word("decision", PRESENT)))
    if spec.kind is Kind.KEYS:
        names = group_names(spec.by)
        encoder = _Groups(spec.by, first=spec.weight is Weight.ONCE)
        return (Part(cells=names, encoder=encoder),)
    if spec.kind is Kind.CONFUSION:
        return (_confusion(spec.by, once=spec.weight is Weight.ONCE),)
    if spec.kind is Kind.FINDINGS:
        return (_findings(spec),)
    if spec.kind is Kind.BOUND_HITS or spec.number is None:
        return ()
    return _numeric(spec, spec.number, spec.kind)


def _numeric(spec: StatSpec, number: Number, kind: Kind) -> tuple[Part, ...]:
    half, name = number.steps // 2, number.field
    if kind is Kind.BINS:
        cells = tuple(f"{name} bin {place}" for place in range(spec.bins))
        return (Part(cells=cells, encoder=_Bins(number, spec.bins), once=spec.bins),)
    if kind is Kind.LABEL_BINS:
        cells = tuple(f"{name} bin {b}, {label}" for label in LABELS for b in range(spec.bins))
        encoder = _LabelBins(number, spec.bins)
        return (Part(cells=cells, encoder=encoder, once=len(cells)),)
    if kind is Kind.CALIBRATION:
        counts = tuple(f"labelled, {name} bin {place}" for place in range(spec.bins))
        gaps = tuple(f"{name} - label, bin {place}" for place in range(spec.bins))
        return (
            Part(cells=counts, encoder=_LabelledBins(number, spec.bins)),
            Part(
                cells=gaps,
                encoder=_Gaps(number, spec.bins),
                bound=number.steps,
                unit=number.grid,
            ),
        )
    if kind is Kind.BRIER:
        labelled = Part(cells=("labelled with a score",), encoder=_Labelled(number))
        cells, unit = ("squared error - 1/2",), number.grid
        return (labelled, Part(cells=cells, encoder=_Errors(number), bound=half, unit=unit))
    present = Part(cells=(f"{name}: studies with one",), encoder=_Present(number))
    cells, unit = (f"{name} - middle",), number.grid
    total = Part(cells=cells, encoder=_Centred(number, 1), bound=half, unit=unit)
    if kind is Kind.MEAN:
        return (present, total)
    squares = Part(
        cells=(f"({name} - middle)^2",),
        encoder=_Centred(number, 2),
        bound=half * half,
        unit=unit * unit,
    )
    return (present, total, squares)


def _confusion(by: tuple[KeySet, ...], *, once: bool) -> Part:
    groups, pairs = group_names(by), [(a, b) for a in LABELS for b in DECISIONS]
    cells = tuple(
        ", ".join(filter(None, (group, label, decision)))
        for group in groups
        for label, decision in pairs
    )
    return Part(cells=cells, encoder=_Confusion(by, first=once), once=len(pairs))


def _findings(spec: StatSpec) -> Part:
    groups = group_names(spec.by)
    cells = tuple(
        ", ".join(filter(None, (group, finding))) for group in groups for finding in spec.findings
    )
    encoder = _Found(spec.findings, spec.by, spec.l2_cells, first=spec.weight is Weight.ONCE)
    return Part(cells=cells, encoder=encoder, touch=spec.l2_cells, once=len(spec.findings))


def group_names(by: Sequence[KeySet]) -> tuple[str, ...]:
    """Return the names of the crossed groups, in release order; one empty name for no groups."""
    named = [[f"{keys.field} {key}" for key in keys.keys] for keys in by]
    return tuple(", ".join(words) for words in product(*named))


# --- studies to integers -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _All:
    def touches(self, kept: Kept) -> Touches:
        return Touches(np.arange(len(kept.rows)), np.zeros(len(kept.rows), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Word:
    field: str
    key: str

    def touches(self, kept: Kept) -> Touches:
        study = np.flatnonzero(kept.codes(self.field, (self.key,)) == 0)
        return Touches(study, np.zeros(len(study), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Each study's group; with `first` that of the patient's first study."""

    by: tuple[KeySet, ...]
    first: bool

    def touches(self, kept: Kept) -> Touches:
        return Touches(np.arange(len(kept.rows)), self.of(kept))

    def of(self, kept: Kept) -> Ints:
        group = np.zeros(len(kept.rows), dtype=np.int64)
        for keys in self.by:
            code = kept.codes(keys.field, keys.keys)
            code = np.where(code < 0, len(keys.keys) - 1, code)  # the last key is `other`
            group = group * len(keys.keys) + code
        if self.first and len(group):
            leads = np.zeros(len(kept.snapshot.patients), dtype=np.int64)
            leads[kept.patient[::-1]] = group[
                ::-1
            ]  # rows are in order: the first one is written last
            group = leads[kept.patient]
        return group


@dataclass(frozen=True, slots=True)
class _Bins:
    number: Number
    bins: int

    def touches(self, kept: Kept) -> Touches:
        steps, exists = steps_of(self.number, kept)
        study = np.flatnonzero(exists)
        return Touches(study, bin_of(steps, self.number, self.bins)[study])


@dataclass(frozen=True, slots=True)
class _LabelBins:
    number: Number
    bins: int

    def touches(self, kept: Kept) -> Touches:
        steps, label, study = _labelled(self.number, kept)
        place = bin_of(steps, self.number, self.bins)
        return Touches(study, (label * self.bins + place)[study])


@dataclass(frozen=True, slots=True)
class _LabelledBins:
    number: Number
    bins: int

    def touches(self, kept: Kept) -> Touches:
        steps, _, study = _labelled(self.number, kept)
        return Touches(study, bin_of(steps, self.number, self.bins)[study])


@dataclass(frozen=True, slots=True)
class _Gaps:
    number: Number
    bins: int

    def touches(self, kept: Kept) -> Touches:
        steps, label, study = _labelled(self.number, kept)
        place = bin_of(steps, self.number, self.bins)
        return Touches(study, place[study], (steps - label * self.number.steps)[study])


@dataclass(frozen=True, slots=True)
class _Labelled:
    number: Number

    def touches(self, kept: Kept) -> Touches:
        _, _, study = _labelled(self.number, kept)
        return Touches(study, np.zeros(len(study), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Errors:
    """(score - label)^2 - 1/2 in grid steps, rounded down."""

    number: Number

    def touches(self, kept: Kept) -> Touches:
        steps, label, study = _labelled(self.number, kept)
        gap = (steps - label * self.number.steps)[study]
        value = gap * gap // self.number.steps - self.number.steps // 2
        return Touches(study, np.zeros(len(study), dtype=np.int64), value)


@dataclass(frozen=True, slots=True)
class _Present:
    number: Number

    def touches(self, kept: Kept) -> Touches:
        study = np.flatnonzero(kept.number(self.number.field)[1])
        return Touches(study, np.zeros(len(study), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Centred:
    number: Number
    power: int

    def touches(self, kept: Kept) -> Touches:
        steps, exists = steps_of(self.number, kept)
        study = np.flatnonzero(exists)
        value = steps[study] - self.number.steps // 2
        if self.power == 2:
            value = value * value
        return Touches(study, np.zeros(len(study), dtype=np.int64), value)


@dataclass(frozen=True, slots=True)
class _Confusion:
    by: tuple[KeySet, ...]
    first: bool

    def touches(self, kept: Kept) -> Touches:
        label = kept.codes("label", LABELS)
        decision = kept.codes("decision", DECISIONS)
        decision = np.where(decision < 0, DECISIONS.index(UNDETERMINED), decision)
        group = _Groups(self.by, self.first).of(kept)
        study = np.flatnonzero(label >= 0)
        cell = (group * len(LABELS) + label) * len(DECISIONS) + decision
        return Touches(study, cell[study])


@dataclass(frozen=True, slots=True)
class _Found:
    findings: tuple[str, ...]
    by: tuple[KeySet, ...]
    most: int
    first: bool

    def touches(self, kept: Kept) -> Touches:
        study, place = kept.found(self.findings, self.most)
        group = _Groups(self.by, self.first).of(kept)
        return Touches(study, group[study] * len(self.findings) + place)


def steps_of(number: Number, kept: Kept) -> tuple[Ints, Flags]:
    """Return each study's value in grid steps from `lower`, 0 to `steps`, and which have one."""
    values, exists = kept.number(number.field)
    usable = np.where(np.isnan(values), float(number.middle), values)
    clipped = np.clip(usable, number.lower, number.upper)
    return np.floor((clipped - number.lower) * number.grid).astype(np.int64), exists


def bin_of(steps: Ints, number: Number, bins: int) -> Ints:
    """Return the bin of each value; the last bin holds its upper end."""
    return np.minimum(steps * bins // number.steps, bins - 1)


def _labelled(number: Number, kept: Kept) -> tuple[Ints, Ints, Ints]:
    """Return steps and labels (0, 1) of all kept studies, and those that have both."""
    steps, exists = steps_of(number, kept)
    label = kept.codes("label", LABELS)
    return steps, label, np.flatnonzero(exists & (label >= 0))
