"""What can be asked: a kind of statistic with its public bounds, grid, keys, c and weight.

Free queries do not exist. A `StatSpec` is checked when it is made, holds nothing that was ever
looked up in data, and a bound that is missing is an error, never a minimum or maximum of data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.rows import NUMBERS, SPLIT, WORDS, WORST_C

OTHER = "other"  # the key of everything outside the registry; always the last one
PATIENT_WEIGHT = 2**20  # W: a patient's studies share it

_MOST_CELLS = 10_000
_MOST_STEPS = 2**31
_MOST_SQUARE = 2**40


class Kind(StrEnum):
    """The shape of a statistic."""

    COUNT = "count"  # studies
    PREVALENCE = "prevalence"  # studies, and those decided present
    KEYS = "histogram"  # studies per key (of one word, or of several crossed)
    BINS = "score-histogram"  # studies per bin of a number
    MEAN = "mean"  # sum of the centred number, and studies
    VARIANCE = "variance"  # and the sum of its squares
    BRIER = "brier"  # mean of (score - label)^2 over labelled studies
    CONFUSION = "confusion"  # label x decision, per group
    CALIBRATION = "calibration"  # per bin: labelled studies, and sum of score - label
    LABEL_BINS = "label-histograms"  # a histogram of the score for each label: AUC, ROC
    FINDINGS = "findings"  # studies (or patients) per finding and group
    QUANTILE = "quantile"  # chosen on a public grid
    BOUND_HITS = "bound-hits"  # patients who reach c


class Weight(StrEnum):
    """What one study or patient adds."""

    STUDY = "study"  # each kept study adds 1; the answer is about studies
    PATIENT = "patient"  # a patient's kept studies share one weight; about patients, closed windows
    ONCE = "once"  # each cell counts a patient at most once: how many patients


COUNTING = frozenset(
    {Kind.COUNT, Kind.PREVALENCE, Kind.KEYS, Kind.BINS, Kind.CONFUSION, Kind.LABEL_BINS}
    | {Kind.FINDINGS, Kind.BOUND_HITS}
)
SCORED = frozenset({Kind.BRIER, Kind.CALIBRATION, Kind.LABEL_BINS})
NUMERIC = SCORED | {Kind.BINS, Kind.MEAN, Kind.VARIANCE, Kind.QUANTILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The public keys of a word, in their public order; the last one is `other`."""

    field: str
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.field not in (*WORDS, SPLIT):
            raise InvalidInputError(f"keys belong to one of {', '.join(WORDS)}")
        if not self.keys or self.keys[-1] != OTHER or not distinct_words(self.keys):
            raise InvalidInputError(f"the keys of {self.field} are distinct words, '{OTHER}' last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number's public range, in natural units, and its grid in steps per unit.

    Values below `lower` count as `lower`, above `upper` as `upper`, unusable ones as the middle.
    """

    field: str
    lower: int
    upper: int
    grid: int

    def __post_init__(self) -> None:
        if self.field not in NUMBERS:
            raise InvalidInputError(f"a number is one of {', '.join(NUMBERS)}")
        for value in (self.lower, self.upper, self.grid):
            if type(value) is not int:
                raise InvalidInputError("bounds and grid are integers, and none may be missing")
        if not self.lower < self.upper or self.grid < 1 or self.steps > _MOST_STEPS:
            raise InvalidInputError("a range needs lower < upper and a grid of at least 1 step")

    @property
    def steps(self) -> int:
        """Grid steps from `lower` to `upper`."""
        return (self.upper - self.lower) * self.grid

    @property
    def middle(self) -> Fraction:
        """Middle of the range, in natural units."""
        return Fraction(self.lower + self.upper, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatSpec:
    """One statistic with everything public about it.

    Attributes:
        c: studies per patient and epoch.
        by: words whose keys are crossed into groups; empty for one group.
        bins: equal bins of the number's range.
        probabilities: of a quantile, each strictly between 0 and 1.
        findings: public list of findings; `l2_cells`: the most of them one study may touch.
    """

    name: str
    kind: Kind
    c: int
    weight: Weight = Weight.STUDY
    by: tuple[KeySet, ...] = ()
    number: Number | None = None
    bins: int = 0
    probabilities: tuple[Fraction, ...] = ()
    findings: tuple[str, ...] = ()
    l2_cells: int = 1

    def __post_init__(self) -> None:
        if type(self.c) is not int or not 1 <= self.c <= WORST_C:
            raise InvalidInputError(f"{self.name}: c is an integer of 1 to {WORST_C}")
        if (self.kind in NUMERIC) != (self.number is not None):
            raise InvalidInputError(f"{self.name}: a {self.kind} needs a public range, or has none")
        if self.number is not None:
            self._check_number(self.number)
        self._check_keys()
        if self.weight is Weight.ONCE and self.kind not in COUNTING:
            raise InvalidInputError(f"{self.name}: only counts can count a patient once")
        if self.weight is not Weight.STUDY and self.kind is Kind.BOUND_HITS:
            raise InvalidInputError(f"{self.name}: the bound counts patients already")
        self._check_probabilities()

    def _check_number(self, number: Number) -> None:
        if self.kind in SCORED and (number.field, number.lower, number.upper) != ("score", 0, 1):
            raise InvalidInputError(f"{self.name}: needs the score, from 0 to 1")
        binned = self.kind in {Kind.BINS, Kind.CALIBRATION, Kind.LABEL_BINS}
        if type(self.bins) is not int or not (1 <= self.bins <= _MOST_CELLS if binned else True):
            raise InvalidInputError(f"{self.name}: a histogram has 1 to {_MOST_CELLS} bins")
        if self.bins and (not binned or number.steps % self.bins):
            raise InvalidInputError(f"{self.name}: bins divide the grid, and only histograms have")
        square = (number.steps // 2) ** 2
        if self.kind is Kind.VARIANCE and square > _MOST_SQUARE:
            raise InvalidInputError(f"{self.name}: the grid is too fine for squares")
        if self.kind in {Kind.MEAN, Kind.VARIANCE, Kind.BRIER} and number.steps % 2:
            raise InvalidInputError(f"{self.name}: the middle of the range lies between two steps")
        if self.kind is Kind.QUANTILE and number.steps >= _MOST_CELLS:
            raise InvalidInputError(f"{self.name}: a quantile has fewer than {_MOST_CELLS} values")

    def _check_keys(self) -> None:
        crossed = {Kind.KEYS, Kind.CONFUSION, Kind.FINDINGS}
        if (self.by and self.kind not in crossed) or (self.kind is Kind.KEYS and not self.by):
            raise InvalidInputError(f"{self.name}: a {self.kind} has no groups, or needs some")
        if len({keys.field for keys in self.by}) != len(self.by):
            raise InvalidInputError(f"{self.name}: a word is crossed with itself")
        if (self.kind is Kind.FINDINGS) != bool(self.findings):
            raise InvalidInputError(f"{self.name}: findings need a public list, others have none")
        if not distinct_words(self.findings) or type(self.l2_cells) is not int:
            raise InvalidInputError(f"{self.name}: findings are distinct words")
        most = len(self.findings) if self.kind is Kind.FINDINGS else 1
        if not 1 <= self.l2_cells <= most:
            raise InvalidInputError(f"{self.name}: a study touches 1 to {most} cells")

    def _check_probabilities(self) -> None:
        if (self.kind is Kind.QUANTILE) != bool(self.probabilities):
            raise InvalidInputError(f"{self.name}: a quantile needs probabilities, others none")
        for probability in self.probabilities:
            if type(probability) is not Fraction or not 0 < probability < 1:
                raise InvalidInputError(f"{self.name}: a probability is a fraction of 0 to 1")
            if probability.denominator > _MOST_CELLS:
                raise InvalidInputError(f"{self.name}: a probability is a plain fraction")


def distinct_words(words: Sequence[str]) -> bool:
    """Whether all are non-empty strings and none comes twice."""
    plain = all(isinstance(word, str) and word for word in words)
    return plain and len(set(words)) == len(words)
