"""Routes about consent and what patients ask for: for the privacy officer."""

import base64
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api import schemas_rights as schemas
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_rights import (
    AnswerView,
    ConsentBody,
    ConsentList,
    ConsentView,
    FhirBody,
    IdentityBody,
    NoteBody,
    NoticeBody,
    NoticeList,
    NoticeView,
    RequestBody,
    RequestList,
    RequestView,
    WithdrawBody,
    WithdrawnView,
)
from bedside_edge.api.services import Services
from bedside_edge.ports.rights import RightsRequest
from bedside_edge.services.gate import asker_of
from bedside_edge.services.rights import RightsService

_RIGHTS = [needs(Action.MANAGE_CONSENT)]
_STAYS = (
    "From the next use on nothing is read or used any more. Privacy budget that was spent and "
    "noisy statistics that were released stay; archives keep the objects they have."
)


def _desk(services: Services) -> RightsService:
    if services.rights is None:
        raise NotReadyError("this service has no request desk")
    return services.rights


def consents_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes about notices and consents."""
    router = APIRouter(prefix="/api/v1", tags=["rights"], responses=dict(PROBLEMS))

    @router.post("/notices", summary="Keep a notice", status_code=201, dependencies=_RIGHTS)
    async def add_notice(body: NoticeBody, request: Request) -> NoticeView:
        def work() -> NoticeView:
            actor = actor_of(request).actor_id
            return NoticeView(digest=_desk(services).consents.add_notice(body.parts, actor))

        return await storage.run(work)

    @router.get("/notices", summary="Notices, newest first", dependencies=_RIGHTS)
    async def list_notices() -> NoticeList:
        def look() -> NoticeList:
            found = _desk(services).store.notices()
            return NoticeList(notices=[NoticeView(digest=one.digest) for one in found])

        return await storage.run(look)

    @router.post(
        "/subjects/{subject_id}/consents",
        summary="Put a consent on record",
        status_code=201,
        dependencies=_RIGHTS,
    )
    async def give(subject_id: str, body: ConsentBody, request: Request) -> ConsentView:
        def work() -> ConsentView:
            made = _desk(services).consents.give(
                subject_id,
                body.purpose,
                body.notice,
                actor_of(request).actor_id,
                given_by=body.given_by,
                classes=body.classes,
                separate=body.separate,
                document=body.document,
                valid_from=body.valid_from,
                valid_to=body.valid_to,
            )
            return schemas.consent_view(made)

        return await storage.run(work)

    @router.get(
        "/subjects/{subject_id}/consents", summary="A patient's consents", dependencies=_RIGHTS
    )
    async def list_consents(subject_id: str) -> ConsentList:
        def look() -> ConsentList:
            found = _desk(services).store.consents(subject_id)
            return ConsentList(consents=[schemas.consent_view(one) for one in found])

        return await storage.run(look)

    @router.get(
        "/subjects/{subject_id}/consents/fhir",
        summary="A patient's consents as a FHIR R4B Bundle",
        dependencies=_RIGHTS,
    )
    async def to_fhir(subject_id: str) -> dict[str, Any]:
        return await storage.run(lambda: _desk(services).consents.to_fhir(subject_id))

    @router.post(
        "/subjects/{subject_id}/consents/fhir",
        summary="Put a FHIR R4B Consent on record",
        status_code=201,
        dependencies=_RIGHTS,
    )
    async def from_fhir(subject_id: str, body: FhirBody, request: Request) -> ConsentView:
        def work() -> ConsentView:
            actor = actor_of(request).actor_id
            made = _desk(services).consents.from_fhir(subject_id, body.resource(), actor)
            return schemas.consent_view(made)

        return await storage.run(work)

    @router.post(
        "/subjects/{subject_id}/consents:withdraw",
        summary="Take consent back, from the next use on",
        dependencies=_RIGHTS,
    )
    async def withdraw(subject_id: str, body: WithdrawBody, request: Request) -> WithdrawnView:
        def work() -> WithdrawnView:
            actor = actor_of(request).actor_id
            met = _desk(services).consents.withdraw(subject_id, body.purpose, actor)
            return WithdrawnView(
                purpose=met.purpose,
                stopped_jobs=met.stopped,
                earlier_results=met.results,
                objects_in_archives=met.sent,
                note=_STAYS,
            )

        return await storage.run(work)

    return router


def requests_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes of the request desk."""
    router = APIRouter(prefix="/api/v1", tags=["rights"], responses=dict(PROBLEMS))

    def view(one: RightsRequest) -> RequestView:
        return schemas.request_view(one, _desk(services).term.mark, services.clock.now())

    @router.post(
        "/subjects/{subject_id}/requests",
        summary="Take in what a patient asks for; its time runs",
        status_code=201,
        dependencies=_RIGHTS,
    )
    async def receive(subject_id: str, body: RequestBody, request: Request) -> RequestView:
        def work() -> RequestView:
            actor = actor_of(request).actor_id
            return view(_desk(services).receive(subject_id, body.kind, actor, body.received_at))

        return await storage.run(work)

    @router.get("/requests", summary="Requests, the first due first", dependencies=_RIGHTS)
    async def list_requests(
        subject: Annotated[str, Query(max_length=64)] = "",
        only_open: Annotated[bool, Query(alias="open")] = False,
    ) -> RequestList:
        def look() -> RequestList:
            found = _desk(services).store.requests(subject_id=subject, only_open=only_open)
            return RequestList(requests=[view(one) for one in found])

        return await storage.run(look)

    @router.get("/requests/{request_id}", summary="One request", dependencies=_RIGHTS)
    async def get_request(request_id: str) -> RequestView:
        return await storage.run(lambda: view(_desk(services).store.request(request_id)))

    @router.post(
        "/requests/{request_id}:identify",
        summary="Say how the person was recognised",
        dependencies=_RIGHTS,
    )
    async def identify(request_id: str, body: IdentityBody, request: Request) -> RequestView:
        def work() -> RequestView:
            actor = actor_of(request).actor_id
            return view(_desk(services).identify(request_id, body.how, actor))

        return await storage.run(work)

    @router.post(
        "/requests/{request_id}:answer",
        summary="Do what was asked for; what is handed over leaves through the policy",
        dependencies=_RIGHTS,
    )
    async def answer(request_id: str, body: NoteBody, request: Request) -> AnswerView:
        def work() -> AnswerView:
            asker = asker_of(actor_of(request))
            data = _desk(services).answer(services.gate, asker, request_id, body.note)
            return AnswerView(
                file=base64.b64encode(data).decode(), sha256=hashlib.sha256(data).hexdigest()
            )

        return await waiting.run(work)

    @router.post(
        "/requests/{request_id}:refuse",
        summary="End a request without what was asked for",
        dependencies=_RIGHTS,
    )
    async def refuse(request_id: str, body: NoteBody, request: Request) -> RequestView:
        def work() -> RequestView:
            asker = asker_of(actor_of(request))
            return view(_desk(services).refuse(request_id, body.note, asker))

        return await storage.run(work)

    return router
