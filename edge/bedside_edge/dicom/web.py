"""DICOMweb as a client: STOW-RS to send, QIDO-RS and WADO-RS to fetch (PS3.18)."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from bedside_core.errors import (
    DeliveryRefusedError,
    DestinationUnavailableError,
    NotFoundError,
    TooLargeError,
)
from bedside_edge.dicom.scu import TlsFiles, read_secret
from bedside_edge.services.outputs import Kind, Take

_BOUNDARY: Final = "bedside-part-7d1f0c"
_STOW: Final = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
_WADO: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_JSON: Final = "application/dicom+json"
_QUOTED_OR_BARE: Final = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_FAILED: Final = "00081198"
_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPeer:
    """A DICOMweb service: `url` is the base, e.g. https://pacs.example/dicom-web."""

    url: str
    timeout_s: float = 30.0
    tls: TlsFiles | None = None
    authorization_file: str = ""  # holds the value of the Authorization header

    def client(self) -> httpx.Client:
        """Return a client with no redirects and no proxies from the environment."""
        headers = {}
        if self.authorization_file:
            headers["Authorization"] = read_secret(self.authorization_file)
        verify = self.tls.context() if self.tls else True
        return httpx.Client(
            base_url=self.url.rstrip("/") + "/",
            headers=headers,
            timeout=self.timeout_s,
            verify=verify,
            trust_env=False,
        )


class StowClient:
    """`Destination` over STOW-RS."""

    def __init__(self, name: str, peer: WebPeer, objects: frozenset[Kind]) -> None:
        self.name, self.objects = name, objects
        self._peer = peer

    @contextmanager
    def open(self, sop_classes: Sequence[str]) -> Iterator["_StowSession"]:
        """Open a connection; whether anybody answers shows with the first object."""
        with self._peer.client() as client:
            yield _StowSession(client)

    def probe(self) -> str:
        """Ask for one study; DestinationUnavailableError."""
        with self._peer.client() as client:
            answer = _ask(client, "GET", "studies", params={"limit": "1"}, accept=_JSON)
        if answer.status_code not in (200, 204):
            raise DestinationUnavailableError(f"QIDO answered {answer.status_code}")
        return f"QIDO answered {answer.status_code}"


class _StowSession:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def send(self, data: bytes) -> None:
        """Store one object; one per request, so that an answer is about this object alone."""
        head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        answer = _ask(self._client, "POST", "studies", content=body, kind=_STOW, accept=_JSON)
        _judge(answer.status_code, answer.content)


def _judge(status: int, body: bytes) -> None:
    """Turn a STOW answer into nothing or an error; 202 may hide a failure."""
    if status == 200:
        return
    if status in (202, 409):
        reason = _failure(body)
        if reason is None and status == 202:
            return  # stored with a warning
        if reason in _OUT_OF_RESOURCES:
            raise DestinationUnavailableError("the archive is out of resources")
        raise DeliveryRefusedError(f"STOW failure {reason or 0:04X}")
    if status in (400, 406, 413, 415, 422):
        raise DeliveryRefusedError(f"STOW answered {status}")
    # 401 and 403 too: a credential is put right by a person, the object is not at fault
    raise DestinationUnavailableError(f"STOW answered {status}")


def _failure(body: bytes) -> int | None:
    """Return the failure reason (0008,1197) of the first failed object, None if none failed."""
    try:
        document = json.loads(body) if body else {}
        document = document[0] if isinstance(document, list) else document
        items = document.get(_FAILED, {}).get("Value") or []
        return int(items[0]["00081197"]["Value"][0]) if items else None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return 0x0110 if _FAILED.encode() in body or b"FailedSOPSequence" in body else None


class WebArchive:
    """`Archive` over QIDO-RS and WADO-RS."""

    def __init__(self, name: str, peer: WebPeer, max_bytes: int) -> None:
        self.name = name
        self._peer, self._max_bytes = peer, max_bytes

    def fetch(self, study_uid: str, take: Take) -> int:
        """Fetch every instance of a study, one at a time; return how many there were.

        Raises:
            NotFoundError: the archive knows no such study.
            DestinationUnavailableError: it does not answer or breaks off.
        """
        with self._peer.client() as client:
            found = self._instances(client, study_uid)
            for series, instance in found:
                path = f"studies/{study_uid}/series/{series}/instances/{instance}"
                for part in self._parts(client, path):
                    take("", "", "", part)
        return len(found)

    def _instances(self, client: httpx.Client, study_uid: str) -> list[tuple[str, str]]:
        answer = _ask(client, "GET", f"studies/{study_uid}/instances", accept=_JSON)
        if answer.status_code in (204, 404):
            raise NotFoundError("the archive has no such study")
        if answer.status_code != 200:
            raise DestinationUnavailableError(f"QIDO answered {answer.status_code}")
        try:
            found = [
                (_uid(item, "0020000E"), _uid(item, "00080018"))
                for item in json.loads(answer.content)
            ]
        except (ValueError, TypeError, KeyError, IndexError) as cause:
            raise DestinationUnavailableError("the answer to QIDO cannot be read") from cause
        if not found:
            raise NotFoundError("the archive has no such study")
        return found

    def _parts(self, client: httpx.Client, path: str) -> list[bytes]:
        body = bytearray()
        try:
            with client.stream("GET", path, headers={"Accept": _WADO}) as answer:
                if answer.status_code != 200:
                    raise DestinationUnavailableError(f"WADO answered {answer.status_code}")
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise TooLargeError("the object is larger than this box takes")
                kind = answer.headers.get("Content-Type", "")
        except httpx.HTTPError as cause:
            raise DestinationUnavailableError("the archive broke off") from cause
        return split_parts(bytes(body), kind)


def split_parts(body: bytes, content_type: str) -> list[bytes]:
    """Return the parts of a multipart/related body; a bare DICOM body is its own only part.

    Raises:
        DestinationUnavailableError: the body is not what its type says.
    """
    if content_type.strip().lower().startswith("application/dicom"):
        return [body]
    named = _QUOTED_OR_BARE.search(content_type)
    if named is None:
        raise DestinationUnavailableError("the archive sent no multipart body")
    mark = b"--" + named.group(1).encode()
    # CRLF belongs to the delimiter: pixel data may hold the bare boundary text
    sections = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(sections) < 3 or not sections[-1].startswith(b"--"):
        raise DestinationUnavailableError("the multipart body ended early")
    parts = []
    for section in sections[1:-1]:
        _, blank, content = section.partition(b"\r\n\r\n")
        if not blank:
            raise DestinationUnavailableError("a part has no header")
        parts.append(content)
    return parts


def _uid(item: dict[str, Any], tag: str) -> str:
    value = str(item[tag]["Value"][0])
    if not re.fullmatch(r"[0-9.]{1,64}", value):  # it becomes part of a path
        raise ValueError
    return value


def _ask(
    client: httpx.Client,
    method: str,
    path: str,
    *,
    accept: str,
    content: bytes | None = None,
    kind: str = "",
    params: dict[str, str] | None = None,
) -> httpx.Response:
    headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
    try:
        return client.request(method, path, content=content, headers=headers, params=params)
    except (httpx.HTTPError, httpx.InvalidURL) as cause:
        raise DestinationUnavailableError("the DICOMweb service does not answer") from cause
