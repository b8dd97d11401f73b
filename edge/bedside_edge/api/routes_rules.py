"""POST /api/v1/rules:test: which model would take a study, and why not the others. A dry run."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError
from bedside_core.routing import Image, parse_rules
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import DryRun, Services
from bedside_edge.ports import InstanceState

Text = Annotated[str, Field(max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageBody(_Body):
    """The attributes of an image that rules and input check read; empty when absent."""

    sop_class_uid: Text = ""
    modality: Text = ""
    body_part: Text = ""
    view: Text = ""
    laterality: Text = ""
    image_type: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    presentation_intent: Text = ""
    rows: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    columns: Annotated[int, Field(ge=0, le=1_000_000)] = 4096


class RulesTest(_Body):
    """A study to try the rules on: one the box holds, or described images."""

    study: Annotated[Text, Field(description="our id of a held study")] = ""
    images: Annotated[list[ImageBody], Field(max_length=1000)] = []
    source: Annotated[Text, Field(description="calling AE title, for described images")] = ""
    rules: Annotated[
        str, Field(max_length=256 << 10, description="TOML to try instead of the rules in force")
    ] = ""


class VerdictView(_Body):
    """What one rule said."""

    rule: str
    model: Annotated[str, Field(description="empty: the rule says that nothing runs")]
    chosen: bool
    images: Annotated[int, Field(description="how many images it takes")]
    reason: str


class ChanceView(_Body):
    """What would become of one model."""

    model: str
    runs: bool
    reason: str


class RulesTestView(_Body):
    """What would happen; nothing was read and nothing changed."""

    rules: Annotated[str, Field(description="digest of the rules tried")]
    model: Annotated[str, Field(description="the model that would be asked; empty: nothing runs")]
    rule: str
    reason: str
    images: list[bool]
    verdicts: list[VerdictView]
    models: list[ChanceView]


def rules_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes about routing rules."""
    router = APIRouter(prefix="/api/v1", tags=["models"], responses=dict(PROBLEMS))

    def images_of(body: RulesTest) -> list[Image]:
        if bool(body.study) == bool(body.images):
            raise InvalidRequestError("name a study, or describe images")
        if body.images:
            return [
                Image(header=image, source=body.source, laterality=image.laterality)
                for image in body.images
            ]
        return [
            Image(header=one.header, source=one.source, laterality=one.header.laterality)
            for one in services.instances(body.study)
            if one.state is InstanceState.HELD
        ]

    def try_rules(body: RulesTest) -> DryRun:
        rules = parse_rules(body.rules.encode()) if body.rules else None
        return services.routing.dry_run(images_of(body), rules)

    @router.post(
        "/rules:test",
        summary="Which model would take a study, and why not the others",
        dependencies=[needs(Action.MANAGE_RULES)],
    )
    async def test_rules(body: RulesTest) -> RulesTestView:
        return _view(await storage.run(try_rules, body))

    return router


def _view(found: DryRun) -> RulesTestView:
    plan = found.plan
    return RulesTestView(
        rules=found.rules,
        model=plan.model,
        rule=plan.rule,
        reason=plan.reason,
        images=list(plan.takes),
        verdicts=[
            VerdictView(
                rule=verdict.rule,
                model=verdict.model,
                chosen=verdict.chosen,
                images=sum(verdict.takes),
                reason=verdict.reason,
            )
            for verdict in plan.verdicts
        ],
        models=[
            ChanceView(model=chance.model, runs=chance.runs, reason=chance.reason)
            for chance in found.chances
        ],
    )
