"""L0: what the mechanisms are handed never depends on data beyond the sensitivity they declare.

The whole release path runs on a data set and on each kind of neighbour, every statistic, every
weight, every law. The same comparison flags the library's own tools for each of their defects.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from bedside_core.release import ReleaseRequest, prepare
from bedside_core.statistics.choice import compile_choice
from bedside_core.statistics.measure import (
    choice_law,
    choose,
    gaussian_law,
    laplace_law,
    measure,
)
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.rows import StudyRow, freeze
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import prices, strata
from bedside_edge.services.release import measured
from support import leaky_tools
from support.audit import Call, compare, from_noise
from support.statistics import PUBLIC, QUANTILES, VECTORS, NoNoise
from support.synthetic import hospital

UNITS = 24_355_000_000
EVERYBODY = hospital(patients=40, seed=3)
EMPTY_SEX = [row for row in EVERYBODY if row.sex == "female"]


def patient(count, **values):
    row = StudyRow(patient="new", sex="male", age_band="65+", device="CR1", decision="present")
    return [replace(row, **({"arrival": 10**6 + n} | values)) for n in range(count)]


ODD = [math.nan, math.inf, -math.inf, 1e308, -1e308, None, True, "x", 10**400]
NEIGHBOURS = {
    "added": (EVERYBODY, patient(3, score=0.9, minutes=5.0, label="positive")),
    "removed with 20 studies": (EVERYBODY, patient(20, score=0.1, minutes=99.0, label="negative")),
    "highest": (EVERYBODY, patient(9, score=1.0, minutes=600.0, findings=PUBLIC.findings)),
    "lowest": (EVERYBODY, patient(9, score=0.0, minutes=0.0, label="negative")),
    "first to arrive": (EVERYBODY, [replace(row, arrival=-5) for row in patient(9, score=0.7)]),
    "empty group": (EMPTY_SEX, patient(2, score=0.5)),
    "alone": ([], patient(4, score=0.5, minutes=1.0, label="positive")),
    "without an id": (EVERYBODY, [replace(row, patient=None) for row in patient(5, score=0.5)]),
    "duplicates": (EVERYBODY, patient(2, score=0.4) * 4),
} | {
    f"values {value!r:.8}": (
        EVERYBODY,
        patient(3, score=value, minutes=value, sex=value, device=value, decision=value)
        + patient(3, label=value, findings=value, grade=value, age_band=value, arrival=value),
    )
    for value in ODD
}


def recorded(rows):
    """Every release of the catalogue on these rows, as calls in order, per release."""
    kept, calls = freeze(rows, "s").keep(PUBLIC.c), {}

    def record(name, run):
        noise = NoNoise()
        run(noise)
        calls[name] = from_noise(noise.calls)

    for spec in VECTORS:
        query, name = compile_query([spec]), f"{spec.name} {spec.weight}"
        record(f"{name} g", lambda n, q=query: measure(q, gaussian_law(q, UNITS), kept, n))
        record(f"{name} l", lambda n, q=query: measure(q, laplace_law(q, UNITS), kept, n))
        if spec.weight is Weight.STUDY:
            nights = [query.exact(kept)]
            year = running(query, 9)
            record(f"{name} r", lambda n, y=year, x=nights: y.measure(x, UNITS, n))
    for spec in QUANTILES:
        choice = compile_choice(spec)
        law = choice_law(choice, UNITS)
        record(
            f"{spec.name} {spec.weight}",
            lambda n, c=choice, w=law: choose(c, w, kept, n),
        )
    joint = compile_query([spec for spec in VECTORS if spec.weight is Weight.STUDY])
    record("joint", lambda n: measure(joint, gaussian_law(joint, UNITS), kept, n))
    graded = strata(joint, {1: UNITS, 2: UNITS, 3: UNITS // 2, 4: 10**9, 5: 10**9})
    record("strata", lambda n: graded.measure(kept, n))
    return calls


GRADES, SHARES = 5, {1: 16, 2: 16, 3: 8, 4: 4, 5: 1}


def graded_release(rows):
    """The graded release as the service measures it, statistic by statistic, as calls in order."""
    snapshot, calls = freeze(rows, "s"), {}
    for spec in VECTORS:
        request = ReleaseRequest(
            specs=(spec,),
            units=UNITS,
            snapshot="s",
            dataset="d",
            epoch=1,
            policy="p",
            purpose="q",
            strata=prices(UNITS, SHARES),
        )
        noise = NoNoise()
        measured(prepare(request), snapshot, noise)
        calls[f"{spec.name} {spec.weight}"] = from_noise(noise.calls)
    return calls


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_a_patient_moves_one_grade_of_a_graded_release_and_no_call_depends_on_data(kind):
    rest, more = NEIGHBOURS[kind]
    one, other = graded_release(rest), graded_release([*rest, *more])
    assert one.keys() == other.keys()
    for name, calls in one.items():
        assert compare(calls, other[name]) == [], name
        size = len(calls) // GRADES
        pairs = enumerate(zip(calls, other[name], strict=True))
        moved = {place // size for place, (a, b) in pairs if a.value != b.value}
        # who has no id joins the one patient of all who have none, who may change the grade
        assert len(moved) <= 1 or kind == "without an id", name


def test_a_graded_release_that_counts_a_patient_in_two_grades_is_seen():
    calls = graded_release(EVERYBODY)["volume study"]
    size = len(calls) // GRADES
    twice = [
        replace(call, value=call.value + 3) if place % size == 0 and place < 2 * size else call
        for place, call in enumerate(calls)
    ]
    assert compare(calls, twice)


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_every_statistic_hands_its_mechanism_a_bounded_shift(kind):
    rest, more = NEIGHBOURS[kind]
    one, other = recorded(rest), recorded([*rest, *more])
    assert one.keys() == other.keys()
    assert len(one) > 100
    for name in one:
        assert compare(_one_stratum(one[name], other[name]), other[name]) == [], name


def _one_stratum(one, other):
    """Return the calls; strata have laws of their own, so each is compared as its own vector."""
    shifts = [a for a, b in zip(one, other, strict=True) if a.value != b.value]
    assert len({a.parameters for a in shifts}) <= 1 or all(a.norm == "max" for a in shifts)
    return one


@pytest.mark.parametrize("rows", [EVERYBODY, EMPTY_SEX])
def test_the_order_of_the_rows_changes_nothing(rows):
    assert recorded(rows) == recorded(rows[::-1])


def test_a_statistic_that_moves_too_far_is_seen():
    calls = recorded(EVERYBODY)["volume study g"]
    doubled = [replace(call, value=call.value + 4) for call in calls]
    assert compare(calls, doubled)
    assert compare(calls, calls[:-1])
    assert compare(calls, [replace(call, parameters=(1, 2)) for call in calls])
    utilities = recorded(EVERYBODY)["turnaround-quantiles study"]
    worse = [replace(call, value=tuple(v - 9 * 20 for v in call.value)) for call in utilities]
    assert compare(utilities, worse)


# --- the library's tools, for comparison ---------------------------------------------------------

FACTS = ("epsilon", "delta", "sensitivity", "lower", "upper")


@pytest.fixture
def tool_calls(monkeypatch):
    """Record what the library's tools hand their mechanisms; add no noise."""
    seen = []
    names = ("LaplaceTruncated", "LaplaceBoundedDomain", "GeometricTruncated", "Geometric",
             "Laplace", "LaplaceFolded")  # fmt: skip

    def record(self, value):
        facts = tuple(getattr(self, fact, None) for fact in FACTS)
        seen.append(Call(type(self).__name__, facts, float(value), float(self.sensitivity)))
        return value

    for name in names:
        monkeypatch.setattr(getattr(leaky_tools.mechanisms, name), "randomise", record)

    def run(call, *arguments, **named):
        seen.clear()
        try:
            leaky_tools.quiet(call, *arguments, epsilon=1.0, **named)
        except (ValueError, RuntimeError, OverflowError) as error:
            seen.append(Call(type(error).__name__, (), 0.0, 1.0))
        return list(seen)

    return run


