"""Settings of tasks: one patient stays within the stated bounds whatever is in the data."""

import json
import math
import os

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside_core.errors import BedsideError, InvalidInputError
from bedside_sync.hub.cli import cli as hub
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.tasks import fields, kinds
from bedside_sync.tasks.agreement import readers
from bedside_sync.tasks.census import CollectSettings, census_vector
from bedside_sync.tasks.clean import CleaningRules, CleanSettings, apply_rules, clean_vector
from bedside_sync.tasks.head import head_vector, solve_head
from bedside_sync.tasks.sgd import (
    fedadam,
    fedavg,
    mean_difference,
    step_settings,
    step_vector,
)
from bedside_sync.tasks.train import folded, make_settings, project
from support import synthetic
from support.consortium import Consortium, Round

CENSUS = {
    "scale": 64,
    "most": 2,
    "tables": [
        {"name": "kind", "axes": [{"field": "image.modality", "keys": ["CR", "DX"]}]},
        {"name": "age", "axes": [{"field": "patient.age", "keys": ["0-17", "18-64", "65+"]}]},
    ],
}
CLEAN = {
    "scale": 64,
    "most": 2,
    "numbers": [
        {"field": "image.kvp", "lower": 0, "upper": 200, "cells": 40},
        {"field": "image.pixel_spacing", "lower": 0, "upper": 1000, "per": 1000, "cells": 100},
    ],
    "formats": [{"field": "image.exposure_unit", "keys": ["mAs", "uAs"]}],
}
VALIDATE = {"finding": "opacity", "group": "patient.sex", "keys": ["F", "M"], "parts": ["test"]}
ITEMS = [f"1.2.3.{n}" for n in range(4)]
ANNOTATE = {"finding": "opacity", "classes": ["absent", "present"], "items": ITEMS}
FUSE = {
    "tables": [
        {
            "name": "agree",
            "axes": [
                {"field": "result.decision", "keys": ["present"]},
                {"field": "extra.lab", "keys": ["high", "low"]},
            ],
        }
    ]
}
RNG = synthetic.generator(11)
TRAIN = make_settings(RNG.standard_normal(12), RNG.standard_normal((4, 12)) / 12, ("a", "b"))
STEP = step_settings(TRAIN, np.zeros((5, 2)), steps=3, prox_milli=100)
ALL = {
    "collect": kinds.KINDS["collect"].model_validate(CENSUS),
    "clean": kinds.KINDS["clean"].model_validate(CLEAN),
    "fuse": kinds.KINDS["fuse"].model_validate(FUSE),
    "validate": kinds.KINDS["validate"].model_validate(VALIDATE),
    "annotate": kinds.KINDS["annotate"].model_validate(ANNOTATE),
    "train": TRAIN,
    "train-sgd": STEP,
}


def words(count):
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def long_words(count):
    return np.frombuffer(os.urandom(8 * count), np.uint64)


@pytest.mark.parametrize("task", sorted(kinds.KINDS))
def test_settings_are_read_back_as_they_were_written_and_in_no_other_spelling(task):
    data = ALL[task].encode()
    assert kinds.read_settings(task, data) == ALL[task]
    with pytest.raises(InvalidInputError):
        kinds.read_settings(task, json.dumps(json.loads(data), indent=1).encode())
    with pytest.raises(InvalidInputError):
        kinds.read_settings("anything", data)


@pytest.mark.parametrize("task", sorted(kinds.KINDS))
def test_a_sum_reads_as_json_and_as_lines(task):
    layout = ALL[task].layout
    for total in (np.zeros(layout.length, np.int64), np.full(layout.length, 640 * layout.scale)):
        found = kinds.reading(task, ALL[task].encode(), total, 16.0)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert kinds.words(found)
    with pytest.raises(InvalidInputError):
        kinds.reading(task, ALL[task].encode(), np.zeros(3, np.int64), 16.0)


