"""The hub's rules over its store: what it accepts, when a round goes on, what it publishes.

The hub is not trusted with anything a box has not masked. It is trusted to be there: every answer
is a function of what is durable, so it may be killed at any instant and asked again.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import (
    BedsideError,
    NotFoundError,
    RoundRefusedError,
    WrongStateError,
)
from bedside_core.signatures import Sign
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import Hub
from bedside_sync.secagg.manifest import (
    Manifest,
    SignedManifest,
    check_manifest,
    round_cost,
)
from bedside_sync.secagg.prg import Tag, Words, signed_bytes, word_type
from bedside_sync.secagg.prg import digest as digest_bytes
from bedside_sync.secagg.report import Report, check_report
from bedside_sync.secagg.ring import from_ring, to_ring
from bedside_sync.secagg.roster import (
    Member,
    Root,
    Roster,
    SignedEntry,
    extend,
    read_roster,
)

log = logging.getLogger(__name__)

REPORT: Final = "report"  # the upload of a box's masked vector
_CHECKPOINT_EVERY: Final = 16  # reports between two kept sums


def mask_upload(index: int) -> str:
    """Return the name under which a helper uploads the mask sum of a subset."""
    return f"mask-{index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubKeys:
    """Who the hub is."""

    sign: Sign
    now: Callable[[], int]  # seconds since the epoch


class HubService:
    """One hub over one store. Methods may be called from any thread and twice."""

    def __init__(self, store: HubStore, root: Root, keys: HubKeys) -> None:
        self.store, self.root, self._keys = store, root, keys
        self._rosters: dict[str, Roster] = {}  # by head: checking signatures takes time
        self._turn = threading.RLock()  # one step of one round at a time: records are a chain
        self._running: dict[str, tally.Tally] = {}  # sums of rounds that are not over
        self._right: dict[str, dict[int, str]] = {}  # mask sums found right: subset -> helper
        self.roster: Roster = read_roster(
            root, [decode(SignedEntry, data) for data in store.roster()]
        )

    # --- roster and rounds -------------------------------------------------------------------

    def append(self, signed: SignedEntry) -> Roster:
        """Append to the roster; errors as in `secagg.roster.extend`."""
        with self._turn:
            grown = extend(self.roster, signed)
            self.store.append_roster(signed.entry.seq, signed.encode())
            self.roster = grown
            return grown

    def refresh(self) -> bool:
        """Take in entries another process appended; return whether there were any."""
        with self._turn:
            entries = self.store.roster()[self.roster.size :]
            for data in entries:
                self.roster = extend(self.roster, decode(SignedEntry, data))
            return bool(entries)

    def must_be_member(self, box: str) -> None:
        """RoundRefusedError unless the box is on the roster now: a certificate alone is not."""
        if box not in self.roster.members:
            raise RoundRefusedError("the box is not on the roster")

    def roster_at(self, manifest: Manifest) -> Roster:
        """Return the roster a manifest names; RoundRefusedError when it is not ours."""
        held = self._rosters.get(manifest.roster)
        if held is None:
            entries = self.store.roster()[: manifest.roster_size]
            held = read_roster(self.root, [decode(SignedEntry, data) for data in entries])
            if held.head.hex() != manifest.roster:
                raise RoundRefusedError("the manifest names another roster")
            self._rosters[manifest.roster] = held
        return held

    def announce(self, signed: SignedManifest) -> None:
        """Open a round to the boxes; errors as in `check_manifest`."""
        check_manifest(signed, self.roster_at(signed.manifest))
        self.store.announce(signed)
        self.store.move(signed.manifest.round, Hub.OPEN)

    def open_rounds(self) -> list[SignedManifest]:
        """Return the manifests of rounds that are not over."""
        over = (Hub.PUBLISHED, Hub.EXPIRED)
        return [self.store.manifest(n) for n, state in self.store.rounds() if state not in over]

    # --- from boxes --------------------------------------------------------------------------

    def begin(
        self, box: str, name: str, what: str, digest: bytes, words: int, chunks: Sequence[bytes]
    ) -> list[bool]:
        """Announce a vector; returns which chunks are held.

        Raises:
            RoundRefusedError: late, of another length, or a mask from who is no helper.
        """
        manifest = self._manifest(name)
        self._member(manifest, box)
        if words != manifest.length:
            raise RoundRefusedError("the vector has another length than the round")
        if what == REPORT:
            # a report that is filed is in: its box may not have heard, and asks again after close
            if self.store.report_of(name, box) is None:
                self._must_be_open(manifest)
        else:
            manifest.helper(box)
            if what not in {mask_upload(n) for n in range(len(manifest.subsets))}:
                raise RoundRefusedError("no such vector is asked for")
        return self.store.begin(name, box, what, digest, words, chunks)

    def seal(self, box: str, name: str, report: Report, envelopes: Sequence[bytes]) -> bytes:
        """Take a report whose vector is here; returns the signed receipt, once all is durable.

        Raises:
            RoundRefusedError: late, of another box, or an envelope or vector that is not the one
                signed. WrongStateError: chunks are missing, or another report was filed.
        """
        manifest = self._manifest(name)
        member = self._member(manifest, box)
        if report.body.box != box:
            raise RoundRefusedError("a box seals its own report only")
        check_report(manifest, report, member.key)
        held = self.store.report_of(name, box)
        if held is None:
            self._must_be_open(manifest)
            if [digest_bytes(Tag.ENVELOPE, e).hex() for e in envelopes] != list(
                report.body.envelopes
            ):
                raise RoundRefusedError("an envelope is not the one the box signed")
            upload = self.store.announced(name, box, REPORT)
            if upload.hex() != report.body.vector:
                raise RoundRefusedError("the vector is not the one the box signed")
            words = self.store.vector(name, box, REPORT, manifest.ring)
            given = tally.give_receipt(report, self._keys.sign).encode()
            receipt = self.store.file_report(name, report, envelopes, given, self._keys.now())
            self._add(manifest, report, words)
            return receipt
        receipt = tally.give_receipt(report, self._keys.sign).encode()
        return self.store.file_report(name, report, envelopes, receipt, self._keys.now())

    def withdraw(self, box: str, name: str, signed: tally.SignedWithdrawal) -> None:
        """Take a report out before the round closes.

        Raises:
            RoundRefusedError: too late, or of another box or round.
        """
        manifest = self._manifest(name)
        member = self._member(manifest, box)
        body = signed.withdrawal
        if body.box != box or body.manifest != manifest.hash.hex():
            raise RoundRefusedError("the withdrawal is of another box or round")
        message = signed_bytes(Tag.WITHDRAW, body.encode())
        if not member.key.accepts(message, bytes.fromhex(signed.signature)):
            raise RoundRefusedError("the withdrawal is not signed by its box")
        if self.store.state(name) is not Hub.OPEN:
            raise RoundRefusedError("the round is closed; a report stays in it")
        self.store.take_out(name, box, "withdrawn", signed.encode())

    # --- from helpers ------------------------------------------------------------------------

    def candidates(self, box: str, name: str, after: str) -> list[tuple[Report, bytes]]:
        """Return reports after a name with the asking helper's envelope, a page at a time."""
        manifest = self._manifest(name)
        index = manifest.helper(box)
        if self.store.state(name) is Hub.OPEN:
            raise RoundRefusedError("the round is open: nothing is a candidate yet")
        page: list[tuple[Report, bytes]] = []
        for report in self.store.reports(name):
            if report.body.box > after:
                page.append((report, self.store.envelope(name, report.body.box, index)))
                if len(page) == 100:
                    break
        return page

    def found(self, box: str, name: str, signed: committee.SignedFindings) -> None:
        """Keep what a helper found, and go on when a quorum has looked."""
        manifest = self._manifest(name)
        committee.check_findings(manifest, self.roster_at(manifest), signed)
        if signed.findings.helper != box:
            raise RoundRefusedError("a helper sends its own findings only")
        if self.store.state(name) is Hub.CLOSED:
            self.store.say(name, box, "findings", signed.encode())
            self.go_on(name)

    def cosigned(self, box: str, name: str, one: committee.Cosignature) -> None:
        """Keep a cosignature, and go on at a quorum."""
        manifest = self._manifest(name)
        wanted = self.wanted(name)
        if one.helper != box or bytes.fromhex(one.digest) != wanted.hash:
            raise RoundRefusedError("the cosignature is of another set or helper")
        key = self.roster_at(manifest).members[one.helper].key
        message = signed_bytes(Tag.COSIGN, wanted.hash)
        if not key.accepts(message, bytes.fromhex(one.signature)):
            raise RoundRefusedError("the cosignature fails")
        self.store.say(name, box, "cosignature", one.encode())
        self.go_on(name)

    def table(self, box: str, name: str, signed: committee.SignedMaskTable) -> None:
        """Keep a helper's table of mask digests."""
        if signed.table.helper != box:
            raise RoundRefusedError("a helper sends its own table only")
        key = self.roster_at(self._manifest(name)).members[box].key
        message = signed_bytes(Tag.UNMASK, signed.table.encode())
        if not key.accepts(message, bytes.fromhex(signed.signature)):
            raise RoundRefusedError("the table is not signed by its helper")
        self.store.say(name, box, "table", signed.encode())

    def asked_of(self, box: str, name: str) -> list[int]:
        """Return the subsets whose mask sums the hub still wants from a helper."""
        manifest = self._manifest(name)
        index = manifest.helper(box)
        if self.store.state(name) is not Hub.UNMASKING:
            return []
        answered = set(self.store.said(name, "table"))
        signers = [
            manifest.helper(one)
            for one in self.store.said(name, "cosignature")
            if one in answered or one == box
        ]
        with self._turn:
            held = dict(self._held(manifest, name))
        able = [n for n, subset in enumerate(manifest.subsets) if index not in subset]
        if len(signers) < manifest.quorum:  # others have not answered: whoever asks gives all
            return [n for n in able if n not in held]
        return tally.require_masks(manifest, signers, held).get(index, [])

    def wanted(self, name: str) -> committee.DigestBody:
        """Return the set to be signed; the empty one once the round has expired unsigned."""
        manifest, state = self._manifest(name), self.store.state(name)
        if state in (Hub.DIGEST, Hub.UNMASKING, Hub.PUBLISHED, Hub.EXPIRED):
            return decode(committee.DigestBody, self.store.column(name, "digest"), 64 << 20)
        if self._keys.now() >= manifest.expires:
            return committee.digest_of(manifest, [])
        raise RoundRefusedError("there is no set to sign yet")

    # --- the round's way ---------------------------------------------------------------------

    def go_on(self, name: str) -> Hub:
        """Take every step the round is ready for; returns its state. Safe to call at any time."""
        with self._turn:
            while True:
                before = self.store.state(name)
                self._step(name, before)
                after = self.store.state(name)
                if after is before:
                    return after

    def go_on_all(self) -> None:
        """Take every round as far as it goes; the hub's clock drives them, not its visitors."""
        for signed in self.open_rounds():
            try:
                self.go_on(signed.manifest.round)
            except BedsideError as error:  # one round that cannot go on holds up no other
                log.warning("a round does not go on", extra={"code": error.code})

    def tidy(self) -> int:
        """Delete the vectors of rounds whose audit time is over; returns how many rounds had any.

        A round that was abandoned half way ends with its audit time as well: what it holds is
        masked, and nobody will ever unmask it.
        """
        now, cleared = self._keys.now(), 0
        for name, _ in self.store.rounds():
            if now >= self._manifest(name).audit_until and self.store.has_vectors(name):
                self.store.forget_vectors(name)
                cleared += 1
        return cleared

    def _step(self, name: str, state: Hub) -> None:
        manifest, now = self._manifest(name), self._keys.now()
        if state is Hub.OPEN and now >= manifest.closes and self._enough(manifest, name):
            self._fold(manifest)
            self.store.move(name, Hub.CLOSED)
        elif state is Hub.CLOSED:
            self._settle(manifest, name)
        elif state is Hub.DIGEST:
            if len(self.store.said(name, "cosignature")) >= manifest.quorum:
                self.store.move(name, Hub.UNMASKING)
        elif state is Hub.UNMASKING:
            self._publish(manifest, name)
        if (
            now >= manifest.expires
            and self.store.state(name) in (Hub.OPEN, Hub.CLOSED)
            and len(self.store.said(name, "cosignature")) >= manifest.quorum
        ):
            self._expire(manifest, name)

    def _enough(self, manifest: Manifest, name: str) -> bool:
        members = self.roster_at(manifest).members
        found = {members[report.body.box].organisation for report in self.store.reports(name)}
        return len(found) >= manifest.least_boxes

    def _settle(self, manifest: Manifest, name: str) -> None:
        """Drop whom a helper complained about, once a quorum has looked; freeze the set."""
        said = self.store.said(name, "findings")
        if len(said) < manifest.quorum or self._keys.now() >= manifest.expires:
            return
        for data in said.values():
            for box in decode(committee.SignedFindings, data).findings.bad:
                if self.store.take_out(name, box, "dropped", data):
                    log.warning("a box was dropped on a helper's complaint")
        if not self._enough(manifest, name):
            return
        wanted = committee.digest_of(manifest, self.store.reports(name))
        self.store.move(name, Hub.DIGEST, digest=wanted.encode())

    def _add(self, manifest: Manifest, report: Report, words: Words) -> None:
        """Add a report that was just filed, so that nothing is left to do at close."""
        with self._turn:
            if self.store.state(manifest.round) not in (Hub.OPEN, Hub.CLOSED):
                return
            running = self._resumed(manifest)
            if running.add(report, words, vector=bytes.fromhex(report.body.vector)):
                self._keep(manifest.round, running)

    def _resumed(self, manifest: Manifest) -> tally.Tally:
        """Return the running sum: as it is in memory, else from what was kept on the disk."""
        name = manifest.round
        running = self._running.get(name)
        if running is None:
            running = tally.Tally(manifest=manifest)
            kept = self.store.total(name, manifest.ring)
            if kept is not None:
                running.total = kept[1]
                vectors = self.store.filed(name)
                running.boxes = {box: vectors[box].body.vector for box in kept[0]}
            self._running[name] = running
        return running

    def _keep(self, name: str, running: tally.Tally) -> None:
        if len(running.boxes) % _CHECKPOINT_EVERY == 0:
            self.store.keep_total(name, list(running.boxes), running.total)

    def _fold(self, manifest: Manifest) -> tally.Tally:
        """Return the sum of the reports that are in: what is there, plus what came, less who left.

        `store.vector` has checked every word against the digest the box signed.
        """
        name, ring = manifest.round, manifest.ring
        running = self._resumed(manifest)
        reports = {report.body.box: report for report in self.store.reports(name)}
        for box in sorted(set(running.boxes) - set(reports)):
            left = self.store.filed(name)[box]
            running.drop(left, self.store.vector(name, box, REPORT, ring))
        for box, report in reports.items():
            if box not in running.boxes:
                words = self.store.vector(name, box, REPORT, ring)
                running.add(report, words, vector=self.store.announced(name, box, REPORT))
                self._keep(name, running)
        return running

    def _held(self, manifest: Manifest, name: str) -> dict[int, str]:
        """Return which mask sums are here whole and as their table says, and from whom.

        Looked at once each: what was right stays right, for a chunk is never replaced.
        """
        found = self._right.setdefault(name, {})
        for helper, data in self.store.said(name, "table").items():
            table = decode(committee.SignedMaskTable, data).table
            for index in range(len(manifest.subsets)):
                said = table.masks.get(str(index))
                if said is None or index in found:
                    continue
                try:
                    words = self.store.vector(name, helper, mask_upload(index), manifest.ring)
                except (NotFoundError, WrongStateError):  # not announced, or chunks are missing
                    continue
                if committee.mask_digest(manifest, index, words) == said:
                    found[index] = helper
        return found

    def _publish(self, manifest: Manifest, name: str) -> None:
        said = self.store.said(name, "table")
        if not tally.confirmed(manifest, list(said)):
            return
        held = self._held(manifest, name)
        if len(held) < len(manifest.subsets):
            return
        masks = {
            index: self.store.vector(name, helper, mask_upload(index), manifest.ring)
            for index, helper in held.items()
        }
        roster, wanted = self.roster_at(manifest), self.wanted(name)
        tables = [decode(committee.SignedMaskTable, data) for data in said.values()]
        agreed = tally.collect_tables(manifest, roster, wanted, tables)
        running = self._fold(manifest)
        total = tally.open_sum(running, wanted, agreed, masks)
        self._write_record(
            manifest,
            name,
            wanted,
            Hub.PUBLISHED,
            tables=tables,
            total=tally.sum_digest(manifest, total),
            masked=tally.masked_digest(manifest, running.total),
            opened=to_ring(total, manifest.ring).tobytes(),
        )

    def _expire(self, manifest: Manifest, name: str) -> None:
        wanted = committee.digest_of(manifest, [])
        self._write_record(
            manifest,
            name,
            wanted,
            Hub.EXPIRED,
            tables=[],
            total=tally.NOTHING,
            masked=tally.NOTHING,
        )

    def _write_record(
        self,
        manifest: Manifest,
        name: str,
        wanted: committee.DigestBody,
        state: Hub,
        *,
        tables: Sequence[committee.SignedMaskTable],
        total: str,
        masked: str,
        opened: bytes = b"",
    ) -> None:
        body = tally.TranscriptBody(
            manifest=self.store.manifest(name),
            reports=self.store.reports(name) if wanted.reports else [],
            cosignatures=[
                decode(committee.Cosignature, data)
                for data in self.store.said(name, "cosignature").values()
            ],
            tables=list(tables),
            findings=[
                decode(committee.SignedFindings, data)
                for data in self.store.said(name, "findings").values()
            ],
            withdrawn=[r.body.box for r in self.store.reports(name, "withdrawn")],
            total=total,
            masked_total=masked,
            rho=round_cost(manifest),
            previous=self.store.last_transcript().hex(),
        )
        record = tally.publish(body, self._keys.sign)
        self.store.move(
            name,
            state,
            transcript=record.encode(),
            hash_after=body.hash,
            digest=wanted.encode(),
            **({"opened": opened} if opened else {}),
        )
        self._running.pop(name, None)
        self._right.pop(name, None)
        log.info("round ended", extra={"state": state.value})

    def opened(self, name: str) -> NDArray[np.int64]:
        """Return the sum of a published round; NotFoundError."""
        ring = self._manifest(name).ring
        return from_ring(np.frombuffer(self.store.opened(name), word_type(ring)), ring)

    # --- inside ------------------------------------------------------------------------------

    def _manifest(self, name: str) -> Manifest:
        return self.store.manifest(name).manifest

    def _member(self, manifest: Manifest, box: str) -> Member:
        member = self.roster_at(manifest).members.get(box)
        if member is None:
            raise RoundRefusedError("the box is not on the round's roster")
        return member

    def _must_be_open(self, manifest: Manifest) -> None:
        if self.store.state(manifest.round) is not Hub.OPEN:
            raise RoundRefusedError("late: the round is closed; report to the next one")
        if self._keys.now() < manifest.opens:
            raise RoundRefusedError("early: the round is not open yet")
