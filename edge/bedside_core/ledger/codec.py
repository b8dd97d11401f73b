"""Ledger entries as canonical JSON and back: sorted keys, no spaces, one version.

What speaks of grades is written only where there is something to say, so that entries of before
there were any stay as they are.

A reader refuses what it does not know: an entry that cannot be read cannot be left out of a sum.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bedside_core.errors import InvalidEntryError, InvalidInputError
from bedside_core.ledger.entries import (
    Burned,
    ClockAlarm,
    Entry,
    EpochClosed,
    EpochOpened,
    Finished,
    LedgerPolicy,
    PolicySet,
    Reserved,
    Voided,
    Witnessed,
)

VERSION = 1

KINDS: dict[str, type[Entry]] = {
    "policy": PolicySet,
    "epoch-open": EpochOpened,
    "epoch-close": EpochClosed,
    "reserve": Reserved,
    "final": Finished,
    "void": Voided,
    "burn": Burned,
    "witness": Witnessed,
    "clock-alarm": ClockAlarm,
}
_OPTIONAL = frozenset({"grades", "strata"})
_NAMES = {kind: name for name, kind in KINDS.items()}


def kind_of(entry: Entry) -> str:
    """Return the entry's name in documents and tables."""
    return _NAMES[type(entry)]


def encode(entry: Entry) -> bytes:
    """Return the entry's canonical bytes."""
    body = _body(entry)
    document = {"v": VERSION, "kind": kind_of(entry), **body}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> Entry:
    """Return the entry.

    Raises:
        InvalidEntryError: no canonical entry of this version.
    """
    try:
        document = json.loads(data)
        kind = KINDS[document.pop("kind")]
        if document.pop("v") != VERSION:
            raise InvalidEntryError("the entry has another version")
        if "policy" in document and kind is PolicySet:
            document["policy"] = LedgerPolicy(**document["policy"])
        if "strata" in document:
            document["strata"] = tuple(document["strata"])
        entry = kind(**document)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInputError) as cause:
        raise InvalidEntryError("no entry of the privacy ledger") from cause
    if encode(entry) != data or not _typed(entry):
        raise InvalidEntryError("the entry is not canonical")
    return entry


def _body(value: Entry | LedgerPolicy) -> dict[str, object]:
    found = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return {name: one for name, one in found.items() if one or name not in _OPTIONAL}


def _plain(value: object) -> object:
    if isinstance(value, LedgerPolicy):
        return _body(value)
    return dict(value) if isinstance(value, Mapping) else value


def _typed(entry: Any) -> bool:  # noqa: ANN401  # whatever JSON held
    """Whether every field holds the plain type its class names."""
    wanted = {"int": int, "str": str, "tuple": tuple, "LedgerPolicy": LedgerPolicy}
    types = (
        (one.type if isinstance(one.type, str) else one.type.__name__) for one in fields(entry)
    )
    pairs = zip(fields(entry), types, strict=True)
    return all(type(getattr(entry, one.name)) is wanted[name] for one, name in pairs)
