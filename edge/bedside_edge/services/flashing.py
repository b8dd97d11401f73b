"""Installing, trying, confirming and taking back what is flashed.

The row is durable before anything is done that it speaks of; what serves is not touched until a
candidate passed its gate, and then changes in one transaction. So a cut at any instant leaves the
old or the new. What a cut left half done goes on in `step`.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bedside_core import slots
from bedside_core.errors import (
    BedsideError,
    FlashRefusedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    WrongStateError,
)
from bedside_core.result import Json
from bedside_core.slots import Pair, Slot, SlotState
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX
from bedside_edge.ports.flashing import (
    Candidate,
    FlashStore,
    Progress,
    SlotFolders,
    Step,
    Verifier,
    Way,
    Ways,
)
from bedside_sync.distribution.assignment import Running, check_package
from bedside_sync.distribution.inventory import SlotReport
from bedside_sync.distribution.manifest import TargetManifest, read_manifest

log = logging.getLogger(__name__)

GOOD: Final = "good"
BAD: Final = "bad"
RESTART: Final = "restart"  # the launcher tries it at the next start
SERVING: Final = "serving"  # it served before anybody asked
WAITING: Final = "waiting"  # on trial; tried again soon
REFUSED: Final = RefusedError.exit_code
_NAP_S: Final = 60.0
_WITHDRAWN: Final = "withdrawn"
_AGAIN: Final = "again"
_RESTS: Final = 5  # a trial that died rests this part of its time: what ailed the box may pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an installation or of one look at a trial.

    Attributes:
        state: `good`, `bad`, `restart`, `waiting` or `serving`.
        code: of `bad`: the reason.
        detail: in words.
        record: acceptance record of `good`.
    """

    kind: str
    state: str
    version: str = ""
    code: str = ""
    detail: str = ""
    record: Json | None = None


