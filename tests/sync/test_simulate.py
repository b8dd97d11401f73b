"""The simulator runs the round's own rules at size, and says whether the sum was exact."""

import pytest

from bedside_core.errors import InvalidInputError
from bedside_sync.hub.simulate import simulate


@pytest.mark.parametrize(("helpers", "missing", "ring"), [(4, 1, 32), (7, 2, 64)])
def test_a_simulated_round_is_exact_with_boxes_and_helpers_missing(helpers, missing, ring):
    told = []
    outcome = simulate(
        20,
        words=5000,
        drop=0.25,
        helpers=helpers,
        missing=missing,
        ring=ring,
        progress=lambda *step: told.append(step),
    )
    assert outcome.exact
    assert outcome.dropped == 5
    assert told[-1][0] == "helpers"
    assert outcome.upload_bytes < 5000 * ring // 8 * 1.001 + 8192


def test_the_noise_of_a_simulated_round_has_the_planned_variance():
    outcome = simulate(40, words=20_000)
    assert abs(outcome.noise_variance - 1) < 0.02


@pytest.mark.parametrize(
    "wrong", [{"boxes": 2}, {"boxes": 3}, {"boxes": 9, "drop": 1.0}, {"boxes": 9, "missing": 2}]
)
def test_numbers_that_make_no_round_are_refused(wrong):
    with pytest.raises(InvalidInputError):
        simulate(**wrong)
