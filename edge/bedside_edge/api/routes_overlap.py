"""Routes about patients shared with another hospital: letters out, letters in, counts."""

import binascii
from base64 import b64decode, b64encode
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, NotReadyError, PreconditionRequiredError
from bedside_core.evidence.note import VerifierKey, parse_verifier_key
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.ports.overlap import Overlap
from bedside_edge.services.overlap import OverlapService, counts

_RELEASE = [needs(Action.RELEASE)]
_READ = [needs(Action.READ_PRIVACY)]
_LONGEST = 1 << 27


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InviteBody(_Body):
    """An invitation to another hospital; whoever sends it agrees for this one."""

    partner: Annotated[str, Field(max_length=4096, description="verifier key of its log, Ed25519")]
    purpose: Annotated[str, Field(min_length=1, max_length=200)]
    identifier: Literal["patient-id", "patient-id+birth-date"] = "patient-id"
    sigma2: Annotated[int, Field(ge=1, le=10_000, description="variance of each side's noise")] = 16


class LetterBody(_Body):
    """A letter that came from the other hospital."""

    partner: Annotated[str, Field(max_length=4096)]
    letter: Annotated[str, Field(max_length=_LONGEST, description="base64")]
    agree: Annotated[bool, Field(description="to an invitation, for this hospital")] = False


class OverlapView(BaseModel):
    """One session."""

    model_config = ConfigDict(frozen=True)

    session: str
    role: str
    partner: str
    state: str
    at: int = Field(description="milliseconds since 1970, UTC")
    actor: str
    count: int | None = Field(default=None, description="with the other side's noise")
    letter: str | None = Field(default=None, description="base64, to send to the other side")


class OverlapList(BaseModel):
    """Sessions, newest first."""

    model_config = ConfigDict(frozen=True)

    overlaps: list[OverlapView]


def overlap_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; a letter over thousands of patients takes seconds, in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["overlap"], responses=dict(PROBLEMS))

    def service() -> OverlapService:
        if services.overlap is None:
            raise NotReadyError("this box counts no overlaps")
        return services.overlap

    @router.get("/overlaps", summary="Counts of patients shared with others", dependencies=_READ)
    async def list_overlaps() -> OverlapList:
        return await storage.run(lambda: listed(service()))

    @router.post(
        "/overlaps", summary="Invite another hospital", status_code=201, dependencies=_RELEASE
    )
    async def invite(body: InviteBody, request: Request) -> OverlapView:
        actor = actor_of(request).actor_id
        return await waiting.run(lambda: invited(service(), body, actor))

    @router.post("/overlaps:answer", summary="Answer a letter of a session", dependencies=_RELEASE)
    async def answer(body: LetterBody, request: Request) -> OverlapView:
        actor = actor_of(request).actor_id
        return await waiting.run(lambda: answered(service(), body, actor))

    return router


def listed(service: OverlapService) -> OverlapList:
    """Return every session with this side's count."""
    found = counts(service.store.overlaps())
    return OverlapList(overlaps=[_view(one, count=count) for one, count in found])


def invited(service: OverlapService, body: InviteBody, actor: str) -> OverlapView:
    """Begin a session."""
    made, letter = service.invite(
        _partner(body.partner), body.purpose, body.identifier, body.sigma2, actor
    )
    return _view(made, letter=letter)


def answered(service: OverlapService, body: LetterBody, actor: str) -> OverlapView:
    """Answer a letter.

    Raises:
        PreconditionRequiredError: it is an invitation and nobody agreed; the text says to what.
    """
    partner = _partner(body.partner)
    try:
        letter = b64decode(body.letter, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise InvalidRequestError("the letter is not base64") from cause
    invitation = service.read(letter, partner)
    if invitation is not None and not body.agree:
        raise PreconditionRequiredError(
            f"{invitation.asker} asks how many patients you share, by {invitation.identifier}, for:"
            f" {invitation.purpose}; each side's count gets noise of sd"
            f" {invitation.sigma2**0.5:.1f}. Agree for this hospital to answer"
        )
    made, reply = service.answer(letter, partner, actor)
    count = counts([made])[0][1]
    return _view(made, letter=reply, count=count)


def _partner(text: str) -> VerifierKey:
    return parse_verifier_key(text.strip())


def _view(one: Overlap, *, letter: bytes | None = None, count: int | None = None) -> OverlapView:
    return OverlapView(
        session=one.session,
        role=one.role,
        partner=one.partner,
        state=str(one.state),
        at=one.at,
        actor=one.actor,
        count=count,
        letter=None if letter is None else b64encode(letter).decode(),
    )
