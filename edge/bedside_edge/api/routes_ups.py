"""UPS-RS: workitems over HTTP (PS3.18 section 11), with the warnings the standard words.

Subscriptions and the event channel are not offered: whoever waits for a workitem asks again.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response

from bedside_core import workitem as rules
from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    NotOfferedError,
    UnsupportedMediaTypeError,
)
from bedside_edge.api.accept import JSON
from bedside_edge.api.errors import error_reply
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.routes_qido import (
    FOUND,
    Uid,
    base_url,
    json_reply,
    query_pairs,
    want_json,
    warning_headers,
)
from bedside_edge.api.services import Services
from bedside_edge.dicom.ups import parse_workitem_query

_LARGEST: Final = 1 << 18  # bytes of a workitem
_DATA_SETS: Final = frozenset((JSON, "application/json"))
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"type": "array", "maxItems": 1}}},
    }
}
_OPTIONAL_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": False, "content": _BODY["requestBody"]["content"]}
}
_SEARCH: Final = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": words,
        }
        for name, words in (
            ("ProcedureStepState", "SCHEDULED, IN PROGRESS, COMPLETED, CANCELED"),
            ("ScheduledProcedureStepStartDateTime", "a value or a range"),
            ("PatientID", "any other key by keyword or tag: see docs/dicomweb.md"),
            ("limit", "most results"),
            ("offset", "results to skip"),
        )
    ]
}
AeTitle = Annotated[str, Path(max_length=64)]


def ups_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the workitem routes."""
    router = APIRouter(
        prefix="/dicom-web",
        tags=["DICOMweb"],
        responses=dict(PROBLEMS),
        dependencies=[needs(Action.MANAGE_WORKITEMS)],
    )
    _add_resource(router, services, storage)
    _add_changes(router, services, storage)
    _add_what_is_not_offered(router)
    return router


