"""Release a statistic: permitted, charged, measured, signed, final, and only then answered.

The order is the guarantee. The charge is durable before a random byte is read, the answer is
durable before anybody sees it, and whoever asks again gets the stored bytes. A kill between the two
leaves a charge without an answer, which is finished with fresh noise: nothing was seen of the old
one. Nothing is refunded.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bedside_core.accounting import epsilon, gaussian_cost
from bedside_core.errors import (
    BedsideError,
    ClosedEpochError,
    InvalidInputError,
    NotFoundError,
    WrongStateError,
)
from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import Voided
from bedside_core.ledger.state import Charge, Ledger, Status, epoch_scope, scopes_of
from bedside_core.planner import DELTA, Schedule
from bedside_core.release import Prepared, ReleaseRequest, prepare
from bedside_core.release_check import release_file
from bedside_core.release_document import (
    PAYLOAD_TYPE,
    Standing,
    Surroundings,
    gaussian_view,
    release_document,
    released_integers,
)
from bedside_core.signatures import seal_envelope
from bedside_core.statistics.measure import GaussianLaw, choose, measure
from bedside_core.statistics.query import Query
from bedside_core.statistics.rows import Kept, Snapshot
from bedside_core.statistics.running import running
from bedside_core.uses import Asker, Target, Use
from bedside_edge.ports import Clock
from bedside_edge.ports.accounting import GaussianSpend
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.ports.noise import Noise
from bedside_edge.ports.privacy import Held, LedgerStore, Release, SnapshotStore, Window
from bedside_edge.services.gate import BOX, Gate
from bedside_edge.services.spends import spend_of

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
_MILLIONTHS = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The evidence log that binds answers: its name, and the proof file of an entry."""

    name: str
    proof: Callable[[int], bytes]


