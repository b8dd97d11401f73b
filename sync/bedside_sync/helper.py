"""A helper's part of a round, resumable at every step.

keyed -> cosigned    the one digest it will ever sign is durable before the signature leaves
cosigned -> released every mask sum it knows is on the disk, then round key and seeds are
                     destroyed, then the answers leave
released -> spent    mask sums are deleted after the audit time; round and digest stay for ever
keyed -> spent       the round ended without this helper, or was never opened; no name gets a second
                     key
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bedside_core.errors import RoundRefusedError
from bedside_core.signatures import Sign
from bedside_sync.calls import HubCalls
from bedside_sync.journal import Journal
from bedside_sync.secagg import committee
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import HELPER, Helper, step
from bedside_sync.secagg.manifest import KEY_WAITS_S, Manifest, helper_message
from bedside_sync.secagg.manifest import Helper as HelperEntry
from bedside_sync.secagg.prg import Words, word_type
from bedside_sync.secagg.report import Report, check_report, open_envelope
from bedside_sync.secagg.roster import Roster
from bedside_sync.wire import join_parts, split_parts

log = logging.getLogger(__name__)

ROUND_KEY: Final = "round-key"
KEYED_AT: Final = "keyed-at"  # seconds, by this helper's clock
DIGEST: Final = "digest"
ANSWER: Final = "masks"
TABLE: Final = "table"
SPENT: Final = "spent"
MOST_KEYS: Final = 64  # rounds to come; who announces more only fills disks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A report and what its envelope held for this helper; nothing when it does not open."""

    report: Report
    seeds: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperKeys:
    """Who the helper is, and how its round keys are wrapped on the disk."""

    box: str
    sign: Sign
    now: Callable[[], int]
    random: Callable[[int], bytes]
    wrap: Callable[[bytes, bytes], bytes]  # (secret, context) -> stored
    unwrap: Callable[[bytes, bytes], bytes]


