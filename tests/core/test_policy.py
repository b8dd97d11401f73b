"""Policy documents: what is refused before it decides anything, and what counts as a deny."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidPolicyError, PolicyRollbackError
from bedside_core.policy import (
    MANDATORY,
    Document,
    check_document,
    check_golden,
    check_version,
    decision,
    parse_ask,
    parse_payload,
    parse_source,
)
from bedside_core.policy_change import looser, probes
from bedside_core.policy_rules import MOST_DEPTH, MOST_LINKS, Answer, Rule, read_rules, refuse_deep
from bedside_core.uses import Ask, Cause, Decision, Purpose, Use

CEDAR = b"(only the adapter reads this)"
TOML = """
format = "bedside-policy/1"
name = "sample"
version = 3

[reasons]
read = { en = "May be read.", zh = "Ke du." }
stop = { en = "Is stopped.", zh = "Ting zhi." }

[[golden]]
name = "a reader reads"
permit = true
rules = ["read"]
ask.use = "view"
ask.actor = { roles = ["radiologist"] }
"""


def document(toml: str = TOML) -> Document:
    return parse_source(toml.encode(), CEDAR)


def rule(rule_id: str, effect="permit", body: str = "") -> Rule:
    return Rule(rule_id=rule_id, effect=effect, body=body or rule_id)


RULES = {"policy0": rule("read"), "policy1": rule("stop", "forbid")}
ASK = parse_ask(b'{"use": "view"}')


# --- reading ---------------------------------------------------------------------------------


def test_what_people_wrote_and_its_payload_are_one_document():
    written = document()
    assert parse_payload(written.payload) == written
    assert written.label == "sample 3"
    assert written.golden[0].ask.asker.roles == frozenset({"radiologist"})


def test_a_payload_in_another_spelling_is_refused():
    spaced = json.dumps(json.loads(document().payload)).encode()
    with pytest.raises(InvalidPolicyError, match="canonical"):
        parse_payload(spaced)


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ("version = 3", "version = 0"),
        ("version = 3", 'version = "3"'),
        ("bedside-policy/1", "bedside-policy/2"),
        ('name = "sample"', 'name = "Sample Policy"'),
        ('ask.use = "view"', 'ask.use = "look"'),
        ('ask.use = "view"', 'ask.use = "view"\nask.data = { graed = 4 }'),
        ('ask.use = "view"', 'ask.use = "view"\nask.data = { grade = 6 }'),
        ('ask.use = "view"', 'ask.use = "view"\nask.context = { epsilon_left = 0.5 }'),
        ('zh = "Ke du."', 'zh = ""'),
        ("[[golden]]", "[[other]]"),
        ("format", "= format"),
    ],
)
def test_a_typo_in_what_people_wrote_is_refused(found, instead):
    with pytest.raises(InvalidPolicyError):
        document(TOML.replace(found, instead, 1))


def test_a_file_too_large_and_a_date_that_json_lacks_are_refused():
    with pytest.raises(InvalidPolicyError, match="at most"):
        parse_source(TOML.encode(), b" " * (1 << 20))
    with pytest.raises(InvalidPolicyError):
        document("day = 2026-01-01\n" + TOML)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_refused(data):
    for read in (parse_payload, parse_ask, lambda b: parse_source(b, CEDAR)):
        with pytest.raises(InvalidPolicyError):
            read(data)


def test_an_ask_says_the_least_when_facts_are_left_out():
    ask = parse_ask(b'{"use": "train", "data": {"consents": ["training"]}}')
    assert ask.use is Use.TRAIN
    assert ask.facts.consents == frozenset({"training"})
    assert ask.situation.people == 0
    assert not ask.situation.agreement


# --- rules -----------------------------------------------------------------------------------


def tree(*statements: dict, **more) -> str:
    listed = {f"policy{n}": one for n, one in enumerate(statements)}
    return json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": listed} | more)


def statement(rule_id: str | None, *bodies: dict, effect: str = "permit") -> dict:
    return {
        "effect": effect,
        "conditions": [{"kind": "when", "body": body} for body in bodies],
        "annotations": {} if rule_id is None else {"id": rule_id},
    }


GRADE = {".": {"left": {"Var": "resource"}, "attr": "grade"}}
TRUE = {"Value": True}


def test_rules_keep_order_ids_and_a_body_without_annotations():
    text = tree(statement("one", TRUE), statement("two", effect="forbid"))
    rules = read_rules(text)
    assert [(key, one.rule_id, one.effect) for key, one in rules.items()] == [
        ("policy0", "one", "permit"),
        ("policy1", "two", "forbid"),
    ]
    noted = statement("other", TRUE)
    noted["annotations"]["why"] = "x"
    assert read_rules(tree(noted))["policy0"].body == rules["policy0"].body


@pytest.mark.parametrize("rule_id", [None, "", "Upper", "with space", "x" * 60])
def test_a_statement_without_a_usable_id_is_refused(rule_id):
    with pytest.raises(InvalidPolicyError, match="@id"):
        read_rules(tree(statement(rule_id)))


def test_two_statements_with_one_id_and_templates_are_refused():
    with pytest.raises(InvalidPolicyError, match="two statements"):
        read_rules(tree(statement("one"), statement("one", effect="forbid")))
    with pytest.raises(InvalidPolicyError, match="template"):
        read_rules(tree(templates={"policy0": statement("one")}))


@pytest.mark.parametrize(
    "body",
    [
        {"&&": {"left": {"!": {"arg": TRUE}}, "right": {"<": {"left": GRADE, "right": TRUE}}}},
        {"if-then-else": {"if": TRUE, "then": TRUE, "else": TRUE}},
        {"contains": {"left": {"Set": [TRUE, GRADE]}, "right": TRUE}},
        {"==": {"left": {"Record": {"a": TRUE}}, "right": {"Value": {"b": 1}}}},
        {"like": {"left": GRADE, "pattern": ["Wildcard", {"Literal": "a"}]}},
        {"is": {"left": {"Var": "resource"}, "entity_type": "Data", "in": {"Var": "principal"}}},
        {"has": {"left": {"Var": "context"}, "attr": "purpose"}},
    ],
)
def test_what_cannot_fail_may_stand_in_a_rule(body):
    read_rules(tree(statement("fine", body)))


@pytest.mark.parametrize(
    "body",
    [
        {"+": {"left": GRADE, "right": {"Value": 1}}},
        {"neg": {"arg": GRADE}},
        {"ip": [{"Value": "10.0.0.1"}]},
        {"getTag": {"left": {"Var": "resource"}, "right": {"Value": "x"}}},
        {"Unknown": [{"Value": "x"}]},
    ],
)
@pytest.mark.parametrize(
    "around",
    [
        lambda inner: inner,
        lambda inner: {"&&": {"left": TRUE, "right": inner}},
        lambda inner: {"if-then-else": {"if": TRUE, "then": TRUE, "else": inner}},
        lambda inner: {"contains": {"left": {"Set": [inner]}, "right": TRUE}},
        lambda inner: {"==": {"left": {"Record": {"a": inner}}, "right": TRUE}},
    ],
)
def test_what_can_fail_is_refused_wherever_it_hides(body, around):
    with pytest.raises(InvalidPolicyError, match="can fail"):
        read_rules(tree(statement("risky", around(body))))


# --- what a document must hold ---------------------------------------------------------------


def mandatory(**changed: str) -> list[Rule]:
    return [rule(name, "forbid", changed.get(name, "")) for name in MANDATORY]


def whole(rules: list[Rule]) -> Document:
    told = document()
    return replace(told, reasons={one.rule_id: told.reasons["read"] for one in rules})


def test_a_document_with_every_mandatory_rule_and_reason_passes():
    rules = [rule("read"), *mandatory()]
    check_document(whole(rules), rules, mandatory())


@pytest.mark.parametrize("name", MANDATORY)
def test_without_one_of_the_mandatory_rules_a_document_is_refused(name):
    rules = [one for one in mandatory() if one.rule_id != name]
    with pytest.raises(InvalidPolicyError, match=f"{name} is missing"):
        check_document(whole(rules), rules, mandatory())


@pytest.mark.parametrize("name", MANDATORY)
def test_a_mandatory_rule_in_name_only_is_refused(name):
    rules = mandatory(**{name: "never applies"})
    with pytest.raises(InvalidPolicyError, match=f"{name} was changed"):
        check_document(whole(rules), rules, mandatory())


def test_every_rule_needs_a_reason_and_every_reason_a_rule():
    rules = mandatory()
    with pytest.raises(InvalidPolicyError, match="no reason is given for read"):
        check_document(whole(rules), [rule("read"), *rules], rules)
    with pytest.raises(InvalidPolicyError, match="without a rule: read"):
        check_document(whole([rule("read"), *rules]), rules, rules)


def test_the_version_counts_up():
    check_version(document(), 2)
    for in_force in (3, 4):
        with pytest.raises(PolicyRollbackError):
            check_version(document(), in_force)


def answers(decision_: str, *determining: str, errors: tuple[str, ...] = ()):
    def decide(ask: Ask) -> Decision:
        said = Answer(decision=decision_, determining=determining, errors=errors)
        return decision(document(), RULES, ask, said)

    return decide


def test_golden_cases_hold_or_the_first_that_does_not_is_named():
    check_golden(document(), answers("Allow", "policy0"))
    with pytest.raises(InvalidPolicyError, match=r"a reader reads.*denies \(no-rule\)"):
        check_golden(document(), answers("Deny"))
    other = document(TOML.replace('["read"]', '["stop"]'))
    with pytest.raises(InvalidPolicyError, match="was decided by read"):
        check_golden(other, answers("Allow", "policy0"))


def test_a_golden_deny_that_came_of_an_error_does_not_count():
    denied = document(
        TOML.replace("permit = true", "permit = false").replace('rules = ["read"]', "")
    )
    check_golden(denied, answers("Deny"))
    with pytest.raises(InvalidPolicyError, match="policy-error"):
        check_golden(denied, answers("Deny", errors=("attribute not found",)))
    with pytest.raises(InvalidPolicyError, match="permits"):
        check_golden(denied, answers("Allow", "policy0"))


# --- looser ----------------------------------------------------------------------------------

OLD = [rule("a"), rule("b"), rule("x", "forbid"), rule("y", "forbid")]


def test_fewer_permits_and_more_forbids_are_not_looser():
    assert looser(OLD, OLD) == ()
    assert looser(OLD, [rule("a"), *OLD[2:], rule("z", "forbid")]) == ()
    assert looser(OLD, [rule("renamed", body="a"), *OLD[2:]]) == ()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([*OLD, rule("c")], "permits more: c"),
        (OLD[:3], "forbids less: y"),
        ([*OLD[:3], rule("y", "forbid", "narrower")], "forbids less: y"),
        ([rule("a", body="wider"), *OLD[1:]], "permits more: a"),
        ([*OLD[:3], rule("y", "permit")], "permits more: y"),
    ],
)
def test_every_change_that_could_permit_more_is_looser(new, said):
    assert said in looser(OLD, new)


@given(
    old=st.lists(st.tuples(st.sampled_from("pf"), st.integers(0, 7)), max_size=6),
    new=st.lists(st.tuples(st.sampled_from("pf"), st.integers(0, 7)), max_size=6),
)
def test_what_is_not_looser_permits_nothing_new(old, new):
    """Bodies are sets of asks as bits; a use is permitted by any permit and no forbid."""

    def rules(listed):
        effects = {"p": "permit", "f": "forbid"}
        return [rule(f"{e}{n}", effects[e], str(n)) for e, n in listed]

    def permitted(listed):
        allowed = denied = 0
        for effect, bits in listed:
            if effect == "p":
                allowed |= bits
            else:
                denied |= bits
        return allowed & ~denied

    if not looser(rules(old), rules(new)):
        assert permitted(new) & ~permitted(old) == 0


def test_probes_are_many_different_and_always_the_same():
    first, second = list(probes()), list(probes())
    assert first == second
    assert len(set(first)) == len(first) > 5000
    assert {ask.use for ask in first} == set(Use)
    assert {ask.situation.purpose for ask in first} >= {Purpose.TRAINING, Purpose.EXPORT}


# --- an answer becomes a decision ------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (Answer(decision="Allow", determining=("policy0",)), Cause.PERMIT),
        (Answer(decision="Deny", determining=("policy1",)), Cause.FORBID),
        (Answer(decision="Deny"), Cause.NO_RULE),
        (Answer(decision="Allow"), Cause.ERROR),
        (Answer(decision="NoDecision"), Cause.ERROR),
        (Answer(decision="Allow", determining=("policy0",), errors=("skipped",)), Cause.ERROR),
        (Answer(decision="Deny", determining=("policy1",), errors=("skipped",)), Cause.ERROR),
        (Answer(decision="Allow", determining=("policy9",)), Cause.ERROR),
        (Answer(decision="Allow", determining=("policy0", "policy9")), Cause.ERROR),
        (Answer(decision="Allow", determining=("policy1",)), Cause.ERROR),
        (Answer(decision="Deny", determining=("policy0",)), Cause.ERROR),
        (Answer(decision="allow", determining=("policy0",)), Cause.ERROR),
    ],
)
def test_only_a_clean_allow_by_a_known_permit_permits(said, cause):
    found = decision(document(), RULES, ASK, said)
    assert found.cause is cause
    assert found.permitted is (cause is Cause.PERMIT)
    assert found.policy == document().digest
    assert found.asked == ASK.digest
    assert found.errors == said.errors


@given(
    said=st.builds(
        Answer,
        decision=st.sampled_from(["Allow", "Deny", "NoDecision", "", "ALLOW"]),
        determining=st.lists(st.sampled_from(["policy0", "policy1", "policy2"]), max_size=3).map(
            tuple
        ),
        errors=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    )
)
def test_nothing_but_a_clean_allow_ever_permits(said):
    found = decision(document(), RULES, ASK, said)
    clean = said.decision == "Allow" and not said.errors and set(said.determining) == {"policy0"}
    assert found.permitted is clean


def test_reasons_are_those_of_the_rules_that_decided_in_both_languages():
    found = decision(document(), RULES, ASK, Answer(decision="Deny", determining=("policy1",)))
    assert [(one.rule, one.en, one.zh) for one in found.reasons] == [
        ("stop", "Is stopped.", "Ting zhi.")
    ]
    failed = decision(document(), RULES, ASK, Answer(decision="NoDecision"))
    assert failed.rules == ()
    assert failed.reasons[0].zh


@pytest.mark.parametrize(
    "deep",
    [
        "(" * 5000,
        "[" * 5000 + "]" * 5000,
        "if true then " * 5000,
        "context" + ".a" * 5000,
        "true && " * 5000,
        "true||" * 5000,
        "A::" * 5000,
        "!" * 5000,
        '"open ' + "(" * 5000,  # a quote that is never closed hides nothing
        '"a\\"' + "(" * 5000,
        "// note\r" + "(" * 5000,
    ],
)
def test_a_text_that_would_end_the_process_of_its_parser_never_reaches_it(deep):
    with pytest.raises(InvalidPolicyError, match="nested too deeply"):
        parse_source(TOML.encode(), deep.encode())


def test_what_people_write_is_not_too_deep():
    refuse_deep("(" * MOST_DEPTH + ")" * MOST_DEPTH)
    refuse_deep("a && " * MOST_LINKS + ";" + "b || " * MOST_LINKS)
    refuse_deep('"' + "(" * 500 + '" // ' + "[" * 500 + "\n" + "principals, within " * 500)
