"""Each known hazard of differential privacy in practice is held by a test, named here.

After NIST SP 800-226 (unverified: check its text before quoting). The tests named are run like all
others; this one sees to it that none of them goes away unnoticed.
"""

import ast

import pytest

from support.repository import ROOT

HELD = {
    "epsilon of different units is compared": [
        "contract/test_ledger_contract.py::test_a_cap_is_spent_to_the_unit_and_no_further",
        "services/test_release.py::test_a_release_is_one_file_that_verifies_offline",
    ],
    "bounded and unbounded neighbours are mixed": [
        "core/test_statistics_query.py::test_no_patient_moves_a_vector_by_more_than_its_sensitivity",
    ],
    "the unit is less than a person": [
        "core/test_statistics_query.py::test_any_row_can_be_frozen_and_a_patient_keeps_at_most_c",
        "services/test_release.py::test_a_patient_counts_at_most_c_times_in_all_nights_together",
    ],
    "bounds or keys come from data": [
        "core/test_privacy_policy.py::test_nothing_has_a_default",
        "core/test_statistics_query.py::test_a_range_without_public_bounds_does_not_exist",
    ],
    "a denominator is exact": [
        "core/test_statistics_reading.py::test_a_ratio_over_nothing_is_not_reported",
    ],
    "a sum has no bound": [
        "core/test_statistics_query.py::test_sums_do_not_wrap",
        "core/test_statistics_query.py::test_values_of_other_types_have_public_meanings",
    ],
    "noise is float or its generator weak": [
        "architecture/test_noise_bans.py::"
        "test_6_float_noise_is_not_used_ours_is_an_integer_for_any_scale",
        "architecture/test_randomness.py::test_only_the_system_adapter_draws_random_bytes",
    ],
    "time tells": [
        "services/test_slots.py::test_fast_slow_and_refused_leave_at_the_same_moment",
        "services/test_slots.py::test_an_overrun_waits_a_whole_slot_and_raises_the_alarm",
    ],
    "budget is not tracked over releases or analysts": [
        "integration/test_kill_ledger.py::"
        "test_kills_never_overspend_a_cap_or_give_one_question_two_answers",
        "contract/test_ledger_contract.py::test_who_is_not_listed_spends_nothing",
    ],
    "trust is taken for another model": [
        "services/test_release.py::test_a_release_is_one_file_that_verifies_offline",
        "adapters/test_store_privacy.py::test_the_document_says_how_likely_it_is_the_truth",
    ],
    "the raw store stands open": [
        "adapters/test_store_privacy.py::"
        "test_a_snapshot_holds_patients_by_keyed_hash_in_order_and_nothing_in_plain",
    ],
    "small groups are drowned or shown with false certainty": [
        "core/test_statistics_reading.py::test_fieller_s_interval_covers_as_often_as_it_says",
        "core/test_statistics_reading.py::test_rates_and_gaps_are_those_of_the_confusion_counts",
    ],
}


@pytest.mark.parametrize("hazard", HELD)
def test_a_hazard_is_held_by_tests_that_exist(hazard):
    for name in HELD[hazard]:
        path, function = name.split("::")
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        found = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
        assert function in found, f"{hazard}: {name} is gone"
