"""Patients' rights: who somebody is, what they agreed to and asked for, holds, erasure, retention.

A patient is sought by the exact number, in a form that is posted, so that none stands in an
address; afterwards only the box's own ids do. Nobody is listed by name.
"""

from collections import Counter
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.consent import PURPOSES, Giver
from bedside_core.errors import (
    BedsideError,
    InvalidConsentError,
    InvalidRequestError,
    LegalHoldError,
    NotFoundError,
    NotPermittedError,
    NotReadyError,
    WrongStateError,
)
from bedside_core.uses import Purpose
from bedside_edge.api.errors import status_of
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.ports.rights import Ask
from bedside_edge.services.gate import asker_of
from bedside_edge.services.rights import RightsService
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, site, words_of

_RIGHTS: Final = [needs(Action.MANAGE_CONSENT)]
_RULES: Final = [needs(Action.MANAGE_POLICY)]
_WORDS: Final = ("in-person", "passport", "id-card", "by-letter", "known-to-us")
_REFUSALS: Final = ("not-identified", "not-a-patient", "law-forbids", "repeated")
_HOLDS: Final = ("litigation", "objection", "investigation")
_REVIEW_MS: Final = 90 * 86_400_000
_DONE: Final = frozenset({"received", "given", "withdrawn", "erased", "held", "released", "ended"})
_LONGEST: Final = 64


def patients_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return /patients and /retention; what takes long runs in `waiting`."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)
    _add_desk(router, services, storage)
    _add_patient(router, services, storage, waiting)
    _add_requests(router, services, storage, waiting)
    _add_retention(router, services, waiting)
    return router


def _desk(services: Services) -> RightsService:
    if services.rights is None:
        raise NotReadyError("this service has no request desk")
    return services.rights


def _add_desk(router: APIRouter, services: Services, storage: WorkPool) -> None:
    async def page(request: Request, done: str = "", error: BedsideError | None = None) -> Response:
        def look() -> dict[str, Any]:
            return {
                "requests": _desk(services).store.requests(only_open=True),
                "ended": [r for r in _desk(services).store.requests() if r.state != "open"][-20:],
                "holds": services.keeping.holds.holds(),
                "erasures": services.keeping.erasure.erasures(limit=20),
            }

        return site().page(
            request,
            "patients.html",
            status=status_of(error.code) if error else 200,
            now=services.clock.now(),
            named=services.access.name_of,
            done=done if done in _DONE else "",
            wrong="patients.unknown" if error else "",
            **await storage.run(look),
        )

    @router.get("/patients", dependencies=_RIGHTS)
    async def patients(request: Request, done: str = "") -> Response:
        return await page(request, done)

    @router.post("/patients/find", dependencies=_RIGHTS)
    async def find(request: Request) -> Response:
        fields = await form_of(request)
        number = fields.get("number", "").strip()[:_LONGEST]
        issuer = fields.get("issuer", "").strip()[:_LONGEST]
        try:
            found = await storage.run(services.keeping.subjects.find, issuer, number)
        except NotFoundError as error:
            return await page(request, error=error)
        return RedirectResponse(f"/patients/{found}", 303)

    @router.post("/patients/holds/{hold_id}/release", dependencies=_RIGHTS)
    async def release(request: Request, hold_id: str) -> Response:
        actor = actor_of(request).actor_id
        await storage.run(lambda: services.keeping.holds.release(hold_id, actor=actor))
        return RedirectResponse("/patients?done=released", 303)


