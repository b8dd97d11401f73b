"""The report: one self-contained HTML page, printable on A4, readable without a network."""

import base64
import struct
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

Json = dict[str, Any]

_TEMPLATE = "report.html"
_MEANING = {
    "present": "Above the undetermined band: the model counts the finding as present.",
    "absent": "Below the undetermined band: the model counts the finding as absent. That does not "
    "rule it out.",
    "undetermined": "Inside the band in which the model is too often wrong to count either way. "
    "Read the image as if there were no model.",
}


def render_report(summary: Json, pictures: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        summary: a document of format bedside-demo/1, fresh or read back from summary.json.
        pictures: PNG bytes by the names that the summary uses.
    """
    environment = Environment(
        loader=PackageLoader("bedside_edge.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.2f}"
    environment.filters["digest"] = _digest
    environment.filters["moment"] = _moment
    return environment.get_template(_TEMPLATE).render(
        summary=summary,
        pictures={name: _data_uri(picture) for name, picture in pictures.items()},
        sizes={name: _size(picture) for name, picture in pictures.items()},
        read=[study for study in summary["studies"] if study["value"]],
        meaning=_MEANING,
    )


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _size(picture: bytes) -> tuple[int, int]:
    """Return width and height in pixels from a PNG's IHDR chunk (ISO/IEC 15948, 11.2.2)."""
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def _moment(stamp: str) -> str:
    """Write an ISO 8601 time in UTC as people do."""
    day, _, clock = stamp.partition("T")
    return f"{day}, {clock[:5]} UTC"


def _digest(value: str) -> str:
    """Write a digest in groups of eight, as people compare them."""
    kind, _, digits = value.rpartition(":")
    groups = " ".join(digits[start : start + 8] for start in range(0, len(digits), 8))
    return f"{kind} {groups}" if kind else groups
