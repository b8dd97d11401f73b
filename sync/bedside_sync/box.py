"""A box's part of a round, resumable at every step.

    idle -> opened    manifest checked, policy asked, patients charged, all of it durable
    opened -> sealed  vector computed and noised, masked and sealed; the whole report is written,
                      then the seeds are forgotten. A crash before that starts again with fresh
                      seeds and fresh noise; the charge stands and is not made twice
    sealed -> acked   the report is uploaded from the file, byte for byte, until a receipt is kept
    acked -> ended    the public record is checked the next night, then the report is deleted

A report is never computed twice under the same seeds: that would show the difference.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import BedsideError, NotFoundError, RoundRefusedError
from bedside_core.signatures import PublicKey, Sign
from bedside_sync.calls import HubCalls, Progress
from bedside_sync.journal import Journal
from bedside_sync.secagg import tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import BOX, Box, step
from bedside_sync.secagg.manifest import (
    Manifest,
    SignedManifest,
    SitePolicy,
    agree,
    check_manifest,
)
from bedside_sync.secagg.prg import word_type
from bedside_sync.secagg.report import Report, make_report
from bedside_sync.secagg.roster import Roster
from bedside_sync.wire import join_parts, split_parts

log = logging.getLogger(__name__)

MANIFEST: Final = "manifest"
REPORT: Final = "report"
RECEIPT: Final = "receipt"
WITHDRAWAL: Final = "withdrawal"
HEARD: Final = "withdrawal-heard"  # what the hub said to it
TOLD: Final = b"heard"
TOO_LATE: Final = b"refused"
VETO: Final = "veto"
RECORD: Final = "record"
MINE: Final = "mine"  # digest of the vector that was sent, kept after the report is deleted


class Source(Protocol):
    """Where a round's vector comes from: the box's own cases."""

    def permit(self, manifest: Manifest, cost: int) -> None:
        """Ask policy and charge patients, durably; RefusedError says no and why.

        Safe to call again for the same round: the charge is made once.
        """
        ...

    def vector(self, manifest: Manifest) -> NDArray[np.int64]:
        """Return the bounded sum over the charged patients plus this box's noise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxKeys:
    """Who the box is, and what it trusts."""

    box: str
    sign: Sign
    hub: PublicKey
    random: Callable[[int], bytes]
    now: Callable[[], int]


