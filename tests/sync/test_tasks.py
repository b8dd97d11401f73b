"""Tasks of the secure sum: sensitivity by brute force, and sums that say what they should."""

import math
import os
import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError, RoundRefusedError
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.tasks.head import HeadTask, head_vector, solve_head
from bedside_sync.tasks.judge import (
    Case,
    Validation,
    kappa,
    read_validation,
    read_votes,
    validation_vector,
    vote_vector,
)
from bedside_sync.tasks.overlap import blind, on_curve, shared, to_point
from bedside_sync.tasks.tables import (
    Grid,
    Table,
    Tables,
    cleaning,
    count_rows,
    grid_counts,
    quantile,
    read_tables,
)
from support import synthetic


def words(count):
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def long_words(count):
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def auc(scores, labels):
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    positive = labels == 1
    count = int(positive.sum())
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))


# --- train ---------------------------------------------------------------------------------------

TASK = HeadTask(features=64, findings=("a", "b", "c", "d", "e"))


def test_the_head_s_bound_is_the_page_s():
    assert math.isqrt(TASK.sensitivity2 - 1) + 1 == 29_409
    assert 5 * TASK.bounds.squared == 20_900


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    x=st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
    y=st.lists(st.integers(0, 1), min_size=6, max_size=6),
)
def test_one_patient_changes_the_sum_by_the_bound_at_most(x, y):
    task = HeadTask(features=4, findings=tuple("abcdef"), scale=16)
    total, _ = head_vector(task, np.array([x]), np.array([y]), words)
    assert sum(int(v) ** 2 for v in total) <= task.sensitivity2
    assert max(abs(int(v)) for v in total) <= task.largest


def test_a_patient_that_is_no_number_is_left_out():
    x = np.zeros((2, 64))
    x[0, 0] = np.nan
    _, left_out = head_vector(TASK, x, np.zeros((2, 5), np.int64), words)
    assert left_out == 1


@pytest.mark.parametrize("shape", [(3, 63), (64,)])
def test_other_shapes_and_labels_are_refused(shape):
    with pytest.raises(InvalidInputError):
        head_vector(TASK, np.zeros(shape), np.zeros((3, 5), np.int64), words)
    with pytest.raises(InvalidInputError):
        head_vector(TASK, np.zeros((3, 64)), np.full((3, 5), 2), words)
    with pytest.raises(InvalidInputError):
        solve_head(TASK, [np.zeros(3, np.int64)], 1.0)


def made_patients(count, seed):
    """Features of unit norm and five findings that depend on them."""
    rng = synthetic.generator(seed)
    directions = synthetic.generator(7).standard_normal((64, 5))
    x = rng.standard_normal((count, 64)) * np.linspace(2, 0.2, 64)
    x /= np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True) / 0.98)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    logit = x @ directions * 3 + rng.standard_normal((count, 5)) - 1
    return x, (logit > 0).astype(np.int64)


def test_pooling_noisy_hospitals_beats_the_best_alone():
    sites = [made_patients(1500, seed) for seed in range(5)]
    test_x, test_y = made_patients(4000, 99)
    sigma2 = math.ceil(4 * TASK.sensitivity2 / 5)
    sums = [head_vector(TASK, x, y, words)[0] for x, y in sites]

    def judged(totals, variance):
        head = solve_head(TASK, totals, variance)
        scores = test_x @ head.weights
        return float(np.mean([auc(scores[:, c], test_y[:, c]) for c in range(5)]))

    noise = [draw_noise(sigma2, TASK.length, long_words) for _ in sites]
    pooled = judged([np.sum([s + n for s, n in zip(sums, noise, strict=True)], axis=0)], 5 * sigma2)
    # alone, a hospital bears the whole noise
    alone = [
        judged([s + draw_noise(5 * sigma2, TASK.length, long_words)], 5 * sigma2) for s in sums
    ]
    exact = judged([np.sum(sums, axis=0)], 0.0)
    assert exact >= pooled - 0.01
    assert pooled > max(alone) + 0.02
    assert pooled > exact - 0.1


# --- tables --------------------------------------------------------------------------------------

CENSUS = Tables(
    tables=(
        Table(name="kind", axes=(("modality", ("CR", "DX")), ("year", ("2025", "2026")))),
        Table(name="sex", axes=(("sex", ("F", "M")),)),
    ),
    most=2,
)


