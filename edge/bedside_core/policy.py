"""A policy document: what it must hold before it may decide anything, and when it is looser.

People write Cedar text beside a TOML file with the reasons and the golden decisions; machines
exchange both as one canonical JSON payload in a signed envelope. Cedar itself is run by an
adapter, which hands its parse tree and its answers in here: this module says which documents are
refused, turns an answer into a decision, and denies on any doubt.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bedside_core.errors import InvalidPolicyError, PolicyRollbackError
from bedside_core.policy_rules import RULE_ID, Answer, Rule, refuse_deep
from bedside_core.uses import (
    FAILED,
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
    canonical,
)

FORMAT: Final = "bedside-policy/1"
PAYLOAD_TYPE: Final = "application/vnd.bedside.policy+json"
MAX_TEXT: Final = 256 << 10  # bytes of one file

# A document has these word for word, whatever else it says: each keeps a promise to the patient.
MANDATORY: Final = (
    "withdrawal",
    "withdrawal-results",
    "guardian",
    "sealed",
    "draft-model",
    "no-budget",
    "identified-outside",
    "burned-in-outside",
    "other-region",
    "no-agreement",
    "legal-hold",
    "one-person-unseal",
)
_P = TypeVar("_P", bound="_Part")
RuleId = Annotated[str, Field(pattern=rf"^{RULE_ID.pattern}$")]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Word = Annotated[str, Field(max_length=64)]
Long = Annotated[int, Field(ge=-MAX_LONG, le=MAX_LONG)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ActorPart(_Part):
    """Who asks; the parts of an ask mirror `bedside_core.uses`."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._:-]{0,63}$")] = "person:somebody"
    kind: ActorKind = ActorKind.PERSON
    roles: list[Word] = []


class DataPart(_Part):
    """What is known of the data."""

    thing: Thing = Thing.STUDY
    grade: Annotated[int, Field(ge=0, le=5)] = 4
    consents: list[Purpose] = []
    withdrawn: bool = False
    minor: bool = False
    guardian_consent: bool = False
    separate_consent: bool = False
    hold: bool = False
    deidentified: bool = False
    burned_in: bool = False
    modality: Word = ""
    source: Word = ""


class ContextPart(_Part):
    """How the box and the surroundings of the use are."""

    purpose: Purpose = Purpose.DIAGNOSIS
    incident: Incident = Incident.NORMAL
    target: Target = Target.NONE
    model_state: Literal["released", "draft", "none"] = "none"
    epsilon_left: Long = 0
    same_region: bool = False
    agreement: bool = False
    people: Annotated[int, Field(ge=0, le=1000)] = 0


class AskPart(_Part):
    """An ask as people and machines write it; what is left out is the least that can be said."""

    use: Use
    actor: ActorPart = ActorPart()
    data: DataPart = DataPart()
    context: ContextPart = ContextPart()

    def value(self) -> Ask:
        """Return the core's value."""
        data = self.data.model_dump() | {"consents": frozenset(map(str, self.data.consents))}
        actor = self.actor
        return Ask(
            use=self.use,
            asker=Asker(actor_id=actor.id, kind=actor.kind, roles=frozenset(actor.roles)),
            facts=Facts(**data),
            situation=Situation(**self.context.model_dump()),
        )


class GoldenPart(_Part):
    """A decision that must come out as written; `rules` are checked when they are named."""

    name: Text
    ask: AskPart
    permit: bool
    rules: list[RuleId] = []


class WordsPart(_Part):
    """Why a rule is there, for whoever is refused or wonders."""

    en: Text
    zh: Text


class _DocumentPart(_Part):
    format: Literal["bedside-policy/1"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    version: Annotated[int, Field(ge=1, le=2**53 - 1, description="counts up, never down")]
    cedar: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    facts: Annotated[dict[str, Any], Field(description="the schema it was written against")]
    reasons: Annotated[dict[RuleId, WordsPart], Field(max_length=500)]
    golden: Annotated[list[GoldenPart], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A decision that must come out as written."""

    name: str
    ask: Ask
    permit: bool
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A policy document that could be read; it is not checked yet.

    Attributes:
        payload: the canonical JSON bytes that are signed.
        digest: SHA-256 of the payload, 64 hex digits.
    """

    name: str
    version: int
    cedar: str = field(repr=False)
    reasons: Mapping[str, Reason] = field(repr=False)
    golden: tuple[Golden, ...] = field(repr=False)
    payload: bytes = field(repr=False)
    digest: str

    @property
    def label(self) -> str:
        """Name and version, as people say it."""
        return f"{self.name} {self.version}"


def parse_ask(data: bytes) -> Ask:
    """Return the ask in JSON bytes.

    Raises:
        InvalidPolicyError: not JSON, an unknown fact, or a value out of range.
    """
    return _validated(AskPart, data, "ask").value()


def parse_payload(data: bytes) -> Document:
    """Return the document in canonical JSON bytes.

    Raises:
        InvalidPolicyError: it cannot be read, or is not in canonical form.
    """
    part = _validated(_DocumentPart, data, "policy")
    document = _document(part)
    if document.payload != data:
        raise InvalidPolicyError("policy: the payload is not canonical JSON")
    return document


def parse_source(toml: bytes, cedar: bytes) -> Document:
    """Return the document that people wrote as `policy.toml` and `policy.cedar`.

    Raises:
        InvalidPolicyError: one of them cannot be read.
    """
    if max(len(toml), len(cedar)) > MAX_TEXT:
        raise InvalidPolicyError(f"policy: a file has at most {MAX_TEXT} bytes")
    try:
        written = tomllib.loads(toml.decode())
        written |= {"cedar": cedar.decode(), "facts": json.loads(SCHEMA)}
        data = json.dumps(written).encode()
    except (ValueError, TypeError, RecursionError) as cause:
        raise InvalidPolicyError(f"policy: not TOML or not UTF-8: {cause}") from cause
    return _document(_validated(_DocumentPart, data, "policy"))


def _document(part: _DocumentPart) -> Document:
    refuse_deep(part.cedar)
    payload = canonical(part.model_dump(mode="json"))
    return Document(
        name=part.name,
        version=part.version,
        cedar=part.cedar,
        reasons={
            rule: Reason(rule=rule, en=words.en, zh=words.zh)
            for rule, words in part.reasons.items()
        },
        golden=tuple(
            Golden(name=g.name, ask=g.ask.value(), permit=g.permit, rules=tuple(sorted(g.rules)))
            for g in part.golden
        ),
        payload=payload,
        digest=hashlib.sha256(payload).hexdigest(),
    )


def _validated(kind: type[_P], data: bytes, what: str) -> _P:
    try:
        return kind.model_validate_json(data)
    except ValidationError as cause:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in error['loc'])}: {error['msg']}"
            for error in cause.errors(include_url=False, include_input=False)[:5]
        )
        raise InvalidPolicyError(f"{what}: {wrong}") from None


