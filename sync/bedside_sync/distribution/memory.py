"""What a box remembers of the repository between refreshes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A role's lowest version still accepted, under one set of keys.

    Attributes:
        keys: digest of the role's key ids and threshold as the metadata above has them.
        version: highest seen under them.
    """

    keys: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a box remembers of the repository between refreshes; all of it durable.

    Attributes:
        metadata: files of the client's cache by name, `root_history/<n>.root.json` among them.
        floors: by role.
        time_floor: seconds; no refresh below it.
        serial: highest serial of an assignment seen.
    """

    metadata: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    floors: Mapping[str, Floor] = field(default_factory=dict)
    time_floor: int = 0
    serial: int = 0
