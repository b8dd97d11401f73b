"""This box as a witness (c2sp.org/tlog-witness), and how its own log stands with its witnesses.

The paths below `/witness` are the protocol's, its media types and status codes included; whoever
asks needs a token or certificate with the action `witness`, beside the log's own signature.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import NotReadyError, TimedOutError, TooLargeError
from bedside_core.evidence.witness import MAX_REQUEST, NOTE_TYPE
from bedside_core.signatures import to_base64
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.ports.witness import Gap, Refused, Standing, Watched
from bedside_edge.services.witness import WitnessService
from bedside_edge.services.witnessing import Status, Witnessing

_PATIENCE_S = 30.0


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class LogBody(BaseModel):
    """A log this box shall cosign."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[Annotated[str, Field(max_length=4096)]] = Field(
        min_length=1, max_length=8, description="its verifier keys; all must have signed"
    )


class LogView(_View):
    """A log this box may cosign."""

    origin: str
    keys: list[str]
    added_by: str
    size: int | None = Field(description="last cosigned; null before the first time")
    root: str = Field(description="its root, lower hex; empty before the first time")


class RefusedView(_View):
    """A checkpoint its own log signed that speaks against it: proof of misbehaviour."""

    origin: str
    why: str
    size: int
    last: int = Field(description="size cosigned before")
    note: str = Field(description="base64 of the signed checkpoint")
    at: int = Field(description="milliseconds since 1970, UTC")


class WitnessView(_View):
    """This box as a witness."""

    keys: list[str] = Field(description="its verifier keys")
    logs: list[LogView]
    refused: list[RefusedView]


class StandingView(_View):
    """How the log of this box stands with one witness."""

    name: str
    size: int = Field(description="cosigned last; 0 for never")
    cosigned_at: int
    tried_at: int
    failures: int
    said: str
    asked: bool = Field(description="since the box started, what it saw last")


class GapView(_View):
    """What locks the log of this box."""

    witness: str
    found_at: int
    size: int = Field(description="size of this log when it was found")
    witnessed_size: int = Field(description="size of the checkpoint that does not fit")
    note: str = Field(description="base64 of that checkpoint, signed by this log")
    incident: str


class WitnessesView(_View):
    """How the log of this box stands with its witnesses."""

    origin: str
    locked: bool
    size: int
    sent: int = Field(description="size of the checkpoint sent last; 0 for none")
    sent_at: int
    quorum: bool = Field(description="whether enough witnesses cosigned that one")
    witnessed: int = Field(description="largest size that enough of them have seen")
    gap: GapView | None
    witnesses: list[StandingView]


