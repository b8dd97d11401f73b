"""Agreement of two raters: textbook figures, and intervals that a small number cannot fool."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.agreement import agreement, wilson
from bedside_core.findings import Decision

P, A, U = Decision.PRESENT, Decision.ABSENT, Decision.UNDETERMINED
PAIRS = st.lists(st.tuples(st.sampled_from(Decision), st.none() | st.sampled_from(Decision)))


def test_kappa_of_the_textbook_table():
    # 2 x 2 table of 20, 5, 10, 15: observed 0.70, chance 0.50, kappa 0.40
    found = agreement([(P, P)] * 20 + [(P, A)] * 5 + [(A, P)] * 10 + [(A, A)] * 15)
    assert found.pairs == 50
    assert found.share == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert (found.clear_kappa, found.clear_interval) == (found.kappa, found.kappa_interval)
    # Cohen 1960, equation 7: standard error 0.1296, so about 0.146..0.654
    low, high = found.kappa_interval
    assert (low, high) == pytest.approx((0.146, 0.654), abs=0.04)


def test_wilson_interval_of_a_published_example():
    # Newcombe 1998, Stat. Med. 17:857-872, table I, method 3: 81/263, 15/148, 0/20, 1/29
    for hits, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


def test_three_of_three_is_no_certainty():
    found = agreement([(P, P), (A, A), (P, P)])
    assert found.kappa == pytest.approx(1.0)
    assert found.kappa_interval[0] < 0.5
    assert found.kappa_interval[1] == pytest.approx(1.0)


def test_kappa_is_not_made_up_where_it_has_no_meaning():
    assert agreement([]).kappa is None
    assert agreement([]).share is None
    same = agreement([(P, P)] * 9)
    assert (same.share, same.kappa, same.kappa_interval) == (1.0, None, None)


def test_a_rejection_without_a_word_on_the_finding_is_in_no_figure_but_its_own():
    found = agreement([(P, None), (P, P), (A, A)])
    assert (found.silent, found.pairs, found.share) == (1, 2, 1.0)


def test_undetermined_counts_in_one_kappa_and_not_in_the_other():
    found = agreement([(P, P), (A, A), (U, P), (U, A)])
    assert found.clear_kappa == pytest.approx(1.0)
    assert found.kappa < 1.0


@given(PAIRS)
def test_figures_stay_in_their_range_and_every_pair_is_counted_once(pairs):
    found = agreement(pairs)
    assert found.pairs + found.silent == len(pairs)
    assert (found.share is None) == (found.pairs == 0)
    for value, interval in (
        (found.share, found.share_interval),
        (found.kappa, found.kappa_interval),
        (found.clear_kappa, found.clear_interval),
    ):
        assert (value is None) == (interval is None)
        if value is not None:
            low, high = interval
            assert -1.0 <= low <= value + 1e-9
            assert value <= high + 1e-9 <= 1.0 + 2e-9
            assert math.isfinite(low + high)