class FlashingService:
    """One box's slots. Safe to call from several threads: one change at a time."""

    def __init__(
        self,
        store: FlashStore,
        folders: SlotFolders,
        ways: Ways,
        verifier: Verifier,
        clock: Clock,
        *,
        trial_s: int,
        profile: str = "",
        room: int = 0,
    ) -> None:
        """Take what it stands on; nothing is looked at before `recover`.

        Args:
            store: the rows.
            folders: the slots' folders.
            ways: how each sort of thing is tried and put to use.
            verifier: what must hold of the box before anything is confirmed.
            clock: deadlines.
            trial_s: seconds a candidate has to pass its gate.
            profile: id of the hardware profile in force.
            room: bytes one package may have; 0 for no limit.
        """
        self._store, self._folders, self._ways = store, folders, ways
        self._verifier, self._clock, self._trial_s = verifier, clock, trial_s
        self._profile, self._room = profile, room
        self._turn = threading.RLock()
        self._stopping = threading.Event()
        self._died: dict[str, float] = {}  # kind -> when its trial last ended without a verdict
        self.waiting: dict[str, str] = {}  # kinds the box does not act on yet, with the code

    # --- looking ------------------------------------------------------------------------------

    def pairs(self) -> list[Pair]:
        """Return every pair there is, by kind."""
        return self._store.pairs()

    def held(self, kind: str, slot: str) -> TargetManifest:
        """Return what is in a slot; NotFoundError."""
        return read_manifest(self._store.manifest(kind, slot))

    def steps(self, *, kind: str = "", limit: int = 100) -> list[Step]:
        """Return what was flashed, newest first."""
        return self._store.steps(kind=kind, limit=limit)

    def serving(self, kind: str) -> Candidate | None:
        """Return what serves of a kind, None for what the box came with."""
        return self._candidate(self._store.pair(kind))

    def running(self) -> Running:
        """Return what runs here and the floors, as the rule of installation asks for it."""
        pairs = self._store.pairs()
        return Running(
            counters={
                pair.kind: pair.serving.release_counter
                for pair in pairs
                if pair.serving is not None
            },
            floors={pair.kind: pair.floor for pair in pairs},
            profile=self._profile,
            room=self._room,
        )

    def reports(self) -> tuple[SlotReport, ...]:
        """Return every slot that is not empty, as the hub is told of it."""
        waiting = set(self._store.unapplied())
        return tuple(
            self._report(pair, slot, serving=slot.name == pair.active and pair.kind not in waiting)
            for pair in self._store.pairs()
            for slot in (pair.a, pair.b)
            if slot.state is not SlotState.EMPTY
        )

    def _report(self, pair: Pair, slot: Slot, *, serving: bool) -> SlotReport:
        came = next(
            (
                step
                for step in self._store.steps(kind=pair.kind)
                if (step.slot, step.what, step.digest) == (slot.name, slot.state, slot.digest)
            ),
            None,
        )
        record = came.body if came is not None and slot.state is SlotState.GOOD else None
        return SlotReport.model_validate(
            {
                "slot": pair.kind,
                "name": slot.name,
                "state": slot.state.value,
                "package": slot.digest,
                "release_counter": slot.release_counter,
                "serving": int(serving),
                "reason": slot.reason,
                "record": hashlib.sha256(record).hexdigest() if record else "",
                "since": came.at // 1000 if came is not None else 0,
            }
        )

    @property
    def wants_restart(self) -> bool:
        """Whether something is tried, or put to use, by the next start only."""
        trial = self._store.pair("app").idle.state is SlotState.TRIAL
        return trial or RESTART in self.waiting.values()

    # --- at the start, and whenever there is time ---------------------------------------------

    def recover(self) -> None:
        """Put right what a cut left; links follow rows; the log is told what the launcher did."""
        with self._turn:
            self._store.tell()
            for pair in self._store.pairs():
                after = slots.after_start(pair)
                idle = pair.idle
                if after.idle.state is SlotState.EMPTY:
                    self._folders.empty(pair.kind, idle.name)
                if after != pair:
                    what = "emptied" if after.idle.state is SlotState.EMPTY else "staged"
                    self._save(pair, after, what, idle, BOX)
                self._refill(pair)
                self._folders.point(pair.kind, pair.active)

    def _refill(self, pair: Pair) -> None:
        """Write good slots anew whose files are gone: a backup holds the rows, not the files."""
        for slot in (pair.a, pair.b):
            if slot.state is not SlotState.GOOD:
                continue
            manifest = self.held(pair.kind, slot.name)
            if self._folders.whole(pair.kind, slot.name, manifest):
                continue
            try:
                self._folders.empty(pair.kind, slot.name)
                self._folders.fill(pair.kind, slot.name, manifest)
                self._folders.verify(pair.kind, slot.name, manifest)
            except BedsideError as missing:  # fetch it again: `bedside-edge update fetch`
                self._folders.empty(pair.kind, slot.name)
                self.waiting[pair.kind] = f"files-missing: {missing.code}"
                log.warning("files of a slot are missing", extra={"code": missing.code})
            else:
                log.info("slot written anew", extra={"package": f"{pair.kind}/{slot.name}"})

    def start(self, profiles_failed: Sequence[str] = ()) -> None:
        """Recover, and note what the box started with.

        Args:
            profiles_failed: codes of the flashed profiles this start could not serve with, the
                one in force first: each gives way to the one before.
        """
        self.recover()
        for code in profiles_failed:
            self.roll_back("profile", reason=code)
        self._store.applied("profile", self._store.pair("profile"))
        self.waiting.pop("profile", None)

    def stop(self) -> None:
        """End a trial under way, soon: it goes on when the box starts again."""
        self._stopping.set()
        for way in self._ways.values():
            if way.gate is not None:
                way.gate.stop()

    def step(self) -> bool:
        """Go on with what is under way: verify, try, put to use. False: nothing for a while."""
        with self._turn:
            for pair in self._store.pairs():
                if pair.idle.state is SlotState.STAGED:
                    self._verify_and_try(self.held(pair.kind, pair.idle.name), BOX, None)
                elif pair.idle.state is SlotState.TRIAL and self._rested(pair.kind):
                    self.try_out(pair.kind)
            for kind in self._store.unapplied():
                self._act(self._store.pair(kind))
        return False

    def nap(self) -> float:
        """Return seconds until the next look."""
        return _NAP_S

    # --- changing -----------------------------------------------------------------------------

    def check(self, manifest: TargetManifest) -> None:
        """Say whether a package could be installed now; nothing changes.

        Raises:
            RollbackRefusedError, ProfileMismatchError, RequiresUnmetError, UpdateTooLargeError:
                what runs here does not permit it.
            FlashRefusedError: it serves already, is on its way, or the other slot is needed.
        """
        self._begin(self._store.pair(manifest.slot), manifest)

    def install(
        self, manifest: TargetManifest, actor: str = BOX, progress: Progress | None = None
    ) -> Outcome:
        """Fill the idle slot, verify it, try it, and let it serve when it passes.

        Args:
            manifest: signed by its owner and named by the assignment: the caller has seen to it.
            actor: who asks.
            progress: told bytes written and verified, of twice the package's size.

        Raises:
            BedsideError: as for `check`, or the disk: nothing has changed, a refusal is evidence.
        """
        with self._turn:
            before = self._store.pair(manifest.slot)
            try:
                after = self._begin(before, manifest)
            except BedsideError as refused:
                self._note_refusal(before, manifest, actor, refused.code)
                raise
            kind, slot = manifest.slot, after.idle.name
            held = before.idle
            known = held.state is SlotState.BAD and held.digest == manifest.digest
            code = _AGAIN if known else ""
            self._save(before, after, "staging", after.idle, actor, manifest.encode(), code)
            try:
                self._folders.empty(kind, slot)
                self._folders.fill(kind, slot, manifest, _half(progress, manifest.size, 0))
            except (UnavailableError, NotFoundError) as failed:  # a full disk, a piece not fetched
                self._folders.empty(kind, slot)
                self._save(
                    after, slots.after_start(after), "emptied", after.idle, actor, code=failed
                )
                raise
            except BedsideError as refused:
                return self._bad(after, manifest, actor, refused)
            self._save(after, slots.staged(after), "staged", after.idle, actor)
            return self._verify_and_try(manifest, actor, _half(progress, manifest.size, 1))

    def install_ready(
        self,
        manifests: Iterable[TargetManifest],
        actor: str = BOX,
        progress: Callable[[TargetManifest], Progress | None] = lambda manifest: None,
        *,
        again: bool = False,
    ) -> list[Outcome]:
        """Install what is due of what may be installed; one that fails holds up no other.

        What a cut left under way goes on. What was found bad here is not tried again, its next
        release is; unless a person says so.

        Args:
            manifests: signed, assigned and here.
            actor: who asks.
            progress: the bar of one package.
            again: whether what was found bad here has another trial.
        """
        found = []
        for manifest in manifests:
            with self._turn:  # what another request did meanwhile is seen, not done twice
                due = self.due(manifest, again=again)
                if not due and not self._under_way(manifest):
                    continue
                try:
                    if due:
                        outcome = self.install(manifest, actor, progress(manifest))
                    else:
                        outcome = self._go_on(manifest, actor, progress(manifest))
                except BedsideError as why:
                    outcome = Outcome(
                        kind=manifest.slot,
                        state=BAD if why.exit_code == REFUSED else WAITING,
                        version=manifest.version,
                        code=why.code,
                        detail=str(why),
                    )
            found.append(outcome)
        return found

    def due(self, manifest: TargetManifest, *, again: bool = False) -> bool:
        """Whether a package is neither in service, nor under way, nor known to be bad here."""
        pair = self._store.pair(manifest.slot)
        if pair.serving is not None and pair.serving.digest == manifest.digest:
            return False
        if again and pair.idle.state is SlotState.BAD:
            return True
        known = (SlotState.BAD, SlotState.STAGED, SlotState.VERIFIED, SlotState.TRIAL)
        return pair.idle.digest != manifest.digest or pair.idle.state not in known

    def try_out(self, kind: str, actor: str = BOX) -> Outcome:
        """Try what is on trial once; what passes serves from then on.

        A trial that says nothing has cost a start: it rests, and `step` tries it again while
        starts and time are left.

        Raises:
            WrongStateError: nothing of this kind is on trial.
        """
        with self._turn:
            pair = self._store.pair(kind)
            if pair.idle.state is not SlotState.TRIAL:
                raise WrongStateError("nothing of this kind is on trial")
            manifest, way = self.held(kind, pair.idle.name), self._way(kind)
            after, may = slots.charge_try(pair, self._now())
            if not may:
                return self._ended(pair, after, manifest, actor)
            if way.gate is None:
                return Outcome(kind=kind, state=RESTART, version=manifest.version)
            if self._stopping.is_set():
                return Outcome(kind=kind, state=WAITING, version=manifest.version)
            self._store.charge(pair, after)
            found = self._one_try(after, manifest, way, actor)
            if found.state != WAITING or self._stopping.is_set():
                return found
            self._died[kind] = self._clock.monotonic()
            ended, more = slots.charge_try(after, self._now())
            return found if more else self._ended(after, ended, manifest, actor)

    def started(self, kind: str, record: Json | BedsideError, actor: str) -> Outcome:
        """Confirm what the launcher started, or say that it is bad; its start was charged.

        Args:
            kind: of what is on trial.
            record: what its own health gate saw, or why it may not serve.
            actor: who asks.

        Raises:
            WrongStateError: nothing of this kind is on trial, or its time was up.
        """
        with self._turn:
            pair = self._store.pair(kind)
            if pair.idle.state is not SlotState.TRIAL:
                raise WrongStateError("nothing of this kind is on trial")
            manifest = self.held(kind, pair.idle.name)
            if isinstance(record, BedsideError):
                return self._bad(pair, manifest, actor, record)
            return self._good(
                pair,
                slots.confirm(pair, self._now()),
                manifest,
                record | {"box": list(self._verifier())},
                actor,
            )

    def roll_back(self, kind: str, actor: str = BOX, reason: str = "asked") -> Outcome:
        """End a trial, or let the other good slot serve, or what the box came with.

        Raises:
            NoSlotError: there is nothing to go back to.
            RollbackRefusedError: what there is is no longer permitted.
        """
        with self._turn:
            pair = self._store.pair(kind)
            if pair.idle.state in (SlotState.STAGED, SlotState.VERIFIED, SlotState.TRIAL):
                held = self.held(kind, pair.idle.name)
                self._save(
                    pair, slots.fail(pair, _WITHDRAWN), "bad", pair.idle, actor, code=_WITHDRAWN
                )
                return Outcome(kind=kind, state=BAD, version=held.version, code=_WITHDRAWN)
            after = slots.roll_back(pair)
            slot = after.serving or Slot(name=pair.active)
            self._save(pair, after, "rolled-back", slot, actor, code=reason)
            self._folders.point(kind, after.active)
            self._act(after)
            now = self._candidate(after)
            return Outcome(kind=kind, state=GOOD, version=now.manifest.version if now else "")

    def used(self, kind: str) -> None:
        """The box started with what serves of a kind: it acts on it."""
        self._store.applied(kind, self._store.pair(kind))

    # --- inside -------------------------------------------------------------------------------

    def _begin(self, pair: Pair, manifest: TargetManifest) -> Pair:
        check_package(manifest, self.running())
        idle, way = pair.idle, self._way(manifest.slot)
        if idle.state is SlotState.GOOD:
            candidate = self._at(pair.kind, idle.name)
            if way.in_use(candidate):
                raise FlashRefusedError(
                    f"{pair.kind} {candidate.manifest.version} is still used; change that first"
                )
        return slots.begin(pair, manifest.digest, manifest.release_counter, manifest.min_counter)

    def _under_way(self, manifest: TargetManifest) -> bool:
        idle = self._store.pair(manifest.slot).idle
        going = idle.state in (SlotState.STAGED, SlotState.TRIAL)
        return going and idle.digest == manifest.digest

    def _go_on(self, manifest: TargetManifest, actor: str, progress: Progress | None) -> Outcome:
        kind = manifest.slot
        with self._turn:
            if self._store.pair(kind).idle.state is SlotState.STAGED:
                return self._verify_and_try(manifest, actor, _half(progress, manifest.size, 1))
            if self._rested(kind):
                return self.try_out(kind, actor)
        last = self.waiting.get(kind, "")
        return Outcome(kind=kind, state=WAITING, version=manifest.version, detail=last)

    def _rested(self, kind: str) -> bool:
        died = self._died.get(kind)
        return died is None or self._clock.monotonic() - died >= self._trial_s / _RESTS

    def _verify_and_try(
        self, manifest: TargetManifest, actor: str, progress: Progress | None
    ) -> Outcome:
        kind = manifest.slot
        pair = self._store.pair(kind)
        try:
            self._folders.verify(kind, pair.idle.name, manifest, progress)
            check_package(manifest, self.running())
        except UnavailableError:
            raise  # the disk cannot be read now: it stays staged and is verified again
        except BedsideError as refused:
            return self._bad(pair, manifest, actor, refused)
        after = slots.verified(pair)
        self._save(pair, after, "verified", pair.idle, actor)
        trial = slots.try_out(after, self._now(), self._trial_s)
        self._save(after, trial, "trial", trial.idle, actor)
        if self._way(kind).gate is None:
            return Outcome(kind=kind, state=RESTART, version=manifest.version)
        return self.try_out(kind, actor)

    def _one_try(self, pair: Pair, manifest: TargetManifest, way: Way, actor: str) -> Outcome:
        """Return what one try came to; `waiting` when it said nothing about the candidate."""
        kind, idle = pair.kind, pair.idle
        candidate = Candidate(
            kind=kind, manifest=manifest, folder=self._folders.place(kind, idle.name)
        )
        assert way.gate is not None  # noqa: S101  its caller has looked
        try:
            # A clock that was set back makes no trial longer
            left = min(idle.deadline - self._now(), self._trial_s)
            record = way.gate(candidate, max(0.0, float(left)))
            record = record | {"box": list(self._verifier())}
            after = slots.confirm(pair, self._now())
        except (UnavailableError, WrongStateError) as failed:
            log.warning("trial failed", extra={"code": failed.code})
            self.waiting[kind] = f"{failed.code}: {failed}"
            return Outcome(
                kind=kind,
                state=WAITING,
                version=manifest.version,
                code=failed.code,
                detail=f"{failed}; starts left: {idle.tries}",
            )
        except BedsideError as refused:
            return self._bad(pair, manifest, actor, refused)
        return self._good(pair, after, manifest, record, actor)

    def _good(
        self, pair: Pair, after: Pair, manifest: TargetManifest, record: Json, actor: str
    ) -> Outcome:
        kind = pair.kind
        record |= {"package": manifest.digest, "version": manifest.version}
        body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        step = self._step("good", pair.idle, kind, actor)
        self._store.save(pair, after, replace(step, body=body))
        self._folders.point(kind, after.active)
        log.info("flashed", extra={"package": f"{manifest.name}/{manifest.version}"})
        self.waiting.pop(kind, None)
        self._act(after)
        return Outcome(kind=kind, state=GOOD, version=manifest.version, record=record)

    def _act(self, pair: Pair) -> None:
        """Put to use what serves; what cannot be done now is done later or by a restart."""
        way = self._way(pair.kind)
        if way.apply is None:
            self.waiting[pair.kind] = RESTART
            return
        try:
            way.apply(pair.kind, self._candidate(pair))
        except BedsideError as error:
            log.warning("flashed, not in use yet", extra={"code": error.code})
            self.waiting[pair.kind] = error.code
        else:
            self._store.applied(pair.kind, pair)
            self.waiting.pop(pair.kind, None)

    def _bad(self, pair: Pair, manifest: TargetManifest, actor: str, why: BedsideError) -> Outcome:
        body = json.dumps({"code": why.code, "detail": str(why)}, sort_keys=True).encode()
        step = self._step("bad", pair.idle, pair.kind, actor)
        after = slots.fail(pair, why.code)
        self._store.save(pair, after, replace(step, reason=why.code, body=body))
        log.warning("not flashed", extra={"code": why.code})
        self.waiting.pop(pair.kind, None)
        return Outcome(
            kind=pair.kind, state=BAD, version=manifest.version, code=why.code, detail=str(why)
        )

    def _ended(self, pair: Pair, after: Pair, manifest: TargetManifest, actor: str) -> Outcome:
        self._save(pair, after, "bad", pair.idle, actor, code=after.idle.reason)
        last = self.waiting.pop(pair.kind, "")
        return Outcome(
            kind=pair.kind,
            state=BAD,
            version=manifest.version,
            code=after.idle.reason,
            detail=f"the last try ended with {last}" if last else "",
        )

    def _note_refusal(self, pair: Pair, manifest: TargetManifest, actor: str, code: str) -> None:
        wanted = Slot(name="", digest=manifest.digest, release_counter=manifest.release_counter)
        self._save(pair, pair, "refused", wanted, actor, code=code)

    def _save(
        self,
        before: Pair,
        after: Pair,
        what: str,
        slot: Slot,
        actor: str,
        manifest: bytes | None = None,
        code: str | BedsideError = "",
    ) -> None:
        reason = code.code if isinstance(code, BedsideError) else code
        step = replace(self._step(what, slot, before.kind, actor), reason=reason)
        self._store.save(before, after, step, manifest)

    def _step(self, what: str, slot: Slot, kind: str, actor: str) -> Step:
        return Step(
            kind=kind,
            slot=slot.name,
            what=what,
            digest=slot.digest,
            release_counter=slot.release_counter,
            actor=actor,
            at=self._clock.now(),
        )

    def _candidate(self, pair: Pair) -> Candidate | None:
        return self._at(pair.kind, pair.active) if pair.active else None

    def _at(self, kind: str, slot: str) -> Candidate:
        return Candidate(
            kind=kind, manifest=self.held(kind, slot), folder=self._folders.place(kind, slot)
        )

    def _way(self, kind: str) -> Way:
        return self._ways[kind.partition("/")[0]]

    def _now(self) -> int:
        return self._clock.now() // 1000


def _half(progress: Progress | None, size: int, part: int) -> Progress | None:
    if progress is None:
        return None
    tell = progress
    return lambda done, total: tell(part * size + done, 2 * size)