def _add_patient(
    router: APIRouter, services: Services, storage: WorkPool, waiting: WorkPool
) -> None:
    async def page(
        request: Request, subject_id: str, done: str = "", error: BedsideError | None = None
    ) -> Response:
        def look() -> dict[str, Any]:
            subject = services.keeping.subjects.subject(subject_id)
            held = services.keeping.holds.holds()
            return {
                "subject": subject,
                "plan": services.keeping.erasure.plan_subject(subject_id),
                "consents": _desk(services).store.consents(subject_id),
                "notices": _desk(services).store.notices(),
                "requests": _desk(services).store.requests(subject_id=subject_id),
                "holds": [one for one in held if one.study_id in subject.studies],
            }

        return site().page(
            request,
            "patient.html",
            status=status_of(error.code) if error else 200,
            now=services.clock.now(),
            named=services.access.name_of,
            kinds=list(Ask),
            purposes=[one for one in Purpose if one in PURPOSES],
            givers=list(Giver),
            hold_reasons=_HOLDS,
            done=done if done in _DONE else "",
            wrong=_wrong(error),
            detail=str(error) if error else "",
            **await storage.run(look),
        )

    @router.get("/patients/{subject_id}", dependencies=_RIGHTS)
    async def patient(request: Request, subject_id: str, done: str = "") -> Response:
        return await page(request, subject_id, done)

    async def change(request: Request, subject_id: str, done: str, work: Any) -> Response:  # noqa: ANN401
        try:
            await waiting.run(work)
        except (InvalidConsentError, InvalidRequestError, WrongStateError, LegalHoldError) as error:
            return await page(request, subject_id, error=error)
        return RedirectResponse(f"/patients/{subject_id}?done={done}", 303)

    @router.post("/patients/{subject_id}/requests", dependencies=_RIGHTS)
    async def receive(request: Request, subject_id: str) -> Response:
        kind, actor = _one_of(Ask, await form_of(request), "kind"), actor_of(request).actor_id
        await storage.run(_desk(services).receive, subject_id, kind, actor)
        return RedirectResponse(f"/patients/{subject_id}?done=received", 303)

    @router.post("/patients/{subject_id}/consents", dependencies=_RIGHTS)
    async def give(request: Request, subject_id: str) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        purpose, giver = _one_of(Purpose, fields, "purpose"), _one_of(Giver, fields, "giver")

        def work() -> None:
            _desk(services).consents.give(
                subject_id,
                purpose,
                fields.get("notice", ""),
                actor,
                given_by=giver,
                separate="separate" in fields,
            )

        return await change(request, subject_id, "given", work)

    @router.post("/patients/{subject_id}/withdraw", dependencies=_RIGHTS)
    async def withdraw(request: Request, subject_id: str) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        purpose = fields.get("purpose", "")[:_LONGEST]
        work = lambda: _desk(services).consents.withdraw(subject_id, purpose, actor)  # noqa: E731
        return await change(request, subject_id, "withdrawn", work)

    @router.post("/patients/{subject_id}/hold", dependencies=_RIGHTS)
    async def hold(request: Request, subject_id: str) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        if fields.get("reason") not in _HOLDS:
            raise InvalidRequestError("the form has a value this page does not offer")

        def work() -> None:
            until = services.clock.now() + _REVIEW_MS
            held = {one.study_id for one in services.keeping.holds.holds()}
            for study_id in services.keeping.subjects.studies_of(subject_id):
                if study_id not in held:
                    services.keeping.holds.hold(
                        study_id, reason=fields["reason"], actor=actor, review_at=until
                    )

        return await change(request, subject_id, "held", work)

    @router.post("/patients/{subject_id}/erase", dependencies=_RIGHTS)
    async def erase(request: Request, subject_id: str) -> Response:
        fields, asker = await form_of(request), asker_of(actor_of(request))
        word = words_of(request)("patients.word")
        if fields.get("word", "").strip().casefold() != word.casefold():
            error = InvalidRequestError("the word was not typed")
            return await page(request, subject_id, error=error)

        def work() -> None:
            plan = services.keeping.erasure.plan_subject(subject_id)
            services.keeping.erase(services.gate, asker, plan, reason="request")

        try:
            await waiting.run(work)
        except (LegalHoldError, NotPermittedError) as error:
            return await page(request, subject_id, error=error)
        return RedirectResponse("/patients?done=erased", 303)


