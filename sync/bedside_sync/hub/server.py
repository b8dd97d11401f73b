"""Messages to calls: which request is answered by what, and under whose name.

The peer's name comes from its certificate. A message that speaks for another box is refused.
"""

import logging
import re
from collections.abc import Callable
from typing import Final

from bedside_core.errors import (
    BedsideError,
    InvalidMessageError,
    NotFoundError,
    UnavailableError,
)
from bedside_sync.distribution.gateway import FILE, Gateway
from bedside_sync.hub import upcoming
from bedside_sync.hub.inventories import keep_inventory
from bedside_sync.hub.service import REPORT, HubService
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.bodies import NAME, canonical, decode
from bedside_sync.secagg.manifest import Helper
from bedside_sync.secagg.prg import CHUNK_BYTES
from bedside_sync.secagg.report import Report
from bedside_sync.wire import Message, join_parts, split_parts

log = logging.getLogger(__name__)

_WINDOW: Final = 512 << 10  # bytes of a long answer at a time
_MAX_CHUNKS: Final = 1 << 15


class HubServer:
    """Answers messages; `handle` is what the transport calls."""

    def __init__(
        self, service: HubService, now: Callable[[], int], gateway: Gateway | None = None
    ) -> None:
        self._service, self._now, self._gateway = service, now, gateway
        self._kinds: dict[str, Callable[[str, Message], Message]] = {
            "time": self._time,
            "roster": self._roster,
            "rounds": self._rounds,
            "states": self._states,
            "upcoming": self._upcoming,
            "helperkey": self._helper_key,
            "begin": self._begin,
            "put": self._put,
            "seal": self._seal,
            "withdraw": self._withdraw,
            "candidates": self._candidates,
            "findings": self._findings,
            "digest": self._digest,
            "cosign": self._cosign,
            "cosignatures": self._cosignatures,
            "table": self._table,
            "asked": self._asked,
            "records": self._records,
            "record": self._record,
            "sum": self._sum,
            "settings": self._settings,
            "file": self._file,
            "inventory": self._inventory,
        }

    def handle(self, peer: str, request: Message) -> Message:
        """Return the answer to a request of a verified peer; refusals are kept with their code."""
        try:
            self._service.must_be_member(peer)
            kind = self._kinds.get(request.kind)
            if kind is None:
                raise InvalidMessageError("the hub does not know this kind of message")
            return kind(peer, request)
        except BedsideError as refused:
            self._note(peer, request, refused)
            raise

    def _note(self, peer: str, request: Message, refused: BedsideError) -> None:
        """Keep a refusal; a hub that cannot write it still says no."""
        if request.kind == FILE and isinstance(refused, NotFoundError):
            return  # every refresh asks for a root that may not be there yet
        name = str(request.fields.get("round", ""))
        known = name if re.fullmatch(NAME, name) else ""  # what a peer sends fills no column
        try:
            self._service.store.refused(self._now(), known, peer, refused.code)
        except UnavailableError as cause:
            log.warning("a refusal was not kept", extra={"code": cause.code})

    # --- anybody with a certificate ------------------------------------------------------------

    def _time(self, _peer: str, _request: Message) -> Message:
        return Message(kind="time", fields={"now": self._now()})

    def _roster(self, _peer: str, request: Message) -> Message:
        entries = self._service.store.roster()
        start = request.integer("from")
        return Message(
            kind="roster",
            fields={"size": len(entries)},
            payload=join_parts(*_page(entries[start:])),
        )

    def _rounds(self, _peer: str, _request: Message) -> Message:
        manifests = [signed.encode() for signed in self._service.open_rounds()]
        return Message(kind="rounds", payload=join_parts(*_page(manifests)))

    def _states(self, _peer: str, _request: Message) -> Message:
        names = [signed.manifest.round for signed in self._service.open_rounds()]
        states = {name: self._service.store.state(name).value for name in names}
        return Message(kind="states", payload=canonical(states))

    def _records(self, _peer: str, request: Message) -> Message:
        names = self._service.store.transcripts()[request.integer("from") :]
        return Message(kind="records", payload=canonical(names[:1000]))

    def _record(self, _peer: str, request: Message) -> Message:
        data = self._service.store.column(request.text("round"), "transcript")
        return _window("record", data, request.integer("at"))

    def _sum(self, _peer: str, request: Message) -> Message:
        data = self._service.store.opened(request.text("round"))
        return _window("sum", data, request.integer("at"))

    def _settings(self, _peer: str, request: Message) -> Message:
        data = self._service.store.settings(request.digest("digest"))
        return _window("settings", data, request.integer("at"))

    def _file(self, peer: str, request: Message) -> Message:
        if self._gateway is None:
            raise NotFoundError("this hub serves no packages")
        return self._gateway.answer(peer, request)

    # --- boxes -------------------------------------------------------------------------------

    def _begin(self, peer: str, request: Message) -> Message:
        payload = request.payload
        if len(payload) % 32 or not 0 < len(payload) // 32 <= _MAX_CHUNKS:
            raise InvalidMessageError("the digests of the chunks are cut")
        chunks = [payload[at : at + 32] for at in range(0, len(payload), 32)]
        what = str(request.fields.get("what", REPORT))
        held = self._service.begin(
            peer,
            request.text("round"),
            what,
            request.digest("digest"),
            request.integer("words"),
            chunks,
        )
        return Message(kind="held", payload=bytes(held))

    def _put(self, peer: str, request: Message) -> Message:
        if len(request.payload) > CHUNK_BYTES:
            raise InvalidMessageError("a chunk is too long")
        what = str(request.fields.get("what", REPORT))
        self._service.store.put(
            request.text("round"), peer, what, request.integer("number"), request.payload
        )
        return Message(kind="taken")

    def _seal(self, peer: str, request: Message) -> Message:
        report, *envelopes = split_parts(request.payload)
        receipt = self._service.seal(peer, request.text("round"), decode(Report, report), envelopes)
        self._service.go_on(request.text("round"))
        return Message(kind="receipt", payload=receipt)

    def _withdraw(self, peer: str, request: Message) -> Message:
        signed = decode(tally.SignedWithdrawal, request.payload)
        self._service.withdraw(peer, request.text("round"), signed)
        return Message(kind="taken")

    def _inventory(self, peer: str, request: Message) -> Message:
        member = self._service.roster.members[peer]
        keep_inventory(self._service.store, peer, member.key, request.payload)
        return Message(kind="taken")

    # --- helpers -----------------------------------------------------------------------------

    def _candidates(self, peer: str, request: Message) -> Message:
        self._service.go_on(request.text("round"))
        page = self._service.candidates(peer, request.text("round"), request.text("after"))
        pairs = [join_parts(report.encode(), envelope) for report, envelope in page]
        return Message(kind="candidates", payload=b"".join(_page(pairs)))

    def _findings(self, peer: str, request: Message) -> Message:
        signed = decode(committee.SignedFindings, request.payload)
        self._service.found(peer, request.text("round"), signed)
        return Message(kind="taken")

    def _upcoming(self, peer: str, _request: Message) -> Message:
        names = upcoming.asked_of(self._service.store, peer, self._now())
        return Message(kind="upcoming", payload=canonical(names))

    def _helper_key(self, peer: str, request: Message) -> Message:
        entry = decode(Helper, request.payload)
        upcoming.take(self._service.store, self._service.roster, peer, request.text("round"), entry)
        return Message(kind="taken")

    def _digest(self, _peer: str, request: Message) -> Message:
        self._service.go_on(request.text("round"))
        wanted = self._service.wanted(request.text("round"))
        return _window("digest", wanted.encode(), request.integer("at"))

    def _cosign(self, peer: str, request: Message) -> Message:
        one = decode(committee.Cosignature, request.payload)
        self._service.cosigned(peer, request.text("round"), one)
        return Message(kind="taken")

    def _cosignatures(self, _peer: str, request: Message) -> Message:
        said = self._service.store.said(request.text("round"), "cosignature")
        return Message(kind="cosignatures", payload=join_parts(*said.values()))

    def _table(self, peer: str, request: Message) -> Message:
        signed = decode(committee.SignedMaskTable, request.payload)
        self._service.table(peer, request.text("round"), signed)
        return Message(kind="taken")

    def _asked(self, peer: str, request: Message) -> Message:
        state = self._service.go_on(request.text("round"))
        asked = self._service.asked_of(peer, request.text("round"))
        return Message(kind="asked", fields={"state": state.value}, payload=canonical(asked))


def _page(parts: list[bytes]) -> list[bytes]:
    """As many parts as fit into one message; the first always does."""
    size = 0
    page: list[bytes] = []
    for part in parts:
        size += len(part) + 4
        if page and size > _WINDOW:
            break
        page.append(part)
    return page


def _window(kind: str, data: bytes, at: int) -> Message:
    return Message(kind=kind, fields={"size": len(data)}, payload=data[at : at + _WINDOW])