# --- what it must hold ------------------------------------------------------------------------


def check_document(document: Document, rules: Sequence[Rule], shipped: Sequence[Rule]) -> None:
    """Return when the document is whole; golden decisions are tried separately.

    Args:
        document: to be activated.
        rules: of its text.
        shipped: rules of the policy that came with the box, for the mandatory ones.

    Raises:
        InvalidPolicyError: a rule has no reason, a reason has no rule, or a mandatory rule is
            missing or not word for word the shipped one.
    """
    ids, told = {rule.rule_id for rule in rules}, set(document.reasons)
    if bare := sorted(ids - told):
        raise InvalidPolicyError(f"policy: no reason is given for {', '.join(bare)}")
    if stray := sorted(told - ids):
        raise InvalidPolicyError(f"policy: reasons without a rule: {', '.join(stray)}")
    bodies = {rule.rule_id: rule.body for rule in rules}
    wanted = {rule.rule_id: rule.body for rule in shipped if rule.rule_id in MANDATORY}
    for rule_id in MANDATORY:
        if rule_id not in bodies:
            raise InvalidPolicyError(f"policy: the mandatory rule {rule_id} is missing")
        if bodies[rule_id] != wanted[rule_id]:
            raise InvalidPolicyError(f"policy: the mandatory rule {rule_id} was changed")


def check_golden(document: Document, decide: Callable[[Ask], Decision]) -> None:
    """Return when every golden decision comes out as written; InvalidPolicyError names the first.

    Args:
        document: to be activated.
        decide: answers by this very document.
    """
    for row in document.golden:
        found = decide(row.ask)
        if found.permitted is not row.permit or found.cause is Cause.ERROR:
            said = "permits" if found.permitted else f"denies ({found.cause})"
            raise InvalidPolicyError(f"policy: golden case '{row.name}': the text {said} it")
        if row.rules and found.rules != row.rules:
            raise InvalidPolicyError(
                f"policy: golden case '{row.name}' was decided by {', '.join(found.rules) or '-'}"
            )


def check_version(document: Document, in_force: int) -> None:
    """Return when the document's version is above the one in force; PolicyRollbackError."""
    if document.version <= in_force:
        raise PolicyRollbackError(
            f"the policy has version {document.version}, version {in_force} is in force"
        )


# --- an answer becomes a decision ------------------------------------------------------------


def decision(document: Document, rules: Mapping[str, Rule], ask: Ask, answer: Answer) -> Decision:
    """Return the decision; any doubt is a deny.

    Permitted is only what the engine allows without a complaint, because of a statement that is
    known here and permits. A rule that failed may be a forbid that was skipped.
    """
    deciding = [rules.get(engine_id) for engine_id in answer.determining]
    known = [rule for rule in deciding if rule is not None]
    effects = {rule.effect for rule in known}
    if answer.errors or len(known) != len(deciding):
        cause = Cause.ERROR
    elif answer.decision == "Allow" and effects == {"permit"}:
        cause = Cause.PERMIT
    elif answer.decision == "Deny" and effects <= {"forbid"}:
        cause = Cause.FORBID if known else Cause.NO_RULE
    else:
        cause = Cause.ERROR
    named = tuple(document.reasons[rule_id] for rule_id in sorted(r.rule_id for r in known))
    alone = {Cause.ERROR: (FAILED,), Cause.NO_RULE: (NO_RULE,)}
    return Decision(
        permitted=cause is Cause.PERMIT,
        cause=cause,
        policy=document.digest,
        asked=ask.digest,
        reasons=alone.get(cause, named),
        errors=answer.errors,
    )