@pytest.mark.parametrize(
    ("task", "given_", "change"),
    [
        ("collect", CENSUS, {"tables": [{"name": "t", "axes": [{"field": "x.y", "keys": ["a"]}]}]}),
        (
            "collect",
            CENSUS,
            {"tables": [{"name": "t", "axes": [{"field": "patient.age", "keys": ["old"]}]}]},
        ),
        ("collect", CENSUS, {"tables": CENSUS["tables"][:1] * 2}),
        ("collect", CENSUS, {"most": 0}),
        ("clean", CLEAN, {"numbers": [], "formats": []}),
        ("clean", CLEAN, {"numbers": [{"field": "image.modality", "lower": 0, "upper": 1}]}),
        ("clean", CLEAN, {"formats": [{"field": "image.kvp", "keys": ["a"]}]}),
        ("fuse", FUSE, {"tables": CENSUS["tables"][:1]}),
        ("fuse", FUSE, {"most": 2}),
        ("validate", VALIDATE, {"keys": ["F", "F"]}),
        ("validate", VALIDATE, {"parts": ["everything"]}),
        ("annotate", ANNOTATE, {"items": ITEMS[:1] * 2}),
        ("annotate", ANNOTATE, {"classes": ["one"]}),
        ("train", TRAIN.model_dump(), {"point": "00000000"}),
        ("train-sgd", STEP.model_dump(), {"weights": "00000000"}),
    ],
)
def test_settings_that_cannot_be_are_refused(task, given_, change):
    with pytest.raises((InvalidInputError, ValueError)):
        kinds.KINDS[task].model_validate(given_ | change)


@pytest.mark.parametrize("task", sorted(kinds.KINDS))
def test_a_manifest_below_the_task_s_own_bounds_is_refused(task):
    layout = ALL[task].layout
    lines = kinds.plan_lines(ALL[task])
    good = Round(Consortium(), changes=lines | {"ring": 64}).manifest
    kinds.check_fits(ALL[task], good)
    for wrong in (
        {"sensitivity2": layout.sensitivity2 - 1},
        {"largest": layout.largest - 1},
        {"segments": good.segments[:-1] or [good.segments[0].model_copy(update={"length": 9999})]},
    ):
        with pytest.raises(InvalidInputError):
            kinds.check_fits(ALL[task], good.model_copy(update=wrong))


# --- fields --------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(2**70), 2**70).map(float),
    st.text(max_size=5),
    st.sampled_from(["CR", "mAs", "uAs", "17", "65+"]),
)
FACTS = st.dictionaries(
    st.sampled_from([*fields.WORDS, *fields.NUMBERS, "unknown.field"]), VALUES, max_size=8
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(FACTS, max_size=5))
def test_no_patient_passes_the_bounds_of_a_census_or_a_cleaning(rows):
    vectors = [(ALL["clean"], clean_vector(ALL["clean"], [rows]))]
    vectors += [(ALL[kind], census_vector(ALL[kind], [rows])) for kind in ("collect", "fuse")]
    for wanted, total in vectors:
        assert total.shape == (wanted.layout.length,)
        assert sum(int(v) ** 2 for v in total) <= wanted.layout.sensitivity2
        assert total.max(initial=0) <= wanted.layout.largest


def test_bands_hold_their_ends_and_everything_else_is_other():
    keys = ("0-17", "18-39", "65+")
    ages = {
        0: "0-17",
        17.9: "0-17",
        18: "18-39",
        39.99: "18-39",
        40: "other",
        65: "65+",
        200: "65+",
    }
    for age, band in ages.items():
        assert fields.word({"patient.age": age}, "patient.age", keys) == band
    for odd in (None, math.nan, -1.0, "40", True):
        assert fields.word({"patient.age": odd}, "patient.age", keys) == "other"
    assert fields.word({"image.modality": "CR"}, "image.modality", ("CR",)) == "CR"
    assert fields.word({}, "image.modality", ("CR",)) == "other"


# --- clean ---------------------------------------------------------------------------------------


def test_joint_cleaning_finds_fill_fence_and_usual_format_and_applies_them():
    wanted = ALL["clean"]
    rng = synthetic.generator(5)
    patients = [
        [
            {
                "image.kvp": None if n % 10 == 0 else float(rng.normal(120, 5)),
                "image.pixel_spacing": 0.15,
                "image.exposure_unit": "mAs" if n % 4 else "uAs",
            }
        ]
        for n in range(4000)
    ]
    total = clean_vector(wanted, patients)
    sigma2 = 4 * wanted.layout.sensitivity2
    total = total + draw_noise(sigma2, len(total), long_words)
    found = kinds.reading("clean", wanted.encode(), total, float(sigma2))
    kvp = found["numbers"]["image.kvp"]
    assert abs(kvp["fill"] / 1e6 - 120) < 3
    assert 95 < kvp["lower"] / 1e6 < 115 < 125 < kvp["upper"] / 1e6 < 145
    assert 80 <= kvp["missing_permille"] <= 120
    assert found["formats"]["image.exposure_unit"]["usual"] == "mAs"
    rules = CleaningRules.model_validate({k: found[k] for k in ("version", "numbers", "formats")})
    odd = {"image.kvp": 9000.0, "image.exposure_unit": "uAs"}
    cleaned = apply_rules(rules, odd)
    assert cleaned.fenced == ("image.kvp",)
    assert cleaned.filled == ("image.pixel_spacing",)
    assert cleaned.odd == ("image.exposure_unit",)
    assert cleaned.facts["image.kvp"] == kvp["upper"] / 1e6
    assert odd == {"image.kvp": 9000.0, "image.exposure_unit": "uAs"}
    assert len(rules.digest) == 64