class HelperRole:
    """One helper in the rounds of one consortium. Not for two threads at once."""

    def __init__(self, journal: Journal, keys: HelperKeys) -> None:
        self._journal, self._keys = journal, keys
        self._seen: dict[str, dict[str, _Candidate]] = {}  # while a round is worked on

    def state(self, name: str) -> Helper:
        """Return how far the helper is with a round."""
        for fact, state in (
            (SPENT, Helper.SPENT),
            (ANSWER, Helper.RELEASED),
            (DIGEST, Helper.COSIGNED),
            (ROUND_KEY, Helper.KEYED),
        ):
            if self._journal.has(name, fact):
                return state
        return Helper.IDLE

    def announce(self, name: str) -> HelperEntry:
        """Make the round's key pair, keep it wrapped, and return its signed public half."""
        context = b"round key " + name.encode()
        if self.state(name) is Helper.IDLE:
            self._age(name)
            if self._keyed() >= MOST_KEYS:
                raise RoundRefusedError(f"{MOST_KEYS} rounds to come hold a key of this helper")
            private = self._keys.random(32)
            self._journal.keep(name, ROUND_KEY, self._keys.wrap(private, context))
        if self.state(name) is not Helper.KEYED:
            raise RoundRefusedError("this round's key is gone")
        public = self._private(name).public_key().public_bytes_raw()
        signature = self._keys.sign(helper_message(name, public))
        return HelperEntry(box=self._keys.box, round_key=public.hex(), signature=signature.hex())

    def help(
        self,
        manifest: Manifest,
        roster: Roster,
        hub: HubCalls,
        *,
        own: Callable[[], frozenset[str]],
    ) -> Helper:
        """Take every step the round is ready for; returns the state reached.

        Args:
            manifest: the round, checked before.
            roster: as it names it.
            hub: the hub.
            own: boxes of this helper's own site that hold a receipt and did not withdraw.

        Raises:
            RoundRefusedError: the hub wants something opened that must stay closed.
            HubRefusedError: the round is not so far; ask again later.
        """
        name = manifest.round
        self._seen.pop(name, None)  # asked for once a visit
        if self.state(name) is Helper.KEYED and self._keys.now() >= manifest.expires:
            self._sign_empty(manifest, hub)
        elif self.state(name) is Helper.KEYED:
            self._look(manifest, roster, hub)
            self._sign_set(manifest, roster, hub, own())
        if self.state(name) is Helper.COSIGNED:
            self._again(manifest, hub)
            self._release(manifest, roster, hub)
        if self.state(name) is Helper.RELEASED:
            self._answer(manifest, hub)
        self._seen.pop(name, None)
        return self.state(name)

    def forget(self, manifest: Manifest) -> None:
        """After the audit time: delete the mask sums; the digest stays."""
        if self._keys.now() < manifest.audit_until:
            raise RoundRefusedError("the audit time is not over")
        step(HELPER, self.state(manifest.round), Helper.SPENT)
        self._journal.keep(manifest.round, SPENT, b"")
        for fact in (ROUND_KEY, ANSWER, TABLE):
            self._journal.destroy(manifest.round, fact)

    def retire(self, name: str) -> None:
        """After a round's record was published without this helper's answer: destroy its key."""
        step(HELPER, self.state(name), Helper.SPENT)
        self._journal.keep(name, SPENT, b"over")
        self._journal.destroy(name, ROUND_KEY)

    def never_opened(self, name: str) -> bool:
        """Whether a round has had a key for longer than it may wait for its manifest.

        The caller knows that no manifest of it is open: an expired round still needs its helpers.
        """
        return self.state(name) is Helper.KEYED and self._age(name) > KEY_WAITS_S

    def lose_keys(self) -> int:
        """After a restore from a backup: destroy every round key; returns how many were held.

        A restored helper might sign a second digest; without its keys it opens nothing.
        """
        lost = 0
        for name in self._journal.rounds():
            if self._journal.has(name, ROUND_KEY):
                self._journal.keep(name, SPENT, b"restored")
                self._journal.destroy(name, ROUND_KEY)
                lost += 1
        return lost

    # --- steps ---------------------------------------------------------------------------------

    def _look(self, manifest: Manifest, roster: Roster, hub: HubCalls) -> None:
        """Open every envelope and tell the hub which are not right."""
        bad = [box for box, one in self._look_at(manifest, roster, hub).items() if not one.seeds]
        signed = committee.find(manifest, self._keys.box, bad, self._keys.sign)
        hub.findings(manifest.round, signed)

    def _look_at(
        self, manifest: Manifest, roster: Roster, hub: HubCalls
    ) -> dict[str, "_Candidate"]:
        """Fetch every candidate of a closed round, check it and open its envelope, once a visit."""
        held = self._seen.get(manifest.round)
        if held is not None:
            return held
        index, private = manifest.helper(self._keys.box), self._private(manifest.round)
        found: dict[str, _Candidate] = {}
        for report, envelope in hub.candidates(manifest.round, manifest.most_boxes):
            member = roster.members.get(report.body.box)
            if member is None:
                raise RoundRefusedError("a candidate is not on the roster")
            check_report(manifest, report, member.key)
            try:
                seeds = open_envelope(manifest, report, index, envelope, private)
            except RoundRefusedError:
                seeds = {}  # complained about
            found[report.body.box] = _Candidate(report=report, seeds=seeds)
        self._seen[manifest.round] = found
        return found

    def _age(self, name: str) -> int:
        """Return seconds since a round's name was first seen here, by what is on the disk."""
        now = self._keys.now()
        if not self._journal.has(name, KEYED_AT):
            self._journal.keep(name, KEYED_AT, str(now).encode())
        return now - int(self._journal.read(name, KEYED_AT))

    def _keyed(self) -> int:
        return sum(self.state(name) is Helper.KEYED for name in self._journal.rounds())

    def _sign_set(
        self, manifest: Manifest, roster: Roster, hub: HubCalls, own: frozenset[str]
    ) -> None:
        wanted = hub.digest(manifest.round)
        candidates = self._look_at(manifest, roster, hub)
        named = {one.box for one in wanted.reports}
        if not named <= set(candidates):
            raise RoundRefusedError("the set holds a report that was no candidate")
        reports = [candidates[box].report for box in sorted(named)]
        checked = committee.check_set(manifest, roster, reports, receipts=own)
        if checked != wanted:
            raise RoundRefusedError("the set is not made of the candidates' reports")
        if not all(candidates[box].seeds for box in named):
            raise RoundRefusedError("the set holds a box this helper complained about")
        self._cosign(manifest, wanted, hub)

    def _sign_empty(self, manifest: Manifest, hub: HubCalls) -> None:
        """Close an expired round for good: with q empty digests no other can win."""
        self._cosign(manifest, committee.digest_of(manifest, []), hub)

    def _cosign(self, manifest: Manifest, wanted: committee.DigestBody, hub: HubCalls) -> None:
        one = committee.cosign(
            manifest,
            wanted,
            helper=self._keys.box,
            stored=None,
            now=self._keys.now(),
            sign=self._keys.sign,
        )
        self._journal.keep(manifest.round, DIGEST, wanted.encode())
        hub.cosign(manifest.round, one)

    def _again(self, manifest: Manifest, hub: HubCalls) -> None:
        """Hand the stored digest's signature in once more: the last answer may not have come."""
        wanted = self._signed_set(manifest.round)
        one = committee.cosign(
            manifest,
            wanted,
            helper=self._keys.box,
            stored=wanted.hash,
            now=self._keys.now(),
            sign=self._keys.sign,
        )
        hub.cosign(manifest.round, one)

    def _release(self, manifest: Manifest, roster: Roster, hub: HubCalls) -> None:
        name, wanted = manifest.round, self._signed_set(manifest.round)
        if not wanted.reports:
            return
        cosignatures = hub.cosignatures(name)
        if len(cosignatures) < manifest.quorum:
            return  # others have still to sign
        committee.check_quorum(manifest, roster, wanted, cosignatures)
        named = {one.box for one in wanted.reports}
        candidates = self._look_at(manifest, roster, hub)
        seeds = {box: candidates[box].seeds for box in named if box in candidates}
        answer = committee.unmask(
            manifest, wanted, helper=self._keys.box, seeds=seeds, sign=self._keys.sign
        )
        self._journal.keep(name, TABLE, answer.table.encode())
        parts = [
            part
            for subset, words in answer.masks.items()
            for part in (str(subset).encode(), words.tobytes())
        ]
        self._journal.keep(name, ANSWER, join_parts(*parts))
        self._journal.destroy(name, ROUND_KEY)

    def _answer(self, manifest: Manifest, hub: HubCalls) -> None:
        name = manifest.round
        if self._journal.has(name, ROUND_KEY):  # killed between the answer and its destruction
            self._journal.destroy(name, ROUND_KEY)
        signed = decode(committee.SignedMaskTable, self._journal.read(name, TABLE))
        hub.table(name, signed)
        masks = self._masks(manifest)
        _, asked = hub.asked(name)
        for subset in asked:
            if subset not in masks:
                raise RoundRefusedError("the hub asks for a mask this helper does not know")
            hub.upload(manifest, f"mask-{subset}", masks[subset])
        hub.asked(name)  # so that the hub goes on

    # --- inside --------------------------------------------------------------------------------

    def _masks(self, manifest: Manifest) -> dict[int, Words]:
        parts = split_parts(self._journal.read(manifest.round, ANSWER))
        kind = word_type(manifest.ring)
        return {
            int(subset): np.frombuffer(data, kind)
            for subset, data in zip(parts[::2], parts[1::2], strict=True)
        }

    def _signed_set(self, name: str) -> committee.DigestBody:
        return decode(committee.DigestBody, self._journal.read(name, DIGEST), 64 << 20)

    def _private(self, name: str) -> X25519PrivateKey:
        stored = self._journal.read(name, ROUND_KEY)
        secret = self._keys.unwrap(stored, b"round key " + name.encode())
        return X25519PrivateKey.from_private_bytes(secret)
