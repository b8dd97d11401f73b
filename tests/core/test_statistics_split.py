"""A patient stands in one part of training, whatever studies there are."""

from hypothesis import given
from hypothesis import strategies as st

from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.rows import StudyRow, freeze
from bedside_core.statistics.split import SPLITS, split_of
from support.statistics import PUBLIC


def test_the_shares_are_seventy_fifteen_fifteen():
    found = [split_of(f"patient {number}") for number in range(20_000)]
    shares = [found.count(name) / len(found) for name in SPLITS]
    # five standard deviations of 20,000 draws at .7: .016
    assert all(abs(a - b) < 0.017 for a, b in zip(shares, (0.7, 0.15, 0.15), strict=True))


@given(name=st.text())
def test_a_patient_is_always_in_the_same_part(name):
    assert split_of(name) == split_of(name)
    assert split_of(name) in SPLITS


def test_the_statistic_counts_studies_by_the_part_of_their_patient():
    rows = [
        StudyRow(patient=f"p{number % 40}", arrival=number, label="positive", sex="female")
        for number in range(80)
    ]
    kept = freeze(rows, "s").keep(PUBLIC.c)
    query = compile_query([spec_of("split-counts", PUBLIC)], truncation=False)
    counts = dict(zip(query.cells, query.exact(kept), strict=True))
    for name in SPLITS:
        assert counts[f"split {name}"] == 2 * sum(
            split_of(f"p{number}") == name for number in range(40)
        )
    assert counts["split other"] == 0
    by_label = compile_query([spec_of("split-labels", PUBLIC)], truncation=False)
    labelled = dict(zip(by_label.cells, by_label.exact(kept), strict=True))
    assert labelled["split train, label positive"] == counts["split train"]
