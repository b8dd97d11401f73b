"""The hub as a box calls it: each question a method, each long answer fetched whole."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bedside_core.errors import InvalidMessageError
from bedside_sync.distribution.inventory import SignedInventory
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import Helper, Manifest, SignedManifest
from bedside_sync.secagg.prg import CHUNK_BYTES, Words, vector_digest, word_type
from bedside_sync.secagg.report import Report
from bedside_sync.secagg.roster import SignedEntry
from bedside_sync.wire import Message, join_parts, split_parts

_LONGEST: Final = 1 << 30  # bytes of any answer
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
            if start + len(found) >= answer.integer("size") or not page:
                return found

    def rounds(self) -> list[SignedManifest]:
        """Return the rounds that are not over."""
        return [decode(SignedManifest, data) for data in split_parts(self._ask("rounds").payload)]

    def states(self) -> dict[str, str]:
        """Return how far each round that is not over has come at the hub, by name."""
        payload = self._ask("states").payload
        try:
            found = json.loads(payload)
        except ValueError as cause:
            raise InvalidMessageError("the hub's list of states is unreadable") from cause
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
        data = self._pieces("settings", digest=digest.hex())
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

    def candidates(self, name: str) -> list[tuple[Report, bytes]]:
        """Return every report of a closed round with this helper's envelope."""
        found: list[tuple[Report, bytes]] = []
        while True:
            after = found[-1][0].body.box if found else ""
            parts = split_parts(self._ask("candidates", round=name, after=after).payload)
            if not parts:
                return found
            pairs = zip(parts[::2], parts[1::2], strict=True)
            found += [(decode(Report, report), envelope) for report, envelope in pairs]

    def findings(self, name: str, signed: committee.SignedFindings) -> None:
        """Say which candidates are not right."""
        self._ask("findings", signed.encode(), round=name)

    def digest(self, name: str) -> committee.DigestBody:
        """Return the set to be signed."""
        return decode(committee.DigestBody, self._whole("digest", name), _LONGEST)

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
        return decode(tally.Transcript, self._whole("record", name), tally.MAX_TRANSCRIPT)

    def total(self, name: str) -> bytes:
        """Return a round's sum as words of its ring."""
        return self._whole("sum", name)

    # --- inside --------------------------------------------------------------------------------

    def _ask(self, kind: str, payload: bytes = b"", /, **fields: int | str) -> Message:
        return self._carrier.ask(Message(kind=kind, fields=fields, payload=payload))

    def _whole(self, kind: str, name: str) -> bytes:
        return self._pieces(kind, round=name)

    def _pieces(self, kind: str, **about: str) -> bytes:
        data = b""
        while True:
            answer = self._ask(kind, at=len(data), **about)
            size = answer.integer("size")
            if size > _LONGEST or (not answer.payload and len(data) < size):
                raise InvalidMessageError("the hub's answer is cut or too long")
            data += answer.payload
            if len(data) >= size:
                return data


def _names(payload: bytes) -> list[str]:
    try:
        found = json.loads(payload)
    except ValueError as cause:
        raise InvalidMessageError("the hub's list of rounds is unreadable") from cause
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InvalidMessageError("the hub's list of rounds is unreadable")
    return found


def _integers(payload: bytes) -> list[int]:
    try:
        found = json.loads(payload)
    except ValueError as cause:
        raise InvalidMessageError("the hub's list of masks is unreadable") from cause
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise InvalidMessageError("the hub's list of masks is unreadable")
    return found
