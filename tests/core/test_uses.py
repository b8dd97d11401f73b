"""Facts asked with, and the schema made of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError, NotPermittedError
from bedside_core.uses import (
    MAX_LONG,
    NO_RULE,
    SCHEMA,
    ActorKind,
    Ask,
    Asker,
    Cause,
    Decision,
    Facts,
    Incident,
    Purpose,
    Reason,
    Situation,
    Target,
    Thing,
    Use,
    record,
)

ASK = Ask(
    use=Use.VIEW,
    asker=Asker(actor_id="person:a", kind=ActorKind.PERSON, roles=frozenset({"radiologist"})),
    facts=Facts(thing=Thing.RESULT, grade=4, consents=frozenset({"training", "quality"})),
    situation=Situation(purpose=Purpose.DIAGNOSIS, target=Target.NONE),
)


def test_the_schema_has_every_fact_with_its_type_and_every_use_as_an_action():
    schema = json.loads(SCHEMA)[""]
    data = schema["entityTypes"]["Data"]["shape"]["attributes"]
    assert set(data) == set(record(ASK.facts))
    assert data["grade"] == {"type": "Long"}
    assert data["withdrawn"] == {"type": "Boolean"}
    assert data["consents"] == {"type": "Set", "element": {"type": "String"}}
    assert set(schema["commonTypes"]["Situation"]["attributes"]) == set(record(ASK.situation))
    assert set(schema["entityTypes"]["Actor"]["shape"]["attributes"]) == {"kind", "roles"}
    assert set(schema["actions"]) == {str(use) for use in Use}


def test_equal_facts_have_one_digest_and_any_other_fact_another():
    same = Ask(use=Use.VIEW, asker=ASK.asker, facts=ASK.facts, situation=ASK.situation)
    sealed = Situation(purpose=Purpose.DIAGNOSIS, incident=Incident.SEALED)
    other = Ask(use=Use.VIEW, asker=ASK.asker, facts=ASK.facts, situation=sealed)
    assert same.digest == ASK.digest
    assert hash(same) == hash(ASK)
    assert other.digest != ASK.digest


def test_sets_are_written_in_one_order():
    assert ASK.to_json()["data"]["consents"] == ["quality", "training"]
    assert ASK.to_json()["actor"] == {"id": "person:a", "kind": "person", "roles": ["radiologist"]}


@given(grade=st.integers().filter(lambda grade: not 0 <= grade <= 5))
def test_no_grade_outside_the_scale_is_asked_with(grade):
    with pytest.raises(InvalidInputError):
        Facts(thing=Thing.STUDY, grade=grade)


@pytest.mark.parametrize("change", [{"people": -1}, {"epsilon_left": MAX_LONG + 1}])
def test_numbers_the_policy_language_cannot_hold_are_refused(change):
    with pytest.raises(InvalidInputError):
        Situation(purpose=Purpose.DIAGNOSIS, **change)


def decided(cause: Cause, *reasons: Reason) -> Decision:
    permitted = cause is Cause.PERMIT
    return Decision(permitted=permitted, cause=cause, policy="p", asked="a", reasons=reasons)


def test_a_permit_passes_and_a_deny_raises_with_rule_and_words():
    decided(Cause.PERMIT).must()
    rule = Reason(rule="withdrawal", en="The patient withdrew.", zh="")
    with pytest.raises(NotPermittedError, match=r"withdrawal: The patient withdrew\.") as raised:
        decided(Cause.FORBID, rule).must()
    assert raised.value.rules == ("withdrawal",)


def test_a_deny_without_a_rule_says_that_none_permits():
    with pytest.raises(
        NotPermittedError, match=r"^No rule of the policy permits this\.$"
    ) as raised:
        decided(Cause.NO_RULE, NO_RULE).must()
    assert raised.value.rules == ()