def test_a_census_counts_and_a_patient_counts_no_more_than_allowed():
    row = {"modality": "CR", "year": "2026", "sex": "F"}
    odd = {"modality": "ZZ", "sex": "Ω"}
    total = count_rows(CENSUS, [[row, row, row], [odd]])
    read = read_tables(CENSUS, total)
    assert read["kind"][0, 1] == 2
    assert read["kind"][2, 2] == 1
    assert read["sex"].tolist() == [2, 0, 1]
    one = count_rows(CENSUS, [[row] * 9])
    assert sum(int(v) ** 2 for v in one) == CENSUS.sensitivity2
    assert max(one) == CENSUS.largest
    assert CENSUS.tables[0].keys()[1] == ("CR", "2026")


def test_keys_are_public_and_different():
    for keys in ((), ("a", "a"), ("other",)):
        with pytest.raises(InvalidInputError):
            Table(name="t", axes=(("k", keys),))
    with pytest.raises(InvalidInputError):
        Tables(tables=(), most=1)
    with pytest.raises(InvalidInputError):
        read_tables(CENSUS, np.zeros(3, np.int64))


def test_fences_and_fill_come_within_a_cell_under_noise():
    grid = Grid(lower=0, upper=256, cells=256)
    rng = synthetic.generator(3)
    values = np.clip(rng.normal(100, 20, 20_000), 0, 255)
    patients = [[float(v)] for v in values] + [[None]] * 1000
    counts = grid_counts(grid, patients, 1, 1) + draw_noise(64, 257, long_words)
    found = cleaning(grid, counts.astype(float))
    first, middle, third = np.quantile(values, [0.25, 0.5, 0.75])
    assert abs(found.fill - middle) < 1
    assert abs(found.lower_fence - (first - 1.5 * (third - first))) < 4
    assert abs(found.upper_fence - (third + 1.5 * (third - first))) < 4
    assert abs(found.missing - 1 / 21) < 0.02
    assert cleaning(grid, np.zeros(257)) is None
    with pytest.raises(InvalidInputError):
        quantile(grid, np.zeros(257), 0.0)
    for wrong in ((0, 0, 9), (0, math.inf, 9), (0, 1, 1)):
        with pytest.raises(InvalidInputError):
            Grid(lower=wrong[0], upper=wrong[1], cells=wrong[2])


# --- validate ------------------------------------------------------------------------------------

JUDGE = Validation(groups=("F", "M"))


def made_cases(count, seed):
    rng = synthetic.generator(seed)
    positive = rng.random(count) < 0.3
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.2, count) + np.where(positive, 1.2, -1.2))))
    groups = np.where(rng.random(count) < 0.5, "F", "M")
    return [
        [Case(group=str(g), score=float(s), positive=bool(p))]
        for g, s, p in zip(groups, scores, positive, strict=True)
    ]


def test_joint_validation_is_near_the_exact_figures_and_its_intervals_hold():
    patients = made_cases(12_000, 5)
    total = validation_vector(JUDGE, patients, veto=False)
    variance = float((2 * JUDGE.scale) ** 2)
    noisy = total + draw_noise(int(variance), JUDGE.length, long_words)
    figures, _ = read_validation(JUDGE, noisy, variance, 0.5)  # this noise may look like a veto
    for group in JUDGE.groups:
        cases = [case for one in patients for case in one if case.group == group]
        scores = np.array([case.score for case in cases])
        labels = np.array([int(case.positive) for case in cases])
        truth = auc(scores, labels)
        found = figures[group]
        assert found.auc.lower <= truth <= found.auc.upper
        assert abs(found.auc.value - truth) < 0.01
        hit = float(((scores >= 0.5) & (labels == 1)).sum() / labels.sum())
        assert found.sensitivity.lower - 0.01 <= hit <= found.sensitivity.upper + 0.01
        assert abs(found.brier - float(np.mean((scores - labels) ** 2))) < 0.01


def test_figures_that_noise_drowns_are_not_given():
    total = validation_vector(JUDGE, made_cases(20, 1), veto=False)
    figures, _ = read_validation(JUDGE, total, float((30 * JUDGE.scale) ** 2), 0.5)
    assert figures["F"].auc.value is None
    assert figures["F"].sensitivity.value is None
    assert figures["F"].brier is None


