"""One model: versions, who reads, how shadows compare; every change asks once more and says why.

A change names the revision it was decided on, so two administrators cannot undo each other unseen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.errors import BedsideError, InvalidRequestError, NotFoundError
from bedside_core.findings import Rule
from bedside_core.rollout import Deployment
from bedside_edge.api.errors import status_of
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import PastChange, ServedModel, Services, ShadowTally
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, site

_LOADING: Final = ("load", "unload")
_OF_VERSION: Final = ("activate", "shadow", "canary", *_LOADING)
_OF_MODEL: Final = ("rollback", "shadow-off", "canary-off", "threshold", "threshold-off")
_LONGEST_NUMBER: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLine:
    """One version of the model on this box."""

    version: str
    roles: Sequence[str]  # active, previous, shadow, canary
    served: ServedModel | None
    reason: str  # why it is not loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """The page."""

    name: str
    now: Deployment
    versions: Sequence[VersionLine]
    changes: Sequence[PastChange]
    tallies: Sequence[ShadowTally]
    first: ServedModel | None  # of the active version
    kept: bool  # the rules name it: it is never unloaded

    @property
    def studies(self) -> int:
        """How many studies a shadow read along."""
        return sum(one.studies for one in self.tallies)

    @property
    def equal(self) -> int:
        """How many of them came to the same decision."""
        return sum(one.studies for one in self.tallies if one.decision == one.shadow_decision)

    @property
    def rule(self) -> Rule | None:
        """The rule the active version decides by."""
        own = self.now.rule(self.now.active)
        if own is not None or self.first is None:
            return own
        decision = self.first.manifest.decision
        return Rule(threshold=decision.threshold, low=decision.low, high=decision.high)


def model_view(services: Services, name: str) -> ModelView:
    """Return what the page of a model shows; NotFoundError."""
    index = [one for one in services.models.index() if one.model.name == name]
    served = {m.manifest.version: m for m in services.models.loaded() if m.manifest.name == name}
    if not index:
        raise NotFoundError("no such model")
    if served:
        now = services.rollout.deployment(name)
        changes, tallies = services.rollout.history(name)
    else:
        now, changes, tallies = Deployment(name=name, active=""), (), ()
    lines = [
        VersionLine(
            version=one.model.version,
            roles=[r for r in _ROLES if getattr(now, r) == one.model.version],
            served=served.get(one.model.version),
            reason=one.reason,
        )
        for one in reversed(index)
    ]
    return ModelView(
        name=name,
        now=now,
        versions=lines,
        changes=changes,
        tallies=tallies,
        first=served.get(now.active),
        kept=name in services.routing.rules.models,
    )


_ROLES: Final = ("active", "previous", "shadow", "canary")


def rollout_router(services: Services, waiting: WorkPool) -> APIRouter:
    """Return /models/{name} and its changes; a change may compile, so it runs in `waiting`."""
    router = APIRouter(prefix="/models", include_in_schema=False, route_class=PageRoute)

    @router.get("/{name}", dependencies=[needs(Action.MONITOR)])
    async def model(request: Request, name: str, done: str = "") -> Response:
        view = await waiting.run(model_view, services, name)
        told = done if done in (*_OF_VERSION, *_OF_MODEL) else ""
        return site().page(
            request,
            "model.html",
            view=view,
            done=told,
            named=services.access.name_of,
            chart=partial(chart_of, view),
        )

    async def confirm(
        request: Request, name: str, asked: dict[str, str], error: BedsideError | None = None
    ) -> Response:
        view = await waiting.run(model_view, services, name)
        what, version = asked.get("what", ""), asked.get("version", "")
        known = [line.version for line in view.versions]
        if what not in (*_OF_VERSION, *_OF_MODEL) or (what in _OF_VERSION and version not in known):
            raise NotFoundError("no such change")
        return site().page(
            request,
            "model_change.html",
            status=status_of(error.code) if error else 200,
            view=view,
            what=what,
            version=version,
            filled=asked,
            code=error.code if error else "",
            detail=str(error) if error else "",
        )

    @router.get("/{name}/change", dependencies=[needs(Action.MANAGE_MODELS)])
    async def ask(request: Request, name: str, what: str = "", version: str = "") -> Response:
        return await confirm(request, name, {"what": what, "version": version})

    @router.post("/{name}/change", dependencies=[needs(Action.MANAGE_MODELS)])
    async def change(request: Request, name: str) -> Response:
        fields = await form_of(request)
        try:
            await waiting.run(_carry_out, services, name, fields, actor_of(request).actor_id)
        except BedsideError as error:
            return await confirm(request, name, fields, error)
        return RedirectResponse(f"/models/{name}?done={fields['what']}", 303)

    return router


def _carry_out(services: Services, name: str, fields: dict[str, str], actor: str) -> None:
    what, version = fields.get("what", ""), fields.get("version", "")
    rollout, models = services.rollout, services.models
    if what in _LOADING:
        (models.load if what == "load" else models.unload)(name, version)
        return
    revision = _whole(fields.get("revision", ""))
    match what:
        case "activate":
            rollout.activate(name, version, revision, actor)
        case "rollback":
            rollout.roll_back(name, revision, actor)
        case "shadow" | "shadow-off":
            rollout.set_shadow(name, version if what == "shadow" else "", revision, actor)
        case "canary":
            percent = _whole(fields.get("percent", ""))
            rollout.set_canary(name, version, percent, revision, actor)
        case "canary-off":
            rollout.set_canary(name, "", 0, revision, actor)
        case "threshold":
            rollout.set_threshold(name, _rule(fields), revision, actor)
        case "threshold-off":
            rollout.set_threshold(name, None, revision, actor)
        case _:
            raise InvalidRequestError("no such change")


def _whole(text: str) -> int:
    if not (text.strip().isdecimal() and len(text) < _LONGEST_NUMBER):
        raise InvalidRequestError("the form needs a whole number")
    return int(text)


def _rule(fields: dict[str, str]) -> Rule:
    def share(name: str) -> float:
        try:
            return float(fields.get(name, "").strip().replace(",", ".")[:_LONGEST_NUMBER])
        except ValueError:
            raise InvalidRequestError("threshold and band are numbers from 0 to 1") from None

    return Rule(threshold=share("threshold"), low=share("low"), high=share("high"))


def chart_of(view: ModelView, labels: Sequence[str]) -> dict[str, Any]:
    """Return the mean distance of probabilities for every pair of decisions, for the chart."""
    values = [one.difference / one.studies for one in view.tallies]
    return {"kind": "bars", "labels": list(labels), "values": values}
