"""The policy in force, why it decides as it does, and the grading rules."""

import json
import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, PreconditionRequiredError
from bedside_core.grading import EFFECTS, Grading
from bedside_core.policy import AskPart
from bedside_core.uses import Ask, Reason
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.ports.policy import StoredPolicy
from bedside_edge.services.policies import Checked

_TAG = re.compile(r'"(\d{1,9})"')
_TAGGED = {
    "description": "the policy in force; its revision is the ETag",
    "headers": {"ETag": {"schema": {"type": "string"}}},
}
_MOST = 1 << 20  # characters of a signed document


def _as_json(value: object) -> object:
    """Check the facts by JSON's types: the framework has made Python values of them already."""
    return AskPart.model_validate_json(json.dumps(value)) if isinstance(value, dict) else value


AskBody = Annotated[AskPart, BeforeValidator(_as_json)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignatureBody(_Body):
    """One signature of the envelope."""

    keyid: Annotated[str, Field(max_length=300)] = ""
    sig: Annotated[str, Field(max_length=8000)]


class EnvelopeBody(_Body):
    """A signed policy document: DSSE as `bedside-edge policy sign` writes it."""

    payload: Annotated[str, Field(max_length=_MOST)]
    payloadType: Annotated[str, Field(max_length=200)]  # noqa: N815  DSSE's name
    signatures: Annotated[list[SignatureBody], Field(max_length=64)]

    def data(self) -> bytes:
        """Return the envelope's bytes."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode()


class RuleView(_Body):
    """One rule of the policy with the reason beside it."""

    rule: str
    effect: str
    en: str
    zh: str


class PolicyChange(_Body):
    """A document that was in force."""

    revision: int
    digest: str
    name: str
    version: int
    signers: list[str]
    actor: str
    at: Annotated[int, Field(description="milliseconds since 1970, UTC")]


class PolicyView(_Body):
    """The policy in force."""

    revision: int
    name: str
    version: int
    digest: str
    shipped: Annotated[bool, Field(description="it came with the box and is not signed")]
    cedar: str
    rules: list[RuleView]
    golden: Annotated[int, Field(description="decisions that come out as its author wrote them")]
    history: list[PolicyChange]


class CheckView(_Body):
    """What a signed document would change; nothing did."""

    name: str
    version: int
    digest: str
    needed: Annotated[int, Field(description="signatures it needs")]
    signers: list[str]
    looser: Annotated[list[str], Field(description="changes through which more could be permitted")]
    turned: Annotated[int, Field(description="of the probing asks, denied before, permitted then")]
    examples: list[dict[str, object]]


class FiredView(_Body):
    """What one rule alone says."""

    rule: str
    effect: str
    applies: bool


class ExplainView(_Body):
    """The decision on the facts that were sent; nothing was used and nothing is recorded."""

    permitted: bool
    cause: str
    rules: list[str]
    reasons: list[RuleView]
    errors: list[str]
    policy: str
    fired: list[FiredView]


class GradeRuleView(_Body):
    """One grading rule by name."""

    name: str
    grade: int


class GradeView(_Body):
    """What follows from a grade."""

    grade: int
    meaning: str
    read_by: str
    leaves_as: str
    rho: Annotated[int, Field(description="what an epoch may cost a patient, units of 1e-12")]


class GradingView(_Body):
    """The grading rules in force."""

    digest: str
    default: int
    rules: list[GradeRuleView]
    grades: list[GradeView]


def policy_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1", tags=["policy"], responses=dict(PROBLEMS))

    @router.get(
        "/policy",
        summary="The policy in force, with the reason beside each rule",
        responses={200: _TAGGED},
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def get_policy(response: Response) -> PolicyView:
        view = await storage.run(_view, services)
        response.headers["ETag"] = f'"{view.revision}"'
        return view

    @router.put(
        "/policy",
        summary="Put a signed policy in force",
        responses={200: _TAGGED},
        dependencies=[needs(Action.MANAGE_POLICY)],
    )
    async def put_policy(
        body: EnvelopeBody,
        request: Request,
        response: Response,
        if_match: Annotated[str, Header(description='revision it was decided on: `"3"`')] = "",
    ) -> PolicyView:
        expected, actor = _expected(if_match), actor_of(request).actor_id
        await waiting.run(services.policies.activate, body.data(), expected, actor)
        return await get_policy(response)

    @router.post(
        "/policy:check",
        summary="What a signed policy would change",
        dependencies=[needs(Action.MANAGE_POLICY)],
    )
    async def check_policy(body: EnvelopeBody) -> CheckView:
        return check_view(await waiting.run(services.policies.open, body.data()))

    @router.post(
        "/policy:explain",
        summary="What the policy says to these facts, rule by rule",
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def explain_policy(body: AskBody) -> ExplainView:
        return await storage.run(_explained, services, body.value())

    @router.get(
        "/grading",
        summary="The grading rules in force and what follows from a grade",
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def get_grading(
        effects: Annotated[bool, Query(description="with what follows")] = True,
    ) -> GradingView:
        return grading_view(services.grading.grading, effects=effects)

    return router


def _expected(if_match: str) -> int:
    if not if_match:
        raise PreconditionRequiredError("say in If-Match on which revision this was decided")
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidRequestError('If-Match must be one strong tag such as "3"')
    return int(tag[1])


def _view(services: Services) -> PolicyView:
    policy, stored = services.policies.in_force
    document = policy.document
    return PolicyView(
        revision=stored.revision,
        name=document.name,
        version=document.version,
        digest=document.digest,
        shipped=not stored.envelope,
        cedar=document.cedar,
        rules=[_rule_view(document.reasons[rule.rule_id], rule.effect) for rule in policy.rules],
        golden=len(document.golden),
        history=[_change(one) for one in services.policies.history()],
    )


def _change(stored: StoredPolicy) -> PolicyChange:
    document = stored.document
    return PolicyChange(
        revision=stored.revision,
        digest=document.digest,
        name=document.name,
        version=document.version,
        signers=list(stored.signers),
        actor=stored.actor,
        at=stored.at,
    )


def check_view(found: Checked) -> CheckView:
    """Return a check as its document."""
    document = found.policy.document
    return CheckView(
        name=document.name,
        version=document.version,
        digest=document.digest,
        needed=found.needed,
        signers=list(found.signers),
        looser=list(found.looser),
        turned=found.turned_count,
        examples=[ask.to_json() for ask in found.turned],
    )


def _explained(services: Services, ask: Ask) -> ExplainView:
    found, fired = services.policies.explain(ask)
    effects = {one.rule: one.effect for one in fired}
    return ExplainView(
        permitted=found.permitted,
        cause=str(found.cause),
        rules=list(found.rules),
        reasons=[_rule_view(reason, effects.get(reason.rule, "")) for reason in found.reasons],
        errors=list(found.errors),
        policy=found.policy,
        fired=[FiredView(rule=f.rule, effect=f.effect, applies=f.applies) for f in fired],
    )


def _rule_view(reason: Reason, effect: str) -> RuleView:
    return RuleView(rule=reason.rule, effect=effect, en=reason.en, zh=reason.zh)


def grading_view(grading: Grading, *, effects: bool = True) -> GradingView:
    """Return grading rules as their document."""
    return GradingView(
        digest=grading.digest,
        default=grading.default,
        rules=[GradeRuleView(name=rule.name, grade=rule.grade) for rule in grading.rules],
        grades=[
            GradeView(
                grade=grade,
                meaning=one.meaning,
                read_by=one.read_by,
                leaves_as=one.leaves_as,
                rho=grading.stratum(grade).rho,
            )
            for grade, one in (EFFECTS.items() if effects else ())
        ],
    )
