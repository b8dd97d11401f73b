"""The log of this box and its witnesses: by night, and after what they should see at once.

Everything that is due follows from what is on the disk, so a box that lost its power goes on where
it was. A witness that says that it saw more, or something else, has to show it: what locks this
box is a checkpoint under its own keys, and nothing anybody else can make.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from bedside_core.errors import (
    BedsideError,
    DestinationUnavailableError,
    QuorumMissingError,
)
from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.note import VerifierKey
from bedside_core.evidence.policy_text import Group, WitnessPolicy
from bedside_core.evidence.witness import (
    Outcome,
    Request,
    contradiction,
    cosignatures,
    read_answer,
)
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX, Event
from bedside_edge.ports.witness import Answer, Gap, Standing, WitnessedLog, WitnessLink
from bedside_edge.services.loop import Loop
from bedside_edge.services.worker import Bell

log = logging.getLogger(__name__)

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_STIR_MS: Final = 600_000  # what several events in a row make due is one checkpoint
_FIRST_WAIT_MS: Final = 30_000
_LONGEST_WAIT_MS: Final = _HOUR_MS
_NAP_S: Final = 15.0
_TRIES: Final = 4  # a clone may ask the same witness between two of ours
_ALARMED: Final = ""  # the standing that says for which size the alarm was given


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A witness of this log: its name in the settings, its keys, the way to it."""

    name: str
    keys: tuple[VerifierKey, ...]
    link: WitnessLink = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When witnesses are asked.

    Attributes:
        hour: of the day in UTC at which the nightly checkpoint is due.
        alarm_h: hours without a quorum after which that is an alarm.
    """

    hour: int = 1
    alarm_h: float = 36.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the log stands.

    Attributes:
        size: size of the log.
        sent: size of the checkpoint that went out last; 0 for none.
        sent_at: when, ms.
        quorum: whether enough witnesses cosigned that one.
        witnessed: largest size a quorum has seen; 0 for none.
        gap: what locks the log; None when it is well.
        standings: every witness of the settings.
        unasked: names of those not asked yet since the box started what they saw last.
    """

    origin: str
    size: int
    sent: int
    sent_at: int
    quorum: bool
    witnessed: int
    gap: Gap | None
    standings: tuple[Standing, ...]
    unasked: frozenset[str] = frozenset()


