"""Masks, bounds and noise of the secure sum: known answers, laws, distributions."""

import hashlib
import math
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg import gauss
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.secagg.manifest import local_sigma2
from bedside_sync.secagg.prg import (
    add_mask,
    chunk_digest,
    enc,
    subtract,
    sum_of_masks,
    vector_digest,
    whole_digest,
    word_type,
)
from bedside_sync.secagg.ring import (
    Bounds,
    fits_ring,
    from_ring,
    overflow_bound,
    quantise,
    tail,
    to_ring,
)

SEED = bytes(range(32))


def words(count: int) -> np.ndarray:
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def long_words(count: int) -> np.ndarray:
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def test_the_mask_of_a_known_seed_is_the_published_one():
    mask = np.zeros(200_003, np.uint32)
    add_mask(mask, SEED, 32)
    assert mask[:4].tolist() == [272741546, 445424273, 4270349568, 4254806605]
    published = "ba2d64530db6bff11a8a4dce24bc6ea844ad4381201dd6b9429ba0cf484fc0d2"
    assert hashlib.sha256(mask.tobytes()).hexdigest() == published


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 131_073])
def test_a_mask_taken_away_leaves_what_was_there(ring, length):
    kind = word_type(ring)
    before = np.frombuffer(os.urandom(length * kind.itemsize), kind)
    vector, mask = before.copy(), np.zeros(length, kind)
    add_mask(vector, SEED, ring)
    add_mask(mask, SEED, ring)
    assert (vector != before).any()
    subtract(vector, mask)
    assert (vector == before).all()


@pytest.mark.parametrize("ring", [32, 64])
def test_masks_added_in_threads_are_the_masks_added_in_turn(ring):
    seeds = [os.urandom(32) for _ in range(7)]
    length = 3 * 65_536 + 5
    wanted = np.zeros(length, word_type(ring))
    for seed in seeds:
        add_mask(wanted, seed, ring)
    for threads in (1, 2, 5, 9):
        assert (sum_of_masks(seeds, ring, length, threads=threads) == wanted).all()
    assert not sum_of_masks([], ring, length).any()


def test_mask_words_are_uniform_up_to_the_ends_of_the_ring():
    mask = np.zeros(1 << 20, np.uint32)
    add_mask(mask, os.urandom(32), 32)
    counts = np.bincount((mask >> 20).astype(np.int64), minlength=4096)
    chi2 = float(((counts - 256) ** 2 / 256).sum())
    assert abs(chi2 - 4095) < 6 * math.sqrt(2 * 4095)
    assert counts[0] > 0
    assert counts[-1] > 0


def test_seeds_of_full_length_never_collide():
    """28 effective bits, as seen elsewhere, would give about 19 collisions."""
    first = set()
    ors, ands = 0, (1 << 64) - 1
    for _ in range(20_000):
        vector = np.zeros(2, np.uint64)
        add_mask(vector, os.urandom(32), 64)
        ors |= int(vector[0])
        ands &= int(vector[0])
        first.add(vector.tobytes())
    assert len(first) == 20_000
    assert (ors, ands) == ((1 << 64) - 1, 0)


def test_refused_seeds_rings_and_shapes():
    for wrong in (b"", SEED[:31], SEED + b"x"):
        with pytest.raises(InvalidInputError):
            add_mask(np.zeros(4, np.uint32), wrong, 32)
    with pytest.raises(InvalidInputError):
        word_type(16)
    with pytest.raises(InvalidInputError):
        subtract(np.zeros(4, np.uint32), np.zeros(4, np.uint64))


@given(st.lists(st.binary(max_size=9), max_size=5), st.lists(st.binary(max_size=9), max_size=5))
def test_two_lists_of_parts_never_read_the_same(one, other):
    assert (enc(*one) == enc(*other)) == (one == other)


def test_a_vector_has_the_digest_of_its_chunks():
    vector = words(200_000)
    whole, chunks = vector_digest(vector, 32)
    data = vector.tobytes()
    again = [chunk_digest(n, data[n * 262_144 : (n + 1) * 262_144]) for n in range(len(chunks))]
    assert chunks == again
    assert whole == whole_digest(32, 200_000, again)
    assert whole != whole_digest(32, 200_001, again)


# --- bounds --------------------------------------------------------------------------------------


