"""How many patients this hospital shares with another: letters, with a person's consent each.

The letters are `bedside_sync.tasks.overlap_talk`'s; people carry them, by mail or on a medium, for
they are signed with the box's log key and sealed. Whoever invites or answers an invitation agrees
for the hospital, by name, in the evidence log. A partner gets a few sessions a month: many counts
of nearly equal sets would give single patients away.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import (
    InvalidInputError,
    NotReadyError,
    RoundRefusedError,
    UntrustedSignatureError,
)
from bedside_core.evidence.note import VerifierKey
from bedside_core.signatures import Algorithm, PublicKey
from bedside_core.uses import Purpose, Target, Use
from bedside_edge.ports import Clock, RandomBytes
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.ports.learning import CaseStore
from bedside_edge.ports.overlap import Overlap, OverlapState, OverlapStore
from bedside_edge.services.gate import Gate
from bedside_sync.secagg.bodies import NAME, decode
from bedside_sync.tasks import overlap_talk as talk

SESSIONS: Final = 2  # with one partner
WINDOW_MS: Final = 30 * 86_400_000
OPEN_S: Final = 14 * 86_400  # until when letters of a session are answered
_LARGEST: Final = 1 << 27  # bytes of a letter


class OverlapService:
    """Writes and answers letters. Safe to call from several threads; each step happens once."""

    def __init__(
        self,
        store: OverlapStore,
        cases: CaseStore,
        gate: Callable[[], Gate],
        device: LogSigner | None,
        clock: Clock,
        random: RandomBytes,
    ) -> None:
        """Stand on the ports; `device` is the Ed25519 key of the box's log."""
        self.store, self._cases, self._gate = store, cases, gate
        self._device, self._clock, self._random = device, clock, random

    def invite(
        self, partner: VerifierKey, purpose: str, identifier: str, sigma2: int, actor: str
    ) -> tuple[Overlap, bytes]:
        """Return a new session and the invitation to send; the actor agrees for this hospital.

        Raises:
            RoundRefusedError: the partner had its sessions this month.
            InvalidInputError: terms that cannot be.
        """
        name = name_of(partner)
        self._room(name)
        try:
            state = talk.invite(
                self._tools(),
                answerer=name,
                purpose=purpose,
                identifier=identifier,
                sigma2=sigma2,
                expires=self._clock.now() // 1000 + OPEN_S,
            )
        except ValueError as cause:
            raise InvalidInputError("the terms of an overlap cannot be these") from cause
        kept = Overlap(
            session=state.signed.session.hex(),
            role="asker",
            partner=name,
            state=OverlapState.INVITED,
            at=self._clock.now(),
            actor=actor,
            body=_asker_body(state),
        )
        self.store.keep(kept, None)
        return kept, state.signed.encode()

    def read(self, letter: bytes, partner: VerifierKey) -> talk.Invitation | None:
        """Return the invitation a letter is, checked, for a person to agree to; None: another."""
        if not letter.startswith(b"{"):
            return None
        now = self._clock.now() // 1000
        key, own = _key(partner), self._tools().box
        signed = talk.check_invitation(letter, key, own, now)
        if signed.invitation.asker != name_of(partner):
            raise UntrustedSignatureError("the invitation names another box than the key given")
        return signed.invitation

    def answer(
        self, letter: bytes, partner: VerifierKey, actor: str
    ) -> tuple[Overlap, bytes | None]:
        """Return the session after a letter, and the letter to send back; None at the end.

        The same letter again gets the same answer: nothing is drawn twice.

        Raises:
            RoundRefusedError: a set is too small, the session is over, or the partner had its
                sessions this month.
            UntrustedSignatureError, InvalidInputError, WrongStateError: a letter that is none of
                this session's next.
        """
        if len(letter) > _LARGEST:
            raise InvalidInputError("the letter is longer than any of a session")
        if self.read(letter, partner) is not None:
            return self._accept(letter, partner, actor)
        session = decode(talk.Letter, letter[4 : 4 + int.from_bytes(letter[:4], "big")])
        kept = self.store.overlap(session.session)
        if kept is None or kept.partner != name_of(partner):
            raise RoundRefusedError("the letter is of no session with this partner")
        if kept.body.get("answered") == session.signature:
            reply = kept.body.get("reply")
            return kept, None if reply is None else bytes.fromhex(str(reply))
        signed = decode(talk.SignedInvitation, bytes.fromhex(str(kept.body["signed"])))
        if self._clock.now() // 1000 >= signed.invitation.expires:
            raise RoundRefusedError("the session is over")
        roles = {2: "asker", 3: "answerer", 4: "asker"}
        if kept.role != roles[session.step]:
            raise RoundRefusedError("the letter is meant for the other side of the session")
        steps = {2: self._give_back, 3: self._tell, 4: self._hear}
        return steps[session.step](kept, signed, letter, partner, actor)

    # --- the four letters ----------------------------------------------------------------------

    def _accept(
        self, letter: bytes, partner: VerifierKey, actor: str
    ) -> tuple[Overlap, bytes | None]:
        signed = decode(talk.SignedInvitation, letter)
        before = self.store.overlap(signed.session.hex())
        if before is not None:
            return before, bytes.fromhex(str(before.body["reply"]))
        self._room(name_of(partner))
        state, reply = talk.accept(signed, self._ids(signed.invitation.identifier), self._tools())
        kept = Overlap(
            session=signed.session.hex(),
            role="answerer",
            partner=name_of(partner),
            state=OverlapState.ACCEPTED,
            at=self._clock.now(),
            actor=actor,
            body={
                "signed": signed.encode().hex(),
                "secret": state.secret.hex(),
                "opener": state.opener.hex(),
                "sent": state.sent,
                "reply": reply.hex(),
            },
        )
        self.store.keep(kept, None)
        return kept, reply

    def _give_back(
        self,
        kept: Overlap,
        signed: talk.SignedInvitation,
        letter: bytes,
        partner: VerifierKey,
        actor: str,
    ) -> tuple[Overlap, bytes | None]:
        ids = self._ids(signed.invitation.identifier)
        state, reply = talk.give_back(
            _asker(kept, signed), letter, ids, self._tools(), _key(partner)
        )
        body = _asker_body(state) | {"reply": reply.hex(), "answered": _signature(letter)}
        made = replace(kept, state=OverlapState.RETURNED, actor=actor, body=body)
        self.store.keep(made, OverlapState.INVITED)
        return made, reply

    def _tell(
        self,
        kept: Overlap,
        signed: talk.SignedInvitation,
        letter: bytes,
        partner: VerifierKey,
        actor: str,
    ) -> tuple[Overlap, bytes | None]:
        state = talk.Answerer(
            signed=signed,
            secret=bytes.fromhex(str(kept.body.get("secret", ""))),
            opener=bytes.fromhex(str(kept.body.get("opener", ""))),
            sent=int(kept.body.get("sent", 0)),
        )
        if kept.state is not OverlapState.ACCEPTED:
            raise RoundRefusedError("this session was counted already")
        count, reply = talk.tell(state, letter, self._tools(), _key(partner))
        return self._counted(kept, signed, count, letter, actor, reply)

    def _hear(
        self,
        kept: Overlap,
        signed: talk.SignedInvitation,
        letter: bytes,
        partner: VerifierKey,
        actor: str,
    ) -> tuple[Overlap, bytes | None]:
        if kept.state is not OverlapState.RETURNED:
            raise RoundRefusedError("this session was counted already, or its letters are missing")
        count = talk.hear(_asker(kept, signed), letter, _key(partner))
        return self._counted(kept, signed, count, letter, actor, None)

    def _counted(
        self,
        kept: Overlap,
        signed: talk.SignedInvitation,
        count: int,
        letter: bytes,
        actor: str,
        reply: bytes | None,
    ) -> tuple[Overlap, bytes | None]:
        """Keep the count; the session's secrets are gone."""
        body: dict[str, str | int] = {
            "signed": signed.encode().hex(),
            "count": count,
            "answered": _signature(letter),
        }
        if reply is not None:
            body["reply"] = reply.hex()
        made = replace(kept, state=OverlapState.COUNTED, actor=actor, body=body)
        self.store.keep(made, kept.state)
        return made, reply

    # --- inside --------------------------------------------------------------------------------

    def _room(self, partner: str) -> None:
        held = self.store.overlaps(partner=partner, since=self._clock.now() - WINDOW_MS)
        if len(held) >= SESSIONS:
            raise RoundRefusedError(f"{SESSIONS} overlaps a month are counted with one partner")

    def _ids(self, identifier: str) -> list[bytes]:
        """Return the patients to be compared: permitted, with an identifier, each once."""
        cases = self._cases.cases()
        allowed = self._gate().usable(
            Use.JOIN_ROUND,
            Purpose.STATISTICS,
            [case.study_id for case in cases],
            target=Target.CONSORTIUM,
        )
        found: dict[bytes, None] = {}
        for case in cases:
            if case.study_id in allowed and case.header is not None:
                header = case.header
                one = talk.normalised(header.patient_id, header.birth_date, identifier)
                if one is not None:
                    found[one] = None
        return list(found)

    def _tools(self) -> talk.Tools:
        if self._device is None:
            raise NotReadyError("letters are signed with the log's key, which is not open")
        return talk.Tools(
            box=name_of(self._device.key),
            sign=self._device.sign,
            random=self._random,
            randbelow=self._below,
            words=self._words,
        )

    def _words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self._random(8 * count), np.uint64)

    def _below(self, end: int) -> int:
        """Return a uniform integer below `end`: draws that would favour some are thrown away."""
        size = (end.bit_length() + 7) // 8 + 1
        limit = (1 << (8 * size)) // end * end
        while True:
            drawn = int.from_bytes(self._random(size), "big")
            if drawn < limit:
                return drawn % end