def test_a_field_that_noise_drowns_gets_no_rule():
    total = clean_vector(ALL["clean"], [[{"image.kvp": 120.0}]] * 3)
    found = kinds.reading("clean", ALL["clean"].encode(), total, (64.0 * 20) ** 2)
    assert not found["numbers"]
    assert found["formats"]["image.exposure_unit"]["usual"] == ""


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {"image.kvp": {"unit": "V", "fill": 1, "lower": 0, "upper": 2}}},
        {"numbers": {"image.kvp": {"unit": "kV", "fill": 9, "lower": 0, "upper": 2}}},
        {"formats": {"image.kvp": {"usual": "", "counts": {}}}},
    ],
)
def test_a_cleaning_that_cannot_be_is_refused(change):
    for rule in change.get("numbers", {}).values():
        rule["missing_permille"] = 0
    with pytest.raises(BedsideError):
        CleaningRules.model_validate({"version": 1, "numbers": {}, "formats": {}} | change)


# --- annotate ------------------------------------------------------------------------------------


def test_agreement_of_readers_from_counts_is_fleiss_and_bears_noise():
    """Fleiss' kappa by his own formula (1971) from the same counts."""
    rng = synthetic.generator(2)
    truth = rng.integers(0, 2, 600)
    votes = np.zeros((600, 2))
    for _ in range(6):
        said = np.where(rng.random(600) < 0.9, truth, 1 - truth)
        votes[np.arange(600), said] += 1
    share = (votes * (votes - 1)).sum() / (600 * 6 * 5)
    marginal = votes.sum(axis=0) / votes.sum()
    fleiss = (share - (marginal**2).sum()) / (1 - (marginal**2).sum())
    table, found = readers(votes, 0.0)
    assert abs(found.value - fleiss) < 1e-9
    assert table.sum() == pytest.approx(600 * 30)
    assert found.lower < fleiss < found.upper
    noisy = votes + draw_noise(64 * 64, 1200, long_words).reshape(600, 2) / 64
    _, near = readers(noisy, 1.0)
    assert abs(near.value - fleiss) < 0.15
    assert readers(np.zeros((10, 2)), 4.0)[1].value is None


# --- train ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    row=st.lists(st.floats(-1e30, 1e30), min_size=12, max_size=12),
    y=st.lists(st.integers(0, 1), min_size=2, max_size=2),
)
def test_no_patient_passes_the_bounds_of_training(row, y):
    x = project(TRAIN, np.array([row]))
    assert np.isnan(x).any() or np.linalg.norm(x) <= 1 + 1e-9
    vectors = [
        (TRAIN, head_vector(TRAIN.task, x, np.array([y]), words)[0]),
        (STEP, step_vector(STEP, x, np.array([y]), words)[0]),
    ]
    for wanted, total in vectors:
        assert total.shape == (wanted.layout.length,)
        assert sum(int(v) ** 2 for v in total) <= wanted.layout.sensitivity2
        assert int(np.abs(total).max()) <= wanted.layout.largest


def made(count, seed):
    rng = synthetic.generator(seed)
    f = rng.standard_normal((count, 12))
    hidden = synthetic.generator(1).standard_normal((12, 2))
    y = (f @ TRAIN.projection[0].T @ TRAIN.projection[0] @ hidden > 0).astype(np.int64)
    return f, y


def test_a_head_on_raw_features_scores_as_the_one_on_projected_ones():
    f, y = made(800, 3)
    x = project(TRAIN, f)
    total, left_out = head_vector(TRAIN.task, x, y, words)
    assert left_out == 0
    head = solve_head(TRAIN.task, [total], 0.0, constant=TRAIN.constant)
    weights, offset = folded(TRAIN, head)
    matrix, point = TRAIN.projection
    inside = np.linalg.norm((f - point) @ matrix.T, axis=1) <= 1
    assert inside.sum() > 100
    assert np.allclose((f @ weights + offset)[inside], (x @ head.weights)[inside])
    assert kinds.reading("train", TRAIN.encode(), total, 0.0)["offset"] == offset.tolist()


