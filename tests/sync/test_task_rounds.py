"""Every task through one whole round: five hospitals' masked, noisy vectors, opened and read."""

import os
from fractions import Fraction

import numpy as np
import pytest

from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.secagg.manifest import Purpose, check_manifest, local_sigma2, round_cost
from bedside_sync.secagg.ring import from_ring, to_ring
from bedside_sync.tasks import kinds
from bedside_sync.tasks.census import census_vector
from bedside_sync.tasks.clean import clean_vector
from bedside_sync.tasks.head import head_vector
from bedside_sync.tasks.judge import Case, validation_vector
from bedside_sync.tasks.sgd import step_settings, step_vector
from bedside_sync.tasks.train import make_settings, project
from support import synthetic
from support.consortium import Consortium, Round

SITES, PATIENTS = 5, 400
TRAIN = make_settings(np.zeros(6), np.eye(6) / 4, ("f",))
STEP = step_settings(TRAIN, np.zeros((7, 1)))
COLLECT = kinds.KINDS["collect"].model_validate(
    {
        "tables": [
            {"name": "kind", "axes": [{"field": "image.modality", "keys": ["CR", "DX"]}]},
            {"name": "year", "axes": [{"field": "study.year", "keys": ["2025", "2026"]}]},
        ]
    }
)
FUSE = kinds.KINDS["fuse"].model_validate(
    {
        "tables": [
            {
                "name": "both",
                "axes": [
                    {"field": "image.modality", "keys": ["CR"]},
                    {"field": "extra.lab", "keys": ["high"]},
                ],
            }
        ]
    }
)
CLEAN = kinds.KINDS["clean"].model_validate(
    {"numbers": [{"field": "image.kvp", "lower": 0, "upper": 200, "cells": 50}]}
    | {"formats": [{"field": "image.exposure_unit", "keys": ["mAs", "uAs"]}]}
)
VALIDATE = kinds.KINDS["validate"].model_validate(
    {"finding": "f", "group": "patient.sex", "keys": ["F", "M"], "parts": ["test"], "bins": 10}
)
ANNOTATE = kinds.KINDS["annotate"].model_validate(
    {"finding": "f", "classes": ["absent", "present"], "items": [f"1.2.{n}" for n in range(40)]}
)
SETTINGS = {
    "collect": COLLECT,
    "fuse": FUSE,
    "clean": CLEAN,
    "validate": VALIDATE,
    "annotate": ANNOTATE,
    "train": TRAIN,
    "train-sgd": STEP,
}


def words(count):
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def long_words(count):
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def facts(rng):
    return {
        "image.modality": "CR" if rng.random() < 0.75 else "DX",
        "study.year": "2026",
        "extra.lab": "high" if rng.random() < 0.5 else "low",
        "image.kvp": float(rng.normal(120, 4)) if rng.random() < 0.9 else None,
        "image.exposure_unit": "mAs",
    }


def vector_of(task, site):
    """One hospital's exact vector."""
    rng = synthetic.generator(site)
    settings = SETTINGS[task]
    if task in ("collect", "fuse"):
        return census_vector(settings, [[facts(rng)] for _ in range(PATIENTS)])
    if task == "clean":
        return clean_vector(settings, [[facts(rng)] for _ in range(PATIENTS)])
    if task == "validate":
        positive = rng.random(PATIENTS) < 0.5
        scores = 1 / (1 + np.exp(-rng.normal(np.where(positive, 1.5, -1.5), 1)))
        cases = zip(scores, positive, strict=True)
        return validation_vector(
            settings.task,
            [[Case(group="F", score=float(s), positive=bool(p))] for s, p in cases],
            veto=site == 3,
        )
    if task == "annotate":
        total = np.zeros(settings.layout.length, np.int64)
        for item in range(40):  # everybody says the same but site 4, which is often wrong
            right = item % 2
            vote = right if site != 4 or rng.random() < 0.5 else 1 - right
            total[2 * item + vote] = settings.scale
        return total
    features = rng.standard_normal((PATIENTS, 6))
    labels = (features[:, :1] + features[:, 1:2] > 0).astype(np.int64)
    x = project(settings, features)
    if task == "train":
        return head_vector(settings.task, x, labels, words)[0]
    return step_vector(settings, x, labels, words)[0]


def opened(task, multiplier):
    """Run the round; return the sum, the variance of its noise, and the exact sum."""
    settings = SETTINGS[task]
    layout = settings.layout
    among = Consortium(sites=SITES)
    sigma2 = max(25, local_sigma2(multiplier, layout.sensitivity2, SITES, 0))
    changes = kinds.plan_lines(settings) | {
        "task": task,
        "purpose": Purpose(task.partition("-")[0]),
        "sigma2": sigma2,
        "least_boxes": SITES,
        "most_boxes": 8,
        "patients_a_box": PATIENTS,
        "patients": 8 * PATIENTS,
    }
    round_ = Round(among, changes=changes)
    check_manifest(round_.signed, among.roster)
    kinds.check_fits(kinds.read_settings(task, settings.encode()), round_.manifest)
    exact = np.zeros(layout.length, np.int64)
    sealed = []
    for site, box in enumerate(among.keys):
        vector = vector_of(task, site)
        exact += vector
        noisy = vector + draw_noise(sigma2, layout.length, long_words)
        sealed.append(round_.report(box, to_ring(noisy, round_.manifest.ring)))
    total = from_ring(round_.run(sealed)[0], round_.manifest.ring)
    return total, float(SITES * sigma2), exact, round_cost(round_.manifest)


@pytest.mark.parametrize("task", sorted(SETTINGS))
def test_a_task_goes_through_a_round_and_its_sum_is_read_within_its_noise(task):
    # few readers vote on an item: the pool is public or consented, and gets less noise
    total, variance, exact, cost = opened(task, Fraction(1, 8 if task == "annotate" else 2))
    assert cost > 0
    off = (total - exact) / variance**0.5
    assert np.abs(off).max() < 7
    assert len(off) < 30 or 0.6 < off.std() < 1.5
    found = kinds.reading(task, SETTINGS[task].encode(), total, variance)
    assert kinds.words(found)
    CHECKS[task](found)


def collect(found):
    counts = {tuple(c["keys"]): c["count"] for c in found["tables"]["kind"]["cells"]}
    assert abs(counts["CR",] - 1500) < 100
    assert abs(counts["other",]) < 10


def fuse(found):
    counts = {tuple(c["keys"]): c["count"] for c in found["tables"]["both"]["cells"]}
    assert abs(counts["CR", "high"] - 750) < 100


def clean(found):
    assert abs(found["numbers"]["image.kvp"]["fill"] / 1e6 - 120) < 4
    assert found["formats"]["image.exposure_unit"]["usual"] == "mAs"


def validate(found):
    assert 0.95 < found["groups"]["F"]["auc"]["value"] < 1
    assert found["groups"]["M"]["auc"]["value"] is None
    assert 0.85 < found["groups"]["F"]["sensitivity"]["value"] < 1


def annotate(found):
    assert all(
        word in (None, "present" if place % 2 else "absent")
        for place, word in enumerate(found["consensus"].values())
    )
    assert sum(word is not None for word in found["consensus"].values()) > 35
    assert 0.3 < found["kappa"]["value"] < 0.98


def train(found):
    weights = np.array(found["weights"][0])
    assert weights[:2].min() > 3 * np.abs(weights[2:]).max()


CHECKS = {
    "collect": collect,
    "fuse": fuse,
    "clean": clean,
    "validate": validate,
    "annotate": annotate,
    "train": train,
    "train-sgd": train,
}
