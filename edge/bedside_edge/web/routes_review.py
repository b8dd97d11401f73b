"""Sign-off on the page: a form that shows the name it will be signed with, and what followed."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    InvalidRequestError,
    NotFoundError,
    StaleRevisionError,
    WrongStateError,
)
from bedside_core.findings import Decision
from bedside_core.review import Certainty, ReviewKind
from bedside_core.uses import Thing, Use
from bedside_edge.api.errors import status_of
from bedside_edge.api.gate import asks
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, is_htmx, person, site
from bedside_edge.web.study import StudyView, may_sign, study_view

_LONGEST_REASON = 1024


def review_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the pages below /results/{id}."""
    router = APIRouter(prefix="/results", include_in_schema=False, route_class=PageRoute)

    def look(result_id: str) -> StudyView:
        study_id = services.jobs.queue.result(result_id).study_id
        return study_view(services, study_id, result_id, "")

    def values(request: Request, view: StudyView, **more: object) -> dict[str, Any]:
        return {
            "view": view,
            "now": services.clock.now(),
            "signing": may_sign(person(request), view.sign_off, view.body),
            "longest": _LONGEST_REASON,
            **more,
        }

    @router.get(
        "/{result_id}/sign-off",
        dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, Thing.RESULT)],
    )
    async def state(request: Request, result_id: str) -> Response:
        """What stands under the result and how far it is on its way; fetches itself anew."""
        view = await storage.run(look, result_id)
        return site().page(request, "sign_off_part.html", **values(request, view))

    @router.get(
        "/{result_id}/review", dependencies=[needs(Action.REVIEW), asks(Use.VIEW, Thing.RESULT)]
    )
    async def form(request: Request, result_id: str, kind: str = "accept") -> Response:
        if kind not in set(ReviewKind):
            raise NotFoundError("no such verdict")
        view = await storage.run(look, result_id)
        if not may_sign(person(request), view.sign_off, view.body):
            raise WrongStateError("this result cannot be signed")
        template = "review_form.html" if is_htmx(request) else "review.html"
        filled = {"reason": "", "certainty": Certainty.CERTAIN, "decision": ""}
        return site().page(
            request, template, **values(request, view, kind=kind, filled=filled, wrong="")
        )

    @router.post(
        "/{result_id}/review", dependencies=[needs(Action.REVIEW), asks(Use.VIEW, Thing.RESULT)]
    )
    async def sign(request: Request, result_id: str) -> Response:
        fields, actor = await form_of(request), actor_of(request)
        kind = _one_of(ReviewKind, fields.get("kind", ""))
        certainty = _one_of(Certainty, fields.get("certainty", Certainty.CERTAIN))
        decision = _one_of(Decision, fields["decision"]) if fields.get("decision") else None
        reason, revision = fields.get("reason", ""), fields.get("revision", "")

        def put() -> None:
            services.outgoing.reviews.sign(
                result_id,
                reader=actor,
                kind=kind,
                reason=reason,
                decision=decision,
                certainty=certainty,
                expected=int(revision) if revision.isdecimal() and len(revision) < 9 else None,
            )

        wrong: BedsideError | None = None
        try:
            await storage.run(put)
        except (StaleRevisionError, InvalidInputError) as error:
            wrong = error
        view = await storage.run(look, result_id)
        if wrong is None:
            if not is_htmx(request):
                address = f"/studies/{view.entry.row.study_id}?result={result_id}#sign-off"
                return RedirectResponse(address, 303)
            done = site().page(request, "review_done.html", **values(request, view, kind=kind))
            done.headers["HX-Trigger"] = "changed"
            return done
        filled = {"reason": reason, "certainty": certainty, "decision": str(decision or "")}
        said = _words_for(wrong, view, fields)
        template = "review_form.html" if is_htmx(request) else "review.html"
        return site().page(
            request,
            template,
            status=status_of(wrong.code),
            **values(request, view, kind=kind, filled=filled, wrong=said),
        )

    return router


def _words_for(error: BedsideError, view: StudyView, fields: dict[str, str]) -> str:
    """Return the key of what to tell the reader about a verdict that was not taken."""
    if isinstance(error, StaleRevisionError):
        return "sign.stale"
    if isinstance(error, WrongStateError):
        return "sign.superseded" if view.sign_off and view.sign_off.superseded_by else "sign.closed"
    if not fields.get("reason", "").strip() and fields.get("kind") != ReviewKind.ACCEPT:
        return "sign.needs_reason"
    if len(fields.get("reason", "")) > _LONGEST_REASON:
        return "sign.long_reason"
    return "sign.needs_decision"


def _one_of(kind: Any, value: str) -> Any:  # noqa: ANN401  an enumeration, and its member
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequestError("the form has a value this page does not offer") from None
