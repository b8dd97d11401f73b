"""Fields of a posted form, read by hand: a few short texts, nothing else is accepted."""

from urllib.parse import parse_qsl

from fastapi import Request

from bedside_core.errors import InvalidRequestError, TooLargeError, UnsupportedMediaTypeError

_MOST = 64 << 10  # bytes
_FIELDS = 64


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of an `application/x-www-form-urlencoded` body; the last one counts.

    Raises:
        UnsupportedMediaTypeError: another content type.
        TooLargeError: more than a form of these pages can have.
        InvalidRequestError: not readable as UTF-8 text.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UnsupportedMediaTypeError("a form is application/x-www-form-urlencoded")
    body = await request.body()
    if len(body) > _MOST:
        raise TooLargeError("the form is too large")
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS
        )
    except ValueError as cause:
        raise InvalidRequestError("the form cannot be read") from cause
    return dict(pairs)
