"""One result for an outsider: mostly the truth, the same for ever, and capped per study."""

import json

import pytest

from bedside_core.errors import (
    BudgetExhaustedError,
    InvalidInputError,
    NotPermittedError,
)
from bedside_core.signatures import open_envelope
from bedside_core.uses import ActorKind, Asker
from bedside_edge.ports.governance import Standing
from bedside_edge.services.local_answer import PAYLOAD_TYPE, LocalAnswerService
from support.evidence_log import LOG_ED
from support.memory_answers import MemoryAnswers
from support.privacy_house import Hospital

READER = Asker(actor_id="person:r", kind=ActorKind.PERSON, roles=frozenset({"radiologist"}))
NOBODY = Asker(actor_id="person:n", kind=ActorKind.PERSON)


@pytest.fixture
def house(tmp_path):
    made = Hospital(tmp_path).founded()
    made.local = LocalAnswerService(
        MemoryAnswers(), made.noise, LOG_ED, made.governance.gate, made.budget
    )
    yield made
    made.close()


def said(envelope: bytes) -> dict:
    keys = {LOG_ED.key.key_id.hex(): LOG_ED.key.public}
    return json.loads(open_envelope(envelope, PAYLOAD_TYPE, keys, 1))


def test_asked_again_the_answer_is_the_same_and_names_no_study(house):
    first = house.local.answer("study-1", "north", 1_000_000, READER)
    assert house.local.answer("study-1", "north", 1_000_000, READER) == first
    document = said(first)
    assert document["recipient"] == "north"
    assert "study-1" not in json.dumps(document)
    assert house.local.left("study-1") == 3_000_000


def test_the_truth_is_told_as_often_as_the_document_says(house):
    answers = [
        said(house.local.answer(f"study-{n}", "north", 1_000_000, READER)) for n in range(600)
    ]
    told = sum(one["answer"] for one in answers)
    expected = 600 * answers[0]["truth_probability"]
    assert abs(told - expected) < 7 * (600 * 0.731 * 0.269) ** 0.5  # seven standard deviations


def test_further_recipients_are_refused_once_the_study_s_cap_is_spent(house):
    for name in ("a", "b", "c", "d"):
        house.local.answer("study-1", name, 1_000_000, READER)
    with pytest.raises(BudgetExhaustedError):
        house.local.answer("study-1", "e", 1, READER)
    house.local.answer("study-2", "e", 1_000_000, READER)


@pytest.mark.parametrize("epsilon", [0, -1, True, 1.0, float("nan"), 10**8])
def test_an_epsilon_that_is_none_is_refused(house, epsilon):
    with pytest.raises(InvalidInputError):
        house.local.answer("study-1", "north", epsilon, READER)


@pytest.mark.parametrize("recipient", ["", " ", "x" * 129, "a\nb"])
def test_a_recipient_has_a_name(house, recipient):
    with pytest.raises(InvalidInputError):
        house.local.answer("study-1", recipient, 1_000_000, READER)


def test_the_gate_is_asked(house):
    with pytest.raises(NotPermittedError):
        house.local.answer("study-1", "north", 1_000_000, NOBODY)
    house.governance.facts.say("study-1")
    subject = house.governance.facts.known["study-1"].subject_id
    house.governance.facts.standing[subject] = Standing(withdrawn=True)
    with pytest.raises(NotPermittedError):
        house.local.answer("study-1", "north", 1_000_000, READER)
    assert house.local.left("study-1") == 4_000_000
