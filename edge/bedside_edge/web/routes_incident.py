"""Emergencies: how the box is, sealing it, opening it again by two people, clocks and notices.

Sealing asks for a typed word, because it stops the work of the whole department.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    UnsealRefusedError,
    WrongStateError,
)
from bedside_core.incident import MOVES, PARTS, STOPPED, Cause, Duty, missing
from bedside_core.uses import Ask, Facts, Incident, Purpose, Situation, Thing, Use
from bedside_edge.api.errors import status_of
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.ports.incidents import IncidentRow, Ticking, UnsealAsk
from bedside_edge.services.gate import asker_of
from bedside_edge.services.incident import IncidentService
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, site, words_of

_READ: Final = [needs(Action.READ_AUDIT)]
_MANAGE: Final = [needs(Action.MANAGE_INCIDENT)]
_LONGEST: Final = 2000
_DONE: Final = frozenset({"sealed", "asked", "opened", "moved", "opened_case", "closed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """One clock of an incident with the duty behind it."""

    row: Ticking
    duty: Duty | None  # None: of an older version
    lacks: Sequence[str]  # parts the notice still needs


def moves_from(now: Incident) -> tuple[list[Incident], list[Incident]]:
    """Return the states one person may choose over the network, and those two have to agree on."""
    found = [(to, need) for (begin, to), need in MOVES.items() if begin is now and not need.local]
    alone = [to for to, need in found if need.remote == 1 and to not in STOPPED]
    return alone, [to for to, need in found if need.remote > 1]


def incident_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return /incidents; what runs checks runs in `waiting`."""
    router = APIRouter(prefix="/incidents", include_in_schema=False, route_class=PageRoute)
    _add_state(router, services, storage, waiting)
    _add_cases(router, services, storage)
    return router


def _of(services: Services) -> IncidentService:
    if services.incidents is None:
        raise NotReadyError("this service keeps no incidents")
    return services.incidents


def _add_state(router: APIRouter, services: Services, storage: WorkPool, waiting: WorkPool) -> None:
    def look(ask: str) -> dict[str, Any]:
        kept = _of(services)
        history = kept.store.history()
        asked: UnsealAsk | None = kept.store.asked(ask) if ask else None
        alone, together = moves_from(history[0].state)
        return {
            "state": history[0],
            "history": history[1:20],
            "asked": asked,
            "alone": alone,
            "together": together,
            "stopped": history[0].state in STOPPED,
            "cases": [(one, _clocks(kept, one)) for one in kept.store.incidents()],
            "now": services.clock.now(),
            "causes": list(Cause),
            "named": services.access.name_of,
        }

    async def page(
        request: Request,
        ask: str = "",
        done: str = "",
        error: BedsideError | None = None,
        said: str = "",
        filled: dict[str, str] | None = None,
    ) -> Response:
        return site().page(
            request,
            "incidents.html",
            status=status_of(error.code) if error else 200,
            done=done if done in _DONE else "",
            wrong=said,
            detail=str(error) if error else "",
            me=actor_of(request).actor_id,
            here_at=str(request.base_url).rstrip("/"),
            filled=filled or {},
            **await storage.run(look, ask),
        )

    @router.get("", dependencies=_READ)
    async def incidents(request: Request, ask: str = "", done: str = "") -> Response:
        return await page(request, ask[:64], done)

    @router.post("/seal", dependencies=_MANAGE)
    async def seal(request: Request) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        cause = _one_of(Cause, fields.get("cause", ""))
        word = words_of(request)("incident.word")
        if fields.get("word", "").strip().casefold() != word.casefold():
            error = InvalidRequestError("the word was not typed")
            return await page(request, error=error, said="incident.no_word", filled=fields)

        def work() -> None:
            reason = fields.get("reason", "").strip()[:_LONGEST]
            _of(services).seal(actor, cause=cause, reason=reason)

        await storage.run(work)
        return _back("sealed")

    @router.post("/ask", dependencies=_MANAGE)
    async def ask(request: Request) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        to, reason = _one_of(Incident, fields.get("state", "")), fields.get("reason", "").strip()
        try:
            asked = await waiting.run(_of(services).ask, to, actor, reason[:_LONGEST])
        except UnsealRefusedError as error:
            return await page(request, error=error, said="incident.not_opened", filled=fields)
        return RedirectResponse(f"/incidents?ask={asked.ask_id}&done=asked", 303)

    @router.post("/asks/{ask_id}/confirm", dependencies=_MANAGE)
    async def confirm(request: Request, ask_id: str) -> Response:
        actor = actor_of(request)

        def work() -> None:
            kept = _of(services)
            asked = kept.store.asked(ask_id)
            situation = Situation(
                purpose=Purpose.OPERATION,
                incident=kept.store.state().state,
                people=len({asked.actor, actor.actor_id}),
            )
            question = Ask(
                use=Use.UNSEAL,
                asker=asker_of(actor),
                facts=Facts(thing=Thing.BOX),
                situation=situation,
            )
            services.gate.decide(question).must()
            kept.confirm(ask_id, actor.actor_id)

        try:
            await waiting.run(work)
        except UnsealRefusedError as error:
            return await page(request, ask_id, error=error, said="incident.not_opened")
        return _back("opened")

    @router.post("/state", dependencies=_MANAGE)
    async def move(request: Request) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        to = _one_of(Incident, fields.get("state", ""))
        try:
            await waiting.run(_of(services).move, to, actor)
        except UnsealRefusedError as error:
            return await page(request, error=error, said="incident.not_opened")
        return _back("moved")


