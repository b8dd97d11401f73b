"""QIDO-RS: search what the box holds, received and made (PS3.18 section 10.6)."""

import json
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Path, Request, Response

from bedside_core.access import Action
from bedside_core.errors import InvalidInputError, NotAcceptableError
from bedside_edge.api.accept import JSON, accepted
from bedside_edge.api.gate import permitted_holdings
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.dicom.qido import Level, parse, search

Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="a DICOM UID")]

_MOST_KEYS: Final = 64
_MORE: Final = (
    "The number of results exceeded the maximum supported by the server."
    " Additional results can be requested."
)
FOUND: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {JSON: {}}, "description": "the matches, newest study first"},
    204: {"description": "nothing matches"},
}


def _parameter(name: str, words: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": words,
        "schema": {"type": "string", **schema},
    }


_PARAMETERS: Final = {
    "parameters": [
        _parameter("limit", "most results", pattern="^[0-9]{1,9}$"),
        _parameter("offset", "results to skip", pattern="^[0-9]{1,9}$"),
        _parameter("includefield", "`all`, or attributes by keyword or tag"),
        _parameter("fuzzymatching", "not supported", enum=["true", "false"]),
        _parameter("PatientID", "any other key by keyword or tag: see docs/dicomweb.md"),
    ]
}


def qido_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the six searches."""
    router = APIRouter(
        prefix="/dicom-web",
        tags=["DICOMweb"],
        responses={**PROBLEMS, **FOUND},
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )

    async def found(request: Request, level: Level, study: str = "", series: str = "") -> Response:
        pairs = query_pairs(request)
        want_json(request)
        base = base_url(request)

        def look() -> Response:
            services.evidence.looked(actor_of(request).actor_id, "search")
            query = parse(level, pairs, within=bool(study))
            rows, more = search(query, permitted_holdings(request, services), base, study, series)
            warnings = [*query.warnings, *([_MORE] if more else [])]
            return json_reply(rows, warnings, request)

        return await storage.run(look)

    def add(path: str, name: str, words: str, endpoint: Any) -> None:  # noqa: ANN401
        router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            name=name,
            summary=words,
            response_class=Response,
            openapi_extra=_PARAMETERS,
        )

    async def studies(request: Request) -> Response:
        return await found(request, Level.STUDY)

    async def all_series(request: Request) -> Response:
        return await found(request, Level.SERIES)

    async def all_instances(request: Request) -> Response:
        return await found(request, Level.INSTANCE)

    async def series(request: Request, study: Uid) -> Response:
        return await found(request, Level.SERIES, study)

    async def instances(request: Request, study: Uid) -> Response:
        return await found(request, Level.INSTANCE, study)

    async def series_instances(request: Request, study: Uid, series: Uid) -> Response:
        return await found(request, Level.INSTANCE, study, series)

    add("/studies", "search_studies", "Search for studies", studies)
    add("/series", "search_series", "Search for series", all_series)
    add("/instances", "search_instances", "Search for instances", all_instances)
    add("/studies/{study}/series", "search_study_series", "Series of a study", series)
    add("/studies/{study}/instances", "search_study_instances", "Instances of a study", instances)
    add(
        "/studies/{study}/series/{series}/instances",
        "search_series_instances",
        "Instances of a series",
        series_instances,
    )
    return router


def base_url(request: Request) -> str:
    """Return the address of this DICOMweb service as its caller wrote it.

    Some clients leave the port out of Host. Where the name is one of this machine, the port that
    took the call is put back; behind a proxy of another name it would be the wrong one.
    """
    host = request.url.netloc
    server = request.scope.get("server")
    if server and server[1] and host in ("127.0.0.1", "localhost", "[::1]"):
        host = f"{host}:{server[1]}"
    return f"{request.url.scheme}://{host}/dicom-web"


def query_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the query string in order; `accept` is not a key.

    Raises:
        InvalidInputError: too many keys, or not UTF-8.
    """
    try:
        pairs = parse_qsl(
            request.url.query,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_KEYS,
        )
    except ValueError as cause:
        raise InvalidInputError("the query string cannot be read") from cause
    return [(name, value) for name, value in pairs if name != "accept"]


def want_json(request: Request) -> None:
    """Return if the client takes DICOM JSON; NotAcceptableError otherwise."""
    ranges = accepted(request)
    if not any(one.covers(JSON) or one.covers("application/json") for one in ranges):
        raise NotAcceptableError(f"offered here: {JSON}")


def json_reply(
    rows: list[dict[str, Any]], warnings: list[str], request: Request, status: int = 200
) -> Response:
    """Return rows as DICOM JSON; none at all is 204."""
    headers = warning_headers(warnings, request)
    if not rows:
        return Response(None, 204, headers)
    return Response(json.dumps(rows, separators=(",", ":")), status, headers, media_type=JSON)


def warning_headers(warnings: list[str], request: Request) -> dict[str, str]:
    """Return the Warning header PS3.18 asks for; it names the service, not the machine."""
    host = request.url.hostname or "bedside"
    named = [f'299 {host}/dicom-web: "{words}"' for words in warnings]
    return {"Warning": ", ".join(named)} if named else {}
