"""One visit of a box to its hub: everything a night has to do, each part apart from the others.

    clock        the hub's time is the box's own within five minutes, or nothing is done
    roster       what was appended since, checked against the pinned root
    record       finished rounds in the order of their chain, none left out, however long away
    key          a key pair for each round to come that asks this box for help
    join         settings fetched, policy asked, patients charged; then
    seal, send   the report, from the file, until its receipt is here
    help         the committee's steps, as far as the round lets them
    withdraw     told again until the hub has heard it

A part that fails is told with its code and holds up no other; the next visit takes it up again from
what is on the disk. A visit may be killed at any instant. Whoever calls decides when to come again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from bedside_core.errors import (
    BedsideError,
    HubRefusedError,
    HubUnavailableError,
    ManifestRefusedError,
    RoundRefusedError,
    UnavailableError,
)
from bedside_sync.box import HEARD, RECEIPT, RECORD, TOLD, TOO_LATE, WITHDRAWAL, BoxRole
from bedside_sync.calls import HubCalls
from bedside_sync.helper import HelperRole
from bedside_sync.journal import Journal
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import Box, Helper, Hub
from bedside_sync.secagg.manifest import Manifest, SignedManifest, check_manifest
from bedside_sync.secagg.roster import Root, Roster, SignedEntry, extend, read_roster
from bedside_sync.secagg.tally import MAX_TRANSCRIPT, Transcript

log = logging.getLogger(__name__)

SETTINGS: Final = "settings"  # bytes of the task's settings, as the manifest's digest names them
CLOCK_SLACK_S: Final = 300


class Step(StrEnum):
    """The parts of a visit."""

    CLOCK = "clock"
    CHECKPOINT = "checkpoint"
    ROSTER = "roster"
    RECORD = "record"
    KEY = "key"
    JOIN = "join"
    SEAL = "seal"
    SEND = "send"
    HELP = "help"
    WITHDRAW = "withdraw"
    FORGET = "forget"


class Outcome(StrEnum):
    """How a part ended."""

    DONE = "done"
    REFUSED = "refused"  # a rule says no: the box's own, or the hub's
    FAILED = "failed"  # not now; the next visit tries again


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One part of a visit as the timeline keeps it; times in seconds since the epoch."""

    step: Step
    started: int
    ended: int
    outcome: Outcome
    round: str = ""
    task: str = ""
    code: str = ""


class Diary(Protocol):
    """What a box remembers of its consortium beside the facts of rounds; durable on return."""

    def roster(self) -> list[bytes]:
        """Return the roster's entries so far."""
        ...

    def extend_roster(self, start: int, entries: Sequence[bytes]) -> None:
        """Append checked entries from number `start` on; the same again is no news."""
        ...

    def records(self) -> tuple[int, bytes]:
        """Return how many records of the chain were checked, and the hash of the last."""
        ...

    def file_record(self, seq: int, name: str, after: bytes, state: Box) -> None:
        """Note that record `seq` was checked; an excluded round's charges become void with it."""
        ...

    def tell(self, what: Told) -> None:
        """Add to the night's timeline."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an agent is made of."""

    box: BoxRole
    helper: HelperRole
    facts: Journal  # of the box role
    help_facts: Journal  # of the helper role
    diary: Diary
    root: Root
    name: str  # of this box
    now: Callable[[], int]
    checkpoint: Callable[[], object] = lambda: None  # signs the evidence log


@dataclass(slots=True, kw_only=True)
class Outlook:
    """What a visit leaves.

    Attributes:
        waits: a round goes on without more from people: come again soon.
        failed: something failed that the next visit may do.
        soonest: next time at which a round this box is in changes; 0 for none.
    """

    waits: bool = False
    failed: bool = False
    soonest: int = 0

    def at(self, moment: int, now: int) -> None:
        """Note a moment to come."""
        if moment > now and (not self.soonest or moment < self.soonest):
            self.soonest = moment