def _add_requests(
    router: APIRouter, services: Services, storage: WorkPool, waiting: WorkPool
) -> None:
    async def page(
        request: Request, request_id: str, error: BedsideError | None = None
    ) -> Response:
        found = await storage.run(_desk(services).store.request, request_id)
        return site().page(
            request,
            "patient_request.html",
            status=status_of(error.code) if error else 200,
            one=found,
            now=services.clock.now(),
            named=services.access.name_of,
            term=_desk(services).term,
            recognised=_WORDS,
            refusals=_REFUSALS,
            wrong=_wrong(error),
            detail=str(error) if error else "",
        )

    @router.get("/requests/{request_id}", dependencies=_RIGHTS)
    async def one(request: Request, request_id: str) -> Response:
        return await page(request, request_id)

    @router.post("/requests/{request_id}/identify", dependencies=_RIGHTS)
    async def identify(request: Request, request_id: str) -> Response:
        how, actor = (await form_of(request)).get("how", ""), actor_of(request).actor_id
        if how not in _WORDS:
            raise InvalidRequestError("the form has a value this page does not offer")
        await storage.run(_desk(services).identify, request_id, how, actor)
        return RedirectResponse(f"/requests/{request_id}", 303)

    @router.post("/requests/{request_id}/answer", dependencies=_RIGHTS)
    async def answer(request: Request, request_id: str) -> Response:
        """Do what was asked for and hand the file over as a download."""
        asker = asker_of(actor_of(request))
        try:
            data = await waiting.run(_desk(services).answer, services.gate, asker, request_id)
        except (WrongStateError, LegalHoldError, NotPermittedError) as error:
            return await page(request, request_id, error)
        name = f'attachment; filename="answer-{request_id}.zip"'
        headers = {"Content-Disposition": name}
        return Response(data, media_type="application/zip", headers=headers)

    @router.post("/requests/{request_id}/refuse", dependencies=_RIGHTS)
    async def refuse(request: Request, request_id: str) -> Response:
        why, asker = (await form_of(request)).get("why", ""), asker_of(actor_of(request))
        if why not in _REFUSALS:
            raise InvalidRequestError("the form has a value this page does not offer")
        await storage.run(_desk(services).refuse, request_id, why, asker)
        return RedirectResponse("/patients?done=ended", 303)


def _add_retention(router: APIRouter, services: Services, waiting: WorkPool) -> None:
    @router.get("/retention", dependencies=_RULES)
    async def retention(request: Request, gone: int = -1) -> Response:
        plan = await waiting.run(services.keeping.retention.plan)
        reasons = Counter((verdict.goes, str(verdict.reason)) for verdict in plan.verdicts)
        return site().page(
            request,
            "retention.html",
            plan=plan,
            rules=services.keeping.retention.rules,
            goes=[(why, n) for (goes, why), n in sorted(reasons.items()) if goes],
            stays=[(why, n) for (goes, why), n in sorted(reasons.items()) if not goes],
            gone=gone,
        )

    @router.post("/retention/run", dependencies=_RULES)
    async def run() -> Response:
        gone = await waiting.run(services.keeping.retention.run)
        return RedirectResponse(f"/retention?gone={gone}", 303)


def _wrong(error: BedsideError | None) -> str:
    """Return the key of what to tell about a form that was not taken."""
    if error is None:
        return ""
    if isinstance(error, LegalHoldError):
        return "patients.is_held"
    if isinstance(error, NotPermittedError):
        return "patients.not_permitted"
    return "patients.not_done"


def _one_of(kind: Any, fields: dict[str, str], name: str) -> Any:  # noqa: ANN401  an enumeration
    try:
        return kind(fields.get(name, ""))
    except ValueError:
        raise InvalidRequestError("the form has a value this page does not offer") from None