class ReleaseService:
    """Releases statistics. Synchronous; methods may be called from any thread."""

    def __init__(
        self,
        ledger: LedgerStore,
        snapshots: SnapshotStore,
        noise: Noise,
        device: LogSigner,
        gate: Gate,
        origin: Origin,
        clock: Clock,
        *,
        night_minute: int = 0,
    ) -> None:
        """Stand on the ports.

        Args:
            ledger: charges and keeps answers.
            snapshots: frozen study rows.
            noise: the box's exact mechanisms.
            device: the Ed25519 key that signs documents.
            gate: asked before every release.
            origin: the evidence log.
            clock: which nights of a schedule are over.
            night_minute: minutes after midnight (UTC) at which a night is released.
        """
        self._ledger, self._snapshots, self._noise = ledger, snapshots, noise
        self._device, self._gate, self._origin, self._clock = device, gate, origin, clock
        self._after_ms = night_minute * 60_000

    # --- asking --------------------------------------------------------------------------------

    def release(
        self,
        request: ReleaseRequest,
        asker: Asker,
        *,
        requester: str = "",
        target: Target = Target.OUTSIDE,
    ) -> Release:
        """Return the answer of a one-off, or of the first night of a schedule that is over.

        Args:
            request: what is asked; `open_schedule` is for schedules.
            asker: who asks, for the gate.
            requester: whose budget pays; the asker's own when empty.
            target: where the answer goes.

        Raises:
            InvalidInputError: the request cannot be measured.
            NotPermittedError, SealedError: the gate says no.
            NotFoundError: no such snapshot; nothing was charged.
            BudgetExhaustedError, ClosedEpochError, LedgerLockedError, ClockAlarmError,
            WitnessNeededError, WrongStateError: see `LedgerStore.reserve`.
            DiskFullError, StoreUnavailableError: asked again, it goes on where it stopped.
        """
        if request.schedule is not Schedule.ONE_OFF:
            raise InvalidInputError("a schedule is opened, its nights are released when they end")
        prepared = prepare(request)
        self._permit(prepared, asker, target)
        stored = self._ledger.replay(prepared.fingerprint)
        if stored is not None:
            return stored
        self._charge(prepared, requester or asker.actor_id)
        return self._once(prepared)

    def open_schedule(
        self,
        request: ReleaseRequest,
        asker: Asker,
        *,
        requester: str = "",
        target: Target = Target.OUTSIDE,
    ) -> str:
        """Charge all nights of a schedule at once; return its fingerprint.

        The first night is the day (UTC) of the charge. Raises as `release` does.
        """
        if request.schedule is Schedule.ONE_OFF:
            raise InvalidInputError("a one-off has no nights")
        prepared = prepare(request)
        self._permit(prepared, asker, target)
        self._charge(prepared, requester or asker.actor_id)
        return prepared.fingerprint

    def replay(self, fingerprint: str, night: int = 0) -> Release:
        """Return the stored answer, free; NotFoundError."""
        stored = self._ledger.replay(fingerprint, night)
        if stored is None:
            raise NotFoundError("no answer of that fingerprint and night")
        return stored

    def file(self, fingerprint: str, night: int = 0) -> bytes:
        """Return the one file a recipient keeps: signed document and the log's proof of it."""
        stored = self.replay(fingerprint, night)
        return release_file(stored.signature, self._origin.proof(stored.index))

    def warm(self) -> None:
        """Draw once and throw it away: the mechanisms' library takes a second to import."""
        self._noise.gaussian(0, l2sq=1, rho_units=1)

    # --- nights and leftovers --------------------------------------------------------------------

    def nights(self) -> int:
        """Release every night that is over and has no answer yet; return how many.

        A schedule that fails does not hold up the others; its error is logged and it is tried
        again the next time.
        """
        made = 0
        for fingerprint in self._ledger.unfinished():
            held = self._ledger.held(fingerprint)
            if held is None or held.request.schedule is Schedule.ONE_OFF:
                continue
            try:
                while self._night_is_over(held):
                    self._night(held)
                    made += 1
                    held = self._must_hold(fingerprint)
            except BedsideError as error:
                log.error("night not released", extra={"code": error.code})  # noqa: TRY400
        return made

    def resume(self) -> int:
        """Finish what a kill left charged and unanswered; return how many were finished or voided.

        No second charge: nobody has seen anything of the first draw.
        """
        done = 0
        for fingerprint in self._ledger.unfinished():
            held = self._ledger.held(fingerprint)
            if held is None or held.request.schedule is not Schedule.ONE_OFF:
                continue
            try:
                self._once(prepare(held.request))
            except WrongStateError:
                log.warning("release voided: its snapshot is gone")
            done += 1
        return done

    # --- inside ----------------------------------------------------------------------------------

    def _permit(self, prepared: Prepared, asker: Asker, target: Target) -> None:
        held = self._ledger.ledger().charges.get(prepared.fingerprint)
        self._ask_gate(prepared.request, 0 if held else prepared.cost, asker, target)

    def _ask_gate(self, request: ReleaseRequest, cost: int, asker: Asker, target: Target) -> None:
        scope = epoch_scope(request.dataset, request.epoch)
        left = self._ledger.ledger().budget(scope).left - cost
        # rounded down, so that small releases ask the same question and leave its evidence once
        after = int(epsilon(left, DELTA) * 100) * (_MILLIONTHS // 100) if left > 0 else 0
        self._gate.statistic(Use.RELEASE, asker, epsilon_left=after, target=target).must()

    def _charge(self, prepared: Prepared, requester: str) -> None:
        """Reserve; a snapshot that does not exist, or another policy, is refused before it."""
        request = prepared.request
        held = self._ledger.held(prepared.fingerprint)
        if held is None:
            policy = self._ledger.ledger().policy
            if policy is None or policy.version != request.policy:
                raise WrongStateError("the policy in force is another one; ask again under it")
            self._refuse_window(request)
        self._ledger.reserve(
            Ask(
                fingerprint=prepared.fingerprint,
                dataset=request.dataset,
                epoch=request.epoch,
                requester=requester,
                purpose=request.purpose,
                cost=prepared.cost,
                nights=request.nights,
                strata=tuple(prepared.strata.costs.values()) if prepared.strata else (),
            ),
            request,
        )

    def _refuse_window(self, request: ReleaseRequest) -> None:
        """Refuse arrivals that are not the epoch's: a study belongs to exactly one."""
        ledger = self._ledger.ledger()
        epoch = ledger.epochs.get(request.dataset)
        if epoch is None or epoch.number != request.epoch:
            raise ClosedEpochError("this epoch is not open")
        low = max(epoch.starts, self._ledger.burned_until())
        if request.schedule is Schedule.ONE_OFF:
            window = self._snapshots.window(request.snapshot)
            if window is None:
                raise NotFoundError("no snapshot of that label")
            ours = (window.dataset, window.epoch) == (request.dataset, request.epoch)
            inside = ours and low <= window.starts and window.ends <= epoch.ends
        else:
            first = max(ledger.floor, self._clock.now()) // DAY_MS * DAY_MS
            inside = low <= first and first + request.nights * DAY_MS <= epoch.ends
        if not inside:
            raise InvalidInputError("what is asked for does not lie inside the epoch")

    def _once(self, prepared: Prepared) -> Release:
        label = prepared.request.snapshot
        window, snapshot = self._snapshots.window(label), self._snapshots.load(label)
        if window is None or snapshot is None:
            return self._void(prepared.fingerprint)
        values = measured(prepared, snapshot, self._noise)
        return self._finish(prepared, 0, values, window)

    def _void(self, fingerprint: str) -> Release:
        ledger = self._ledger.ledger()
        charge = ledger.charges[fingerprint]
        if charge.status is Status.RESERVED:
            at = max(ledger.floor, self._clock.now())
            self._ledger.append(Voided(at=at, fingerprint=fingerprint))
        raise WrongStateError("the snapshot is gone; the release is void and its cost stays spent")

    def _night_is_over(self, held: Held) -> bool:
        night = len(held.answered)
        if night >= held.request.nights:
            return False
        return night_window(held, night).ends + self._after_ms <= self._clock.now()

    def _night(self, held: Held) -> Release:
        """Release the first night without an answer."""
        night = len(held.answered)
        prepared = prepare(held.request)
        query, law = prepared.query, prepared.law
        if query is None or not isinstance(law, GaussianLaw):
            raise InvalidInputError("a schedule measures a vector with Gaussian noise")
        self._ask_gate(held.request, 0, BOX, Target.OUTSIDE)
        window = night_window(held, night)
        label = self._snapshots.freeze(window)
        try:
            snapshot = self._snapshots.load(label)
            if snapshot is None:
                raise WrongStateError("patients were erased meanwhile; the night is frozen again")
            kept = snapshot.keep(query.c, self._ledger.used(held.fingerprint))
            if held.request.schedule is Schedule.RUNNING:
                return self._running_night(prepared, query, law, night, kept, window)
            values = measure(query, law, kept, self._noise)
            return self._finish(prepared, night, values, window, used=kept.used)
        finally:
            self._snapshots.drop(label)

    def _running_night(
        self,
        prepared: Prepared,
        query: Query,
        law: GaussianLaw,
        night: int,
        kept: Kept,
        window: Window,
    ) -> Release:
        totals = running(query, prepared.request.nights)
        exact = tuple(query.exact(kept))
        vectors = [*self._ledger.carried(prepared.fingerprint), exact]
        values = totals.measure(vectors, law.units, self._noise)
        earlier = [
            released_values(self.replay(prepared.fingerprint, n).document) for n in range(night)
        ]
        return self._finish(prepared, night, values, window, earlier, kept.used, exact)

    def _finish(
        self,
        prepared: Prepared,
        night: int,
        values: Sequence[int],
        window: Window,
        earlier: Sequence[Sequence[int]] = (),
        used: Mapping[str, int] | None = None,
        exact: Sequence[int] = (),
    ) -> Release:
        ledger, held = self._ledger.ledger(), self._must_hold(prepared.fingerprint)
        around = Surroundings(
            origin=self._origin.name,
            seq=held.seq,
            night=night,
            starts=window.starts,
            ends=window.ends,
            standings=standings(ledger, ledger.charges[prepared.fingerprint]),
            views=views(prepared),
        )
        document = release_document(prepared, values, around, earlier)
        key = self._device.key.key_id.hex()
        envelope = seal_envelope(PAYLOAD_TYPE, document, {key: self._device.sign})
        stored = self._ledger.finish(
            prepared.fingerprint, night, document, envelope, used or {}, exact
        )
        log.info("release final", extra={"count": night + 1})
        return stored

    def _must_hold(self, fingerprint: str) -> Held:
        held = self._ledger.held(fingerprint)
        if held is None:
            raise WrongStateError("nothing is reserved for this answer")
        return held


def measured(prepared: Prepared, snapshot: Snapshot, noise: Noise) -> tuple[int, ...]:
    """Return the noisy integers of a one-off; by grade one vector after the other."""
    if prepared.choice is not None and prepared.choice_law is not None:
        kept = snapshot.keep(prepared.choice.c)
        return choose(prepared.choice, prepared.choice_law, kept, noise)
    if prepared.strata is not None:
        kept = snapshot.keep(prepared.strata.query.c)
        graded = prepared.strata.measure(kept, noise)  # every grade, empty ones too
        return tuple(value for vector in graded.values() for value in vector)
    if prepared.query is None or prepared.law is None:
        raise InvalidInputError("a release without a law")
    return measure(prepared.query, prepared.law, snapshot.keep(prepared.query.c), noise)


def night_window(held: Held, night: int) -> Window:
    """Return the arrivals of a schedule's night: whole days, UTC, from the day of the charge."""
    starts = held.at // DAY_MS * DAY_MS + night * DAY_MS
    request = held.request
    return Window(dataset=request.dataset, epoch=request.epoch, starts=starts, ends=starts + DAY_MS)


def standings(ledger: Ledger, charge: Charge) -> tuple[Standing, ...]:
    """Return the budgets a release was charged to, as they are now."""
    scopes = scopes_of(ledger, charge.reserved)
    budgets = [(scope, ledger.budget(scope)) for scope in scopes]
    return tuple(Standing(scope=s, cap=b.cap, spent=b.spent) for s, b in budgets)


def views(prepared: Prepared) -> dict[str, float]:
    """Return the printed second price of the release alone; it decides nothing."""
    spend = spend_of(prepared)
    if isinstance(spend, GaussianSpend):
        units = gaussian_cost(spend.l2sq, spend.sigma2)
        return {"exact Gaussian epsilon of this release": gaussian_view(units)}
    return {"pure epsilon of this release": float(spend.epsilon * spend.times)}


def released_values(document: bytes) -> tuple[int, ...]:
    """Return the integers of a stored answer."""
    return released_integers(json.loads(document))
