"""Entity tags: a document that has not changed is not sent again."""

import hashlib

from fastapi import Response


def tagged(
    body: bytes, media_type: str, if_none_match: str, headers: dict[str, str] | None = None
) -> Response:
    """Return `body`, or 304 when the client holds it already (RFC 9110, 13.1.2)."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    held = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    extra = {"ETag": tag, **(headers or {})}
    if tag in held or "*" in held:
        return Response(status_code=304, headers=extra)
    return Response(body, media_type=media_type, headers=extra)