def _add_cases(router: APIRouter, services: Services, storage: WorkPool) -> None:
    async def case_page(
        request: Request, incident_id: str, error: BedsideError | None = None
    ) -> Response:
        def look() -> dict[str, Any]:
            kept = _of(services)
            row = kept.store.incident(incident_id)
            clocks = _clocks(kept, row)
            drafts = {
                one.row.duty_id: kept.notice(incident_id, one.row.duty_id)
                for one in clocks
                if one.duty is not None
            }
            return {"case": row, "clocks": clocks, "drafts": drafts}

        return site().page(
            request,
            "incident_case.html",
            status=status_of(error.code) if error else 200,
            parts_of_notice=list(PARTS),
            now=services.clock.now(),
            named=services.access.name_of,
            wrong="incident.not_yet" if error else "",
            detail=str(error) if error else "",
            **await storage.run(look),
        )

    @router.post("", dependencies=_MANAGE)
    async def open_case(request: Request) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        cause, drill = _one_of(Cause, fields.get("cause", "")), "drill" in fields

        def work() -> str:
            return _of(services).open(actor, cause=cause, drill=drill)

        return RedirectResponse(f"/incidents/{await storage.run(work)}", 303)

    @router.get("/{incident_id}", dependencies=_READ)
    async def case(request: Request, incident_id: str) -> Response:
        return await case_page(request, incident_id)

    @router.post("/{incident_id}/facts", dependencies=_MANAGE)
    async def facts(request: Request, incident_id: str) -> Response:
        fields, actor = await form_of(request), actor_of(request).actor_id
        told = {part: fields[part].strip() for part in PARTS if part in fields}
        await storage.run(_of(services).learn, incident_id, told, actor)
        return RedirectResponse(f"/incidents/{incident_id}", 303)

    async def carry_out(request: Request, incident_id: str, *work: Any) -> Response:  # noqa: ANN401
        try:
            await storage.run(*work)
        except (InvalidRequestError, UnsealRefusedError, WrongStateError) as error:
            return await case_page(request, incident_id, error)
        return RedirectResponse(f"/incidents/{incident_id}", 303)

    @router.post("/{incident_id}/notices/{duty_id}/sign", dependencies=_MANAGE)
    async def sign(request: Request, incident_id: str, duty_id: str) -> Response:
        actor, kept = actor_of(request).actor_id, _of(services)
        return await carry_out(request, incident_id, kept.sign, incident_id, duty_id, actor)

    @router.post("/{incident_id}/close", dependencies=_MANAGE)
    async def close(request: Request, incident_id: str) -> Response:
        actor, kept = actor_of(request).actor_id, _of(services)
        return await carry_out(request, incident_id, kept.close, incident_id, actor)


def _clocks(kept: IncidentService, row: IncidentRow) -> list[Clock]:
    found = []
    for one in row.clocks:
        duty = kept.duties.get(one.duty_id)
        lacks = missing(duty, row.facts) if duty else ()
        found.append(Clock(row=one, duty=duty, lacks=lacks))
    return found


def _one_of(kind: Any, value: str) -> Any:  # noqa: ANN401  an enumeration, and its member
    try:
        return kind(value)
    except ValueError:
        raise NotFoundError("the form has a value this page does not offer") from None


def _back(done: str) -> Response:
    return RedirectResponse(f"/incidents?done={done}", 303)
