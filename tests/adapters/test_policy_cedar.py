"""Cedar's traps, one test each: whatever goes wrong is a deny or a document that is refused.

The table is measured on cedarpy 4.12.2; the first half shows that the traps are real.
"""

import subprocess
import sys
from dataclasses import replace

import cedarpy
import pytest

from bedside_core.errors import InvalidPolicyError
from bedside_core.policy import (
    MANDATORY,
    check_document,
    check_golden,
    decision,
    parse_ask,
    parse_source,
)
from bedside_core.policy_change import looser
from bedside_core.policy_rules import read_rules
from bedside_core.uses import SCHEMA, Cause
from bedside_edge.system import policy_cedar
from bedside_edge.system.policy_cedar import (
    CedarPolicy,
    answer_of,
    shipped_document,
    shipped_source,
)

SHIPPED = CedarPolicy(shipped_document())
ASK = parse_ask(
    b'{"use": "infer", "actor": {"id": "service:box", "kind": "system"},'
    b' "data": {"withdrawn": true}, "context": {"model_state": "released"}}'
)
ENTITIES, REQUEST = policy_cedar._entities(ASK.asker, ASK.facts), policy_cedar._request(ASK)
SCHEMA_HANDLE = cedarpy.Schema.from_json_str(SCHEMA)
PERMIT = '@id("all") permit(principal, action, resource);\n'
TYPO = '@id("withdrawal") forbid(principal, action, resource) when { resource.withdrwn };'


def decided(answer):
    """The decision of an answer, with the rule the text permits by known."""
    rules = read_rules(cedarpy.policies_to_json_str(PERMIT))
    told = replace(SHIPPED.document, reasons={"all": SHIPPED.document.reasons["withdrawal"]})
    return decision(told, rules, ASK, answer)


def asked(text, request=REQUEST, entities=ENTITIES, schema=SCHEMA_HANDLE):
    return answer_of(cedarpy.PolicySet.from_str(text), schema, request, entities)


# --- what Cedar would let through, and what becomes of it --------------------------------------


@pytest.mark.parametrize("schema", [SCHEMA_HANDLE, None])
def test_a_forbid_that_fails_while_it_is_tried_is_skipped_by_cedar_and_denied_here(schema):
    answer = asked(PERMIT + TYPO, schema=schema)
    assert answer.decision == "Allow"  # for a patient who withdrew
    assert answer.errors
    found = decided(answer)
    assert (found.permitted, found.cause) == (False, Cause.ERROR)
    assert found.errors


def entities_without(attribute):
    actor = {
        "uid": {"type": "Actor", "id": "service:box"},
        "attrs": {"kind": "system", "roles": []},
        "parents": [],
    }
    facts = policy_cedar.record(ASK.facts)
    facts.pop(attribute)
    return [actor, {"uid": {"type": "Data", "id": "study"}, "attrs": facts, "parents": []}]


FORBID = '@id("withdrawal") forbid(principal, action, resource) when { resource.withdrawn };'


def test_an_entity_that_lacks_what_a_rule_reads_is_denied():
    with_schema = asked(PERMIT + FORBID, entities=entities_without("withdrawn"))
    without = asked(PERMIT + FORBID, entities=entities_without("withdrawn"), schema=None)
    assert with_schema.decision == "NoDecision"
    assert without.decision == "Allow"
    assert not decided(with_schema).permitted
    assert not decided(without).permitted


def test_a_missing_resource_entity_is_denied():
    answer = asked(PERMIT + FORBID, entities=entities_without("withdrawn")[:1])
    assert answer.decision == "Allow"
    assert decided(answer).cause is Cause.ERROR


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon_left": "much"},
        {"epsilon_left": 0.5},
        {"colour": "red"},
        {"purpose": 3},
        {"epsilon_left": None},
    ],
)
def test_a_context_of_another_shape_is_denied(change):
    answer = asked(PERMIT, request=REQUEST | {"context": REQUEST["context"] | change})
    assert answer.decision == "NoDecision"
    assert not decided(answer).permitted


def test_an_unknown_action_is_denied():
    answer = asked(PERMIT, request=REQUEST | {"action": {"type": "Action", "id": "sell"}})
    assert answer.decision == "NoDecision"
    assert not decided(answer).permitted


def test_a_raw_text_that_cannot_be_read_is_denied():
    answer = answer_of("permit(", SCHEMA_HANDLE, REQUEST, ENTITIES)
    assert answer.decision == "NoDecision"
    assert not decided(answer).permitted


def test_an_engine_that_raises_is_denied(monkeypatch):
    def broken(*_):
        raise RuntimeError("panicked")

    monkeypatch.setattr(cedarpy, "is_authorized", broken)
    found = SHIPPED.decide(ASK)
    assert (found.permitted, found.cause) == (False, Cause.ERROR)
    assert "panicked" in found.errors[0]