class Agent:
    """A box of a consortium. Not for two threads at once."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._rosters: dict[int, Roster] = {}
        self._outlook, self._gone = Outlook(), False

    def visit(self, hub: HubCalls) -> Outlook:
        """Do everything that can be done now.

        Raises:
            HubUnavailableError: the hub went away; what was done is durable.
        """
        self._outlook, self._gone = Outlook(), False
        if not self._clock(hub):
            return self._outlook
        with self._part(Step.CHECKPOINT, quiet=True):
            self._p.checkpoint()
        with self._part(Step.ROSTER, quiet=True):
            self._refresh(hub)
        with self._part(Step.RECORD, quiet=True):
            self._records(hub)
        with self._part(Step.KEY, quiet=True):
            self._keys(hub)
        with self._part(Step.JOIN, quiet=True):
            states, opened = hub.states(), hub.rounds()
            for signed in opened:
                self._round(hub, signed, states.get(signed.manifest.round, ""))
            with self._part(Step.FORGET, quiet=True):
                self._drop_old({signed.manifest.round for signed in opened})
        with self._part(Step.FORGET, quiet=True):
            self._forget()
        return self._outlook

    # --- what concerns no one round ------------------------------------------------------------

    def _clock(self, hub: HubCalls) -> bool:
        started = self._p.now()
        apart = abs(hub.time() - started)
        if apart > CLOCK_SLACK_S:
            # nobody can tell here which of the two is wrong, and a round's times bind the box
            self._tell(Step.CLOCK, started, Outcome.FAILED, code="clock-differs")
            self._outlook.failed = True
            return False
        return True

    def _refresh(self, hub: HubCalls) -> None:
        held = self._roster()
        started, grown = self._p.now(), held
        fresh = hub.roster(held.size)
        for signed in fresh:
            grown = extend(grown, signed)
            self._rosters[grown.size] = grown
        if fresh:
            self._p.diary.extend_roster(held.size, [signed.encode() for signed in fresh])
            self._tell(Step.ROSTER, started, Outcome.DONE)

    def _roster(self, size: int | None = None) -> Roster:
        """Return the roster as of a size, from what is kept here: the hub cannot shorten it."""
        kept = self._p.diary.roster()
        wanted = len(kept) if size is None else size
        if wanted > len(kept):
            raise ManifestRefusedError("round refused: it names a roster this box has not seen")
        if wanted not in self._rosters:
            entries = [decode(SignedEntry, data) for data in kept[:wanted]]
            self._rosters[wanted] = read_roster(self._p.root, entries)
        return self._rosters[wanted]

    def _records(self, hub: HubCalls) -> None:
        while True:
            done, previous = self._p.diary.records()
            names = hub.records(done)
            if not names:
                return
            for name in names:
                with self._part(Step.RECORD, name, stop=True):
                    previous = self._record(hub, name, done, previous)
                done += 1

    def _record(self, hub: HubCalls, name: str, seq: int, previous: bytes) -> bytes:
        facts = self._p.facts
        if facts.has(name, RECORD):  # killed after it was checked and kept
            record = decode(Transcript, facts.read(name, RECORD), MAX_TRANSCRIPT)
            if bytes.fromhex(record.body.previous) != previous:  # told again, at another place
                raise RoundRefusedError("the record does not follow the one before")
            state = self._p.box.state(name)
        else:
            record = hub.record(name)
            if record.body.manifest.manifest.round != name:
                raise RoundRefusedError("the record is of another round")
            roster = self._roster(record.body.manifest.manifest.roster_size)
            state = self._p.box.finish(name, record, roster, previous)
        facts.destroy(name, SETTINGS)  # nothing is computed from them any more
        self._p.diary.file_record(seq, name, record.body.hash, state)
        return record.body.hash

    def _keys(self, hub: HubCalls) -> None:
        for name in hub.upcoming():
            with self._part(Step.KEY, name):
                hub.helper_key(name, self._p.helper.announce(name))
            self._outlook.waits = True  # its manifest comes once all keys are there

    def _drop_old(self, opened: set[str]) -> None:
        """Destroy keys of rounds that were announced long ago and never opened."""
        for name in self._p.help_facts.rounds():
            if name not in opened and self._p.helper.never_opened(name):
                with self._part(Step.FORGET, name):
                    self._p.helper.retire(name)

    def _forget(self) -> None:
        """Destroy keys of rounds that ended without them, and mask sums after the audit time."""
        for name in self._p.help_facts.rounds():
            state = self._p.helper.state(name)
            if state in (Helper.IDLE, Helper.SPENT) or not self._p.facts.has(name, RECORD):
                continue
            if state in (Helper.KEYED, Helper.COSIGNED):
                with self._part(Step.FORGET, name, quiet=True):
                    self._p.helper.retire(name)
                continue
            record = decode(Transcript, self._p.facts.read(name, RECORD), MAX_TRANSCRIPT)
            manifest = record.body.manifest.manifest
            if self._p.now() >= manifest.audit_until:
                with self._part(Step.FORGET, name, manifest.task):
                    self._p.helper.forget(manifest)

    # --- one round -----------------------------------------------------------------------------

    def _round(self, hub: HubCalls, signed: SignedManifest, state: str) -> None:
        manifest, now = signed.manifest, self._p.now()
        for moment in (manifest.opens, manifest.closes, manifest.expires):
            self._outlook.at(moment, now)
        if now < manifest.opens:
            return
        self._take_part(hub, signed, state)
        if any(helper.box == self._p.name for helper in manifest.helpers):
            self._help(hub, signed, state)

    def _take_part(self, hub: HubCalls, signed: SignedManifest, state: str) -> None:
        manifest = signed.manifest
        name, task = manifest.round, manifest.task
        at = self._p.box.state
        late = state != Hub.OPEN.value or self._p.now() >= manifest.expires
        if at(name) is Box.IDLE and not late:
            with self._part(Step.JOIN, name, task):
                self._join(hub, signed)
        if at(name) is Box.OPENED and not late:
            with self._part(Step.SEAL, name, task):
                self._p.box.seal(name)
        if at(name) is Box.SEALED:  # also late: the hub may hold it and its receipt was lost
            with self._part(Step.SEND, name, task):
                self._p.box.send(name, hub)
        if at(name) is Box.WITHDRAWN and not self._p.facts.has(name, HEARD):
            with self._part(Step.WITHDRAW, name, task):
                self._withdraw(hub, name)

    def _join(self, hub: HubCalls, signed: SignedManifest) -> None:
        manifest = signed.manifest
        # before anything is kept: what nobody signed must not decide what a signed round finds here
        check_manifest(signed, self._roster(manifest.roster_size))
        if not self._p.facts.has(manifest.round, SETTINGS):
            settings = hub.settings(bytes.fromhex(manifest.settings))
            self._p.facts.keep(manifest.round, SETTINGS, settings)
        self._p.box.open(signed, self._roster(manifest.roster_size))

    def _withdraw(self, hub: HubCalls, name: str) -> None:
        try:
            self._p.box.withdraw(name, hub)
        except HubRefusedError:  # it holds no report of ours, or the round is closed: the record
            self._p.facts.keep(name, HEARD, TOO_LATE)  # of the round will say which
            raise
        self._p.facts.keep(name, HEARD, TOLD)

    def _help(self, hub: HubCalls, signed: SignedManifest, state: str) -> None:
        manifest = signed.manifest
        name, before = manifest.round, self._p.helper.state(manifest.round)
        if before in (Helper.IDLE, Helper.SPENT):
            return
        if state == Hub.OPEN.value and self._p.now() < manifest.expires:
            self._outlook.waits |= self._p.now() >= manifest.closes
            return
        self._outlook.waits = True
        started = self._p.now()
        with self._part(Step.HELP, name, manifest.task, quiet=True):
            roster = self._roster(manifest.roster_size)
            check_manifest(signed, roster)  # a forged one that is expired would spend the key
            after = self._p.helper.help(manifest, roster, hub, own=lambda: self._own(manifest))
            if after is not before:
                self._tell(Step.HELP, started, Outcome.DONE, name, manifest.task)

    def _own(self, manifest: Manifest) -> frozenset[str]:
        has, name = self._p.facts.has, manifest.round
        counted = has(name, RECEIPT) and not has(name, WITHDRAWAL)
        return frozenset({self._p.name}) if counted else frozenset()

    # --- telling -------------------------------------------------------------------------------

    @contextmanager
    def _part(
        self, step: Step, name: str = "", task: str = "", *, quiet: bool = False, stop: bool = False
    ) -> Iterator[None]:
        """Run a part of the visit; its failure ends the part, and with `stop` the step around it.

        A hub that is gone ends the visit: nothing else would work either.
        """
        started = self._p.now()
        try:
            yield
        except HubUnavailableError as gone:
            if not self._gone:  # the parts around this one end with it and say nothing more
                self._tell(step, started, Outcome.FAILED, name, task, gone.code)
            self._gone = True
            raise
        except _StoppedError:
            pass
        except HubRefusedError as refused:
            if refused.reason == RoundRefusedError.code and step is Step.HELP:
                return  # the round is not so far: it was asked too early
            self._tell(step, started, Outcome.REFUSED, name, task, refused.reason)
            self._end(stop)
        except BedsideError as error:
            later = isinstance(error, UnavailableError)
            self._tell(
                step, started, Outcome.FAILED if later else Outcome.REFUSED, name, task, error.code
            )
            self._outlook.failed |= later
            self._end(stop)
        except Exception as error:  # the boundary: a task's own fault blocks no other
            log.exception("unforeseen error in a round", exc_info=error)
            self._tell(step, started, Outcome.FAILED, name, task, "internal")
            self._outlook.failed = True
            self._end(stop)
        else:
            if not quiet:
                self._tell(step, started, Outcome.DONE, name, task)

    def _end(self, stop: bool) -> None:
        if stop:
            raise _StoppedError

    def _tell(
        self,
        step: Step,
        started: int,
        outcome: Outcome,
        name: str = "",
        task: str = "",
        code: str = "",
    ) -> None:
        told = Told(
            step=step,
            started=started,
            ended=self._p.now(),
            outcome=outcome,
            round=name,
            task=task,
            code=code,
        )
        self._p.diary.tell(told)
        if outcome is not Outcome.DONE:
            log.info("part of a night not done", extra={"code": code})


class _StoppedError(Exception):
    """The step around a failed part ends with it: records are a chain."""
