"""Noisy sums become a head with its history; a joint validation promotes it, or says why not."""

from pathlib import Path

import numpy as np
import pytest

from bedside_core.errors import InvalidInputError, RoundRefusedError, UntrustedSignatureError
from bedside_core.trained_head import parse_head
from bedside_sync.hub.heads import ReadPackage, read_package, settings_for, trained_head
from bedside_sync.hub.promoting import promotion_of
from bedside_sync.promotion import Gate, SignedPromotion, check_promotion
from bedside_sync.secagg.manifest import round_cost
from bedside_sync.secagg.prg import Tag
from bedside_sync.tasks.head import head_vector
from bedside_sync.tasks.judge import Case, validation_vector
from bedside_sync.tasks.judging import ValidateSettings
from bedside_sync.tasks.train import project
from support import synthetic
from support.consortium import Consortium
from support.finished_rounds import MADE, finished, words

PACKAGE = Path(__file__).parents[2] / "models" / "packages" / "cxr-opacity" / "1.0.0"


def area(scores, labels):
    above = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


@pytest.fixture(scope="module")
def among():
    return Consortium()


@pytest.fixture(scope="module")
def plan():
    return settings_for(PACKAGE, 16)


@pytest.fixture(scope="module")
def direction(plan):
    """Where the finding shows, in raw features."""
    matrix, _ = plan[1].projection
    return matrix.T @ np.linspace(1, 0.3, 16)


def patients(plan, direction, count, seed):
    """Features spread as the package's training images, a third with the finding."""
    _, settings = plan
    rng = synthetic.generator(seed)
    matrix, point = settings.projection
    spread = np.linalg.pinv(matrix)
    x = point + (rng.standard_normal((count, 16)) * 0.2) @ spread.T
    score = (x - point) @ direction
    labels = score + rng.standard_normal(count) * score.std() * 0.7 > 0.4 * score.std()
    return x, labels.astype(np.int64)


def night(among, plan, direction, name, seed, *, z=2.0, count=400):
    package, settings = plan
    vectors = []
    for site in range(5):
        x, y = patients(plan, direction, count, 10 * seed + site)
        vectors.append(head_vector(settings.task, project(settings, x), y[:, None], words)[0])
    return finished(among, name, "train", settings.encode(), vectors, model=package.digest, z=z)


def test_the_projection_is_the_package_s_own_and_most_images_fit(plan):
    package, settings = plan
    assert package.digest == read_package(PACKAGE).digest
    matrix, _ = settings.projection
    gram = matrix @ matrix.T
    assert np.abs(gram - np.diag(np.diagonal(gram))).max() < 0.01 * np.diagonal(gram).max()
    assert settings.findings == ["233604007"]


def test_a_night_s_sum_becomes_a_calibrated_head_with_its_history(among, plan, direction):
    one = night(among, plan, direction, "train-1", 1)
    head = trained_head([one])
    assert parse_head(head.document()) == head
    (told,) = head.rounds
    assert (told.boxes, told.organisations) == (5, 5)
    assert told.record == one.record.body.hash.hex()
    assert told.rho == round_cost(one.manifest) / 1e12
    assert told.sigma == pytest.approx(one.variance**0.5, abs=1e-3)
    x, y = patients(plan, direction, 4000, 999)
    scores = x @ np.array(head.weights) + head.offset
    assert area(scores, y) > 0.85 * area((x @ direction), y)
    sure = np.array([head.calibration.probability(float(s)) for s in scores])
    assert abs(sure.mean() - y.mean()) < 0.1
    assert ((sure - y) ** 2).mean() < 0.9 * y.mean() * (1 - y.mean())
    right = ((sure >= head.rule.threshold) == y).mean()
    assert right > 0.65
    assert abs(head.patients - 2000) < 200


def test_two_nights_are_added_and_others_do_not_mix(among, plan, direction):
    first = night(among, plan, direction, "train-1", 1)
    second = night(among, plan, direction, "train-2", 2)
    both = trained_head([first, second])
    assert abs(both.patients - 4000) < 300
    assert [one.round for one in both.rounds] == ["train-1", "train-2"]
    with pytest.raises(InvalidInputError, match="different rounds"):
        trained_head([first, first])
    with pytest.raises(InvalidInputError, match="findings"):
        trained_head([first], "nodule")


