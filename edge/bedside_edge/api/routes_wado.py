"""WADO-RS: retrieve instances, their metadata, bulk data, frames and pictures (PS3.18 10.4).

Everything that decodes or decrypts runs in a thread, one instance at a time: a study is never in
memory as a whole, however many images it has.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Final, TypeVar, get_args

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from bedside_core.access import Action
from bedside_core.errors import (
    InvalidInputError,
    NoPixelsError,
    NotAcceptableError,
    RefusedError,
)
from bedside_core.imaging import VoiFunction, Window
from bedside_edge.api import accept
from bedside_edge.api.accept import Choice, accepted, choose
from bedside_edge.api.gate import permitted_holdings
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.routes_qido import Uid, base_url, json_reply, want_json
from bedside_edge.api.services import Services
from bedside_edge.dicom import retrieve
from bedside_edge.dicom.part10 import EXPLICIT_LE
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.dicom.retrieve import View
from bedside_edge.services.holdings import Item

PNG, JPEG = "image/png", "image/jpeg"
_QUALITY: Final = 90
_LARGEST: Final = 8192  # pixels of a viewport's side
_FUNCTIONS: Final[dict[str, VoiFunction]] = {
    one.lower().replace("_", "-"): one for one in get_args(VoiFunction)
}
_FRAMES: Final = re.compile(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,999}")

_NUMBERS: Final = re.compile(r"[0-9]{1,6}(,[0-9]{1,6}){1,5}")

_Responses = dict[int | str, dict[str, Any]]
_INSTANCES: _Responses = {
    200: {"content": {accept.MULTIPART: {}, accept.DICOM: {}}, "description": "the instances"}
}
_METADATA: _Responses = {200: {"content": {accept.JSON: {}}, "description": "one item each"}}
_OCTETS: _Responses = {
    200: {"content": {accept.MULTIPART: {}, accept.OCTETS: {}}, "description": "the bytes"}
}
_PICTURES: _Responses = {
    200: {"content": {JPEG: {}, PNG: {}, accept.MULTIPART: {}}, "description": "the picture"}
}
Bytes = Callable[[], bytes]
_T = TypeVar("_T")


def wado_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the retrieval routes."""
    router = APIRouter(
        prefix="/dicom-web",
        tags=["DICOMweb"],
        responses=dict(PROBLEMS),
        dependencies=[needs(Action.VIEW_IMAGE)],
    )
    retrieval = Retrieval(services, storage)
    _add_objects(router, retrieval)
    _add_metadata(router, retrieval)
    _add_pictures(router, retrieval)
    _add_values(router, retrieval)
    return router


_STUDY: Final = "/studies/{study}"
_SERIES: Final = _STUDY + "/series/{series}"
_INSTANCE: Final = _SERIES + "/instances/{instance}"


class Looks:
    """The query of a rendered resource (PS3.18 8.3.5)."""

    def __init__(
        self,
        window: Annotated[str, Query(description="centre,width[,function]")] = "",
        viewport: Annotated[str, Query(description="width,height[,x,y,width,height]")] = "",
        quality: Annotated[int, Query(ge=1, le=100, description="of JPEG")] = _QUALITY,
    ) -> None:
        self.window, self.viewport, self.quality = window, viewport, quality

    def view(self, media: str) -> View:
        """Return them as a value; InvalidInputError."""
        box, region = _viewport(self.viewport)
        return View(
            window=_window(self.window),
            box=box,
            region=region,
            jpeg=self.quality if media == JPEG else None,
        )


_Looks = Annotated[Looks, Depends()]


