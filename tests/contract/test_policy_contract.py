"""Every `Policy` keeps these promises: Cedar over the shipped rules, and the simulator."""

import threading

import pytest

from bedside_core.policy import parse_ask
from bedside_core.policy_change import probes
from bedside_core.uses import Cause
from support.memory_governance import PlainPolicy, compiled, shipped

READER = parse_ask(b'{"use": "view", "actor": {"roles": ["radiologist"]}}')
NOBODY = parse_ask(b'{"use": "view"}')
SEALED = parse_ask(
    b'{"use": "infer", "actor": {"kind": "system"},'
    b' "context": {"incident": "sealed", "model_state": "released"}}'
)


def said(ask):
    """The simulator's rules: a sealed box does nothing, a radiologist sees, nobody else does."""
    if ask.situation.incident == "sealed":
        return False
    return True if "radiologist" in ask.asker.roles else None


@pytest.fixture(params=["cedar", "simulator"])
def policy(request):
    document = shipped()
    return compiled(document) if request.param == "cedar" else PlainPolicy(document, said)


def test_a_permit_a_forbid_and_no_rule_are_told_apart(policy):
    assert policy.decide(READER).permitted
    assert policy.decide(READER).rules == ("view-by-reader",)
    assert policy.decide(SEALED).cause is Cause.FORBID
    assert policy.decide(SEALED).rules == ("sealed",)
    assert policy.decide(NOBODY).cause is Cause.NO_RULE
    assert not policy.decide(NOBODY).permitted


def test_a_decision_names_the_document_and_the_facts(policy):
    found = policy.decide(READER)
    assert found.policy == policy.document.digest
    assert found.asked == READER.digest
    assert all(reason.en and reason.zh for reason in found.reasons)


def test_the_same_facts_get_the_same_answer_from_every_thread(policy):
    answers, asks = [], [READER, NOBODY, SEALED] * 20

    def work():
        answers.append([policy.decide(ask) for ask in asks])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(one == answers[0] for one in answers)


def test_explaining_agrees_with_deciding(policy):
    for ask in (READER, NOBODY, SEALED):
        found, fired = policy.decide(ask), policy.explain(ask)
        assert [one.rule for one in fired] == [rule.rule_id for rule in policy.rules]
        applying = {one.rule for one in fired if one.applies}
        assert set(found.rules) <= applying
        forbidden = any(one.applies and one.effect == "forbid" for one in fired)
        allowed = any(one.applies and one.effect == "permit" for one in fired)
        assert found.permitted is (allowed and not forbidden)


def test_no_probing_ask_ends_in_an_error(policy):
    for ask in list(probes())[::37]:
        assert policy.decide(ask).cause is not Cause.ERROR


def test_a_simulator_that_fails_denies():
    def broken(ask):
        raise RuntimeError("no")

    found = PlainPolicy(shipped(), broken).decide(READER)
    assert (found.permitted, found.cause) == (False, Cause.ERROR)