class Witnessing:
    """Keeps a log cosigned; `step` and `nap` are those of a `Loop`."""

    def __init__(
        self,
        store: WitnessedLog,
        witnesses: Sequence[Witness],
        clock: Clock,
        *,
        policy: WitnessPolicy | None = None,
        times: Times | None = None,
        incident: Callable[[str], str] = lambda reason: "",
        seen: Callable[[int], None] = lambda at: None,
    ) -> None:
        """Stand on the ports.

        Args:
            store: the log.
            witnesses: whom to ask.
            clock: the box's time.
            policy: who is enough; every key of every witness when None.
            times: when to ask.
            incident: opens an incident, told why; returns its id.
            seen: told the witnesses' time, ms, when enough of them have seen every charge of the
                privacy ledger.
        """
        self._store, self._clock, self._incident = store, clock, incident
        self._seen = seen
        self._witnesses = tuple(witnesses)
        self._policy = policy or everybody(witnesses)
        self._times = times or Times()
        self._unasked = {witness.name for witness in witnesses}  # since this process started
        self._turn = threading.Lock()
        self._bell = Bell()
        self._loop = Loop(self, self._bell)
        self._thread = threading.Thread(target=self._loop.run, name="witnessing", daemon=True)

    def start(self) -> None:
        """Ask the witnesses from time to time, in a thread; first what they saw last."""
        if self._witnesses or self._store.locked:
            self._thread.start()

    def stop(self) -> None:
        """Finish the question in hand."""
        if self._thread.ident is not None:
            self._loop.stop()
            self._thread.join()

    # --- steps -------------------------------------------------------------------------------

    def step(self) -> bool:
        """Ask whoever is due; never busy afterwards."""
        with self._turn:
            self._once(hurry=False)
        return False

    def nap(self) -> float:
        """Return how long nobody need be asked."""
        return _NAP_S

    def sync(self) -> Status:
        """Send a new checkpoint to every witness now; return how the log stands then."""
        with self._turn:
            self._once(hurry=True)
        return self.status()

    def _once(self, *, hurry: bool) -> None:
        standings = self._store.standings()
        for witness in self._witnesses:
            if self._store.locked:
                break
            if witness.name in self._unasked and (hurry or self._rested(standings, witness)):
                self._ask_last(witness)
        if self._store.locked:
            self._tell_gap()
            return
        if not self._witnesses or not self._store.size():
            return
        if hurry or self._due():
            self._store.outgoing_checkpoint()
        sent = self._store.last_outgoing()
        if sent is None:
            return
        standings, before = self._store.standings(), self._met(sent[0])
        for witness in self._witnesses:
            if self._store.locked:
                self._tell_gap()
                return
            if hurry or self._rested(standings, witness):
                self._send(witness, *sent)
        if self._met(sent[0]) and not before:
            self._tell_seen(*sent)
        self._mind_quorum(*sent)

    def _due(self) -> bool:
        sent = self._store.last_outgoing()
        if sent is None:
            return True
        at, now = self._sent_at(sent[1]), self._clock.now()
        if at > now + _DAY_MS:  # the clock was set back: whatever was promised is not kept by it
            return True
        if now >= next_night(at, self._times.hour):
            return True
        return now - at >= _STIR_MS and self._store.stirred_since(sent[0])

    def _sent_at(self, note: bytes) -> int:
        opened = open_checkpoint(note, self._store.origin, self._store.keys)
        return 1000 * max(signer.time for signer in opened.signers)

    def _rested(self, standings: Mapping[str, Standing], witness: Witness) -> bool:
        """Whether a witness that failed was left in peace for long enough."""
        standing = standings.get(witness.name)
        if standing is None or not standing.failures:
            return True
        wait = min(_FIRST_WAIT_MS << min(standing.failures - 1, 16), _LONGEST_WAIT_MS)
        return not 0 <= self._clock.now() - standing.tried_at < wait

    # --- one witness -------------------------------------------------------------------------

    def _ask_last(self, witness: Witness) -> None:
        """Compare with what the witness saw last: a box that was restored learns it here."""
        try:
            answer = witness.link.last_checkpoint(self._store.origin)
        except DestinationUnavailableError as error:
            self._failed(witness, error.code)
            return
        if answer.status not in (200, 404):  # 404: it never cosigned this log
            self._failed(witness, f"http-{answer.status}")
            return
        self._unasked.discard(witness.name)
        self._compare(witness, answer)

    def _send(self, witness: Witness, size: int, note: bytes) -> None:
        held = set(self._store.cosigners(size))
        if held.issuperset((key.name, key.key_id) for key in witness.keys):
            return
        standing = self._standing(witness)
        try:
            said, old = self._exchange(witness, size, note, min(standing.size, size))
        except BedsideError as error:
            self._failed(witness, error.code)
            return
        if said is Outcome.COSIGNED:
            now = self._clock.now()
            self._store.stands(
                Standing(
                    name=witness.name, size=size, cosigned_at=now, tried_at=now, said=str(said)
                )
            )
            if old < standing.size:
                self._fell_back(witness, standing.size, old)
            return
        if said in (Outcome.AHEAD, Outcome.OTHER) and self._shows(witness):
            return
        self._failed(witness, str(said))

    def _exchange(self, witness: Witness, size: int, note: bytes, old: int) -> tuple[Outcome, int]:
        """Ask until the old size is the witness's; return the outcome and that size."""
        outcome = Outcome.AGAIN
        for _ in range(_TRIES):
            proof = tuple(self._store.consistency(old, size))
            request = Request(old=old, proof=proof, checkpoint=note)
            answer = witness.link.add_checkpoint(request.encode())
            outcome, named = read_answer(old, size, answer.status, answer.content_type, answer.body)
            if outcome is Outcome.COSIGNED:
                lines = cosignatures(note, answer.body, witness.keys)
                self._store.cosigned(size, [line.line.encode() for line in lines])
            if outcome is not Outcome.AGAIN:
                break
            old = named
        return outcome, old

    def _shows(self, witness: Witness) -> bool:
        """Let a witness show what it claims; whether it could."""
        try:
            return self._compare(witness, witness.link.last_checkpoint(self._store.origin))
        except DestinationUnavailableError:
            return False

    def _compare(self, witness: Witness, answer: Answer) -> bool:
        """Lock when what the witness shows is signed by this log and not of this history."""
        if answer.status != 200:
            return False
        store = self._store
        shown = contradiction(answer.body, store.origin, store.keys, store.root_at)
        if shown is None:
            return False
        size = store.size()
        root = store.root_at(size)
        assert root is not None  # noqa: S101  the log has its own size
        store.lock(
            Gap(
                found_at=self._clock.now(),
                witness=witness.name,
                size=size,
                root=root,
                witnessed=shown,
                note=answer.body,
            )
        )
        log.critical("evidence gap", extra={"code": "evidence-gap"})
        return True

    # --- what is kept and told ---------------------------------------------------------------

    def _standing(self, witness: Witness) -> Standing:
        return self._store.standings().get(witness.name, Standing(name=witness.name))

    def _failed(self, witness: Witness, said: str) -> None:
        held = self._standing(witness)
        log.warning("witness did not cosign", extra={"destination": witness.name, "code": said})
        self._store.stands(
            replace(held, tried_at=self._clock.now(), failures=held.failures + 1, said=said)
        )

    def _fell_back(self, witness: Witness, before: int, named: int) -> None:
        """Tell that a witness had forgotten what it cosigned: its word covers less than it did."""
        refs: dict[str, int | str] = {
            "code": "witness-fell-back",
            "witness": witness.name,
            "size": before,
            "named": named,
        }
        self._store.tell(Event(kind=Kind.ALARM, actor=BOX, refs=refs))
        log.error("witness fell back", extra={"destination": witness.name})

    def _tell_gap(self) -> None:
        gap = self._store.gap()
        if gap is None or gap.incident:
            return
        reason = (
            "a witness showed a checkpoint that this box signed and that is not of its history:"
            " the box was restored, cloned or changed"
        )
        if made := self._incident(reason):
            self._store.gap_told(made)

    def _tell_seen(self, size: int, note: bytes) -> None:
        """Tell whoever counts what no witness saw; a charge made meanwhile waits for the next."""
        if self._store.charged_since(size):
            return
        keys = [key for witness in self._witnesses for key in witness.keys]
        whole = note + self._store.cosignatures(size)
        opened = open_checkpoint(whole, self._store.origin, self._store.keys, keys)
        # the earliest of their times: one witness with a clock ahead opens nothing before its time
        at = 1000 * min(signer.time for signer in opened.signers if signer.key in keys)
        try:
            self._seen(at)
        except BedsideError as error:
            log.warning("privacy ledger not told", extra={"code": error.code})

    def _mind_quorum(self, size: int, note: bytes) -> None:
        if self._met(size):
            return
        if self._clock.now() - self._sent_at(note) < self._times.alarm_h * _HOUR_MS:
            return
        told = self._store.standings().get(_ALARMED)
        if told is not None and told.size == size:
            return
        refs: dict[str, int | str] = {"code": QuorumMissingError.code, "size": size}
        self._store.tell(Event(kind=Kind.ALARM, actor=BOX, refs=refs))
        self._store.stands(Standing(name=_ALARMED, size=size, said="alarmed"))
        log.error("too few witnesses", extra={"code": QuorumMissingError.code})

    def _met(self, size: int) -> bool:
        held = set(self._store.cosigners(size))
        keys = [key for witness in self._witnesses for key in witness.keys]
        return self._policy.met(key for key in keys if (key.name, key.key_id) in held)

    # --- reading -----------------------------------------------------------------------------

    def status(self) -> Status:
        """Return how the log stands with its witnesses."""
        sent = self._store.last_outgoing()
        known = self._store.standings()
        standings = tuple(
            known.get(witness.name, Standing(name=witness.name)) for witness in self._witnesses
        )
        return Status(
            origin=self._store.origin,
            size=self._store.size(),
            sent=sent[0] if sent else 0,
            sent_at=self._sent_at(sent[1]) if sent else 0,
            quorum=sent is not None and self._met(sent[0]),
            witnessed=seen_by_quorum(self._policy, self._witnesses, standings),
            gap=self._store.gap(),
            standings=standings,
            unasked=frozenset(self._unasked),
        )

    def witnessed(self) -> int:
        """Return the largest size a quorum has seen; 0 for none."""
        return self.status().witnessed