def test_a_veto_is_one_bit_in_the_sum():
    votes = [validation_vector(JUDGE, [], veto=n == 2) for n in range(5)]
    assert read_validation(JUDGE, np.sum(votes, axis=0), 0.0, 0.5)[1]
    assert not read_validation(JUDGE, np.sum(votes[:2], axis=0), 0.0, 0.5)[1]


def test_odd_cases_fall_into_public_cells():
    odd = [[Case(group="?", score=math.nan, positive=True)], [Case(group="M", score=9, positive=0)]]
    total = validation_vector(JUDGE, odd, veto=False)
    assert total.sum() == 2 * JUDGE.scale
    for wrong in ({"groups": ()}, {"bins": 1}, {"most": 0}):
        with pytest.raises(InvalidInputError):
            Validation(**({"groups": ("F",)} | wrong))
    with pytest.raises(InvalidInputError):
        read_validation(JUDGE, np.zeros(3, np.int64), 1.0, 0.5)


# --- annotate ------------------------------------------------------------------------------------


def test_the_majority_wins_and_a_tie_goes_back_to_the_readers():
    votes = [[0, 1, None], [0, 0, None], [0, 1, 2], [1, 0, None]]
    total = np.sum([vote_vector(3, 3, one) for one in votes], axis=0)
    winners = [one.winner for one in read_votes(total, 3, 0.0)]
    assert winners == [0, None, 2]
    assert [one.winner for one in read_votes(total, 3, 2.0)] == [None, None, None]
    for wrong in ([0], [0, 1, 3]):
        with pytest.raises(InvalidInputError):
            vote_vector(3, 3, wrong)


def test_kappa_is_cohen_s_with_fleiss_interval():
    """The worked example of Fleiss, Levin, Paik (2003), table 18.1: kappa 0.676, s.e. 0.088."""
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]], float)
    found = kappa(table)
    assert abs(found.value - 0.676) < 5e-4
    assert abs((found.upper - found.value) / 1.96 - 0.088) < 1e-3
    assert kappa(np.zeros((2, 2))).value is None
    assert kappa(np.array([[5.0, 0], [0, 0]])).value is None


# --- overlap -------------------------------------------------------------------------------------


def test_two_hospitals_learn_how_many_they_share_and_no_more():
    session = os.urandom(32)
    ours = [f"p{n}".encode() for n in range(300)]
    theirs = [f"p{n}".encode() for n in range(250, 500)]
    mine, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    ours_once = blind([to_point(i, session) for i in ours], mine, secrets.randbelow)
    theirs_once = blind([to_point(i, session) for i in theirs], other, secrets.randbelow)
    ours_twice = blind(ours_once, other, secrets.randbelow)
    theirs_twice = blind(theirs_once, mine, secrets.randbelow)
    assert shared(ours_twice, theirs_twice, 0) == 50
    assert shared(ours_twice, theirs_twice, -3) == 47
    assert not set(ours_once) & set(theirs_once)
    assert all(on_curve(int.from_bytes(p, "little")) for p in ours_once)


def test_small_sets_and_crooked_points_are_refused():
    secret = X25519PrivateKey.generate()
    with pytest.raises(RoundRefusedError, match="at least"):
        shared([bytes(32)] * 3, [bytes(32)] * 300, 0)
    points = [to_point(f"{n}".encode(), b"s") for n in range(200)]
    with pytest.raises(RoundRefusedError, match="twice"):
        shared([points[0], *points], points, 0)
    twist = next(n for n in range(2, 100) if not on_curve(n))
    for wrong in (
        [bytes(32)],
        [(1).to_bytes(32, "little")],
        [twist.to_bytes(32, "little")],
        [b"\xff" * 32],
        [b"short"],
        [points[0], points[0]],
    ):
        with pytest.raises(RoundRefusedError):
            blind(wrong, secret, secrets.randbelow)
    with pytest.raises(InvalidInputError):
        shared(points, points, 0.5)


def test_points_of_two_sessions_cannot_be_compared():
    assert to_point(b"p1", b"one") != to_point(b"p1", b"two")
