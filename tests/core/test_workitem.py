"""The state table of PS3.4 CC.1.1-2, cell by cell, and what a workitem must say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core import workitem as w
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    WrongStateError,
    WrongTransactionError,
)
from bedside_core.workitem import StepState

S, P, D, X = StepState.SCHEDULED, StepState.IN_PROGRESS, StepState.COMPLETED, StepState.CANCELED
MINE, OTHER = "1.2.3", "1.2.4"


@pytest.mark.parametrize(
    ("current", "asked", "transaction", "answer"),
    [
        (S, P, MINE, ""),
        (S, P, "", InvalidInputError),
        (S, P, "x", InvalidInputError),
        (S, D, MINE, WrongStateError),
        (S, X, MINE, WrongStateError),
        (S, S, MINE, InvalidInputError),
        (S, "DONE", MINE, InvalidInputError),
        (P, P, MINE, WrongStateError),
        (P, P, OTHER, WrongStateError),
        (P, D, MINE, ""),
        (P, X, MINE, ""),
        (P, D, OTHER, WrongTransactionError),
        (P, X, OTHER, WrongTransactionError),
        (P, S, MINE, InvalidInputError),
        (D, P, MINE, WrongStateError),
        (D, X, MINE, WrongStateError),
        (D, D, MINE, w.ALREADY[D]),
        (X, P, MINE, WrongStateError),
        (X, D, MINE, WrongStateError),
        (X, X, MINE, w.ALREADY[X]),
    ],
)
def test_every_cell_of_the_state_table(current, asked, transaction, answer):
    owner = "" if current is S else MINE
    if isinstance(answer, str):
        assert w.follows(current, asked, transaction, owner) == answer
    else:
        with pytest.raises(answer):
            w.follows(current, asked, transaction, owner)


@pytest.mark.parametrize(
    ("current", "transaction", "error"),
    [
        (S, "", None),
        (P, MINE, None),
        (P, "", InvalidInputError),
        (P, OTHER, WrongTransactionError),
        (D, MINE, WrongStateError),
        (X, MINE, WrongStateError),
    ],
)
def test_only_the_performer_updates_what_is_in_progress(current, transaction, error):
    if error is None:
        w.may_update(current, transaction, MINE)
    else:
        with pytest.raises(error):
            w.may_update(current, transaction, MINE)


def fresh(**changes):
    made = {
        w.STATE: w.element("CS", "SCHEDULED"),
        w.PRIORITY: w.element("CS", "MEDIUM"),
        w.LABEL: w.element("LO", "Read chest"),
        w.WORKLIST: w.element("LO", "AI"),
        w.START: w.element("DT", "20240101120000"),
        w.READINESS: w.element("CS", "READY"),
        w.TRANSACTION: w.element("UI"),
    }
    return {tag: value for tag, value in (made | changes).items() if value is not None}


def test_a_new_workitem_gets_its_identity_and_no_transaction():
    made, modified = w.created(fresh(), "1.2")
    assert not modified
    assert w.text(made, w.INSTANCE_UID) == "1.2"
    assert w.text(made, w.CLASS_UID) == w.SOP_CLASS
    assert w.TRANSACTION not in made


def test_a_missing_worklist_label_is_filled_in_and_said():
    made, modified = w.created(fresh(**{w.WORKLIST: None}), "1.2")
    assert modified
    assert w.text(made, w.WORKLIST)


@pytest.mark.parametrize(
    "change",
    [
        {w.STATE: w.element("CS", "IN PROGRESS")},
        {w.TRANSACTION: w.element("UI", "1.2.9")},
        {w.INSTANCE_UID: w.element("UI", "1.2.9")},
        {w.PRIORITY: w.element("CS", "STAT")},
        {w.READINESS: None},
        {w.LABEL: None},
        {w.START: w.element("DT")},
    ],
)
def test_a_new_workitem_without_what_it_needs_is_refused(change):
    with pytest.raises(InvalidInputError):
        w.created(fresh(**change), "1.2")


def test_an_update_changes_what_it_names_and_nothing_else():
    held, _ = w.created(fresh(), "1.2")
    change = {w.PRIORITY: w.element("CS", "HIGH"), w.TRANSACTION: w.element("UI", "1.2.9")}
    made = w.updated(held, change)
    assert made == held | {w.PRIORITY: w.element("CS", "HIGH")}


@pytest.mark.parametrize(
    "change",
    [
        {w.STATE: w.element("CS", "COMPLETED")},
        {w.INSTANCE_UID: w.element("UI", "9.9")},
        {w.PRIORITY: w.element("CS", "SOON")},
    ],
)
def test_an_update_cannot_change_state_identity_or_break_a_value(change):
    held, _ = w.created(fresh(), "1.2")
    with pytest.raises(InvalidInputError):
        w.updated(held, change)


def test_completed_needs_the_performed_procedure_and_its_output():
    performed = {
        w.BEGAN: w.element("DT", "2024"),
        w.ENDED: w.element("DT", "2024"),
        w.OUTPUT: w.element("SQ"),
    }
    whole = {w.PERFORMED: w.element("SQ", performed)}
    w.final_ready(whole, D)
    w.final_ready({}, X)
    for missing in (w.BEGAN, w.ENDED, w.OUTPUT):
        cut = {tag: value for tag, value in performed.items() if tag != missing}
        with pytest.raises(WrongStateError):
            w.final_ready({w.PERFORMED: w.element("SQ", cut)}, D)
    with pytest.raises(WrongStateError):
        w.final_ready({}, D)


def test_codes_and_input_studies_are_read():
    held = fresh(
        **{
            w.WORKITEM_CODE: w.element("SQ", w.coded("110004", "DCM", "CAD"), {}),
            w.INPUT: w.element(
                "SQ",
                {w.STUDY_UID: w.element("UI", "1.2")},
                {w.STUDY_UID: w.element("UI", "1.2")},
                {},
            ),
        }
    )
    assert list(w.codes(held)) == [("110004", "DCM"), ("", "")]
    assert w.input_studies(held) == ["1.2"]
    assert w.input_studies({w.INPUT: {"vr": "UT"}}) == []
    assert w.text({w.LABEL: w.element("LO", None)}, w.LABEL) == ""
    assert w.text({w.LABEL: w.element("PN", {"Alphabetic": "x"})}, w.LABEL) == ""


def deep(levels):
    found = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
    for _ in range(levels):
        found = {"00404018": {"vr": "SQ", "Value": [found]}}
    return found


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "x",
        {"PatientName": {"vr": "PN"}},
        {"00100010": []},
        {"00100010": {"vr": 1}},
        {"00100010": {"vr": "person"}},
        {"00100010": {"vr": "PN", "Value": "x"}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 1}]}},
        {"00100010": {"vr": "LO", "Value": [[1]]}},
        {"00404018": {"vr": "SQ", "Value": ["x"]}},
        deep(9),
        {f"{n:08X}": {"vr": "LO"} for n in range(5001)},
    ],
)
def test_what_is_no_data_set_is_refused(bad):
    with pytest.raises(InvalidInputError):
        w.check_form(bad)


def test_a_data_set_keeps_its_values_and_gets_upper_case_tags():
    sent = {"0040a010": {"vr": "LO", "Value": ["x", 1, 2.5, None]}, "00100010": {"vr": "PN"}}
    assert w.check_form(sent) == {
        "0040A010": {"vr": "LO", "Value": ["x", 1, 2.5, None]},
        "00100010": {"vr": "PN"},
    }
    assert w.check_form(deep(7)) == deep(7)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_read_or_refused(found):
    try:
        made = w.check_form(found)
    except BedsideError:
        return
    assert json.loads(json.dumps(made)) == made
