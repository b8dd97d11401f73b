"""This box as a witness: it cosigns the logs of other boxes, one history each.

A refused checkpoint that its own log signed is kept and is an incident here too: the other side
may not be able, or willing, to open one.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from bedside_core.errors import EvidenceGapError, InvalidKeyError, NotFoundError
from bedside_core.evidence.note import VerifierKey, parse_verifier_key
from bedside_core.evidence.witness import NOTE_TYPE, Why, cosign, judge
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.ports.witness import Answer, Refused, Watched, WitnessStore

log = logging.getLogger(__name__)

_MOST_KEYS: Final = 8


class WitnessService:
    """add-checkpoint over any transport; methods block, any thread may call."""

    def __init__(
        self,
        store: WitnessStore,
        signers: Sequence[LogSigner],
        clock: Clock,
        *,
        locked: Callable[[], bool] = lambda: False,
        incident: Callable[[str], object] = lambda reason: None,
    ) -> None:
        """Stand on the ports.

        Args:
            store: what was seen of other logs.
            signers: this witness's keys.
            clock: the time in cosignatures.
            locked: whether this box's own log has a gap. A restored box does not remember what it
                cosigned and must not cosign under the name that did.
            incident: opens an incident, told why.
        """
        self._store, self._signers, self._clock = store, tuple(signers), clock
        self._locked, self._incident = locked, incident

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """What others have to know this witness by."""
        return tuple(signer.key for signer in self._signers)

    def add_checkpoint(self, request: bytes) -> Answer:
        """Return the answer of tlog-witness; what it cosigns is durable before it is signed.

        Raises:
            EvidenceGapError: this box does not know any more what it cosigned.
            DiskFullError, StoreUnavailableError: nothing was cosigned.
        """
        if self._locked():
            raise EvidenceGapError("this witness was restored or cloned and cosigns nothing")
        now = self._clock.now()
        verdict, first = self._store.decide(lambda keys, seen: judge(request, keys, seen), now)
        if verdict.why is Why.COSIGNED and verdict.checkpoint is not None:
            pairs = [(signer.key, signer.sign) for signer in self._signers]
            body = cosign(verdict.checkpoint, pairs, max(1, now // 1000))
            return Answer(status=verdict.why.status, content_type=NOTE_TYPE, body=body)
        if verdict.suspicious:
            log.error("checkpoint refused", extra={"code": str(verdict.why)})
        if first:
            self._incident("a log this box is witness of showed another history than before")
        return Answer(
            status=verdict.why.status, content_type=verdict.content_type, body=verdict.body
        )

    def last_checkpoint(self, origin_digest: str) -> bytes:
        """Return what was cosigned last of a log, by SHA-256 of its origin; NotFoundError."""
        note = self._store.last_note(origin_digest)
        if note is None:
            raise NotFoundError("nothing was cosigned of that log")
        return note

    def enrol(self, keys: Sequence[str], actor: str) -> str:
        """Let a log be cosigned; return its origin.

        Args:
            keys: its verifier keys, all under its name; every one must have signed a checkpoint.
            actor: who says so.

        Raises:
            InvalidKeyError: not keys of one log.
            WrongStateError: that log is enrolled with other keys.
        """
        parsed = [parse_verifier_key(text) for text in keys]
        names = {key.name for key in parsed}
        if len(names) != 1 or len(parsed) > _MOST_KEYS:
            raise InvalidKeyError("enrol the keys of one log, all under its name")
        origin = names.pop()
        self._store.watch(origin, parsed, actor, self._clock.now())
        return origin

    def watched(self) -> list[Watched]:
        """Return every log this box may cosign."""
        return self._store.watched()

    def refused(self) -> list[Refused]:
        """Return what is kept as proof against logs, newest first."""
        return self._store.refused()


def witness_name(origin: str) -> str:
    """Return the name under which the box with that log cosigns.

    It follows the log's name: after a gap the box is another witness too, and whoever trusted
    the old one decides again.
    """
    return f"{origin}/witness"
