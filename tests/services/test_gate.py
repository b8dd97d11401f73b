"""The gate: facts gathered, the policy asked, evidence left, nothing passed by."""

import json
from dataclasses import replace

import pytest

from bedside_core.access import Actor, Role
from bedside_core.errors import (
    DiskFullError,
    NotFoundError,
    NotPermittedError,
    PolicyRollbackError,
    PreconditionRequiredError,
    SealedError,
    StaleRevisionError,
    UntrustedSignatureError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.policy import PAYLOAD_TYPE, parse_source
from bedside_core.signatures import countersigned, seal_envelope
from bedside_core.uses import ActorKind, Cause, Incident, Purpose, Target, Thing, Use
from bedside_edge.ports import Way
from bedside_edge.ports.governance import Standing
from bedside_edge.services.gate import BOX, asker_of
from bedside_edge.services.policies import PolicyService
from bedside_edge.system.policy_cedar import shipped_source
from support.evidence_log import HUB_ED, LOG_ED
from support.fake_clock import FakeClock
from support.memory_governance import MemoryGovernance, PlainPolicy, compiled, shipped

READER = asker_of(
    Actor(actor_id="person:ada", name="Lovelace^Ada", roles=frozenset({Role.RADIOLOGIST}))
)
ADMIN = asker_of(Actor(actor_id="person:bob", name="B", roles=frozenset({Role.ADMINISTRATOR})))


NOBODY = asker_of(Actor(actor_id="person:x", name="x"))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def house(clock):
    return MemoryGovernance(clock)


def outcomes(house):
    return [(e.refs["use"], e.refs["outcome"]) for e in house.events if e.kind is Kind.DECISION]


# --- asking ------------------------------------------------------------------------------------


def test_a_decision_is_evidence_with_policy_and_facts_and_names_no_study_in_plain(house):
    found = house.gate.study(Use.VIEW, READER, "study-1", thing=Thing.RESULT)
    (event,) = house.events
    assert (event.kind, event.actor, event.study_id) == (Kind.DECISION, "person:ada", "study-1")
    assert event.refs == {
        "use": "view",
        "outcome": "permitted",
        "cause": "permit",
        "policy": house.policies.policy.document.digest,
    }
    payload = json.loads(event.payload)
    assert payload["asked"] == found.asked
    assert payload["rules"] == ["view-by-reader"]
    assert payload["ask"]["data"]["grade"] == 4


def test_a_policy_that_failed_once_is_asked_again(house):
    held, down = house.gate.policy, [True]

    class Failing(PlainPolicy):
        def decide(self, ask):
            found = held.decide(ask)
            return replace(found, permitted=False, cause=Cause.ERROR) if down[0] else found

    house.gate.use(Failing(shipped(), lambda _: None))
    assert not house.gate.study(Use.VIEW, READER, "study-1").permitted
    down[0] = False
    assert house.gate.study(Use.VIEW, READER, "study-1").permitted


def test_a_refusal_is_evidence_too(house):
    assert not house.gate.study(Use.VIEW, NOBODY, "s").permitted
    assert outcomes(house) == [("view", "denied")]


def test_the_same_use_again_is_written_once_in_ten_minutes(house, clock):
    for _ in range(5):
        house.gate.study(Use.VIEW, READER, "study-1")
    house.gate.study(Use.VIEW, READER, "study-2")
    house.gate.study(Use.VIEW, ADMIN, "study-1")
    assert len(house.events) == 3
    clock.advance(600_001)
    house.gate.study(Use.VIEW, READER, "study-1")
    assert len(house.events) == 4


def test_another_answer_is_written_at_once(house):
    house.gate.study(Use.VIEW, READER, "study-1", thing=Thing.RESULT)
    house.facts.standing["subject-of-study-1"] = Standing(withdrawn=True)
    house.gate.study(Use.VIEW, READER, "study-1", thing=Thing.RESULT)
    assert outcomes(house) == [("view", "permitted"), ("view", "denied")]


def test_what_cannot_be_recorded_is_not_permitted(house):
    def full(_):
        raise DiskFullError("full")

    house.gate._append = full
    with pytest.raises(DiskFullError):
        house.gate.study(Use.VIEW, READER, "study-1")


def test_a_withdrawal_holds_from_the_next_use_on(house):
    assert house.gate.study(Use.INFER, BOX, "study-1", model_state="released").permitted
    house.facts.standing["subject-of-study-1"] = Standing(withdrawn=True)
    after = house.gate.study(Use.INFER, BOX, "study-1", model_state="released")
    assert after.rules == ("withdrawal",)
    with pytest.raises(NotPermittedError, match="withdrawal-results"):
        house.gate.deliver("study-1")


@pytest.mark.parametrize(
    ("facts", "standing", "rules"),
    [
        ({}, Standing(), ("infer-for-treatment",)),
        ({"minor": True}, Standing(), ("guardian",)),
        ({"minor": True}, Standing(guardian_consent=True), ("infer-for-treatment",)),
        ({"hold": True}, Standing(), ("legal-hold",)),
    ],
)
def test_the_facts_of_a_study_reach_the_policy(house, facts, standing, rules):
    house.facts.say("study-1", **facts)
    house.facts.standing["subject-of-study-1"] = standing
    assert house.gate.study(Use.INFER, BOX, "study-1", model_state="released").rules == rules


def test_a_model_that_is_not_released_reads_nothing(house):
    for state in ("draft", "none"):
        found = house.gate.study(Use.INFER, BOX, "study-1", model_state=state)
        assert found.rules == ("draft-model",)


def test_sealing_is_felt_by_the_very_next_use(house):
    house.gate.receive(Way.DIMSE, "CT1")
    assert house.gate.request(READER).permitted
    house.gate.incident = lambda: Incident.SEALED
    with pytest.raises(SealedError, match="sealed"):
        house.gate.receive(Way.DIMSE, "CT1")
    assert house.gate.request(READER).rules == ("sealed",)
    assert house.gate.study(Use.VIEW, READER, "study-1").permitted
    with pytest.raises(NotPermittedError, match="sealed"):
        house.gate.deliver("study-1")


def test_one_person_does_not_unseal_and_two_do(house):
    house.gate.incident = lambda: Incident.SEALED
    for people, permitted in ((1, False), (2, True)):
        found = house.gate.study(
            Use.UNSEAL, ADMIN, "s", thing=Thing.BOX, purpose=Purpose.OPERATION, people=people
        )
        assert found.permitted is permitted


def test_a_statistic_needs_budget_left(house):
    officer = asker_of(
        Actor(actor_id="person:o", name="o", roles=frozenset({Role.PRIVACY_OFFICER}))
    )
    ask = house.gate.statistic
    assert ask(Use.RELEASE, officer, epsilon_left=0, target=Target.OUTSIDE).permitted
    assert ask(Use.RELEASE, officer, epsilon_left=-1, target=Target.OUTSIDE).rules == ("no-budget",)
    assert not ask(Use.RELEASE, READER, epsilon_left=9, target=Target.OUTSIDE).permitted


def test_a_study_that_is_not_held_is_not_found(house):
    house.facts.missing.add("gone")
    with pytest.raises(NotFoundError):
        house.gate.study(Use.VIEW, READER, "gone")
    assert house.events == []


# --- lists -------------------------------------------------------------------------------------


def test_a_list_leaves_out_what_may_not_be_seen_and_results_of_who_withdrew(house):
    house.facts.say("five", grade=5)
    house.facts.standing["subject-of-gone"] = Standing(withdrawn=True)
    seen = house.gate.visible(ADMIN, ["one", "five", "gone"])
    assert seen.studies == {"one", "gone"}
    assert seen.results == {"one"}
    assert house.gate.visible(READER, ["one", "five"]).results == {"one", "five"}
    assert house.gate.visible(NOBODY, ["one"]).studies == set()
    assert house.events == []


# --- senders -----------------------------------------------------------------------------------


def test_a_sender_is_asked_once_in_ten_minutes_and_again_after_a_change(house, clock):
    policy = house.policies.policy
    for _ in range(100):
        house.gate.receive(Way.DIMSE, "CT1")
    house.gate.receive(Way.DIMSE, "CT2")
    house.gate.receive(Way.HTTP, "CT1")
    assert len(house.events) == 3
    assert {e.actor for e in house.events} == {"device:ct1", "device:ct2"}
    clock.advance(600_001)
    house.gate.receive(Way.DIMSE, "CT1")
    house.gate.use(policy)
    house.gate.receive(Way.DIMSE, "CT1")
    assert len(house.events) == 4  # the same answer again: not written


def test_a_sender_the_policy_rules_out_sends_nothing(house):
    extra = (
        '\n@id("no-ct9") forbid(principal, action == Action::"receive", resource)'
        ' when { resource.source == "CT9" };'
    )
    house.gate.use(compiled(document(cedar=extra, reasons="no-ct9")))
    house.gate.receive(Way.DIMSE, "CT1")
    with pytest.raises(NotPermittedError, match="no-ct9"):
        house.gate.receive(Way.DIMSE, "CT9")


@pytest.mark.parametrize("name", ["CT 1", "中文", "a" * 60, "x;y"])
def test_any_name_of_a_sender_can_stand_in_the_evidence(house, name):
    house.gate.receive(Way.DIMSE, name)
    assert len(house.events[0].actor) <= 64


def test_actors_are_told_apart_by_kind():
    kinds = {
        "person:1": ActorKind.PERSON,
        "token:1": ActorKind.TOKEN,
        "system:1": ActorKind.TOKEN,
        "service:box": ActorKind.SYSTEM,
        "other": ActorKind.TOKEN,
    }
    for actor_id, kind in kinds.items():
        assert asker_of(Actor(actor_id=actor_id, name="n")).kind is kind


# --- activation --------------------------------------------------------------------------------


def document(cedar: str = "", reasons: str = "", version: int = 2, swap=("", "")):
    source = {name: data.decode() for name, data in shipped_source().items()}
    toml = source["policy.toml"].replace("\nversion = 1\n", f"\nversion = {version}\n")
    if reasons:
        line = f'[reasons]\n{reasons} = {{ en = "New.", zh = "Xin." }}'
        toml = toml.replace("[reasons]", line, 1)
    text = source["policy.cedar"].replace(*swap) if swap[0] else source["policy.cedar"]
    return parse_source(toml.encode(), (text + cedar).encode())


def signed(made, *names):
    signers = {"ada": LOG_ED.sign, "bob": HUB_ED.sign}
    return seal_envelope(PAYLOAD_TYPE, made.payload, {name: signers[name] for name in names})


@pytest.fixture
def trusted(house):
    house.trusted |= {"ada": LOG_ED.key.public, "bob": HUB_ED.key.public}
    return house


STRICTER = {
    "cedar": '\n@id("new") forbid(principal, action == Action::"receive", resource)'
    ' when { resource.source == "CT9" };',
    "reasons": "new",
}
LOOSER = {
    "cedar": '\n@id("new") permit(principal, action == Action::"release", resource)'
    ' when { principal.roles.contains("administrator") && context.purpose == "statistics" };',
    "reasons": "new",
}


def test_a_fresh_box_takes_the_shipped_policy_by_itself(house):
    (stored,) = house.store.rows
    assert (stored.revision, stored.envelope, stored.actor) == (1, b"", "service:box")
    assert stored.payload == shipped().payload


def test_a_stricter_policy_comes_into_force_with_one_signature(trusted):
    made = document(**STRICTER)
    found = trusted.policies.activate(signed(made, "ada"), 1, "person:officer")
    assert (found.needed, found.looser, found.signers) == (1, (), ("ada",))
    assert trusted.gate.policy.document == made
    assert trusted.store.active().revision == 2


def test_a_looser_policy_needs_two_people(trusted):
    made = document(**LOOSER)
    with pytest.raises(UntrustedSignatureError, match="permits more: new"):
        trusted.policies.activate(signed(made, "ada"), 1, "person:officer")
    assert trusted.gate.policy.document == shipped()
    both = countersigned(signed(made, "ada"), PAYLOAD_TYPE, {"bob": HUB_ED.sign})
    found = trusted.policies.activate(both, 1, "person:officer")
    assert found.signers == ("ada", "bob")
    assert found.turned_count > 0
    assert all(ask.use is Use.RELEASE for ask in found.turned)


def test_the_same_person_under_two_names_is_one(trusted):
    trusted.trusted["ada-again"] = LOG_ED.key.public
    both = countersigned(
        signed(document(**LOOSER), "ada"), PAYLOAD_TYPE, {"ada-again": LOG_ED.sign}
    )
    with pytest.raises(UntrustedSignatureError):
        trusted.policies.activate(both, 1, "person:officer")


def test_unsigned_older_stale_and_blind_activations_are_refused(trusted):
    made = document(**STRICTER)
    with pytest.raises(UntrustedSignatureError):
        trusted.policies.activate(
            seal_envelope(PAYLOAD_TYPE, made.payload, {"eve": HUB_ED.sign}), 1, "person:o"
        )
    older = signed(document(**STRICTER, version=1), "ada")
    with pytest.raises(PolicyRollbackError):
        trusted.policies.activate(older, 1, "person:o")
    with pytest.raises(StaleRevisionError):
        trusted.policies.activate(signed(made, "ada"), 7, "person:o")
    with pytest.raises(PreconditionRequiredError):
        trusted.policies.activate(signed(made, "ada"), None, "person:o")
    assert len(trusted.store.rows) == 1


def test_a_restarted_box_has_the_policy_it_had(trusted, clock):
    trusted.policies.activate(signed(document(**STRICTER), "ada"), 1, "person:o")
    again = PolicyService(trusted.store, compiled, shipped(), lambda: trusted.trusted, clock)
    assert again.policy.document == document(**STRICTER)
    assert again.stored.revision == 2


def test_a_box_whose_policy_nobody_vouches_for_does_not_start(trusted, clock):
    trusted.policies.activate(signed(document(**STRICTER), "ada"), 1, "person:o")
    with pytest.raises(UntrustedSignatureError):
        PolicyService(trusted.store, compiled, shipped(), dict, clock)
    keys = {"bob": HUB_ED.key.public}
    repairing = PolicyService(
        trusted.store,
        compiled,
        shipped(),
        lambda: keys,
        clock,
        repairing=True,
    )
    newer = document(**STRICTER, version=3)
    repairing.activate(signed(newer, "bob"), 2, "service:command-line")
    assert trusted.store.active().revision == 3


def test_a_new_release_of_the_box_brings_its_own_shipped_policy(house, clock):
    newer = document(**STRICTER)
    service = PolicyService(house.store, compiled, newer, dict, clock)
    assert service.policy.document == newer
    assert [row.revision for row in house.store.rows] == [1, 2]
