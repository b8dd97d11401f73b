"""The file of a jointly trained head: read back as it was written, refused otherwise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_core.findings import Calibration, Rule
from bedside_core.trained_head import HeadRound, TrainedHead, parse_head

ROUND = {
    "round": "train-1",
    "manifest": "ab" * 32,
    "record": "cd" * 32,
    "boxes": 5,
    "organisations": 5,
    "sigma": 40_000.0,
    "rho": 0.125,
    "epsilon": 2.25,
    "delta": 1e-6,
}


def head(**changes):
    given = {
        "model": "11" * 32,
        "finding": "opacity",
        "weights": (0.5, -1.0),
        "offset": 0.25,
        "calibration": Calibration(scale=4.0, offset=-1.0),
        "rule": Rule(threshold=0.5, low=0.4, high=0.6),
        "chosen_by": "the sums",
        "patients": 400.0,
        "positives": 200.0,
        "ridge": 3.0,
        "rounds": (HeadRound(**ROUND),),
    }
    return TrainedHead(**(given | changes))


@given(
    weights=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    offset=st.floats(-1e6, 1e6),
)
def test_a_head_reads_back_exactly(weights, offset):
    one = head(weights=tuple(weights), offset=offset)
    assert parse_head(one.document()) == one


def test_a_patient_pays_the_dearest_round():
    dear = HeadRound(**(ROUND | {"round": "train-2", "epsilon": 4.0}))
    assert head(rounds=(HeadRound(**ROUND), dear)).epsilon == 4.0


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "11" * 31},
        {"model": "XY" * 32},
        {"finding": ""},
        {"rounds": ()},
        {"weights": ()},
        {"weights": (float("nan"),)},
        {"offset": float("inf")},
        {"patients": float("nan")},
        {"calibration": Calibration(scale=-1.0)},
        {"calibration": Calibration(scale=float("inf"))},
    ],
)
def test_a_head_that_is_none_cannot_exist(changes):
    with pytest.raises(InvalidInputError):
        head(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": ""},
        {"manifest": "ab"},
        {"record": "g" * 64},
        {"boxes": 0},
        {"organisations": 0},
        {"sigma": 0.0},
        {"epsilon": float("nan")},
    ],
)
def test_a_round_that_is_none_cannot_exist(changes):
    with pytest.raises(InvalidInputError):
        HeadRound(**(ROUND | changes))


def changed(**changes):
    return json.dumps(json.loads(head().document()) | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        changed(format="bedside-head/2"),
        changed(more=1),
        changed(weights=["a"]),
        changed(weights=5),
        changed(rounds=[{}]),
        changed(rule={"threshold": 2.0, "low": 0.4, "high": 0.6}),
        changed(calibration={"scale": "x", "offset": 0.0}),
        changed(offset=10**400),
        changed(weights=[10**400, 0.5]),
        changed(weights="11"),
        changed(calibration={"scale": 10**400, "offset": 0.0}),
        changed(rounds=[ROUND | {"sigma": 10**400}]),
        changed(rounds=[ROUND | {"boxes": 1.5}]),
        changed(rounds=[ROUND | {"round": ["train-1"]}]),
        changed(finding=["opacity"]),
        changed(chosen_by={}),
    ],
)
def test_other_files_are_refused(data):
    with pytest.raises(InvalidInputError, match="head: "):
        parse_head(data)