def everybody(witnesses: Iterable[Witness]) -> WitnessPolicy:
    """Return the policy of a box that was given none: every key of every witness."""
    keys = {
        f"{witness.name}-{number}".encode(): key
        for witness in witnesses
        for number, key in enumerate(witness.keys)
    }
    if not keys:
        return WitnessPolicy(
            logs=(), witnesses=MappingProxyType({}), groups=MappingProxyType({}), quorum=b"none"
        )
    group = Group(threshold=len(keys), members=tuple(keys))
    return WitnessPolicy(
        logs=(),
        witnesses=MappingProxyType(keys),
        groups=MappingProxyType({b"everybody": group}),
        quorum=b"everybody",
    )


def seen_by_quorum(
    policy: WitnessPolicy, witnesses: Sequence[Witness], standings: Sequence[Standing]
) -> int:
    """Return the largest size that a quorum saw: who cosigned more saw what is below it too."""
    sizes = {standing.name: standing.size for standing in standings}
    for size in sorted(set(sizes.values()) - {0}, reverse=True):
        signed = [
            key
            for witness in witnesses
            if sizes.get(witness.name, 0) >= size
            for key in witness.keys
        ]
        if policy.met(signed):
            return size
    return 0


def next_night(at: int, hour: int) -> int:
    """Return the first full `hour` (UTC) after a moment, both in ms since 1970."""
    night = at - at % _DAY_MS + hour * _HOUR_MS
    return night if night > at else night + _DAY_MS
