"""Clean: fill values, outlier fences and the usual format of fields, found together, used locally.

For every number a noisy histogram on a public grid, missing values last; for every word a noisy
census of how it is written. From the sums follow the value that fills a gap (median), Tukey's
fences, and which format is the usual one. The result is a document every site applies by itself:
`bedside-edge data clean`. Originals are never changed.

Source: Tukey 1977, Exploratory Data Analysis (fences at 1.5 interquartile ranges).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.bodies import Body
from bedside_sync.tasks.fields import (
    NUMBERS,
    WORDS,
    Facts,
    FieldName,
    Key,
    check_keys,
    check_number,
    number,
    word,
)
from bedside_sync.tasks.layout import Layout
from bedside_sync.tasks.tables import OTHER, Grid, cleaning, grid_counts

MICRO = 1_000_000  # the unit of numbers in a signed document, which has no fractions
_Bound = Annotated[int, Field(ge=-(2**50), le=2**50)]


class GridBody(Body):
    """A number's public grid; ends in `1 / per` of the field's unit."""

    field: FieldName
    lower: _Bound
    upper: _Bound
    per: Annotated[int, Field(ge=1, le=MICRO)] = 1
    cells: Annotated[int, Field(ge=2, le=4096)] = 128

    def value(self) -> Grid:
        """Return the grid; InvalidInputError."""
        check_number(self.field)
        return Grid(lower=self.lower / self.per, upper=self.upper / self.per, cells=self.cells)


class FormatBody(Body):
    """A word whose spellings are counted."""

    field: FieldName
    keys: Annotated[list[Key], Field(min_length=1, max_length=256)]


class CleanSettings(Body):
    """Task `clean`."""

    version: Literal[1] = 1
    scale: Annotated[int, Field(ge=1, le=65_536)] = 64
    most: Annotated[int, Field(ge=1, le=64)] = 1  # studies of one patient that count
    numbers: Annotated[list[GridBody], Field(max_length=64, default_factory=list)]
    formats: Annotated[list[FormatBody], Field(max_length=64, default_factory=list)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        fields = [one.field for one in self.numbers] + [one.field for one in self.formats]
        if not fields or len(set(fields)) != len(fields):
            raise InvalidInputError("a cleaning has fields, each once")
        for grid in self.numbers:
            grid.value()
        for one in self.formats:
            if one.field not in WORDS or OTHER in one.keys or len(set(one.keys)) != len(one.keys):
                raise InvalidInputError(f"{one.field} has no such format")
            check_keys(one.field, tuple(one.keys))
        return self

    @property
    def layout(self) -> Layout:
        """Every study of a patient is in one cell of every field."""
        numbers = [(one.field, one.cells + 1) for one in self.numbers]
        words = [(one.field, len(one.keys) + 1) for one in self.formats]
        largest = self.most * self.scale
        return Layout(
            segments=(*numbers, *words),
            scale=self.scale,
            sensitivity2=(len(numbers) + len(words)) * largest**2,
            largest=largest,
        )

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return the cleaning document; a field with too few cases for the noise is left out."""
        if total.shape != (self.layout.length,):
            raise InvalidInputError("the sum has another length than the cleaning")
        deviation = float(np.sqrt(variance)) / self.scale
        numbers: dict[str, Any] = {}
        start = 0
        for body in self.numbers:
            counts = total[start : start + body.cells + 1] / self.scale
            start += body.cells + 1
            grid = body.value()
            # fewer cases than noise alone may feign give no fence
            if float(counts[:-1].sum()) <= 4 * deviation * np.sqrt(body.cells):
                continue
            found = cleaning(grid, counts)
            if found is not None:
                numbers[body.field] = {
                    "unit": NUMBERS[body.field],
                    "fill": round(found.fill * MICRO),
                    "lower": round(found.lower_fence * MICRO),
                    "upper": round(found.upper_fence * MICRO),
                    "missing_permille": round(found.missing * 1000),
                }
        words: dict[str, Any] = {}
        for one in self.formats:
            counts = total[start : start + len(one.keys) + 1] / self.scale
            start += len(one.keys) + 1
            place = int(np.argmax(counts[:-1]))
            clear = float(counts[place]) > 2 * deviation
            words[one.field] = {
                "usual": one.keys[place] if clear else "",
                "counts": {
                    key: max(0, round(float(count)))
                    for key, count in zip((*one.keys, OTHER), counts, strict=True)
                },
            }
        return {"version": 1, "numbers": numbers, "formats": words}


def clean_vector(settings: CleanSettings, patients: Sequence[Sequence[Facts]]) -> NDArray[np.int64]:
    """Return a site's counts over the first `most` studies of each patient."""
    parts: list[NDArray[np.int64]] = []
    for body in settings.numbers:
        values = [[number(facts, body.field) for facts in one] for one in patients]
        parts.append(grid_counts(body.value(), values, settings.most, settings.scale))
    for one in settings.formats:
        keys = tuple(one.keys)
        places = {key: place for place, key in enumerate((*keys, OTHER))}
        counts = np.zeros(len(places), np.int64)
        for rows in patients:
            for facts in rows[: settings.most]:
                counts[places[word(facts, one.field, keys)]] += settings.scale
        parts.append(counts)
    return np.concatenate(parts)


# --- what a site does with the result ----------------------------------------------------------


class NumberRule(Body):
    """Of one number, in millionths of its unit."""

    unit: Annotated[str, Field(max_length=16)]
    fill: _Bound
    lower: _Bound
    upper: _Bound
    missing_permille: Annotated[int, Field(ge=0, le=1000)]


class FormatRule(Body):
    """Of one word: the usual spelling, empty when none is clear."""

    usual: Annotated[str, Field(max_length=64)]
    counts: dict[Key, Annotated[int, Field(ge=0, le=2**50)]]


class CleaningRules(Body):
    """The published result of a `clean` round, as sites apply it."""

    version: Literal[1] = 1
    numbers: dict[FieldName, NumberRule]
    formats: dict[FieldName, FormatRule]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for field, rule in self.numbers.items():
            check_number(field)
            if rule.unit != NUMBERS[field] or not rule.lower <= rule.fill <= rule.upper:
                raise InvalidInputError(f"the rule for {field} is none")
        if any(field not in WORDS for field in self.formats):
            raise InvalidInputError("a format is of a field that is no word")
        return self

    @property
    def digest(self) -> str:
        """What this version is called: SHA-256 of its one spelling."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A case's facts after cleaning, and what was done to which field."""

    facts: Facts
    filled: tuple[str, ...]
    fenced: tuple[str, ...]
    odd: tuple[str, ...]  # written otherwise than usual


def apply_rules(rules: CleaningRules, facts: Facts) -> Cleaned:
    """Return the facts with gaps filled and numbers beyond a fence moved to it; none is changed."""
    made = dict(facts)
    filled: list[str] = []
    fenced: list[str] = []
    for field, rule in rules.numbers.items():
        value = number(facts, field)
        if value is None:
            made[field] = rule.fill / MICRO
            filled.append(field)
        elif not rule.lower / MICRO <= value <= rule.upper / MICRO:
            made[field] = min(max(value, rule.lower / MICRO), rule.upper / MICRO)
            fenced.append(field)
    odd = [
        field
        for field, rule in rules.formats.items()
        if rule.usual and facts.get(field, "") != rule.usual
    ]
    return Cleaned(facts=made, filled=tuple(filled), fenced=tuple(fenced), odd=tuple(odd))
