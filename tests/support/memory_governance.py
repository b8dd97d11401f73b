"""The gate over memory: the real policy engine and shipped rules, studies and store as values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from bedside_core.errors import NotFoundError, StaleRevisionError
from bedside_core.grading import Grading, parse_grading
from bedside_core.policy import Document, decision
from bedside_core.policy_rules import Answer, Rule
from bedside_core.uses import Ask, Decision
from bedside_edge.ports.evidence import Event
from bedside_edge.ports.governance import Standing, StudyFacts
from bedside_edge.ports.policy import Fired, StoredPolicy
from bedside_edge.services.gate import Gate
from bedside_edge.services.grading import GradingService
from bedside_edge.services.policies import PolicyService
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document, shipped_grading

shipped = cache(shipped_document)
_compiled: dict[str, CedarPolicy] = {}


def compiled(document: Document) -> CedarPolicy:
    """Return the policy of a document; one compiles in 20 ms, and hundreds of boxes share it."""
    if document.digest not in _compiled:
        _compiled[document.digest] = CedarPolicy(document)
    return _compiled[document.digest]


@dataclass
class MemoryFacts:
    """`StudyFactsStore`: every study is held, of grade 4, until a test says otherwise."""

    result_study: Callable[[str], str] = lambda _: "study-1"
    known: dict[str, StudyFacts] = field(default_factory=dict)
    standing: dict[str, Standing] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def say(self, study_id: str, **facts) -> None:
        plain = StudyFacts(study_id=study_id, subject_id=f"subject-of-{study_id}", grade=4)
        self.known[study_id] = replace(self.known.get(study_id, plain), **facts)

    def facts(self, study_ids: Sequence[str], today: str) -> dict[str, StudyFacts]:
        for study_id in study_ids:
            if study_id not in self.known:
                self.say(study_id)
        return {one: self.known[one] for one in study_ids if one not in self.missing}

    def study_of(self, *, result_id: str = "", output_id: str = "") -> str:
        return self.result_study(result_id or output_id)

    def standings(self, subject_ids: Sequence[str]) -> dict[str, Standing]:
        return {one: self.standing[one] for one in subject_ids if one in self.standing}


@dataclass
class MemoryPolicies:
    """`PolicyStore` in a list."""

    rows: list[StoredPolicy] = field(default_factory=list)

    def active(self) -> StoredPolicy | None:
        return self.rows[-1] if self.rows else None

    def history(self) -> list[StoredPolicy]:
        return self.rows[::-1]

    def activate(self, policy: StoredPolicy, digest: str, label: str) -> None:
        if policy.revision != len(self.rows) + 1:
            raise StaleRevisionError("another policy came into force meanwhile")
        self.rows.append(policy)


class PlainPolicy:
    """`Policy` simulator: permits what a function says; one rule permits and one forbids."""

    def __init__(self, document: Document, permits: Callable[[Ask], bool | None]) -> None:
        self.document, self._permits = document, permits
        self.rules = (
            Rule(rule_id="view-by-reader", effect="permit", body="{}"),
            Rule(rule_id="sealed", effect="forbid", body="{}"),
        )

    def decide(self, ask: Ask) -> Decision:
        known = {rule.rule_id: rule for rule in self.rules}
        return decision(self.document, known, ask, self._answer(ask))

    def explain(self, ask: Ask) -> list[Fired]:
        said = self._answer(ask).determining
        return [
            Fired(rule=rule.rule_id, effect=rule.effect, applies=rule.rule_id in said)
            for rule in self.rules
        ]

    def _answer(self, ask: Ask) -> Answer:
        try:
            said = self._permits(ask)
        except Exception as cause:
            return Answer(decision="NoDecision", errors=(str(cause),))
        if said is None:
            return Answer(decision="Deny")
        word, rule = ("Allow", "view-by-reader") if said else ("Deny", "sealed")
        return Answer(decision=word, determining=(rule,))


class MemoryGovernance:
    """A gate, its policies and its grading, as a box wires them."""

    def __init__(self, clock, result_study: Callable[[str], str] = lambda _: "study-1") -> None:
        self.facts, self.store = MemoryFacts(result_study), MemoryPolicies()
        self.events: list[Event] = []
        self.trusted: dict = {}
        self.policies = PolicyService(self.store, compiled, shipped(), lambda: self.trusted, clock)
        self.gate = Gate(
            self.policies.policy,
            self.facts,
            clock,
            self._append,
            standing=self.facts.standings,
        )
        self.policies.bind(self.gate)
        self.grading = GradingService(rules(), None, clock)

    def _append(self, event: Event) -> int:
        self.events.append(event)
        return len(self.events) - 1


@cache
def rules() -> Grading:
    return parse_grading(shipped_grading())


def missing_study(_: str) -> str:
    raise NotFoundError("nothing is held under that id")
