"""The evidence log over HTTP: checkpoint, entries, proofs, tiles, and the trail as FHIR.

The paths below `/api/v1/evidence` are those of c2sp.org/tlog-tiles, so a mirror or monitor made for
such logs can follow this one.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import InvalidTileError, NotFoundError
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.tiles import WIDTH, parse_tile_path
from bedside_core.signatures import to_base64
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.routes_fhir import FHIR
from bedside_edge.api.services import Services
from bedside_edge.ports.evidence import Kept
from bedside_edge.services.audit import audit_bundle

_NOTE = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_PAGE = 1000
_DAY = timedelta(days=1)


class EntryView(BaseModel):
    """An entry of the log, and what this box still knows about it."""

    model_config = ConfigDict(frozen=True)

    index: int
    entry: dict[str, Any] = Field(description="the entry, decoded")
    data: str = Field(description="base64 of the entry's bytes: what the leaf hash covers")
    study: str = Field(description="our id of the study; empty for none, and after erasure")


class EntryList(BaseModel):
    """Entries, newest first."""

    model_config = ConfigDict(frozen=True)

    origin: str
    size: int
    entries: list[EntryView]


class LogKeyList(BaseModel):
    """Who signs this log."""

    model_config = ConfigDict(frozen=True)

    origin: str
    keys: list[str] = Field(description="verifier keys; a reader asks for the signatures of all")


def evidence_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes of the log."""
    router = APIRouter(
        prefix="/api/v1",
        tags=["evidence"],
        responses=dict(PROBLEMS),
        dependencies=[needs(Action.READ_AUDIT)],
    )
    _add_notes(router, services, storage)
    _add_entries(router, services, storage)
    _add_tiles(router, services, storage)
    _add_audit(router, services, storage)
    return router


def _add_notes(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get(
        "/evidence/checkpoint",
        summary="The newest signed checkpoint with its cosignatures",
        response_class=Response,
        responses=_content(_NOTE, "a signed note"),
    )
    async def get_checkpoint() -> Response:
        def look() -> bytes:
            log = services.evidence.log
            return log.latest_checkpoint() or log.checkpoint()

        return Response(await storage.run(look), media_type=_NOTE)

    @router.get("/evidence/keys", summary="The log's name and public keys")
    async def get_keys() -> LogKeyList:
        log = services.evidence.log
        return LogKeyList(origin=log.origin, keys=[key.text for key in log.keys])

    @router.get(
        "/evidence/proofs/{index}",
        summary="The proof file of an entry; signs a checkpoint when none covers it yet",
        response_class=Response,
        responses=_content(_BYTES, "c2sp.org/tlog-proof, verifiable offline"),
    )
    async def get_proof(index: Annotated[int, Path(ge=0, le=2**53)]) -> Response:
        made = await storage.run(services.evidence.log.proof, index)
        name = f'attachment; filename="entry-{index}.tlog-proof"'
        return Response(made, media_type=_BYTES, headers={"Content-Disposition": name})


def _add_entries(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get("/evidence/entries", summary="Entries, newest first")
    async def list_entries(
        kind: Annotated[list[Kind] | None, Query(description="any of these kinds")] = None,
        before: Annotated[
            int | None, Query(ge=0, le=2**53, description="only entries below this number")
        ] = None,
        study: Annotated[str, Query(max_length=64, description="our id of a study")] = "",
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
    ) -> EntryList:
        def look() -> EntryList:
            log = services.evidence.log
            if study:
                below = [i for i in log.about(study_id=study) if before is None or i < before]
                found = [log.entry(i) for i in reversed(below[-limit:])]
                found = [one for one in found if not kind or one.entry.kind in kind]
            else:
                found = log.newest(limit=limit, before=before, kinds=kind or ())
            return EntryList(
                origin=log.origin, size=log.size(), entries=[_view(one) for one in found]
            )

        return await storage.run(look)

    @router.get("/evidence/entries/{index}", summary="One entry")
    async def get_entry(index: Annotated[int, Path(ge=0, le=2**53)]) -> EntryView:
        return _view(await storage.run(services.evidence.log.entry, index))


def _add_tiles(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get(
        "/evidence/tile/{path:path}",
        summary="A tile or entry bundle (c2sp.org/tlog-tiles)",
        response_class=Response,
        responses=_content(_BYTES, "hashes of 32 bytes, or entries after their lengths"),
    )
    async def get_tile(path: Annotated[str, Path(max_length=64)]) -> Response:
        try:
            tile = parse_tile_path(f"tile/{path}")
        except InvalidTileError as cause:
            raise NotFoundError("the log has no such tile") from cause
        body = await storage.run(services.evidence.log.tile, tile)
        return Response(body, media_type=_BYTES, headers=_FOR_EVER if tile.width == WIDTH else None)


def _add_audit(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get(
        "/audit",
        summary="The trail of a time range as FHIR R4B AuditEvents, oldest first",
        response_class=Response,
        responses=_content(FHIR, "Bundle of AuditEvents; `next` names the following page"),
    )
    async def get_audit(
        since: Annotated[
            AwareDatetime | None, Query(description="default: a day before `until`")
        ] = None,
        until: Annotated[AwareDatetime | None, Query(description="excluded; default: now")] = None,
        kind: Annotated[list[Kind] | None, Query(description="any of these kinds")] = None,
        after: Annotated[
            int, Query(ge=-1, le=2**53, description="only entries above this number")
        ] = -1,
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
    ) -> Response:
        end = until or datetime.fromtimestamp(services.clock.now() // 1000 + 1, UTC)
        start = since or _day_before(end)

        def look() -> bytes:
            log = services.evidence.log
            found = log.between(
                int(start.timestamp()),
                int(end.timestamp()),
                limit=limit + 1,
                after=after,
                kinds=kind or (),
            )
            page = found[:limit]
            query = [
                ("since", start.isoformat()),
                ("until", end.isoformat()),
                *(("kind", one.value) for one in kind or ()),
                ("limit", str(limit)),
            ]

            def url(last: int) -> str:
                return "/api/v1/audit?" + urlencode([*query, ("after", str(last))])

            following = url(page[-1].index) if len(found) > limit else ""
            bundle = audit_bundle(log.origin, page, url=url(after), following=following)
            return json.dumps(bundle, separators=(",", ":")).encode()

        return Response(await storage.run(look), media_type=FHIR)


def _day_before(end: datetime) -> datetime:
    try:
        return end - _DAY
    except OverflowError:  # the first day of the calendar
        return end


def _view(one: Kept) -> EntryView:
    return EntryView(
        index=one.index,
        entry=json.loads(one.data),
        data=to_base64(one.data),
        study=one.study_id,
    )


def _content(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {}}, "description": description}}
