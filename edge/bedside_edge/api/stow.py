"""STOW-RS: POST /dicom-web/studies[/{study}], streamed to storage, answered per PS3.18 10.5.

Every instance is durable before the answer; each fails or is stored for itself.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from bedside_core.errors import DiskFullError, InvalidInputError, SealedError, SopClassMismatchError
from bedside_edge.api.intake import Intake, Item
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import Reply, Request
from bedside_edge.api.room import Room
from bedside_edge.api.services import Ingest
from bedside_edge.api.upload import MULTIPART_RELATED, receive_upload
from bedside_edge.config import Http
from bedside_edge.ports import Header, Way

PATH = re.compile(r"/dicom-web/studies(?:/([^/]+))?/?")
DICOM_JSON = b"application/dicom+json"

_RETRIEVE_URL, _CLASS, _INSTANCE = "00081190", "00081150", "00081155"
_FAILURE_REASON, _FAILED, _REFERENCED, _OTHER = "00081197", "00081198", "00081199", "0008119A"


class StowHandler:
    """Stores the instances of one request."""

    def __init__(
        self, ingest: Ingest, pool: WorkPool, metrics: Metrics, settings: Http, room: Room
    ) -> None:
        self._room = room
        self._ingest, self._pool = ingest, pool
        self._metrics, self._settings = metrics, settings

    async def __call__(self, request: Request) -> Reply:
        """Answer 200 all stored, 202 some, 409 none.

        Raises:
            UnsupportedMediaTypeError: the body is not multipart/related DICOM.
            TooLargeError: the body, or the number of its parts.
            DiskFullError: nothing could be taken in.
            QueueFullError: too many uploads at a time.
        """
        named = PATH.fullmatch(request.path)
        study = named[1] if named and named[1] else ""

        def admit(header: Header) -> None:
            if study and header.study_uid != study:
                raise SopClassMismatchError("the instance belongs to another study than the path")

        intake = Intake(
            self._ingest,
            Way.STOW,
            max_parts=self._settings.max_parts,
            observe=self._metrics.received,
            admit=admit if study else None,
        )
        with self._room.upload():
            await receive_upload(
                request,
                intake,
                kinds=(MULTIPART_RELATED,),
                pool=self._pool,
                settings=self._settings,
                finish=intake.file,
            )
        return stow_reply(intake.items, request.base_url, study)


def stow_reply(items: Sequence[Item], base_url: str, study: str) -> Reply:
    """Return the Store Instances Response.

    Raises:
        InvalidInputError: there was no part.
        DiskFullError, SealedError: no part could be taken in for want of space, or
            because the box is sealed.
    """
    if not items:
        raise InvalidInputError("the request holds no instance")
    failed = [item for item in items if item.error is not None]
    if len(failed) == len(items):
        for item in failed:
            if isinstance(item.error, (DiskFullError, SealedError)):
                raise item.error
    status = 200 if not failed else 202 if len(failed) < len(items) else 409
    body = response_data_set(items, base_url, study)
    return Reply(status=status, body=json.dumps(body).encode(), content_type=DICOM_JSON)


def response_data_set(items: Sequence[Item], base_url: str, study: str) -> dict[str, Any]:
    """Return the response as DICOM JSON (PS3.18 annex F), attributes in order of tag."""
    root = f"{base_url}/dicom-web/studies"
    failed, other, referenced = [], [], []
    studies = set()
    for item in items:
        header = item.header
        reason = _value("US", item.reason)
        if header is None:
            other.append({_FAILURE_REASON: reason})
        elif item.error is not None:
            failed.append(_reference(header) | {_FAILURE_REASON: reason})
        else:
            studies.add(header.study_uid)
            url = (
                f"{root}/{quote(header.study_uid)}/series/{quote(header.series_uid)}"
                f"/instances/{quote(header.sop_instance_uid)}"
            )
            referenced.append(_reference(header) | {_RETRIEVE_URL: _value("UR", url)})
    body: dict[str, Any] = {}
    if len(studies) == 1:
        body[_RETRIEVE_URL] = _value("UR", f"{root}/{quote(study or studies.pop())}")
    for tag, sequence in ((_FAILED, failed), (_REFERENCED, referenced), (_OTHER, other)):
        if sequence:
            body[tag] = {"vr": "SQ", "Value": sequence}
    return body


def _reference(header: Header) -> dict[str, Any]:
    return {
        _CLASS: _value("UI", header.sop_class_uid),
        _INSTANCE: _value("UI", header.sop_instance_uid),
    }


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