def _add_resource(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.post(
        "/workitems",
        summary="Create a workitem; its UID may stand in the query",
        status_code=201,
        response_class=Response,
        responses={201: {"description": "created; Location names it"}},
        openapi_extra=_BODY,
    )
    async def create_workitem(request: Request) -> Response:
        uid = _named_uid(request)
        actor, body = actor_of(request).actor_id, await _data_set(request)

        def work() -> Response:
            kept, warning = services.workitems.create(uid, body, actor)
            place = f"{base_url(request)}/workitems/{kept.uid}"
            headers = {"Location": place, "Content-Location": place}
            return Response(None, 201, headers | _warned(request, warning))

        return await _answered(storage, work, request)

    @router.get(
        "/workitems",
        summary="Search for workitems, newest first",
        response_class=Response,
        responses=FOUND,
        openapi_extra=_SEARCH,
    )
    async def search_workitems(request: Request) -> Response:
        want_json(request)
        pairs = query_pairs(request)

        def work() -> Response:
            query = parse_workitem_query(pairs)
            found = services.workitems.workitems(query.states)
            passed = [one for one in found if query.passes(one.body)]
            page = passed[query.offset : query.offset + query.limit]
            more = len(passed) > query.offset + query.limit
            warning = ["Additional results can be requested."] if more else []
            return json_reply([_placed(one.body, request) for one in page], warning, request)

        return await _answered(storage, work, request)

    @router.get(
        "/workitems/{workitem}",
        summary="A workitem",
        response_class=Response,
        responses={200: {"content": {JSON: {}}, "description": "the workitem"}},
    )
    async def get_workitem(request: Request, workitem: Uid) -> Response:
        want_json(request)

        def work() -> Response:
            held = services.workitems.get(workitem)
            return json_reply([_placed(held.body, request)], [], request)

        return await _answered(storage, work, request)

    @router.post(
        "/workitems/{workitem}",
        summary="Change attributes of a workitem",
        response_class=Response,
        responses={200: {"description": "changed"}},
        openapi_extra=_BODY,
    )
    async def update_workitem(request: Request, workitem: Uid) -> Response:
        transaction = _named_uid(request)
        actor, body = actor_of(request).actor_id, await _data_set(request)

        def work() -> Response:
            services.workitems.update(workitem, body, transaction, actor)
            return Response(None, 200, {"Content-Location": _place(request, workitem)})

        return await _answered(storage, work, request)


def _add_changes(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.put(
        "/workitems/{workitem}/state",
        summary="Claim, complete or cancel a workitem",
        response_class=Response,
        responses={200: {"description": "the state is the one asked for"}},
        openapi_extra=_BODY,
    )
    async def change_workitem_state(request: Request, workitem: Uid) -> Response:
        actor, body = actor_of(request).actor_id, await _data_set(request)

        def work() -> Response:
            warning = services.workitems.change_state(workitem, body, actor)
            headers = {"Content-Location": _place(request, workitem)}
            return Response(None, 200, headers | _warned(request, warning))

        return await _answered(storage, work, request)

    @router.post(
        "/workitems/{workitem}/cancelrequest",
        summary="Ask that a workitem be cancelled",
        status_code=202,
        response_class=Response,
        responses={202: {"description": "taken on; the state tells what came of it"}},
        openapi_extra=_OPTIONAL_BODY,
    )
    async def request_cancellation(request: Request, workitem: Uid) -> Response:
        actor = actor_of(request).actor_id
        body = await _data_set(request, optional=True)

        def work() -> Response:
            warning = services.workitems.request_cancel(workitem, body, actor)
            headers = {"Content-Location": _place(request, workitem)}
            return Response(None, 202, headers | _warned(request, warning))

        return await _answered(storage, work, request)


def _add_what_is_not_offered(router: APIRouter) -> None:
    """PS3.18 11.9 to 11.11: a server that takes no subscriptions refuses them with 403."""

    def refuse() -> Response:
        raise NotOfferedError("this box takes no subscriptions; ask for the workitem instead")

    @router.post(
        "/workitems/{workitem}/subscribers/{ae_title}",
        summary="Not offered: 403",
        response_class=Response,
    )
    async def subscribe(workitem: Uid, ae_title: AeTitle) -> Response:
        return refuse()

    @router.delete(
        "/workitems/{workitem}/subscribers/{ae_title}",
        summary="Not offered: 403",
        response_class=Response,
    )
    async def unsubscribe(workitem: Uid, ae_title: AeTitle) -> Response:
        return refuse()

    @router.get("/subscribers/{ae_title}", summary="Not offered: 403", response_class=Response)
    async def open_channel(ae_title: AeTitle) -> Response:
        return refuse()


async def _answered(storage: WorkPool, work: Callable[[], Response], request: Request) -> Response:
    """Run the work; a refusal carries its words as Warning too, where UPS clients look."""
    try:
        return await storage.run(work)
    except BedsideError as error:
        reply = error_reply(error, request.url.path, str(request.state.request_id))
        answer = Response(reply.body, reply.status, None, reply.content_type.decode())
        for name, value in reply.headers:
            answer.headers[name.decode()] = value.decode()
        if error.status in (400, 409):
            answer.headers.update(_warned(request, str(error)))
        return answer


async def _data_set(request: Request, *, optional: bool = False) -> Any:  # noqa: ANN401
    """Return the one data set of a body, which is an array of one or the data set itself.

    Raises:
        UnsupportedMediaTypeError: not DICOM JSON.
        InvalidInputError: not one data set.
    """
    body = await request.body()
    if optional and not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _DATA_SETS:
        raise UnsupportedMediaTypeError(f"send {JSON}")
    if len(body) > _LARGEST:
        raise InvalidInputError("the workitem is larger than this box takes")
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as cause:
        raise InvalidInputError("the body is no JSON") from cause
    if isinstance(found, list):
        if len(found) != 1:
            raise InvalidInputError("the body holds one data set")
        return found[0]
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _named_uid(request: Request) -> str:
    """Return the UID a query names: `?1.2.3` by the standard, `?AffectedSOPInstanceUID=` by many.

    Raises:
        InvalidInputError: it is no UID.
    """
    pairs = query_pairs(request)
    if not pairs:
        return ""
    name, value = pairs[0]
    uid = value or name
    if len(pairs) > 1 or not uid or len(uid) > 64 or not set(uid) <= set("0123456789."):
        raise InvalidInputError("the query names one UID")
    return uid


def _place(request: Request, uid: str) -> str:
    return f"{base_url(request)}/workitems/{uid}"


def _warned(request: Request, words: str) -> dict[str, str]:
    return warning_headers([words], request) if words else {}


def _placed(body: rules.Json, request: Request) -> rules.Json:
    """Return a workitem with the links to our own objects made whole."""
    root = base_url(request).removesuffix("/dicom-web")
    text = json.dumps(body)
    return dict(json.loads(text.replace('"/dicom-web/studies/', f'"{root}/dicom-web/studies/')))
