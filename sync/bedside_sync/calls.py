"""The hub as a box calls it: each question a method, each long answer fetched whole."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from bedside_core.errors import InvalidMessageError
from bedside_sync.distribution.inventory import SignedInventory
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.bodies import NAME, decode
from bedside_sync.secagg.manifest import Helper, Manifest, SignedManifest
from bedside_sync.secagg.prg import CHUNK_BYTES, Words, vector_digest, word_type
from bedside_sync.secagg.report import Report
from bedside_sync.secagg.roster import SignedEntry
from bedside_sync.wire import Message, join_parts, split_parts

_LONGEST: Final = 1 << 30  # bytes of any answer
_LONGEST_SETTINGS: Final = 4 << 20
_LONGEST_SET: Final = 64 << 20
_LEAST_PIECE: Final = 1 << 10  # of an answer in pieces; only the last may be shorter
_MOST_ENTRIES: Final = 100_000  # of a roster, in one visit
_MOST_NAMES: Final = 1000
Progress = Callable[[int, int], None]  # chunks held, chunks in all


class Ask(Protocol):
    """What carries a question to the hub: nng, or a function in the same process."""

    def ask(self, request: Message) -> Message:
        """Return the answer; HubUnavailableError, HubRefusedError."""
        ...


class HubCalls:
    """One box's calls. Not for two threads at once."""

    def __init__(self, carrier: Ask) -> None:
        self._carrier = carrier

    def time(self) -> int:
        """Return the hub's time in seconds."""
        return self._ask("time").integer("now")

    def roster(self, start: int) -> list[SignedEntry]:
        """Return the roster's entries from one on."""
        found: list[SignedEntry] = []
        while True:
            answer = self._ask("roster", **{"from": start + len(found)})
            page = split_parts(answer.payload)
            found += [decode(SignedEntry, data) for data in page]
            if len(found) > _MOST_ENTRIES:
                raise InvalidMessageError("the hub's roster does not end")
            if start + len(found) >= answer.integer("size") or not page:
                return found

    def rounds(self) -> list[SignedManifest]:
        """Return the rounds that are not over."""
        return [decode(SignedManifest, data) for data in split_parts(self._ask("rounds").payload)]

    def states(self) -> dict[str, str]:
        """Return how far each round that is not over has come at the hub, by name."""
        found = _json(self._ask("states").payload, "states")
        if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
            raise InvalidMessageError("the hub's list of states is unreadable")
        return found

    def upcoming(self) -> list[str]:
        """Return the rounds to come that ask this box for a helper's key."""
        return _names(self._ask("upcoming").payload)

    def helper_key(self, name: str, entry: Helper) -> None:
        """Hand in this box's key for a round to come."""
        self._ask("helperkey", entry.encode(), round=name)

    def settings(self, digest: bytes) -> bytes:
        """Return a task's settings by the SHA-256 a manifest names.

        Raises:
            InvalidMessageError: the hub sent other bytes.
        """
        data = self._pieces("settings", _LONGEST_SETTINGS, digest=digest.hex())
        if hashlib.sha256(data).digest() != digest:
            raise InvalidMessageError("the hub's settings are not those the round was signed with")
        return data

    # --- a vector ------------------------------------------------------------------------------

    def upload(
        self,
        manifest: Manifest,
        what: str,
        words: Words,
        progress: Progress | None = None,
    ) -> None:
        """Send the chunks of a vector that the hub does not hold yet."""
        whole, chunks = vector_digest(words, manifest.ring)
        data = memoryview(words.astype(word_type(manifest.ring), copy=False).tobytes())
        answer = self._ask(
            "begin",
            b"".join(chunks),
            round=manifest.round,
            what=what,
            digest=whole.hex(),
            words=len(words),
        )
        held = list(answer.payload)
        if len(held) != len(chunks):
            raise InvalidMessageError("the hub counts other chunks than the vector has")
        done = sum(held)
        puts = (
            Message(
                kind="put",
                fields={"round": manifest.round, "what": what, "number": number},
                payload=bytes(data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]),
            )
            for number, there in enumerate(held)
            if not there
        )
        each = getattr(self._carrier, "ask_each", None)  # nng has several under way
        for _ in each(puts) if each else map(self._carrier.ask, puts):
            done += 1
            if progress is not None:
                progress(done, len(held))

    def seal(self, name: str, report: Report, envelopes: Sequence[bytes]) -> tally.SignedReceipt:
        """File a report whose vector is there; returns the hub's receipt."""
        answer = self._ask("seal", join_parts(report.encode(), *envelopes), round=name)
        return decode(tally.SignedReceipt, answer.payload)

    def withdraw(self, name: str, signed: tally.SignedWithdrawal) -> None:
        """Take a report back before the round closes."""
        self._ask("withdraw", signed.encode(), round=name)

    def inventory(self, signed: SignedInventory) -> None:
        """Say what this box runs."""
        self._ask("inventory", signed.encode())

    # --- helpers -------------------------------------------------------------------------------

    def candidates(self, name: str, most: int) -> list[tuple[Report, bytes]]:
        """Return every report of a closed round, `most` of them, with this helper's envelope.

        Raises:
            InvalidMessageError: a box comes twice, or more boxes come than may.
        """
        found: list[tuple[Report, bytes]] = []
        while True:
            after = found[-1][0].body.box if found else ""
            parts = split_parts(self._ask("candidates", round=name, after=after).payload)
            if not parts:
                return found
            if len(parts) % 2:
                raise InvalidMessageError("a candidate of the hub has no envelope")
            pairs = zip(parts[::2], parts[1::2], strict=True)
            page = [(decode(Report, report), envelope) for report, envelope in pairs]
            names = [after, *(report.body.box for report, _ in page)]
            if any(one >= next_ for one, next_ in pairwise(names)):
                raise InvalidMessageError("the hub's candidates are not in order")
            found += page
            if len(found) > most:
                raise InvalidMessageError("the hub has more candidates than the round allows")

    def findings(self, name: str, signed: committee.SignedFindings) -> None:
        """Say which candidates are not right."""
        self._ask("findings", signed.encode(), round=name)

    def digest(self, name: str) -> committee.DigestBody:
        """Return the set to be signed."""
        return decode(committee.DigestBody, self._whole("digest", name, _LONGEST_SET), _LONGEST_SET)

    def cosign(self, name: str, one: committee.Cosignature) -> None:
        """Hand in a cosignature."""
        self._ask("cosign", one.encode(), round=name)

    def cosignatures(self, name: str) -> list[committee.Cosignature]:
        """Return the cosignatures that are there."""
        parts = split_parts(self._ask("cosignatures", round=name).payload)
        return [decode(committee.Cosignature, data) for data in parts]

    def table(self, name: str, signed: committee.SignedMaskTable) -> None:
        """Hand in the table of mask digests."""
        self._ask("table", signed.encode(), round=name)

    def asked(self, name: str) -> tuple[str, list[int]]:
        """Return the round's state and which masks the hub wants from this helper."""
        answer = self._ask("asked", round=name)
        return answer.text("state"), _integers(answer.payload)

    # --- records -------------------------------------------------------------------------------

    def records(self, start: int) -> list[str]:
        """Return the names of finished rounds, in the order of their chain, from one on."""
        return _names(self._ask("records", **{"from": start}).payload)

    def record(self, name: str) -> tally.Transcript:
        """Return a round's public record."""
        most = tally.MAX_TRANSCRIPT
        return decode(tally.Transcript, self._whole("record", name, most), most)

    def total(self, name: str) -> bytes:
        """Return a round's sum as words of its ring."""
        return self._whole("sum", name, _LONGEST)

    # --- inside --------------------------------------------------------------------------------

    def _ask(self, kind: str, payload: bytes = b"", /, **fields: int | str) -> Message:
        return self._carrier.ask(Message(kind=kind, fields=fields, payload=payload))

    def _whole(self, kind: str, name: str, most: int) -> bytes:
        return self._pieces(kind, most, round=name)

    def _pieces(self, kind: str, most: int, **about: str) -> bytes:
        data, whole = bytearray(), None
        while True:
            answer = self._ask(kind, at=len(data), **about)
            size = answer.integer("size")
            whole = size if whole is None else whole
            data += answer.payload
            if size > most or size != whole or len(data) > size:
                raise InvalidMessageError("the hub's answer is cut or too long")
            if len(data) == size:
                return bytes(data)
            if len(answer.payload) < _LEAST_PIECE:  # drop by drop it would not end tonight
                raise InvalidMessageError("the hub's answer is cut or too long")


def _names(payload: bytes) -> list[str]:
    found = _json(payload, "rounds")
    if not isinstance(found, list) or len(found) > _MOST_NAMES:
        raise InvalidMessageError("the hub's list of rounds is unreadable")
    # whatever stands here is kept, shown to people and written into the evidence
    if not all(isinstance(name, str) and re.fullmatch(NAME, name) for name in found):
        raise InvalidMessageError("the hub's list of rounds is unreadable")
    return found


def _integers(payload: bytes) -> list[int]:
    found = _json(payload, "masks")
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise InvalidMessageError("the hub's list of masks is unreadable")
    return found


def _json(payload: bytes, what: str) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as cause:
        raise InvalidMessageError(f"the hub's list of {what} is unreadable") from cause
