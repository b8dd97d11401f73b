"""A request is prepared without data, and its fingerprint names the question, not the asker."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from bedside_core.errors import InvalidInputError
from bedside_core.plan_picture import error_picture
from bedside_core.planner import Schedule, curve, plan, plan_choice, plan_strata, strata_for
from bedside_core.release import (
    ReleaseRequest,
    fingerprint,
    prepare,
    request_document,
    spec_document,
)
from bedside_core.release_check import parse_request
from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.measure import LaplaceLaw
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import prices
from support.statistics import PUBLIC, QUANTILES, VECTORS

REQUEST = ReleaseRequest(
    specs=(spec_of("prevalence", PUBLIC), spec_of("device-counts", PUBLIC)),
    units=24_355_000_000,
    snapshot="s1",
    dataset="chest",
    epoch=1,
    policy="p1",
    purpose="quality",
)


def test_the_price_of_a_request_is_that_of_its_plan():
    ready = prepare(REQUEST)
    assert ready.cost == plan(ready.query, REQUEST.units, 100).cost
    nightly = prepare(replace(REQUEST, schedule=Schedule.NIGHTLY, nights=365))
    assert nightly.cost == ready.cost  # one charge for the epoch
    year = prepare(replace(REQUEST, schedule=Schedule.RUNNING, nights=365))
    assert year.cost == plan(year.query, REQUEST.units, 100, Schedule.RUNNING, 365).cost
    quantile = prepare(replace(REQUEST, specs=(spec_of("turnaround-quantiles", PUBLIC),)))
    assert quantile.cost == plan_choice(quantile.choice, REQUEST.units, 100).cost
    assert isinstance(prepare(replace(REQUEST, pure=True)).law, LaplaceLaw)


def test_whatever_changes_the_law_changes_the_fingerprint():
    others = [
        replace(REQUEST, specs=REQUEST.specs[::-1]),
        replace(REQUEST, units=REQUEST.units + 1),
        replace(REQUEST, snapshot="s2"),
        replace(REQUEST, dataset="knee"),
        replace(REQUEST, epoch=2),
        replace(REQUEST, policy="p2"),
        replace(REQUEST, purpose="research"),
        replace(REQUEST, pure=True),
        replace(REQUEST, schedule=Schedule.NIGHTLY),
        replace(REQUEST, schedule=Schedule.NIGHTLY, nights=2),
        replace(REQUEST, specs=(replace(REQUEST.specs[0], c=4),)),
    ]
    names = {fingerprint(one) for one in [REQUEST, *others]}
    assert len(names) == len(others) + 1
    assert fingerprint(replace(REQUEST)) == fingerprint(REQUEST)


def test_the_fingerprint_of_a_request_never_changes():
    assert (
        fingerprint(REQUEST) == "1dc2e9f9d348cd4b8f2c6044b884b943eb7d14241d87cd65391448d88956ce0f"
    )


def test_no_two_statistics_have_one_document():
    documents = [str(spec_document(spec)) for spec in [*VECTORS, *QUANTILES]]
    assert len(set(documents)) == len(documents)
    assert "19/20" in str(spec_document(QUANTILES[0]))
    assert Fraction(19, 20) in QUANTILES[0].probabilities


GRADED = replace(REQUEST, strata=prices(REQUEST.units, {1: 16, 2: 16, 3: 8, 4: 4, 5: 1}))


def test_noise_by_grade_has_a_price_for_each_grade_and_costs_the_largest():
    assert GRADED.strata == (24_355_000_000,) * 2 + (12_177_500_000, 6_088_750_000, 1_522_187_500)
    assert prices(3, {1: 10, 2: 10, 3: 10, 4: 3, 5: 1}) == (3, 3, 3, 1, 1)  # at least a unit
    ready = prepare(GRADED)
    assert ready.cost == max(ready.strata.costs.values()) == prepare(REQUEST).cost
    planned = plan_strata(ready.strata, 100)
    assert planned.cost == ready.cost
    assert planned.sigma2 == ready.strata.variance > 20 * prepare(REQUEST).law.sigma2
    shares = {1: 16, 2: 16, 3: 8, 4: 4, 5: 1}
    assert strata_for(ready.query, REQUEST.units, shares) == ready.strata
    points = curve(ready.query, [0.5, 1.0], 100, shares=shares)
    assert points[1][1] == pytest.approx(planned.relative, rel=1e-3)
    assert points[0][1] > points[1][1]
    assert "<polyline" in error_picture(ready.query, 100, Schedule.ONE_OFF, 1, planned, shares)


def test_a_request_without_grades_is_written_as_it_always_was():
    assert "strata" not in json.loads(request_document(REQUEST))["identity"]
    assert fingerprint(GRADED) != fingerprint(REQUEST)
    assert fingerprint(replace(GRADED, strata=(REQUEST.units,) * 5)) != fingerprint(GRADED)
    for one in (REQUEST, GRADED):
        assert parse_request(json.loads(request_document(one))) == one


@pytest.mark.parametrize(
    "values",
    [
        {"strata": (5,)}, {"strata": (REQUEST.units, 5, 5, 5, 6)}, {"strata": (1, 1, 1, 1, 1)},
        {"strata": (REQUEST.units, 5, 5, 5, 0)}, {"strata": (REQUEST.units, 5, 5, 5, 5.0)},
        {"strata": GRADED.strata, "pure": True},
        {"strata": GRADED.strata, "schedule": Schedule.NIGHTLY},
        {"strata": GRADED.strata, "specs": (spec_of("score-quantiles", PUBLIC),)},
        {"units": 0}, {"units": 1.0}, {"snapshot": ""}, {"purpose": None}, {"epoch": 0},
        {"nights": 2}, {"nights": 0}, {"schedule": Schedule.NIGHTLY, "nights": 4000},
        {"schedule": Schedule.NIGHTLY, "pure": True}, {"specs": ()},
        {"specs": (spec_of("score-quantiles", PUBLIC), spec_of("volume", PUBLIC))},
        {"specs": (spec_of("score-quantiles", PUBLIC),), "pure": True},
        {"specs": (spec_of("volume", PUBLIC, Weight.PATIENT),), "schedule": Schedule.NIGHTLY},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_released_is_refused(values):
    with pytest.raises(InvalidInputError):
        prepare(replace(REQUEST, **values))
