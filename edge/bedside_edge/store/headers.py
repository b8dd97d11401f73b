"""How an instance's header and digest lie in its row: JSON under the study's data key."""

import json
from dataclasses import fields
from typing import Final

from bedside_core.errors import DamagedObjectError
from bedside_edge.ports import Header
from bedside_edge.store import sealing

_FIELDS: Final = tuple(f.name for f in fields(Header))


def pack(header: Header, digest: str) -> bytes:
    """Return the plain bytes of a row; its caller seals them."""
    values = {name: getattr(header, name) for name in _FIELDS}
    return json.dumps({"digest": digest, "header": values}).encode()


def unpack(box: sealing.Box, instance_id: str, header: bytes) -> tuple[Header, str]:
    """Return the header and digest of an instance's row; DamagedObjectError."""
    try:
        packed = json.loads(box.open(header, f"header {instance_id}"))
        values = packed["header"] | {
            name: tuple(packed["header"].get(name, ())) for name in ("image_type", "codes")
        }
        return Header(**values), packed["digest"]
    except (KeyError, TypeError, ValueError) as cause:
        raise DamagedObjectError("a stored header cannot be read") from cause
