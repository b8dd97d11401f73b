"""Quantiles: one value of a public grid is chosen, more likely the closer it is to the quantile.

For a value v let `below` and `upto` be the weight of studies under v and up to v, and W all of it.
The utility of v for the quantile q is -max(0, below - q W, q W - upto): 0 on the quantile, less the
more weight lies between. One patient moves it by at most the patient's weight times max(q, 1 - q).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.query import steps_of
from bedside_core.statistics.rows import Kept
from bedside_core.statistics.spec import PATIENT_WEIGHT, Kind, Number, StatSpec, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A quantile query: per probability, integer utilities of every value of the grid.

    Attributes:
        sensitivities: per probability, the most one patient moves a utility.
    """

    spec: StatSpec
    number: Number
    c: int
    sensitivities: tuple[int, ...]

    @property
    def weight(self) -> int:
        """Mass of one study, or of one patient under patient weight, in the utilities."""
        return PATIENT_WEIGHT if self.spec.weight is Weight.PATIENT else 1

    @property
    def values(self) -> tuple[Fraction, ...]:
        """The grid's values in natural units, ascending."""
        lower, grid = self.number.lower, self.number.grid
        return tuple(lower + Fraction(step, grid) for step in range(self.number.steps + 1))

    def utilities(self, kept: Kept) -> tuple[tuple[int, ...], ...]:
        """Return the utilities per probability, each of the grid's length.

        Raises:
            InvalidInputError: the studies were bounded by another c.
        """
        if kept.c != self.c:
            raise InvalidInputError(f"studies bounded by c = {kept.c}, the query by {self.c}")
        steps, exists = steps_of(self.number, kept)
        study = np.flatnonzero(exists)
        mass = np.zeros(self.number.steps + 1, dtype=np.int64)
        if self.spec.weight is Weight.PATIENT:
            share = PATIENT_WEIGHT // np.maximum(kept.studies_of, 1)
            np.add.at(mass, steps[study], share[kept.patient][study])
        else:
            np.add.at(mass, steps[study], 1)
        return tuple(_utilities(mass.tolist(), q) for q in self.spec.probabilities)


def compile_choice(spec: StatSpec) -> Choice:
    """Compile a quantile.

    Raises:
        InvalidInputError: the statistic is no quantile, or its weight counts patients once.
    """
    if spec.kind is not Kind.QUANTILE or spec.number is None:
        raise InvalidInputError("only a quantile is chosen")
    weight = PATIENT_WEIGHT if spec.weight is Weight.PATIENT else spec.c
    sensitivities = tuple(
        weight * max(q.numerator, q.denominator - q.numerator) for q in spec.probabilities
    )
    return Choice(spec=spec, number=spec.number, c=spec.c, sensitivities=sensitivities)


def _utilities(mass: Sequence[int], q: Fraction) -> tuple[int, ...]:
    """Utilities times the denominator of q: integers."""
    target, below, found = q.numerator * sum(mass), 0, []
    for weight in mass:
        upto = below + weight
        found.append(-max(0, q.denominator * below - target, target - q.denominator * upto))
        below = upto
    return tuple(found)
