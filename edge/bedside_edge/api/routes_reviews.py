"""Sign-off over HTTP: sign, see what stands and where a retraction is, agreement, labels.

Whoever signs says in If-Match which revision was on the screen: of two readers at once one is told
to look again, and a request that is repeated signs nothing twice.
"""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, PreconditionRequiredError
from bedside_core.uses import Thing, Use
from bedside_edge.api.gate import asks, visible
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.once import IdempotencyKey, Once
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_reviews import (
    AgreementReport,
    LabelList,
    ReviewBody,
    SignOffView,
    agreement_report,
    label_view,
    sign_off_view,
)
from bedside_edge.api.services import Services

Revision = Annotated[
    str, Header(alias="If-Match", description='the revision on the screen, as in ETag: `"0"`')
]
_TAG = re.compile(r'"([0-9]{1,9})"')
_TAGGED: dict[str, Any] = {"headers": {"ETag": {"schema": {"type": "string"}}}}
_SIGNED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            **_TAGGED["headers"],
            "Location": {"schema": {"type": "string"}},
        }
    }
}


def reviews_router(services: Services, storage: WorkPool, once: Once) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1", tags=["sign-off"], responses=dict(PROBLEMS))

    def look(result_id: str) -> SignOffView:
        state, found = services.outgoing.reviews.standing(result_id)
        return sign_off_view(result_id, state, found)

    @router.post(
        "/results/{result_id}/review",
        status_code=201,
        summary="Accept, edit or reject a result in one's own name",
        responses=_SIGNED,
        dependencies=[needs(Action.REVIEW), asks(Use.VIEW, Thing.RESULT)],
    )
    async def sign(
        result_id: str,
        body: ReviewBody,
        request: Request,
        response: Response,
        if_match: Revision = "",
        idempotency_key: IdempotencyKey = "",
    ) -> SignOffView:
        expected, actor = _expected(if_match), actor_of(request)

        def work() -> str:
            record = services.outgoing.reviews.sign(
                result_id,
                reader=actor,
                kind=body.kind,
                reason=body.reason,
                decision=body.decision,
                certainty=body.certainty,
                expected=expected,
            )
            return record.review_id

        await once(storage, request, idempotency_key, work)
        view = await storage.run(look, result_id)
        response.headers["ETag"] = f'"{view.revision}"'
        response.headers["Location"] = f"/api/v1/results/{result_id}/reviews"
        return view

    @router.get(
        "/results/{result_id}/reviews",
        summary="What stands under a result, who said so, and where a retraction is",
        responses={200: _TAGGED},
        dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, Thing.RESULT)],
    )
    async def list_reviews(result_id: str, response: Response) -> SignOffView:
        view = await storage.run(look, result_id)
        response.headers["ETag"] = f'"{view.revision}"'
        return view

    @router.post(
        "/results/{result_id}/reviews:retry",
        summary="Make a signed report again that was given up",
        dependencies=[needs(Action.MANAGE_DELIVERIES)],
    )
    async def retry_report(result_id: str) -> SignOffView:
        await storage.run(services.outgoing.reviews.retry, result_id)
        return await storage.run(look, result_id)

    @router.get(
        "/agreement",
        summary="How readers and the box agree, by reader and by model version",
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def agreement() -> AgreementReport:
        return agreement_report(await storage.run(services.outgoing.reviews.agreement))

    @router.get(
        "/labels",
        summary="Standing verdicts in the order of signing: what cases teach",
        dependencies=[needs(Action.VIEW_RESULT)],
    )
    async def labels(
        request: Request,
        after: Annotated[int, Query(ge=0, le=2**53, description="`seq` of the last one seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> LabelList:
        def read() -> LabelList:
            found = services.outgoing.reviews.labels(after=after, limit=limit)
            seen = visible(request, [label.study_id for label in found]).results
            return LabelList(labels=[label_view(one) for one in found if one.study_id in seen])

        return await storage.run(read)

    return router


def _expected(if_match: str) -> int:
    if not if_match:
        raise PreconditionRequiredError("say in If-Match which revision was on the screen")
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidRequestError('If-Match must be one strong tag such as "0"')
    return int(tag[1])
