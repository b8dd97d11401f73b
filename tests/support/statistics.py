"""Shared by tests of statistics: public bounds, hostile rows, noise that is none, slow oracles."""

import math
from collections import Counter
from dataclasses import replace

from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.catalogue import CATALOGUE, Public, spec_of
from bedside_core.statistics.rows import StudyRow
from bedside_core.statistics.spec import Kind, Weight

PUBLIC = Public(
    c=3,
    devices=("CR1", "CR2"),
    age_bands=("0-17", "18-64", "65+"),
    findings=("opacity", "nodule", "effusion"),
    minutes=600,
    bins=10,
    l2_cells=2,
)


def specs(public=PUBLIC):
    """Every statistic of the catalogue under every weight it allows."""
    found = []
    for name in CATALOGUE:
        for weight in Weight:
            try:
                found.append(spec_of(name, public, weight))
            except InvalidInputError:
                assert weight is not Weight.STUDY
    return found


VECTORS = [spec for spec in specs() if spec.kind is not Kind.QUANTILE]
QUANTILES = [spec for spec in specs() if spec.kind is Kind.QUANTILE]


class NoNoise:
    """`Mechanisms` without noise: what an answer would be exactly. Remembers its calls."""

    def __init__(self):
        self.calls = []

    def gaussian(self, value, *, l2sq, rho_units):
        self.calls.append(("gaussian", (l2sq, rho_units), value))
        return value

    def laplace(self, value, *, l1, epsilon):
        self.calls.append(("laplace", (l1, epsilon), value))
        return value

    def choose(self, utilities, *, sensitivity, epsilon):
        self.calls.append(("choose", (sensitivity, epsilon, len(utilities)), tuple(utilities)))
        return utilities.index(max(utilities))

    def flip(self, utilities, *, sensitivity, epsilon):
        self.calls.append(("flip", (sensitivity, epsilon, len(utilities)), tuple(utilities)))
        return utilities.index(max(utilities))

    def respond(self, truth, *, choices, epsilon):
        self.calls.append(("respond", (choices, epsilon), truth))
        return truth


HUGE = 10**400
ODD = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    True,
    "",
    "x",
    b"",
    [],
    {},
    HUGE,
    -HUGE,
    1e308,
    object(),
]
HOSTILE = st.sampled_from(ODD)


def words(*known):
    return st.sampled_from([*known, "other", "", "a stranger"]) | HOSTILE


ROWS = st.lists(
    st.builds(
        StudyRow,
        patient=st.sampled_from(["a", "b", "c", ""]) | HOSTILE,
        arrival=st.integers(-5, 20) | HOSTILE,
        sex=words("female", "male"),
        age_band=words(*PUBLIC.age_bands),
        device=words(*PUBLIC.devices),
        decision=words("present", "absent", "undetermined"),
        label=words("positive", "negative"),
        score=st.floats(-0.5, 1.5) | HOSTILE,
        minutes=st.floats(-10, 1000) | HOSTILE,
        findings=st.lists(words(*PUBLIC.findings), max_size=6).map(tuple) | HOSTILE,
        grade=st.integers(0, 6) | HOSTILE,
    ),
    max_size=25,
)


def name_of(row):
    """The patient a row is filed under."""
    return row.patient if isinstance(row.patient, str) else ""


def without(rows, patient):
    """The neighbour without one patient."""
    return [row for row in rows if name_of(row) != patient]


def first_studies(rows, c):
    """Plain bounding: per patient the first c rows by arrival."""
    kept, seen = [], Counter()
    for row in sorted(rows, key=lambda row: (name_of(row), row.arrival)):
        seen[name_of(row)] += 1
        if seen[name_of(row)] <= c:
            kept.append(row)
    return kept


def fixed(value, lower, upper, grid):
    """A number on its grid, as a float rounds it."""
    usable = isinstance(value, float) and math.isfinite(value)
    clipped = min(max(value, lower), upper) if usable else (lower + upper) / 2
    return math.floor((clipped - lower) * grid)


def changed(row, **values):
    """A row with other values."""
    return replace(row, **values)
