"""What a client accepts: media ranges with their parameters, in its order of preference.

DICOMweb puts the type of the parts and the transfer syntax into parameters, often quoted
(PS3.18 section 8.7); the query parameter `accept` stands in for the header where a browser sends
its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from bedside_core.errors import NotAcceptableError

_ANY: Final = "*/*"
_PART: Final = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*")+')
_RANGE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_MOST: Final = 64  # ranges looked at
_LONGEST: Final = 4096

MULTIPART: Final = "multipart/related"
DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One range, lower case, with its parameters unquoted."""

    media: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    def covers(self, media: str) -> bool:
        """Tell whether the range takes a media type (for multipart: one of its parts)."""
        kind, _, _ = media.partition("/")
        return self.media in (media, _ANY, f"{kind}/*")


def accepted(request: Request) -> list[MediaRange]:
    """Return what the client accepts, best first; everything when it does not say."""
    text = request.query_params.get("accept") or ",".join(request.headers.getlist("accept"))
    found = [_range(one) for one in _RANGE.findall(text[:_LONGEST])[:_MOST] if one.strip()]
    found = [one for one in found if one.media and one.quality > 0]
    if text.strip() and not found:
        raise NotAcceptableError("nothing is acceptable to the client")
    return sorted(found, key=lambda one: -one.quality) or [MediaRange(media=_ANY)]


def _range(text: str) -> MediaRange:
    media, *rest = [part.strip() for part in _PART.findall(text)] or [""]
    parameters = {}
    for one in rest:
        name, _, value = one.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"').strip()
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 1.0
    return MediaRange(media=media.lower(), parameters=parameters, quality=quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is sent: `parts` of a multipart body, or one bare body, of this media type.

    `syntaxes` are the transfer syntaxes the client named, `*` for any; empty: none named.
    """

    parts: bool
    media: str
    syntaxes: tuple[str, ...] = ()


def choose(ranges: Sequence[MediaRange], offered: Sequence[str], *, single: bool) -> Choice:
    """Return the first thing the client prefers of what there is.

    Args:
        ranges: from `accepted`.
        offered: media types this resource has, the default first.
        single: whether one bare body will do (one instance, one frame).

    Raises:
        NotAcceptableError: none of it.
    """
    chosen: Choice | None = None
    for one in ranges:
        found = _match(one, offered, single=single)
        if found is None:
            continue
        if chosen is None:
            chosen = found
        elif (chosen.parts, chosen.media) == (found.parts, found.media):
            chosen = Choice(
                parts=chosen.parts,
                media=chosen.media,
                # no syntax in one of the ranges leaves the choice to us there
                syntaxes=chosen.syntaxes + found.syntaxes,
            )
    if chosen is None:
        raise NotAcceptableError("offered here: " + ", ".join(offered))
    return chosen


def _match(one: MediaRange, offered: Sequence[str], *, single: bool) -> Choice | None:
    syntax = one.parameters.get("transfer-syntax", "")
    syntaxes = (syntax,) if syntax else ()
    if one.media in (_ANY, "multipart/*"):
        return Choice(parts=True, media=offered[0], syntaxes=syntaxes)
    if one.media == MULTIPART:
        wanted = one.parameters.get("type", "").lower()
        for media in offered:
            if wanted in ("", media, _ANY) or wanted == media.split("/")[0] + "/*":
                return Choice(parts=True, media=media, syntaxes=syntaxes)
        return None
    if single:
        for media in offered:
            if one.covers(media):
                return Choice(parts=False, media=media, syntaxes=syntaxes)
    return None
