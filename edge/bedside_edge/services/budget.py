"""What stands around releases: the signed privacy policy, epochs, snapshots, and unlocking.

Everything here is written to the ledger, and with it to the evidence log, before it counts. What
could widen what is spent needs two people; what narrows it needs one.
"""

import threading
from collections.abc import Mapping, Sequence

from bedside_core.errors import (
    InvalidInputError,
    InvalidPolicyError,
    PreconditionRequiredError,
    UntrustedSignatureError,
    WrongStateError,
)
from bedside_core.ledger import decide
from bedside_core.ledger.decide import TimeProof
from bedside_core.ledger.entries import EpochClosed, PolicySet, Witnessed
from bedside_core.ledger.state import Epoch
from bedside_core.planner import Schedule
from bedside_core.privacy_policy import (
    PAYLOAD_TYPE,
    PrivacyPolicy,
    parse_privacy_policy,
    version_of,
)
from bedside_core.release import ReleaseRequest
from bedside_core.signatures import open_envelope, signers_of
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import prices
from bedside_edge.ports import Clock
from bedside_edge.ports.privacy import LedgerStore, SnapshotStore, Window
from bedside_edge.services.policies import TrustedKeys


class BudgetService:
    """Policy, epochs and snapshots of the one data set. Safe to call from several threads."""

    def __init__(
        self,
        ledger: LedgerStore,
        snapshots: SnapshotStore,
        trusted: TrustedKeys,
        clock: Clock,
        shares: Mapping[int, int],
    ) -> None:
        """Stand on the ports.

        Args:
            ledger: holds what is spent.
            snapshots: frozen study rows.
            trusted: the public keys that may sign policies.
            clock: dates entries.
            shares: rho of each grade of data, 1 to 5, in whose proportion a release by grade
                spends where the policy has no budgets of grades; of the grading rules.
        """
        self._shares = shares
        self._ledger, self._snapshots = ledger, snapshots
        self._trusted, self._clock = trusted, clock
        self._lock = threading.Lock()
        self._parsed: PrivacyPolicy | None = None

    # --- policy --------------------------------------------------------------------------------

    @property
    def policy(self) -> PrivacyPolicy | None:
        """The policy in force; None before any was signed: then nothing can be released."""
        held = self._ledger.ledger().policy
        if held is None:
            return None
        with self._lock:
            if self._parsed is None or self._parsed.ledger.version != held.version:
                document = self._ledger.policy_document(held.version)
                if document is None:
                    raise WrongStateError("the text of the privacy policy in force is missing")
                self._parsed = parse_privacy_policy(document)
            return self._parsed

    def must_policy(self) -> PrivacyPolicy:
        """Return the policy in force; WrongStateError before any was signed."""
        policy = self.policy
        if policy is None:
            raise WrongStateError("no privacy policy is in force; sign one first")
        return policy

    @property
    def shares(self) -> Mapping[int, int]:
        """What each grade of data may spend, units of rho: in this proportion releases do."""
        policy = self.policy
        if policy is None or not policy.ledger.grades:
            return self._shares
        return {int(grade): cap for grade, cap in policy.ledger.grades.items()}

    def age_bands(self) -> Sequence[str]:
        """Return the age bands of the policy in force; none before any."""
        policy = self.policy
        return policy.public.age_bands if policy else ()

    def activate(self, envelope: bytes, actor: str) -> PrivacyPolicy:
        """Put a signed policy in force: earlier spend is carried over.

        Args:
            envelope: DSSE over the TOML document.
            actor: who brings it.

        Raises:
            InvalidPolicyError: it cannot be read, or names another data set.
            UntrustedSignatureError: no trusted key signed it.
            PreconditionRequiredError: it loosens a cap, or is the first, and one key signed.
        """
        keys = self._trusted()
        document = open_envelope(envelope, PAYLOAD_TYPE, keys, 1)
        signers = signers_of(envelope, PAYLOAD_TYPE, keys)
        if not signers:
            raise UntrustedSignatureError("no trusted key signed the privacy policy")
        policy, ledger = parse_privacy_policy(document), self._ledger.ledger()
        before = self.policy
        if before is not None and before.dataset != policy.dataset:
            raise InvalidPolicyError("a box has one data set, and its name stays")
        loosens = ledger.policy is None or policy.ledger.loosens(ledger.policy)
        wider = before is None or before.public != policy.public or policy.local > before.local
        # another proportion of the grades gives some of them less noise than before
        wider = wider or before is None or before.ledger.grades != policy.ledger.grades
        if (loosens or wider) and len(signers) < 2:
            raise PreconditionRequiredError("a looser privacy policy needs two signatures")
        if before is not None and version_of(document) == before.ledger.version:
            return policy
        at = decide.time_now(ledger, self._clock.now())
        entry = PolicySet(at=at, policy=policy.ledger, signers=len(signers))
        self._ledger.keep_policy(entry, document, envelope, actor)
        return policy

    def requester(self, actor_id: str, roles: Sequence[str] = ()) -> str:
        """Return whose budget an actor spends: their own, or that of a role of theirs.

        A policy lists `person:...` and `token:...` ids, and `role:...` for everybody of a role.
        Whoever is not listed is charged under their own name, where nothing may be spent.
        """
        listed = self.must_policy().ledger.requesters
        names = (actor_id, *(f"role:{role}" for role in sorted(roles)))
        return next((name for name in names if name in listed), actor_id)

    # --- epochs --------------------------------------------------------------------------------

    def epoch(self) -> Epoch | None:
        """Return the newest epoch."""
        policy = self.policy
        return self._ledger.ledger().epochs.get(policy.dataset) if policy else None

    def open_epoch(self, starts: int, ends: int, actor: str, second: str = "") -> Epoch:
        """Open the next epoch; arrivals from `starts` to `ends` belong to it.

        A renewal needs the old one closed and over, and a sign that the time really passed: a
        witness's time, or a second person.

        Raises:
            ClosedEpochError, ClockAlarmError: see `bedside_core.ledger.decide.open_epoch`.
            LedgerLockedError: unlock it first.
            InvalidInputError: the epoch would hold what arrived before a burn.
        """
        policy, ledger = self.must_policy(), self._ledger.ledger()
        if self._ledger.locked():
            decide.check_position(ledger, (ledger.seq + 1,))
        if starts < self._ledger.burned_until():
            raise InvalidInputError("what arrived before the last burn is written off")
        proof = TimeProof(two_people=bool(second) and second != actor)
        now = self._clock.now()
        entry = decide.open_epoch(ledger, policy.dataset, starts, ends, now, proof)
        self._ledger.append(entry, actor)
        return self._ledger.ledger().epochs[policy.dataset]

    def close_epoch(self, actor: str) -> None:
        """Close the open epoch: nothing more is charged to it. WrongStateError when none is."""
        policy, ledger = self.must_policy(), self._ledger.ledger()
        epoch = ledger.epochs.get(policy.dataset)
        if epoch is None or epoch.closed:
            raise WrongStateError("no epoch is open")
        at = decide.time_now(ledger, self._clock.now())
        entry = EpochClosed(at=at, dataset=policy.dataset, number=epoch.number)
        self._ledger.append(entry, actor)

    def unlock(self, actor: str, second: str) -> None:
        """Write off what is left of the epoch, and believe the ledger as it stands.

        For a box whose ledger was set back by a restored backup: what was spent after the backup
        is unknown, so all of it counts as spent, and so does a whole epoch for each that may have
        been opened since: see `decide.write_off`.

        Raises:
            PreconditionRequiredError: it takes two people.
            WrongStateError: the ledger is not locked.
        """
        if not second or second == actor:
            raise PreconditionRequiredError("to unlock the privacy ledger takes two people")
        if not self._ledger.locked():
            raise WrongStateError("the privacy ledger is not locked")
        policy = self.policy
        self._ledger.unlock(policy.dataset if policy else "", actor, second)

    def witnessed(self, seen: int) -> None:
        """Note that a witness cosigned the log as it is; `seen` is its time in milliseconds.

        What was spent until now is no longer unseen.
        """
        ledger = self._ledger.ledger()
        if ledger.policy is None:
            return
        at = decide.time_now(ledger, self._clock.now())
        self._ledger.append(Witnessed(at=at, seen=seen))

    # --- snapshots and requests ------------------------------------------------------------------

    def freeze(self, starts: int | None = None, ends: int | None = None) -> str:
        """Freeze the arrivals of the open epoch so far, or a part of it; return the label.

        Raises:
            WrongStateError: no policy or epoch.
            InvalidInputError: the part does not lie in the epoch.
        """
        policy, epoch = self.must_policy(), self.epoch()
        if epoch is None or epoch.closed:
            raise WrongStateError("no epoch is open")
        low = max(epoch.starts, self._ledger.burned_until())
        first = low if starts is None else starts
        last = epoch.ends if ends is None else ends
        if not low <= first < last <= epoch.ends:
            raise InvalidInputError("a snapshot lies inside its epoch, after the last burn")
        window = Window(dataset=policy.dataset, epoch=epoch.number, starts=first, ends=last)
        return self._snapshots.freeze(window)

    def request(
        self,
        names: Sequence[str],
        units: int,
        snapshot: str,
        purpose: str,
        *,
        schedule: Schedule = Schedule.ONE_OFF,
        nights: int = 1,
        weight: Weight = Weight.STUDY,
        pure: bool = False,
        strata: bool = False,
    ) -> ReleaseRequest:
        """Return a request under the policy and epoch in force; touches no data.

        For a schedule `snapshot` is any random label, which tells equal schedules apart. With
        `strata` each grade has noise of its own, and `units` is the price of the mildest.

        Raises:
            UnknownStatisticError, InvalidInputError: not of the catalogue, or out of bounds.
            WrongStateError: no policy or epoch.
        """
        policy, epoch = self.must_policy(), self.epoch()
        if epoch is None:
            raise WrongStateError("no epoch was opened")
        if not names:
            raise InvalidInputError("a release names at least one statistic")
        return ReleaseRequest(
            specs=tuple(policy.spec(name, weight) for name in names),
            units=units,
            snapshot=snapshot,
            dataset=policy.dataset,
            epoch=epoch.number,
            policy=policy.ledger.version,
            purpose=purpose,
            schedule=schedule,
            nights=nights,
            pure=pure,
            strata=prices(units, self.shares) if strata else (),
        )

    def sweep(self, keep_ms: int) -> int:
        """Destroy snapshots that are older and that no open charge needs; return how many."""
        needed = set()
        for fingerprint in self._ledger.unfinished():
            held = self._ledger.held(fingerprint)
            if held is not None:
                needed.add(held.request.snapshot)
        old = self._clock.now() - keep_ms
        gone = [label for label, _, at in self._snapshots.labels() if at < old]
        for label in gone:
            if label not in needed:
                self._snapshots.drop(label)
        return len(set(gone) - needed)