def test_noise_that_drowns_the_counts_leaves_no_head(among, plan, direction):
    with pytest.raises(RoundRefusedError, match=r"drown|noise"):
        trained_head([night(among, plan, direction, "train-1", 1, z=6, count=2)])


# --- validation and promotion --------------------------------------------------------------------

VALIDATE = ValidateSettings(
    finding="233604007",
    group="patient.sex",
    keys=["F", "M"],
    parts=["test"],
    threshold_permille=round(1000 * read_package(PACKAGE).manifest.decision.threshold),
)


def judged(among, name, *, power, left_behind="", veto=False, z=0.1, model=None):
    """A validation in which scores tell cases apart by `power`; in one group not at all."""
    vectors = []
    for site in range(5):
        rng = synthetic.generator(site)
        cases = []
        for number in range(300):
            positive, group = bool(number % 2), ("F", "M")[number % 3 % 2]
            drift = 0 if group == left_behind else power
            raw = rng.standard_normal() + (drift if positive else -drift)
            cases.append([Case(group=group, score=1 / (1 + np.exp(-raw)), positive=positive)])
        vectors.append(validation_vector(VALIDATE.task, cases, veto=veto and site == 2))
    model = model or read_package(PACKAGE).digest
    return finished(among, name, "validate", VALIDATE.encode(), vectors, model=model, z=z)


@pytest.fixture(scope="module")
def package() -> ReadPackage:
    return read_package(PACKAGE)


def test_a_sound_validation_promotes_and_two_organisations_sign(among, package):
    one = judged(among, "validate-1", power=1.0)
    found = promotion_of(package, one, None, Gate(), MADE)
    figures = {figure.group: figure for figure in found.figures}
    assert figures["all"].lower <= figures["all"].value <= figures["all"].upper
    assert 850 < figures["all"].value < 990
    assert found.record == one.record.body.hash.hex()
    assert found.unknown == ["other"]
    signed = SignedPromotion(promotion=found, signatures=among.sign(Tag.PROMOTION, found.encode()))
    assert check_promotion(signed, among.root, package.digest) == found
    with pytest.raises(RoundRefusedError, match="another package"):
        check_promotion(signed, among.root, "00" * 32)
    alone = signed.model_copy(
        update={"signatures": among.sign(Tag.PROMOTION, found.encode(), by="a")}
    )
    with pytest.raises(UntrustedSignatureError):
        check_promotion(alone, among.root, package.digest)
    other = signed.model_copy(update={"promotion": found.model_copy(update={"organisations": 9})})
    with pytest.raises(UntrustedSignatureError):
        check_promotion(other, among.root, package.digest)
    elsewhere = signed.model_copy(update={"signatures": among.sign(Tag.MANIFEST, found.encode())})
    with pytest.raises(UntrustedSignatureError):
        check_promotion(elsewhere, among.root, package.digest)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"power": 1.0, "veto": True}, "vetoes"),
        ({"power": 0.1}, "below"),
        ({"power": 2.0, "left_behind": "F"}, "left behind"),
        ({"power": 1.0, "z": 300.0}, "drown"),
        ({"power": 1.0, "model": "00" * 32}, "another package"),
    ],
)
def test_what_speaks_against_a_package_is_said(among, package, changes, says):
    with pytest.raises(RoundRefusedError, match=says):
        promotion_of(package, judged(among, "validate-1", **changes), None, Gate(), MADE)


def test_a_model_that_reads_worse_than_the_one_before_is_not_promoted(among, package):
    new, old = judged(among, "validate-2", power=0.7), judged(among, "validate-1", power=1.2)
    assert promotion_of(package, new, None, Gate(), MADE).against == ""
    with pytest.raises(RoundRefusedError, match="worse than before"):
        promotion_of(package, new, old, Gate(), MADE)
    assert promotion_of(package, old, new, Gate(), MADE).against == "validate-2"
