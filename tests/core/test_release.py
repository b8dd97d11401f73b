"""A request is prepared without data, and its fingerprint names the question, not the asker."""

from dataclasses import replace
from fractions import Fraction

import pytest

from bedside_core.errors import InvalidInputError
from bedside_core.planner import Schedule, plan, plan_choice
from bedside_core.release import ReleaseRequest, fingerprint, prepare, spec_document
from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.measure import LaplaceLaw
from bedside_core.statistics.spec import Weight
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


@pytest.mark.parametrize(
    "values",
    [
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
