"""Models over HTTP: which version reads studies, and changing it.

Every change says in If-Match which revision it was decided on: two administrators who look at the
same page cannot undo each other unseen, and a repeated request changes nothing twice.
"""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, PreconditionRequiredError
from bedside_core.findings import Rule
from bedside_core.rollout import Deployment
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.services.promotion import promoted

Version = Annotated[str, Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$")]
IfMatch = Annotated[
    str, Header(description='revision the change was decided on, as in ETag: `"3"`, or `*`')
]
Share = Annotated[float, Field(ge=0, le=1)]
_TAG = re.compile(r'"([0-9]{1,9})"')
_CHANGED = {"headers": {"ETag": {"schema": {"type": "string"}}}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActiveBody(_Body):
    """PUT /api/v1/models/{name}/active."""

    version: Version
    promotion: Annotated[
        str,
        Field(max_length=1 << 20, description="signed by the consortium; checked before"),
    ] = ""


class ShadowBody(_Body):
    """PUT /api/v1/models/{name}/shadow; null ends it."""

    version: Version | None


class CanaryBody(_Body):
    """PUT /api/v1/models/{name}/canary; null and 0 end it."""

    version: Version | None
    percent: Annotated[int, Field(ge=0, le=99)]


class RuleBody(_Body):
    """Probability from which the finding counts, and the band where nobody should lean on it."""

    threshold: Share
    low: Share
    high: Share


class ThresholdBody(_Body):
    """PUT /api/v1/models/{name}/threshold; null goes back to the package's own rule."""

    rule: RuleBody | None


class ChangeView(_Body):
    """One line of the history; `at` is milliseconds since 1970, UTC."""

    revision: int
    what: str
    actor: str
    at: int


class TallyView(_Body):
    """How often a shadow came to one decision where another was shown."""

    version: str
    shadow: str
    decision: Annotated[str, Field(description="shown; `refused` when the image was not read")]
    shadow_decision: Annotated[str, Field(description="not shown; `failed` when it broke")]
    studies: int
    mean_difference: Annotated[float, Field(description="mean distance of the probabilities")]


class DeploymentView(_Body):
    """What the box does with one model."""

    name: str
    revision: int
    active: str
    previous: Annotated[str | None, Field(description="version a roll-back returns to")]
    shadow: str | None
    canary: str | None
    percent: Annotated[int, Field(description="share of studies the canary reads")]
    threshold: Annotated[RuleBody | None, Field(description="the hospital's own, if signed off")]
    threshold_version: Annotated[
        str | None, Field(description="version it holds for; another decides by its package's")
    ]
    versions: Annotated[list[str], Field(description="versions on this box")]
    agreement: list[TallyView]
    changes: list[ChangeView]


def models_router(services: Services, waiting: WorkPool) -> APIRouter:
    """Return the routes about versions; a change may compile, so it runs in a waiting thread."""
    router = APIRouter(prefix="/api/v1", tags=["models"], responses=dict(PROBLEMS))
    answers: dict[int | str, dict[str, Any]] = {200: _CHANGED}

    def look(name: str) -> tuple[Deployment, DeploymentView]:
        found = services.rollout.deployment(name)
        changes, tallies = services.rollout.history(name)
        versions = [e.model.version for e in services.models.index() if e.model.name == name]
        view = _view(found)
        return found, view.model_copy(
            update={
                "versions": versions,
                "changes": [
                    ChangeView(revision=c.revision, what=c.what, actor=c.actor, at=c.at)
                    for c in changes
                ],
                "agreement": [
                    TallyView(
                        version=t.version,
                        shadow=t.shadow,
                        decision=t.decision,
                        shadow_decision=t.shadow_decision,
                        studies=t.studies,
                        mean_difference=t.difference / t.studies,
                    )
                    for t in tallies
                ],
            }
        )

    async def answer(name: str, response: Response) -> DeploymentView:
        found, view = await waiting.run(look, name)
        response.headers["ETag"] = f'"{found.revision}"'
        return view

    @router.get(
        "/models/{name}",
        summary="Which version reads studies",
        responses=answers,
        dependencies=[needs(Action.MONITOR)],
    )
    async def get_model(name: str, response: Response) -> DeploymentView:
        return await answer(name, response)

    @router.put(
        "/models/{name}/active",
        summary="Read studies with another version",
        responses=answers,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def activate(
        name: str, body: ActiveBody, request: Request, response: Response, if_match: IfMatch = ""
    ) -> DeploymentView:
        revision, actor = _expected(if_match), _actor(request)

        def change() -> None:
            because, data = "", body.promotion.encode()
            if data:
                found = promoted(data, name, body.version, services.models, services.sync)
                because = f"promoted by {found.round}"
            services.rollout.activate(name, body.version, revision, actor, because)

        await waiting.run(change)
        return await answer(name, response)

    @router.put(
        "/models/{name}/shadow",
        summary="Let a version read along, unseen",
        responses=answers,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def set_shadow(
        name: str, body: ShadowBody, request: Request, response: Response, if_match: IfMatch = ""
    ) -> DeploymentView:
        change = services.rollout.set_shadow
        await waiting.run(change, name, body.version or "", _expected(if_match), _actor(request))
        return await answer(name, response)

    @router.put(
        "/models/{name}/canary",
        summary="Let a version read a share of the studies",
        responses=answers,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def set_canary(
        name: str, body: CanaryBody, request: Request, response: Response, if_match: IfMatch = ""
    ) -> DeploymentView:
        await waiting.run(
            services.rollout.set_canary,
            name,
            body.version or "",
            body.percent,
            _expected(if_match),
            _actor(request),
        )
        return await answer(name, response)

    @router.put(
        "/models/{name}/threshold",
        summary="Decide by the hospital's threshold",
        responses=answers,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def set_threshold(
        name: str,
        body: ThresholdBody,
        request: Request,
        response: Response,
        if_match: IfMatch = "",
    ) -> DeploymentView:
        change, rule = services.rollout.set_threshold, _rule(body.rule)
        await waiting.run(change, name, rule, _expected(if_match), _actor(request))
        return await answer(name, response)

    @router.post(
        "/models/{name}:rollback",
        summary="Back to the version before",
        responses=answers,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def roll_back(
        name: str, request: Request, response: Response, if_match: IfMatch = ""
    ) -> DeploymentView:
        change = services.rollout.roll_back
        await waiting.run(change, name, _expected(if_match), _actor(request))
        return await answer(name, response)

    return router


def _expected(if_match: str) -> int | None:
    """Return the revision If-Match names, None for `*`."""
    if not if_match:
        raise PreconditionRequiredError("say in If-Match which revision the change is meant for")
    if if_match.strip() == "*":
        return None
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidRequestError('If-Match must be one strong tag such as "3", or *')
    return int(tag[1])


def _actor(request: Request) -> str:
    """Return who signs it off: the minted id, as in the evidence."""
    return actor_of(request).actor_id


def _rule(body: RuleBody | None) -> Rule | None:
    if body is None:
        return None
    return Rule(threshold=body.threshold, low=body.low, high=body.high)


def _view(found: Deployment) -> DeploymentView:
    site = found.site
    rule = None
    if site is not None:
        rule = RuleBody(threshold=site.rule.threshold, low=site.rule.low, high=site.rule.high)
    return DeploymentView(
        name=found.name,
        revision=found.revision,
        active=found.active,
        previous=found.previous or None,
        shadow=found.shadow or None,
        canary=found.canary or None,
        percent=found.percent,
        threshold=rule,
        threshold_version=site.version if site else None,
        versions=[],
        agreement=[],
        changes=[],
    )