def test_facts_that_do_not_fit_the_schema_are_denied(monkeypatch):
    def broken(*_):
        raise ValueError("entity does not conform")

    monkeypatch.setattr(policy_cedar, "_entities", broken)
    assert SHIPPED.decide(ASK).cause is Cause.ERROR


def test_reasons_come_by_position_and_are_named_by_id():
    assert asked(PERMIT).determining == ("policy0",)
    assert SHIPPED.decide(ASK).rules == ("withdrawal",)
    nobody = parse_ask(b'{"use": "view"}')
    assert SHIPPED.decide(nobody).rules == ()


# --- what never becomes a policy -----------------------------------------------------------------


def altered(cedar=lambda text: text, toml=lambda text: text):
    source = {name: data.decode() for name, data in shipped_source().items()}
    text = cedar(source["policy.cedar"])
    return parse_source(toml(source["policy.toml"]).encode(), text.encode())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("permit(", "cannot be read"),
        ("permit(principal, action, resource);", "@id"),
        ('@id("sealed") permit(principal, action, resource);', "two statements"),
        ('@id("new") permit(principal, action, resource) when { resource.graed > 1 };', "graed"),
        ('@id("new") permit(principal, action, resource) when { resource.grade };', "new"),
        ('@id("new") permit(principal, action == Action::"sell", resource);', "sell"),
        ('@id("new") permit(principal, action, resource == Study::"1");', "Study"),
        ('@id("new") permit(principal == ?principal, action, resource);', "template"),
        (
            '@id("new") forbid(principal, action, resource) when { resource.grade * 2 > 4 };',
            "can fail",
        ),
        (
            '@id("new") forbid(principal, action, resource) when'
            ' { ip("10.0.0.1").isInRange(ip("10.0.0.0/8")) };',
            "can fail",
        ),
        ('@id("new") permit(principal, action, resource) when { context.people > 1.5 };', "read"),
        (
            f'@id("new") permit(principal, action, resource) when {{ {"(" * 5000}true }};',
            "nested too deeply",
        ),
    ],
)
def test_a_statement_that_is_wrong_or_could_fail_is_refused(statement, said):
    with pytest.raises(InvalidPolicyError, match=said):
        CedarPolicy(altered(cedar=lambda text: text + "\n" + statement))


def test_a_typo_in_a_mandatory_forbid_is_refused_before_it_could_be_skipped():
    wrong = altered(cedar=lambda text: text.replace("resource.withdrawn }", "resource.withdrwn }"))
    with pytest.raises(InvalidPolicyError, match="withdrwn"):
        CedarPolicy(wrong)


@pytest.mark.parametrize("rule", MANDATORY)
def test_a_mandatory_rule_cannot_be_hollowed_out(rule):
    """Give the mandatory rule another condition; everything else stays."""

    def hollow(text):
        start = text.index(f'@id("{rule}")')
        end = text.index("};", start)
        when = text.index("when {", start)
        return text[:when] + "when { false " + text[end:]

    policy = CedarPolicy(altered(cedar=hollow))
    with pytest.raises(InvalidPolicyError, match=f"{rule} was changed"):
        check_document(policy.document, policy.rules, SHIPPED.rules)
    assert f"forbids less: {rule}" in looser(SHIPPED.rules, policy.rules)


def test_a_rule_without_a_reason_is_refused():
    more = altered(cedar=lambda text: text + '\n@id("new") forbid(principal, action, resource);')
    policy = CedarPolicy(more)
    with pytest.raises(InvalidPolicyError, match="no reason is given for new"):
        check_document(policy.document, policy.rules, SHIPPED.rules)


def test_comments_spelling_and_order_of_facts_do_not_make_a_rule_another():
    same = altered(cedar=lambda text: text.replace("when {", "when  {  // why\n"))
    assert looser(SHIPPED.rules, CedarPolicy(same).rules) == ()


# --- the shipped policy --------------------------------------------------------------------------


def test_the_shipped_document_passes_its_own_checks():
    check_document(SHIPPED.document, SHIPPED.rules, SHIPPED.rules)
    check_golden(SHIPPED.document, SHIPPED.decide)
    assert {golden.ask.use for golden in SHIPPED.document.golden} == set(policy_cedar_uses())


def policy_cedar_uses():
    from bedside_core.uses import Use

    return Use


@pytest.mark.parametrize("golden", SHIPPED.document.golden, ids=lambda golden: golden.name)
def test_golden_decisions(golden):
    found = SHIPPED.decide(golden.ask)
    assert found.permitted is golden.permit
    if golden.rules:
        assert found.rules == golden.rules


def test_every_rule_decides_a_golden_case():
    decided_by = {rule for one in SHIPPED.document.golden for rule in SHIPPED.decide(one.ask).rules}
    assert decided_by == {rule.rule_id for rule in SHIPPED.rules}


def test_a_box_whose_policy_engine_cannot_be_loaded_does_not_start():
    code = (
        "import sys; sys.modules['cedarpy'] = None\n"
        "try:\n    import bedside_edge.box\n"
        "except ImportError as error:\n    print('no box:', error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("no box: cedarpy")
