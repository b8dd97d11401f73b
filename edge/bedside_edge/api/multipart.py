"""Multipart bodies read incrementally: bytes in, events out, no copy of a part's content. Pure.

A delimiter is CRLF, two hyphens and the boundary, at the start of a line and followed by the end
of that line; the bare boundary text inside pixel data is data.

Source: RFC 2046 section 5.1.1; RFC 2045 section 5.1 for the parameters.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from bedside_core.errors import InvalidInputError, UnsupportedMediaTypeError

MAX_HEADER = 16 << 10  # bytes of one part's header block

_PARAMETER = re.compile(
    r";\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^;\s]*))"
)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_PADDING = b" \t"
_MAX_PADDING = 256


class PartStart(NamedTuple):
    """A part begins; names are lower case."""

    headers: dict[str, str]


class Data(NamedTuple):
    """Content of the open part; the view is valid until the next `feed`."""

    view: memoryview


class PartEnd(NamedTuple):
    """The open part is complete."""


Event = PartStart | Data | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    CONTENT = auto()
    EPILOGUE = auto()


def parameters(value: str) -> dict[str, str]:
    """Return the parameters of a Content-Type; names are lower case, quotes are taken off."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value):
        text = match["bare"]
        if text is None:
            text = re.sub(r"\\(.)", r"\1", match["quoted"])
        found.setdefault(match["name"].lower(), text)
    return found


def boundary_of(content_type: str) -> bytes:
    """Return the boundary a Content-Type names, quoted or bare.

    Raises:
        UnsupportedMediaTypeError: it names none, or one that RFC 2046 forbids.
    """
    boundary = parameters(content_type).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise UnsupportedMediaTypeError("the Content-Type names no usable boundary")
    return boundary.encode("ascii")


class MultipartParser:
    """Feed it the body in any pieces; every way of cutting gives the same parts."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"  # the first delimiter may stand at the very start of the body
        self._skip = 0  # bytes at the start of what is held that end the headers, no content
        self._state = _State.PREAMBLE

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what the next bytes of the body complete; exhaust it before feeding again.

        Raises:
            InvalidInputError: a part's header block is malformed or too long.
        """
        data = self._held + data if self._held else data
        self._held = b""
        view, position = memoryview(data), 0
        while self._state is not _State.EPILOGUE:
            if self._state is _State.HEADERS:
                end = data.find(b"\r\n\r\n", position)
                if (len(data) if end < 0 else end) - position > MAX_HEADER:
                    raise InvalidInputError("a part's header block is too long")
                if end < 0:
                    self._held = data[position:]
                    return
                yield PartStart(_fields(data[position + 2 : end]))
                # the line break that ends the headers may begin the delimiter of an empty part
                self._state, self._skip, position = _State.CONTENT, 2, end + 2
            start, after, last = self._find(data, position)
            content = position + self._skip
            if self._state is _State.CONTENT and start > content:
                yield Data(view[content:start])
            if start >= content:
                self._skip = 0
            if after < 0:
                self._held = data[start:]
                return
            if self._state is _State.CONTENT:
                yield PartEnd()
            self._state = _State.EPILOGUE if last else _State.HEADERS
            self._skip, position = 0, after

    def close(self) -> None:
        """The body is complete.

        Raises:
            InvalidInputError: the closing delimiter has not come: the body was cut short.
        """
        if self._state is not _State.EPILOGUE:
            raise InvalidInputError("the multipart body ends before its closing boundary")

    def _find(self, data: bytes, position: int) -> tuple[int, int, bool]:
        """Return where the next delimiter starts, where reading goes on, whether it closes.

        Without a complete one: where a delimiter may be starting (or the end), -1, False.
        """
        delimiter, size = self._delimiter, len(data)
        start = data.find(delimiter, position)
        while start >= 0:
            after = start + len(delimiter)
            if data.startswith(b"--", after):
                return start, after + 2, True
            line = after
            while line < size and data[line] in _PADDING and line - after < _MAX_PADDING:
                line += 1
            if data.startswith(b"\r\n", line):
                return start, line, False
            if size - line < 2 and data[line:] in (b"", b"\r", b"-"):
                return start, -1, False  # cut within the delimiter's line
            start = data.find(delimiter, start + 1)
        tail = data.rfind(b"\r", max(position, size - len(delimiter) + 1))
        if tail >= 0 and delimiter.startswith(data[tail:]):
            return tail, -1, False
        return size, -1, False


def _fields(block: bytes) -> dict[str, str]:
    found = {}
    for line in block.decode("latin-1").split("\r\n") if block else ():
        field = _FIELD.fullmatch(line)
        if field is None:
            raise InvalidInputError("a part's header block is malformed")
        found[field[1].lower()] = field[2]
    return found