def witness_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; what asks other machines runs in `waiting`."""
    router = APIRouter(tags=["witness"], responses=dict(PROBLEMS))
    _add_protocol(router, lambda: _witness(services), storage)
    _add_logs(router, lambda: _witness(services), storage)
    _add_own(router, lambda: _witnessing(services), storage, waiting)
    return router


def _witness(services: Services) -> WitnessService:
    if services.witness is None:
        raise NotReadyError("this service is no witness")
    return services.witness


def _witnessing(services: Services) -> Witnessing:
    if services.witnessing is None:
        raise NotReadyError("this service has no witnesses")
    return services.witnessing


def _add_protocol(
    router: APIRouter, witness: Callable[[], WitnessService], storage: WorkPool
) -> None:
    note: dict[int | str, dict[str, Any]] = {
        200: {"content": {NOTE_TYPE: {}}, "description": "signature lines, or a signed note"}
    }

    @router.post(
        "/witness/add-checkpoint",
        summary="Cosign a checkpoint that has grown from the one cosigned last",
        response_class=Response,
        responses={
            **note,
            # the protocol's own refusals are a word; the service's, as everywhere, a problem
            **{
                status: {
                    "content": {NOTE_TYPE: {}, "application/problem+json": {}},
                    "description": "the protocol, or the service, refuses",
                }
                for status in (400, 403, 404, 422)
            },
            409: {
                "content": {"text/x.tlog.size": {}},
                "description": "another size was cosigned last",
            },
        },
        openapi_extra={"requestBody": {"required": True, "content": {"text/plain": {}}}},
        dependencies=[needs(Action.WITNESS)],
    )
    async def add_checkpoint(request: Request) -> Response:
        body = await _body(request)
        answer = await storage.run(witness().add_checkpoint, body)
        return Response(answer.body, answer.status, media_type=answer.content_type)

    @router.get(
        "/witness/{digest}/checkpoint",
        summary="The checkpoint cosigned last of a log, by SHA-256 of its origin",
        response_class=Response,
        responses=note,
        dependencies=[needs(Action.WITNESS)],
    )
    async def last_checkpoint(
        digest: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
    ) -> Response:
        body = await storage.run(witness().last_checkpoint, digest)
        return Response(body, media_type=NOTE_TYPE)


def _add_logs(router: APIRouter, witness: Callable[[], WitnessService], storage: WorkPool) -> None:
    @router.get(
        "/api/v1/witness",
        summary="This box as a witness: keys, logs, and what it refused and keeps as proof",
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def get_witness() -> WitnessView:
        return await storage.run(lambda: witness_view(witness()))

    @router.post(
        "/api/v1/witness/logs",
        status_code=201,
        summary="Let a log be cosigned",
        dependencies=[needs(Action.MANAGE_ACCOUNTS)],
    )
    async def add_log(body: LogBody, request: Request) -> LogView:
        def add() -> LogView:
            origin = witness().enrol(body.keys, actor_of(request).actor_id)
            return next(_log(log) for log in witness().watched() if log.origin == origin)

        return await storage.run(add)


def _add_own(
    router: APIRouter,
    witnessing: Callable[[], Witnessing],
    storage: WorkPool,
    waiting: WorkPool,
) -> None:
    @router.get(
        "/api/v1/evidence/witnesses",
        summary="How the log of this box stands with its witnesses",
        dependencies=[needs(Action.READ_AUDIT)],
    )
    async def get_witnesses() -> WitnessesView:
        return witnesses_view(await storage.run(witnessing().status))

    @router.post(
        "/api/v1/evidence/witnesses:sync",
        summary="Send a new checkpoint to every witness now",
        dependencies=[needs(Action.MANAGE_INCIDENT)],
    )
    async def sync_witnesses() -> WitnessesView:
        return witnesses_view(await waiting.run(witnessing().sync))


def witness_view(witness: WitnessService) -> WitnessView:
    """Return what this box is and knows as a witness."""
    return WitnessView(
        keys=[key.text for key in witness.keys],
        logs=[_log(log) for log in witness.watched()],
        refused=[_refused(one) for one in witness.refused()],
    )


def witnesses_view(status: Status) -> WitnessesView:
    """Return how the log stands."""
    gap = status.gap
    return WitnessesView(
        origin=status.origin,
        locked=gap is not None,
        size=status.size,
        sent=status.sent,
        sent_at=status.sent_at,
        quorum=status.quorum,
        witnessed=status.witnessed,
        gap=_gap(gap) if gap else None,
        witnesses=[_standing(one, status.unasked) for one in status.standings],
    )


async def _body(request: Request) -> bytes:
    """Return the body, never more than a request of the protocol can have."""
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST:
                    raise TooLargeError(f"a request has at most {MAX_REQUEST} bytes")
    except TimeoutError as cause:
        raise TimedOutError("the sender fell silent in the middle of the body") from cause
    return bytes(body)


def _log(log: Watched) -> LogView:
    return LogView(
        origin=log.origin,
        keys=[key.text for key in log.keys],
        added_by=log.added_by,
        size=log.seen.size if log.seen else None,
        root=log.seen.root.hex() if log.seen else "",
    )


def _refused(one: Refused) -> RefusedView:
    return RefusedView(
        origin=one.origin,
        why=one.why,
        size=one.size,
        last=one.last,
        note=to_base64(one.note),
        at=one.at,
    )


def _gap(gap: Gap) -> GapView:
    return GapView(
        witness=gap.witness,
        found_at=gap.found_at,
        size=gap.size,
        witnessed_size=gap.witnessed.size,
        note=to_base64(gap.note),
        incident=gap.incident,
    )


def _standing(one: Standing, unasked: frozenset[str]) -> StandingView:
    return StandingView(
        name=one.name,
        size=one.size,
        cosigned_at=one.cosigned_at,
        tried_at=one.tried_at,
        failures=one.failures,
        said=one.said,
        asked=one.name not in unasked,
    )
