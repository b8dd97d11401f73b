"""Which policy is in force: the shipped one on a fresh box, signed ones afterwards.

A document comes into force when it can be read, fits the facts, holds what is mandatory, decides
its golden cases as written, counts up, and is signed by enough keys; a looser one needs two. All
of that is checked before anything changes.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bedside_core.errors import (
    BedsideError,
    InvalidPolicyError,
    PreconditionRequiredError,
    StaleRevisionError,
    UntrustedSignatureError,
)
from bedside_core.policy import (
    PAYLOAD_TYPE,
    Document,
    check_document,
    check_golden,
    check_version,
    parse_payload,
)
from bedside_core.policy_change import SIGNATURES, SIGNATURES_LOOSER, looser, probes
from bedside_core.signatures import PublicKey, open_envelope, signers_of
from bedside_core.uses import Ask, Decision
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX
from bedside_edge.ports.policy import Compile, Fired, Policy, PolicyStore, StoredPolicy
from bedside_edge.services.gate import Gate

log = logging.getLogger(__name__)

_SHOWN = 20  # asks that turned, at most, in a report
TrustedKeys = Callable[[], Mapping[str, PublicKey]]  # by key id; read anew every time


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A document that may come into force.

    Attributes:
        policy: compiled.
        looser: changes through which more could be permitted than now; empty when none can.
        turned: asks that were denied and would be permitted, at most 20 of `turned_count`.
        turned_count: how many of the probing asks turned.
        needed: signatures it needs.
        signers: key ids of trusted keys that signed it.
    """

    policy: Policy
    looser: tuple[str, ...]
    turned: tuple[Ask, ...]
    turned_count: int
    needed: int
    signers: tuple[str, ...] = ()


def check_against(policy: Policy, in_force: Policy, shipped: Policy) -> Checked:
    """Return what putting a policy in force in place of another would mean.

    Raises:
        InvalidPolicyError: it must never come into force.
    """
    check_document(policy.document, policy.rules, shipped.rules)
    check_golden(policy.document, policy.decide)
    changes = looser(in_force.rules, policy.rules)
    turned = [
        ask
        for ask in (probes() if changes else ())
        if policy.decide(ask).permitted and not in_force.decide(ask).permitted
    ]
    return Checked(
        policy=policy,
        looser=changes,
        turned=tuple(turned[:_SHOWN]),
        turned_count=len(turned),
        needed=SIGNATURES_LOOSER if changes else SIGNATURES,
    )