def test_the_bound_is_the_pages():
    assert Bounds(clip=Fraction(1), scale=64, length=64).squared == 4180
    for wrong in ({"clip": Fraction(0)}, {"scale": 0}, {"length": 0}):
        with pytest.raises(InvalidInputError):
            Bounds(**({"clip": Fraction(1), "scale": 1, "length": 1} | wrong))


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=6, max_size=6),
    scale=st.integers(1, 4096),
)
def test_no_patient_leaves_the_ball(row, scale):
    bounds = Bounds(clip=Fraction(1), scale=scale, length=6)
    total, left_out = quantise(np.array([row]), bounds, words)
    assert sum(int(v) ** 2 for v in total) <= bounds.squared
    assert left_out == (0 if all(map(math.isfinite, row)) else 1)


def test_rounding_is_right_on_average():
    bounds = Bounds(clip=Fraction(1), scale=3, length=4)
    row = np.array([[0.1, -0.2, 0.3, 0.05]])
    total, left_out = quantise(np.repeat(row, 20_000, axis=0), bounds, words)
    assert left_out == 0
    assert np.abs(total / 20_000 - row[0] * 3).max() < 0.02


def test_vectors_of_other_lengths_or_scales_without_room_are_refused():
    bounds = Bounds(clip=Fraction(1), scale=4, length=4)
    with pytest.raises(InvalidInputError):
        quantise(np.zeros((2, 5)), bounds, words)
    with pytest.raises(InvalidInputError):
        quantise(np.zeros((2, 4)), Bounds(clip=Fraction(1), scale=1 << 27, length=4), words)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8))
def test_the_ring_gives_back_what_it_took(values):
    array = np.array(values, np.int64)
    for ring in (32, 64):
        assert (from_ring(to_ring(array, ring), ring) == array).all()


def test_the_overflow_proof_counts_the_noise():
    assert tail(25) == 60
    assert overflow_bound(patients=10, per_word=3, boxes=2, sigma2=25) == 150
    assert fits_ring(32, 2**31 - 1)
    assert not fits_ring(32, 2**31)


# --- noise ---------------------------------------------------------------------------------------


def test_noise_follows_its_law():
    sigma2, count = 25, 400_000
    found = draw_noise(sigma2, count, long_words)
    law = np.array([math.exp(-x * x / (2 * sigma2)) for x in range(-60, 61)])
    law /= law.sum()
    counts = np.bincount(found + 60, minlength=121)
    seen = law * count > 5
    expected = law[seen] * count
    chi2 = float(((counts[seen] - expected) ** 2 / expected).sum())
    degrees = int(seen.sum()) - 1
    assert abs(chi2 - degrees) < 6 * math.sqrt(2 * degrees)
    assert abs(found.std() / 5 - 1) < 0.01


def test_the_sum_of_many_boxes_noise_has_the_planned_variance():
    sigma2 = local_sigma2(Fraction(2), 4180, 10, 2)
    boxes = [draw_noise(sigma2, 50_000, long_words) for _ in range(10)]
    variance = float(np.var(np.sum(boxes, axis=0)))
    assert abs(variance / (10 * sigma2) - 1) < 0.03
    assert 8 * sigma2 >= 4 * 4180 > 8 * (sigma2 - 1)


def test_a_word_on_a_boundary_is_settled_by_the_next():
    """A 64-bit word equal to a table word: the second decides, in 128-bit integers."""
    upper, cumulative, end = gauss._table(25)
    place = 60  # the middle: P(X <= 0)
    boundary = int(upper[place])
    low = cumulative[place] & ((1 << 64) - 1)
    for second, expected in ((low - 1, place), (low, place + 1)):
        queue = [np.array([boundary], np.uint64), np.array([second], np.uint64)]
        found = draw_noise(25, 1, lambda _, q=queue: q.pop(0))
        assert found[0] == expected - end


def test_noise_ends_at_twelve_sigma_and_other_parameters_are_refused():
    ends = draw_noise(25, 2, lambda _: np.array([0, 2**64 - 1], np.uint64))
    assert np.abs(ends).max() <= 60
    for wrong in (0, -1, 65_536**2 + 1):
        with pytest.raises(InvalidInputError):
            draw_noise(wrong, 1, long_words)