class Retrieval:
    """The work behind the routes; `_run` puts it into a thread."""

    def __init__(self, services: Services, storage: WorkPool) -> None:
        self._services, self._storage = services, storage
        self._reader = PydicomReader()

    async def instances(self, request: Request, *path: str) -> Response:
        """Answer with whole objects, in the syntax the client asks for."""
        single = len(path) == 3
        choice = choose(accepted(request), [accept.DICOM], single=single)
        items = await self._run(lambda: self._items(request, path))
        for item in items:
            self._refuse_syntax(item, choice)
        parts = [(self._object(item, choice), _url(request, item)) for item in items]
        return await self._answer(parts, choice, accept.DICOM)

    async def metadata(self, request: Request, *path: str) -> Response:
        """Answer with the attributes of every instance as DICOM JSON."""
        want_json(request)

        def look() -> Response:
            rows = [
                retrieve.metadata(item.read(), _url(request, item))
                for item in self._items(request, path)
            ]
            return json_reply(rows, [], request)

        return await self._run(look)

    async def rendered(self, request: Request, looks: Looks, frame: int, *path: str) -> Response:
        """Answer with one picture, or with one of every image when parts are asked for."""
        ranges = accepted(request)
        wanted = [one for one in ranges if one.media == accept.MULTIPART]
        items = await self._run(lambda: self._images(request, path))
        if wanted and len(path) < 3:
            choice = choose(wanted, [JPEG, PNG], single=False)
            view = looks.view(choice.media)
            parts = [(self._picture(item, 1, view), _url(request, item)) for item in items]
            return await self._answer(parts, choice, choice.media)
        choice = choose(ranges, [JPEG, PNG], single=True)
        item = items[len(items) // 2]  # of many, the one in the middle stands for all
        view = looks.view(choice.media)
        body = await self._run(self._picture(item, frame, view))
        return Response(body, media_type=choice.media)

    async def frames(self, request: Request, listed: str, *path: str) -> Response:
        """Answer with stored values, uncompressed."""
        if not _FRAMES.fullmatch(listed):
            raise InvalidInputError("frames are numbers from 1, with commas between")
        numbers = [int(one) for one in listed.split(",")]
        choice = choose(accepted(request), [accept.OCTETS], single=len(numbers) == 1)
        (item, *_) = await self._run(lambda: self._items(request, path))
        data = await self._run(item.read)
        parts = [
            (self._frame(data, number), f"{_url(request, item)}/frames/{number}")
            for number in numbers
        ]
        return await self._answer(parts, choice, accept.OCTETS)

    async def bulk_data(self, request: Request, where: str, *path: str) -> Response:
        """Answer with one long binary value."""
        choice = choose(accepted(request), [accept.OCTETS], single=True)
        (item, *_) = await self._run(lambda: self._items(request, path))
        url = f"{_url(request, item)}/bulkdata/{where}"
        part = (lambda: retrieve.bulk_data(item.read(), where, self._reader), url)
        return await self._answer([part], choice, accept.OCTETS)

    # --- inside --------------------------------------------------------------------------------

    def _run(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        return self._storage.run(work)

    def _items(self, request: Request, path: Sequence[str]) -> list[Item]:
        return permitted_holdings(request, self._services).take(*path)

    def _images(self, request: Request, path: Sequence[str]) -> list[Item]:
        """Return what has pixels; NoPixelsError if nothing does."""
        items = self._items(request, path)
        images = [item for item in items if len(path) == 3 or item.header.rows]
        if not images:
            raise NoPixelsError("there is no image under that path")
        return images

    def _refuse_syntax(self, item: Item, choice: Choice) -> None:
        """Say 406 before the first byte is out, where the header tells already."""
        stored, asked = item.header.transfer_syntax_uid, choice.syntaxes
        if not asked or "*" in asked or stored in asked:
            return
        if EXPLICIT_LE not in asked or not self._reader.decodes(stored):
            raise NotAcceptableError(
                "offered here: the stored transfer syntax, and explicit VR little-endian"
                " of what this box decodes"
            )

    def _object(self, item: Item, choice: Choice) -> Bytes:
        stored, asked = item.header.transfer_syntax_uid, choice.syntaxes

        def make() -> bytes:
            data = item.read()
            if "*" in asked or stored in asked:
                return data
            try:
                return retrieve.explicit(data, self._reader)
            except RefusedError as cause:
                if asked:
                    raise NotAcceptableError("the object cannot be re-encoded") from cause
                return data  # nothing was asked for: as it is stored is better than not at all

        return make

    def _picture(self, item: Item, frame: int, view: View) -> Bytes:
        return lambda: retrieve.picture(item.read(), frame, view, self._reader)

    def _frame(self, data: bytes, number: int) -> Bytes:
        return lambda: retrieve.frame_values(data, number, self._reader)

    async def _answer(
        self, parts: Sequence[tuple[Bytes, str]], choice: Choice, media: str
    ) -> Response:
        """Make the first part before the head goes out, so that its errors are answers."""
        first = await self._run(parts[0][0])
        if not choice.parts:
            return Response(first, media_type=media)
        # drawn anew each time: a sender who knew it could put parts of their own into an answer
        boundary = f"bedside-{self._services.random(12).hex()}"
        kind = f'{accept.MULTIPART}; type="{media}"; boundary={boundary}'
        return StreamingResponse(self._stream(first, parts, media, boundary), media_type=kind)

    async def _stream(
        self, first: bytes, parts: Sequence[tuple[Bytes, str]], media: str, boundary: str
    ) -> AsyncIterator[bytes]:
        for index, (make, url) in enumerate(parts):
            body = first if index == 0 else await self._run(make)
            head = f"--{boundary}\r\nContent-Type: {media}\r\nContent-Location: {url}\r\n"
            yield f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
            yield body
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()


def _add_objects(router: APIRouter, retrieval: Retrieval) -> None:
    answers: dict[str, Any] = {"response_class": Response, "responses": _INSTANCES}

    @router.get(_STUDY, summary="Retrieve a study", **answers)
    async def retrieve_study(request: Request, study: Uid) -> Response:
        return await retrieval.instances(request, study)

    @router.get(_SERIES, summary="Retrieve a series", **answers)
    async def retrieve_series(request: Request, study: Uid, series: Uid) -> Response:
        return await retrieval.instances(request, study, series)

    @router.get(_INSTANCE, summary="Retrieve an instance", **answers)
    async def retrieve_instance(
        request: Request, study: Uid, series: Uid, instance: Uid
    ) -> Response:
        return await retrieval.instances(request, study, series, instance)


def _add_metadata(router: APIRouter, retrieval: Retrieval) -> None:
    answers: dict[str, Any] = {"response_class": Response, "responses": _METADATA}

    @router.get(_STUDY + "/metadata", summary="Attributes of a study's instances", **answers)
    async def study_metadata(request: Request, study: Uid) -> Response:
        return await retrieval.metadata(request, study)

    @router.get(_SERIES + "/metadata", summary="Attributes of a series' instances", **answers)
    async def series_metadata(request: Request, study: Uid, series: Uid) -> Response:
        return await retrieval.metadata(request, study, series)

    @router.get(_INSTANCE + "/metadata", summary="Attributes of an instance", **answers)
    async def instance_metadata(
        request: Request, study: Uid, series: Uid, instance: Uid
    ) -> Response:
        return await retrieval.metadata(request, study, series, instance)


def _add_pictures(router: APIRouter, retrieval: Retrieval) -> None:
    answers: dict[str, Any] = {"response_class": Response, "responses": _PICTURES}

    @router.get(_STUDY + "/rendered", summary="A study as picture or pictures", **answers)
    async def rendered_study(request: Request, study: Uid, looks: _Looks) -> Response:
        return await retrieval.rendered(request, looks, 1, study)

    @router.get(_SERIES + "/rendered", summary="A series as picture or pictures", **answers)
    async def rendered_series(request: Request, study: Uid, series: Uid, looks: _Looks) -> Response:
        return await retrieval.rendered(request, looks, 1, study, series)

    @router.get(_INSTANCE + "/rendered", summary="An instance as picture", **answers)
    async def rendered_instance(
        request: Request, study: Uid, series: Uid, instance: Uid, looks: _Looks
    ) -> Response:
        return await retrieval.rendered(request, looks, 1, study, series, instance)

    @router.get(_INSTANCE + "/frames/{frame}/rendered", summary="A frame as picture", **answers)
    async def rendered_frame(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        frame: Annotated[int, Path(ge=1, le=999_999)],
        looks: _Looks,
    ) -> Response:
        return await retrieval.rendered(request, looks, frame, study, series, instance)


def _add_values(router: APIRouter, retrieval: Retrieval) -> None:
    answers: dict[str, Any] = {"response_class": Response, "responses": _OCTETS}

    @router.get(_INSTANCE + "/frames/{frames}", summary="Stored values, uncompressed", **answers)
    async def get_frames(
        request: Request, study: Uid, series: Uid, instance: Uid, frames: str
    ) -> Response:
        return await retrieval.frames(request, frames, study, series, instance)

    @router.get(_INSTANCE + "/bulkdata/{where:path}", summary="A long binary value", **answers)
    async def get_bulk_data(
        request: Request, study: Uid, series: Uid, instance: Uid, where: str
    ) -> Response:
        return await retrieval.bulk_data(request, where, study, series, instance)


def _url(request: Request, item: Item) -> str:
    header = item.header
    return (
        f"{base_url(request)}/studies/{header.study_uid}"
        f"/series/{header.series_uid}/instances/{header.sop_instance_uid}"
    )


def _window(text: str) -> Window | None:
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    function = _FUNCTIONS.get(parts[2].lower() if len(parts) > 2 else "linear")
    try:
        if len(parts) in (2, 3) and function is not None:
            return Window(centre=float(parts[0]), width=float(parts[1]), function=function)
    except (ValueError, RefusedError):  # no number, or not one a window can have
        function = None
    raise InvalidInputError(
        "window is centre,width[,linear|linear-exact|sigmoid], the width above 0"
    )


def _viewport(text: str) -> tuple[tuple[int, int] | None, tuple[int, int, int, int] | None]:
    """Return (rows, columns) of the viewport and (row, column, rows, columns) of the source."""
    if not text:
        return None, None
    found = [int(part) for part in text.split(",")] if _NUMBERS.fullmatch(text) else []
    if len(found) in (2, 6) and min(found[:2]) >= 1 and max(found[:2]) <= _LARGEST:
        width, height, *source = found
        if not source:
            return (height, width), None
        x, y, columns, rows = source
        if min(columns, rows) >= 2:
            return (height, width), (y, x, rows, columns)
    raise InvalidInputError(
        f"viewport is width,height[,x,y,width,height], at most {_LARGEST} a side"
    )