class PolicyService:
    """Checks, activates and explains policies. Safe to call from several threads."""

    def __init__(
        self,
        store: PolicyStore,
        compile_policy: Compile,
        shipped: Document,
        trusted: TrustedKeys,
        clock: Clock,
        *,
        repairing: bool = False,
    ) -> None:
        """Put in force what the store says, else the shipped policy.

        With `repairing`, a document that does not pass any more gives way to the shipped policy
        for as long as it takes to activate another one; never for a box that serves.

        Raises:
            InvalidPolicyError: the document in force does not pass the checks of this version of
                the box; it must not serve with rules nobody can vouch for.
        """
        self._store, self._compile, self._trusted = store, compile_policy, trusted
        self._clock, self._lock = clock, threading.Lock()
        self._shipped = compile_policy(shipped)
        check_document(shipped, self._shipped.rules, self._shipped.rules)
        check_golden(shipped, self._shipped.decide)
        self._gate: Gate | None = None
        self._stored = self._start()
        try:
            self.policy = self._load(self._stored)
        except BedsideError:
            if not repairing:
                raise
            self.policy = self._shipped

    def bind(self, gate: Gate) -> None:
        """Tell this gate of every change from now on."""
        self._gate = gate

    @property
    def in_force(self) -> tuple[Policy, StoredPolicy]:
        """The policy in force and how it is kept, of one moment."""
        with self._lock:
            return self.policy, self._stored

    @property
    def stored(self) -> StoredPolicy:
        """What is in force, as it is kept."""
        return self._stored

    def history(self) -> list[StoredPolicy]:
        """Return every document that was in force, newest first."""
        return self._store.history()

    def check(self, document: Document) -> Checked:
        """Return what activating the document would mean; nothing changes and nobody must sign.

        Raises:
            InvalidPolicyError: it must never come into force.
        """
        return check_against(self._compile(document), self.policy, self._shipped)

    def open(self, envelope: bytes) -> Checked:
        """Check a signed document as for activation; nothing changes.

        Raises:
            InvalidEnvelopeError, InvalidPolicyError: it cannot be read, or must never be in force.
            UntrustedSignatureError: too few trusted keys signed it.
            PolicyRollbackError: its version is not above the one in force.
        """
        keys = self._trusted()
        document = parse_payload(open_envelope(envelope, PAYLOAD_TYPE, keys, SIGNATURES))
        check_version(document, self._stored.document.version)
        found = self.check(document)
        if found.needed > SIGNATURES:
            try:
                open_envelope(envelope, PAYLOAD_TYPE, keys, found.needed)
            except UntrustedSignatureError as cause:
                raise UntrustedSignatureError(
                    f"it permits more than the policy in force ({'; '.join(found.looser)}): "
                    f"{found.needed} trusted keys have to sign it"
                ) from cause
        signers = signers_of(envelope, PAYLOAD_TYPE, keys)
        return Checked(
            policy=found.policy,
            looser=found.looser,
            turned=found.turned,
            turned_count=found.turned_count,
            needed=found.needed,
            signers=signers,
        )

    def activate(self, envelope: bytes, expected: int | None, actor: str) -> Checked:
        """Put a signed document in force, with its evidence.

        Args:
            envelope: the signed document.
            expected: the revision this was decided on.
            actor: who asks.

        Raises:
            PreconditionRequiredError: `expected` is missing.
            StaleRevisionError: another document came into force meanwhile.
            BedsideError: whatever `open` raises.
        """
        if expected is None:
            raise PreconditionRequiredError("say in If-Match on which revision this was decided")
        with self._lock:
            if expected != self._stored.revision:
                raise StaleRevisionError("another policy came into force meanwhile")
            found = self.open(envelope)
            document = found.policy.document
            stored = StoredPolicy(
                revision=self._stored.revision + 1,
                payload=document.payload,
                envelope=envelope,
                signers=found.signers,
                actor=actor,
                at=self._clock.now(),
            )
            self._store.activate(stored, document.digest, document.name)
            self._stored, self.policy = stored, found.policy
            if self._gate is not None:
                self._gate.use(found.policy)
        log.info("policy activated", extra={"revision": stored.revision})
        return found

    def explain(self, ask: Ask) -> tuple[Decision, list[Fired]]:
        """Return what the policy in force decides, and what each rule alone says; no evidence."""
        policy = self.policy
        return policy.decide(ask), policy.explain(ask)

    # --- inside --------------------------------------------------------------------------------

    def _start(self) -> StoredPolicy:
        """Return what is in force; a fresh box, or one with an older shipped policy, takes ours."""
        held, shipped = self._store.active(), self._shipped.document
        if held is not None and (held.envelope or held.payload == shipped.payload):
            return held
        stored = StoredPolicy(
            revision=(held.revision if held else 0) + 1,
            payload=shipped.payload,
            actor=BOX,
            at=self._clock.now(),
        )
        self._store.activate(stored, shipped.digest, shipped.name)
        return stored

    def _load(self, stored: StoredPolicy) -> Policy:
        if not stored.envelope:
            return self._shipped
        document = parse_payload(stored.payload)
        keys = self._trusted()
        if (
            parse_payload(open_envelope(stored.envelope, PAYLOAD_TYPE, keys, SIGNATURES))
            != document
        ):
            raise InvalidPolicyError("policy: what is kept is not what was signed")
        policy = self._compile(document)
        check_document(document, policy.rules, self._shipped.rules)
        check_golden(document, policy.decide)
        return policy