class BoxRole:
    """One box in the rounds of one consortium. Not for two threads at once."""

    def __init__(self, journal: Journal, keys: BoxKeys, source: Source, policy: SitePolicy) -> None:
        self._journal, self._keys, self._source, self._policy = journal, keys, source, policy

    def state(self, name: str) -> Box:
        """Return how far the box is with a round."""
        has = self._journal.has
        if has(name, RECORD):
            return Box.INCLUDED if has(name, MINE) else Box.EXCLUDED
        for fact, state in (
            (VETO, Box.VETOED),
            (WITHDRAWAL, Box.WITHDRAWN),
            (RECEIPT, Box.ACKED),
            (REPORT, Box.SEALED),
            (MANIFEST, Box.OPENED),
        ):
            if has(name, fact):
                return state
        return Box.IDLE

    # --- joining -------------------------------------------------------------------------------

    def open(self, signed: SignedManifest, roster: Roster) -> int:
        """Check and agree to a round and charge its patients; returns the cost in units of rho.

        Raises:
            ManifestRefusedError, UntrustedSignatureError, RefusedError: the box says no; the
                answer is kept, so it is the same when asked again.
        """
        manifest = signed.manifest
        self._may(manifest.round, Box.OPENED)
        answered = [n for n in self._journal.rounds() if self.state(n) is not Box.IDLE]
        try:
            check_manifest(signed, roster)
            cost = agree(manifest, self._policy, now=self._keys.now(), known=answered)
            self._source.permit(manifest, cost)
        except BedsideError as refused:
            if refused.exit_code == 3:  # a rule says no; a failure may pass by tomorrow
                self.veto(manifest.round, refused.code)
            raise
        self._journal.keep(manifest.round, MANIFEST, signed.encode())
        return cost

    def veto(self, name: str, why: str) -> None:
        """Refuse a round for good; the reason stays here."""
        self._may(name, Box.VETOED)
        self._journal.keep(name, VETO, why.encode())
        log.info("round refused")  # the reason may be a person's words

    def seal(self, name: str) -> None:
        """Compute, mask and seal the report, and write it; seeds and noise are not kept."""
        self._may(name, Box.SEALED)
        manifest = self._manifest(name)
        seeds = [self._keys.random(32) for _ in manifest.subsets]
        sealed = make_report(
            manifest,
            box=self._keys.box,
            noisy=self._source.vector(manifest),
            seeds=seeds,
            code=bytes.fromhex(manifest.code),
            sign=self._keys.sign,
        )
        del seeds
        data = join_parts(sealed.report.encode(), *sealed.envelopes, sealed.masked.tobytes())
        self._journal.keep(name, REPORT, data)

    # --- sending -------------------------------------------------------------------------------

    def send(self, name: str, hub: HubCalls, progress: Progress | None = None) -> None:
        """Upload what the hub does not hold, file the report, keep the receipt."""
        self._may(name, Box.ACKED)
        manifest = self._manifest(name)
        report, envelopes, masked = self._report(name)
        words = np.frombuffer(masked, word_type(manifest.ring))
        hub.upload(manifest, "report", words, progress)
        receipt = hub.seal(name, report, envelopes)
        tally.check_receipt(receipt, report, self._keys.hub)
        self._journal.keep(name, RECEIPT, receipt.encode())

    def take_back(self, name: str) -> None:
        """Decide to withdraw, durably: nothing more is sent; `withdraw` tells the hub."""
        self._may(name, Box.WITHDRAWN)
        signed = tally.withdraw(self._manifest(name), self._keys.box, self._keys.sign)
        self._journal.keep(name, WITHDRAWAL, signed.encode())

    def withdraw(self, name: str, hub: HubCalls) -> None:
        """Take the report back: kept first, then told; told again if the hub did not hear it."""
        if self.state(name) is not Box.WITHDRAWN:
            self.take_back(name)
        data = self._journal.read(name, WITHDRAWAL)
        hub.withdraw(name, decode(tally.SignedWithdrawal, data))

    def heard(self, name: str) -> bool:
        """Whether the hub took this box's withdrawal."""
        return self._journal.has(name, HEARD) and self._journal.read(name, HEARD) == TOLD

    # --- after ---------------------------------------------------------------------------------

    def finish(self, name: str, record: tally.Transcript, roster: Roster, previous: bytes) -> Box:
        """Check a round's public record, keep it, delete the report; returns what it came to.

        A withdrawal that the hub did not take does not undo a report that was counted: the box is
        included, and its patients have paid.

        Raises:
            RoundRefusedError, ManifestRefusedError, UntrustedSignatureError: the record is wrong:
                nothing is deleted, and the record and the receipt prove it.
        """
        box = self._keys.box
        acked, withdrew = self._journal.has(name, RECEIPT), self._journal.has(name, WITHDRAWAL)
        counted = any(report.body.box == box for report in record.body.reports)
        own = box if acked or withdrew else ""
        if withdrew and counted:
            withdrew = self.heard(name)
        agreed = self._manifest(name) if self._journal.has(name, MANIFEST) else None
        if agreed is not None and agreed != record.body.manifest.manifest:
            raise RoundRefusedError("the record is of another manifest than this box agreed to")
        mine = self._sent(name)
        tally.verify_transcript(
            record,
            roster,
            self._keys.hub,
            previous=previous,
            own=own,
            own_vector=mine,
            withdrew=withdrew,
        )
        if counted and not withdrew:
            told = {report.body.box: report.body.vector for report in record.body.reports}
            self._journal.keep(name, MINE, (mine or told[box]).encode())
        self._journal.keep(name, RECORD, record.encode())
        self._journal.destroy(name, REPORT)
        return self.state(name)

    # --- inside --------------------------------------------------------------------------------

    def _may(self, name: str, wanted: Box) -> None:
        now = self.state(name)
        if now is wanted:
            raise RoundRefusedError(f"the box is {now.value} in this round already")
        step(BOX, now, wanted)

    def _manifest(self, name: str) -> Manifest:
        return decode(SignedManifest, self._journal.read(name, MANIFEST)).manifest

    def _sent(self, name: str) -> str:
        """Digest of the vector this box sent, in hex; empty when it is not known any more.

        The receipt has it too: a restored backup may lack the report itself, and later records
        must not wait for it.
        """
        if self._journal.has(name, RECEIPT):
            receipt = decode(tally.SignedReceipt, self._journal.read(name, RECEIPT))
            return receipt.receipt.vector
        try:
            return self._report(name)[0].body.vector if self._journal.has(name, REPORT) else ""
        except NotFoundError:
            return ""

    def _report(self, name: str) -> tuple[Report, list[bytes], bytes]:
        parts = split_parts(self._journal.read(name, REPORT))
        if len(parts) < 2:
            raise NotFoundError("the report on the disk is cut")
        return decode(Report, parts[0]), parts[1:-1], parts[-1]
