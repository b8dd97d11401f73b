"""Roles and actions: what is not in the table is refused."""

import pytest

from bedside_core.access import ALLOWED, PERSONS_ONLY, Action, Actor, Role, actions_of
from bedside_core.errors import ForbiddenError, InvalidInputError, TooManyAttemptsError

PATIENTS = {Action.VIEW_WORKLIST, Action.VIEW_RESULT, Action.VIEW_IMAGE}


def test_nobody_without_a_role_may_do_anything():
    assert actions_of(frozenset()) == frozenset()
    assert not any(Actor(actor_id="person:a1", name="A").may(action) for action in Action)


def test_two_roles_allow_what_either_does():
    both = actions_of(frozenset({Role.AUDITOR, Role.VENDOR}))
    assert both == ALLOWED[Role.AUDITOR] | ALLOWED[Role.VENDOR]


def test_every_role_is_in_the_table_and_every_action_but_the_machines_own_has_a_role():
    assert set(ALLOWED) == set(Role)
    assert set(Action) - set().union(*ALLOWED.values()) <= {Action.WITNESS}


@pytest.mark.parametrize("role", [Role.VENDOR, Role.AUDITOR, Role.PRIVACY_OFFICER])
def test_who_does_not_treat_sees_no_patient(role):
    assert not ALLOWED[role] & PATIENTS


def test_only_a_radiologist_signs_off():
    assert [role for role in Role if Action.REVIEW in ALLOWED[role]] == [Role.RADIOLOGIST]
    assert Action.REVIEW in PERSONS_ONLY


def test_an_auditor_changes_nothing():
    changes = {action for action in Action if action.value.startswith("manage-")}
    assert not ALLOWED[Role.AUDITOR] & (changes | {Action.RELEASE, Action.REVIEW, Action.STORE})


def test_an_action_outside_the_list_is_refused_by_name():
    actor = Actor(actor_id="token:a1", name="pacs", actions=frozenset({Action.STORE}))
    actor.must(Action.STORE)
    with pytest.raises(ForbiddenError, match="view-result"):
        actor.must(Action.VIEW_RESULT)


def test_an_actor_has_an_id_and_hides_its_name():
    with pytest.raises(InvalidInputError, match="id"):
        Actor(actor_id="", name="x")
    assert "Muster" not in repr(Actor(actor_id="person:a1", name="Muster^Anna"))


def test_who_has_to_wait_is_told_how_long():
    assert TooManyAttemptsError("wait", 8).retry_after_s == 8


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action.REVIEW, "may not review; a person who may is radiologist"),
        (Action.WITNESS, "may not witness"),
    ],
)
def test_a_refusal_names_the_roles_that_may(action, said):
    with pytest.raises(ForbiddenError) as refused:
        Actor(actor_id="token:1", name="t").must(action)
    assert str(refused.value).endswith(said)