def test_what_all_patients_have_in_common_does_not_lead_the_head():
    """A shift of all features, as by a detector, and noise that asks for a strong ridge."""
    f, y = made(600, 6)
    shift = np.linalg.pinv(TRAIN.projection[0]) @ np.array([-0.6, 0.4, 0.3, -0.3])
    x = project(TRAIN, f * 0.3 + shift)
    total, _ = head_vector(TRAIN.task, x, y, words)
    variance = 16.0 * TRAIN.layout.sensitivity2
    right = []
    for constant in (TRAIN.constant, 0.0):
        head = solve_head(TRAIN.task, [total], variance, constant=constant)
        scores = x @ head.weights
        pairs = scores[y[:, 0] == 1, 0][:, None] - scores[y[:, 0] == 0, 0][None, :]
        right.append(float((pairs > 0).mean()))
    assert right[0] > 0.8
    assert right[0] > right[1] + 0.03
    # and the intercept is there: the mean score is the share of positives
    head = solve_head(TRAIN.task, [total], variance, constant=TRAIN.constant)
    assert np.allclose((x @ head.weights).mean(axis=0), y.mean(axis=0), atol=0.02)


def test_steps_of_many_patients_learn_and_both_servers_step():
    f, y = made(700, 4)
    x = project(TRAIN, f)
    weights, state = np.zeros((5, 2)), None
    plain = np.zeros((5, 2))
    for _ in range(12):
        wanted = step_settings(TRAIN, weights, steps=2, rate_milli=2000, prox_milli=50)
        total, _ = step_vector(wanted, x, y, words)
        mean, patients = mean_difference(wanted, total)
        assert abs(patients - 700) < 1e-6
        weights, state = fedadam(weights, mean, state, rate=0.5)
        wanted = step_settings(TRAIN, plain, steps=2, rate_milli=2000, prox_milli=50)
        total, _ = step_vector(wanted, x, y, words)
        plain = fedavg(plain, mean_difference(wanted, total)[0], 4.0)
    for found in (weights, plain):
        assert ((x @ found > 0) == (y == 1)).mean() > 0.75


def test_prox_holds_a_patient_s_steps_back():
    f, y = made(50, 5)
    x = project(TRAIN, f)
    sizes = []
    for prox in (0, 2000):
        wanted = step_settings(
            TRAIN, np.zeros((5, 2)), steps=8, rate_milli=400, prox_milli=prox, clip_milli=50_000
        )
        total, _ = step_vector(wanted, x, y, words)
        sizes.append(np.linalg.norm(mean_difference(wanted, total)[0]))
    assert sizes[1] < 0.7 * sizes[0]


def test_features_of_another_model_and_other_shapes_are_refused():
    with pytest.raises(InvalidInputError):
        project(TRAIN, np.zeros((2, 11)))
    with pytest.raises(InvalidInputError):
        make_settings(np.zeros(3), np.zeros((2, 4)), ("a",))
    with pytest.raises(InvalidInputError):
        make_settings(np.zeros(3), np.full((2, 3), np.nan), ("a",))
    with pytest.raises(InvalidInputError):
        step_settings(TRAIN, np.full((5, 2), 1e9))
    with pytest.raises(InvalidInputError):
        step_vector(STEP, np.zeros((2, 4)), np.zeros((2, 2), np.int64), words)
    with pytest.raises(InvalidInputError):
        step_vector(STEP, np.zeros((2, 5)), np.full((2, 2), 3), words)
    nothing, left_out = step_vector(STEP, np.full((1, 5), np.nan), np.zeros((1, 2), int), words)
    assert left_out == 1
    assert not nothing.any()


def test_collections_have_a_most_number_of_cells():
    axes = [{"field": f, "keys": [f"{n}" for n in range(200)]} for f in list(fields.WORDS)[:4]]
    with pytest.raises(InvalidInputError):
        CollectSettings.model_validate({"tables": [{"name": "t", "axes": axes}]})
    assert CleanSettings.model_validate(CLEAN).layout.segments[0] == ("image.kvp", 41)


def test_settings_are_written_in_toml_and_named_in_one_spelling(tmp_path):
    source, out = tmp_path / "census.toml", tmp_path / "census.json"
    source.write_text(
        'most = 2\n[[tables]]\nname = "kind"\n'
        '[[tables.axes]]\nfield = "image.modality"\nkeys = ["CR", "DX"]\n'
    )
    words_ = ["settings", "collect", str(source), "--out", str(out), "--json"]
    done = CliRunner().invoke(hub, words_)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == kinds.plan_lines(
        kinds.read_settings("collect", out.read_bytes())
    )
    source.write_text('[[tables]]\nname = "kind"\naxes = []\n')
    done = CliRunner().invoke(hub, words_)
    assert "tables.0.axes" in str(done.exception)
