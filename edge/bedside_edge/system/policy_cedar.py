"""The policy engine: Cedar (cedarpy), with every doubt turned into a deny.

Cedar skips a rule that fails while it is tried, a forbid too, and answers with what is left. So
texts are validated against the schema before anything is asked, and an answer with a complaint is
no answer. If cedarpy cannot be loaded this module cannot, and the box does not start: there is no
other engine to fall back on.
"""

import importlib.resources
import json
from collections.abc import Sequence
from functools import cache, lru_cache

import cedarpy

from bedside_core.errors import InvalidPolicyError
from bedside_core.policy import Document, decision, parse_source
from bedside_core.policy_rules import Answer, Rule, read_rules
from bedside_core.uses import SCHEMA, Ask, Asker, Decision, Facts, Json, record
from bedside_edge.ports.policy import Fired

_NO_ANSWER = "NoDecision"


class CedarPolicy:
    """`Policy` of one document. Immutable, so safe to call from several threads."""

    def __init__(self, document: Document) -> None:
        """Read, validate and compile the text.

        Raises:
            InvalidPolicyError: the text cannot be read, does not fit the facts, or could fail.
        """
        self.document = document
        tree = _tree(document.cedar)
        self._by_engine_id = read_rules(tree)
        self.rules: Sequence[Rule] = tuple(self._by_engine_id.values())
        self._schema = _schema()
        _validate(document.cedar, self._by_engine_id)
        self._policies = cedarpy.PolicySet.from_str(document.cedar)
        self._alone = {
            rule.rule_id: cedarpy.PolicySet.from_str(
                cedarpy.policies_from_json_str(
                    json.dumps(
                        {
                            "templates": {},
                            "templateLinks": [],
                            "staticPolicies": {"rule": json.loads(rule.body) | {"annotations": {}}},
                        }
                    )
                )
            )
            for rule in self.rules
        }

    def decide(self, ask: Ask) -> Decision:
        """Return the decision; whatever goes wrong is a deny."""
        return decision(self.document, self._by_engine_id, ask, self._answer(self._policies, ask))

    def explain(self, ask: Ask) -> list[Fired]:
        """Return what each rule alone says, in order of the text."""
        return [
            Fired(
                rule=rule.rule_id,
                effect=rule.effect,
                applies=bool(self._answer(self._alone[rule.rule_id], ask).determining),
            )
            for rule in self.rules
        ]

    def _answer(self, policies: cedarpy.PolicySet, ask: Ask) -> Answer:
        try:
            entities = _entities(ask.asker, ask.facts)
        except ValueError as cause:  # facts that do not fit the schema
            return Answer(decision=_NO_ANSWER, errors=(f"entities: {cause}",))
        return answer_of(policies, self._schema, _request(ask), entities)


def answer_of(
    policies: cedarpy.PolicySet | str,
    schema: cedarpy.Schema | None,
    request: Json,
    entities: cedarpy.Entities | list[Json],
) -> Answer:
    """Ask Cedar; an exception is a complaint like any other."""
    try:
        found = cedarpy.is_authorized(request, policies, entities, schema)
        return Answer(
            decision=found.decision.value,
            determining=tuple(found.diagnostics.reasons),
            errors=tuple(found.diagnostics.errors),
        )
    except Exception as cause:  # foreign engine: whatever it raises means that it cannot decide
        return Answer(decision=_NO_ANSWER, errors=(f"{type(cause).__name__}: {cause}",))


def _request(ask: Ask) -> Json:
    return {
        "principal": {"type": "Actor", "id": ask.asker.actor_id},
        "action": {"type": "Action", "id": str(ask.use)},
        "resource": {"type": "Data", "id": str(ask.facts.thing)},  # what it is, never which one
        "context": record(ask.situation),
    }


@lru_cache(maxsize=1024)  # the same readers and the same kind of studies come again and again
def _entities(asker: Asker, facts: Facts) -> cedarpy.Entities:
    """Return both entities with every fact, checked against the schema and parsed once."""
    attributes = record(asker)
    actor = {"type": "Actor", "id": attributes.pop("actor_id")}
    listed: list[Json] = [
        {"uid": actor, "attrs": attributes, "parents": []},
        {"uid": {"type": "Data", "id": str(facts.thing)}, "attrs": record(facts), "parents": []},
    ]
    return cedarpy.Entities.from_json_str(json.dumps(listed), _schema())


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_json_str(SCHEMA)


def _tree(text: str) -> str:
    try:
        return cedarpy.policies_to_json_str(text)
    except ValueError as cause:
        raise InvalidPolicyError(f"policy: the text cannot be read: {cause}") from cause


def _validate(text: str, by_engine_id: dict[str, Rule]) -> None:
    found = cedarpy.validate_policies(text, SCHEMA)
    if found.validation_passed and not found.errors:
        return
    said = []
    for error in found.errors[:5]:
        words = error.error
        rule = by_engine_id.get(error.policy_id)
        said.append(words.replace(f"`{error.policy_id}`", rule.rule_id) if rule else words)
    raise InvalidPolicyError(f"policy: {'; '.join(said) or 'the validator refused it'}")


def shipped_grading() -> bytes:
    """Return the grading rules that come with the box, TOML."""
    folder = importlib.resources.files("bedside_edge.system") / "policies"
    return (folder / "grading.toml").read_bytes()


def shipped_document() -> Document:
    """Return the policy document that comes with the box."""
    source = shipped_source()
    return parse_source(source["policy.toml"], source["policy.cedar"])


def shipped_source() -> dict[str, bytes]:
    """Return the files of that document as people write them, by name."""
    folder = importlib.resources.files("bedside_edge.system") / "policies"
    return {name: (folder / name).read_bytes() for name in ("policy.toml", "policy.cedar")}
