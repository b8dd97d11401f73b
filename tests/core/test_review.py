"""A review that cannot be read as one does not exist."""

import pytest

from bedside_core.errors import InvalidInputError
from bedside_core.findings import Decision
from bedside_core.review import Review, ReviewKind, plain_text


def review(**changed):
    fields = {"kind": ReviewKind.ACCEPT, "reader_name": "Muster^Ada", "reader_id": "r1", "at": 1}
    return Review(**(fields | changed))


def test_an_acceptance_needs_a_reader_and_no_reason():
    assert review().decision is None


@pytest.mark.parametrize(
    "changed",
    [
        {"reader_name": " "},
        {"reader_id": ""},
        {"kind": ReviewKind.REJECT},
        {"kind": ReviewKind.EDIT, "reason": "seen"},
        {"reason": "x" * 1025},
    ],
)
def test_an_unusable_review_is_refused(changed):
    with pytest.raises(InvalidInputError):
        review(**changed)


def test_an_edit_says_what_the_finding_is():
    made = review(kind=ReviewKind.EDIT, reason="artefact", decision=Decision.ABSENT)
    assert made.decision is Decision.ABSENT
    assert "Muster" not in repr(made)
    assert "artefact" not in repr(made)


def test_a_reason_keeps_its_lines_and_no_control_character():
    typed = " seen\x00 twice:\r\n\ta rib\x1b[31m\x7f\x85\x0b "
    assert plain_text(typed) == "seen  twice:\r\n\ta rib [31m"
    assert plain_text("\x00\x01") == ""
    assert plain_text("肋骨, Größe") == "肋骨, Größe"
