"""JSON bodies that are signed: one spelling each, integers and strings only, read strictly."""

import json
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bedside_core.errors import InvalidMessageError

MAX_BODY: Final = 1 << 20  # bytes; the hub's message limit
MAX_INTEGER: Final = 2**53 - 1
M = TypeVar("M", bound="Body")

HEX_32: Final = r"^[0-9a-f]{64}$"
HEX_64: Final = r"^[0-9a-f]{128}$"
NAME: Final = r"^[a-z][a-z0-9._:-]{0,63}$"


class Body(BaseModel):
    """A message's content; an object that exists is valid in itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def encode(self) -> bytes:
        """Return the one sequence of bytes this content has."""
        return canonical(self.model_dump(mode="json"))


def canonical(value: Any) -> bytes:  # noqa: ANN401  any JSON
    """Return UTF-8 JSON with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def decode(kind: type[M], data: bytes, limit: int = MAX_BODY) -> M:
    """Return the body in `data`, of at most `limit` bytes.

    Raises:
        InvalidMessageError: too long, not JSON of this shape, or another spelling of it. Never
            repeats what was sent.
    """
    if len(data) > limit:
        raise InvalidMessageError(f"a {kind.__name__} has at most {limit} bytes")
    try:
        # tuples and enums come as JSON lists and strings: the reader of JSON may turn them
        body = kind.model_validate_json(data)
    except (ValidationError, ValueError, RecursionError) as cause:
        raise InvalidMessageError(f"not a {kind.__name__}: {_where(cause)}") from None
    if body.encode() != data:
        raise InvalidMessageError(f"a {kind.__name__} in another spelling than its own")
    return body


def _where(cause: Exception) -> str:
    if isinstance(cause, ValidationError):
        first = cause.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(step) for step in first['loc'])}: {first['type']}"
    return "unreadable"


def name_field() -> Any:  # noqa: ANN401  what Field returns is pydantic's own
    """A minted name: of a box, an organisation, a round, a purpose."""
    return Field(pattern=NAME)