def name_of(key: VerifierKey) -> str:
    """Return a log's name as sessions carry it: colons for slashes, a digest if that is none."""
    text = key.name.lower().replace("/", ":").replace("#", ":")
    if re.fullmatch(NAME, text):
        return text
    return f"log:{hashlib.sha256(key.name.encode()).hexdigest()[:40]}"


def _key(partner: VerifierKey) -> PublicKey:
    if partner.public.algorithm is not Algorithm.ED25519:
        raise InvalidInputError("letters are checked with the partner's Ed25519 log key")
    return partner.public


def _signature(letter: bytes) -> str:
    head = decode(talk.Letter, letter[4 : 4 + int.from_bytes(letter[:4], "big")])
    return head.signature


def _asker(kept: Overlap, signed: talk.SignedInvitation) -> talk.Asker:
    return talk.Asker(
        signed=signed,
        secret=bytes.fromhex(str(kept.body.get("secret", ""))),
        opener=bytes.fromhex(str(kept.body.get("opener", ""))),
        dummies=int(kept.body.get("dummies", 0)),
    )


def _asker_body(state: talk.Asker) -> dict[str, str | int]:
    return {
        "signed": state.signed.encode().hex(),
        "secret": state.secret.hex(),
        "opener": state.opener.hex(),
        "dummies": state.dummies,
    }


def counts(kept: Sequence[Overlap]) -> list[tuple[Overlap, int | None]]:
    """Return sessions with this side's count where there is one."""
    return [
        (one, int(one.body["count"]) if one.state is OverlapState.COUNTED else None) for one in kept
    ]