tools = leaky_tools.tools
UNIT = {"bounds": (0.0, 1.0)}
BINS = {"bins": 2, "range": (0, 2)}
DEFECTS = {
    "2 nanmean": (tools.nanmean, [math.nan] * 99 + [0.0], [math.nan] * 99 + [1.0], UNIT),
    "3 count_nonzero": (tools.count_nonzero, [1] * 10, [1] * 11, {}),
    "3 sum": (tools.sum, [1.0] * 10, [1.0] * 11, UNIT),
    "4 mean, one more": (tools.mean, [0.5] * 10, [0.5] * 11, UNIT),
    "4 histogram, one replaced": (tools.histogram, [0.5] * 10, [0.5] * 9 + [1.5], BINS),
    "5 NaN": (tools.mean, [0.5] * 10, [0.5] * 9 + [math.nan], UNIT),
    "9 no bounds": (tools.mean, [0.5] * 9 + [0.0], [0.5] * 9 + [9.0], {}),
    "10 weights": (
        lambda values, **named: tools.histogram(values, weights=[1.0] * 9 + [1000.0], **named),
        [0.5] * 10,
        [0.5] * 9 + [9.0],
        BINS,
    ),
    "11 overflow": (
        lambda values, **named: tools.sum(values, dtype=np.int8, **named),
        [60, 60],
        [60, 100],
        {"bounds": (0, 100)},
    ),
}
CONTROLS = {
    "mean, one replaced": (tools.mean, [0.5] * 10, [0.5] * 9 + [1.0], UNIT),
    "histogram, one more": (tools.histogram, [0.5] * 10, [0.5] * 11, BINS),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_of_the_library_s_tools_is_flagged(tool_calls, name):
    tool, one, other, named = DEFECTS[name]
    assert compare(tool_calls(tool, one, **named), tool_calls(tool, other, **named))


@pytest.mark.parametrize("name", CONTROLS)
def test_what_the_library_does_right_passes(tool_calls, name):
    tool, one, other, named = CONTROLS[name]
    calls = tool_calls(tool, one, **named)
    assert calls
    assert compare(calls, tool_calls(tool, other, **named)) == []
