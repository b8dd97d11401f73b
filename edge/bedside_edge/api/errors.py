"""Errors as answers: RFC 9457 problems everywhere, `{"error": ...}` on the inference protocol.

An answer holds the stable code and the error's own words. Unforeseen errors say nothing but a
request id; the log has the type and the line of code under the same id.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bedside_core import errors as tree
from bedside_core.errors import (
    BedsideError,
    DiskFullError,
    InternalError,
    NotReadyError,
    QueueFullError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from bedside_edge.api.reply import JSON, Reply

TYPE_PREFIX = "urn:bedside:error:"
PROBLEM = b"application/problem+json"
V2 = "/v2"

_RETRY_AFTER_S = {QueueFullError.code: 1, NotReadyError.code: 5, DiskFullError.code: 300}
_RETRY_DEFAULT_S = 5


def _leaves(kind: type[BedsideError]) -> dict[str, type[BedsideError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        if child.__module__ == tree.__name__:
            found |= _leaves(child)
    return found


BY_CODE: Mapping[str, type[BedsideError]] = _leaves(BedsideError)


def title(kind: type[BedsideError]) -> str:
    """Return the first sentence of an error class's docstring."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def status_of(code: str) -> int:
    """Return the HTTP status of a stable code, 500 for one this release does not know."""
    return BY_CODE.get(code, InternalError).status


def retry_headers(code: str, status: int) -> list[tuple[bytes, bytes]]:
    """Return Retry-After where trying again can help: 429, 503, 507."""
    if status not in (429, 503, 507):
        return []
    return [(b"retry-after", str(_RETRY_AFTER_S.get(code, _RETRY_DEFAULT_S)).encode())]


def _headers(error: BaseException, code: str, status: int) -> list[tuple[bytes, bytes]]:
    if isinstance(error, TooManyAttemptsError):
        return [(b"retry-after", str(error.retry_after_s).encode())]
    if isinstance(error, UnauthenticatedError):
        return [(b"www-authenticate", b'Bearer realm="bedside"')]
    return retry_headers(code, status)


def problem(code: str, detail: str, request_id: str, **members: str | None) -> dict[str, Any]:
    """Return an RFC 9457 problem; `members` are extensions such as the job it is about."""
    kind = BY_CODE.get(code, InternalError)
    return {
        "type": TYPE_PREFIX + code,
        "title": title(kind),
        "status": kind.status,
        "detail": detail,
        "instance": f"urn:bedside:request:{request_id}",
        **members,
    }


def problem_reply(code: str, detail: str, request_id: str, **members: str | None) -> Reply:
    """Return a problem as an answer."""
    body = problem(code, detail, request_id, **members)
    return Reply(
        status=body["status"],
        body=json.dumps(body).encode(),
        content_type=PROBLEM,
        headers=retry_headers(code, body["status"]),
    )


def error_reply(error: BaseException, path: str, request_id: str) -> Reply:
    """Return the answer to an error raised under `path`.

    Texts of errors that are not ours never reach a client: they may quote what was sent.
    """
    if isinstance(error, BedsideError):
        code, detail = error.code, str(error)
    else:
        code, detail = InternalError.code, "unforeseen error; the log has it under this request id"
    if path == V2 or path.startswith(V2 + "/"):
        status = status_of(code)
        body = json.dumps({"error": f"{code}: {detail}"}).encode()
        return Reply(
            status=status, body=body, content_type=JSON, headers=_headers(error, code, status)
        )
    reply = problem_reply(code, detail, request_id)
    return replace(reply, headers=_headers(error, code, reply.status))
