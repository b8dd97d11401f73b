"""The box in its consortium: joining, nights, a veto, a withdrawal, and what people see of it.

A thread calls `step`; inside the window it visits the hub, comes again while a round goes on, and
backs off with jitter while the hub is away. Everything a visit does is durable before it counts, so
the process may end at any instant.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.accounting import UNITS_PER_RHO, epsilon
from bedside_core.errors import (
    BedsideError,
    HubUnavailableError,
    InvalidInputError,
    LedgerLockedError,
    NotFoundError,
    SealedError,
    WrongStateError,
)
from bedside_core.evidence.entry import as_actor
from bedside_core.incident import STOPPED
from bedside_core.signatures import Sign
from bedside_edge.config import Sync as SyncSettings
from bedside_edge.ports import Clock, KeyStore, RandomBytes
from bedside_edge.ports.sync import Agreement, Caps, Charged, Materials, Member, SyncStore
from bedside_edge.services.gate import Gate
from bedside_edge.services.sync_source import DELTA, RoundSource
from bedside_sync.agent import Agent, Outcome, Outlook, Parts, Step, Told
from bedside_sync.box import MANIFEST, BoxKeys, BoxRole
from bedside_sync.calls import Ask, HubCalls
from bedside_sync.helper import HelperKeys, HelperRole
from bedside_sync.joining import SignedRequest, Welcome, fingerprint
from bedside_sync.secagg.bodies import NAME, decode
from bedside_sync.secagg.machines import Box
from bedside_sync.secagg.manifest import Purpose, SignedManifest, SitePolicy
from bedside_sync.secagg.roster import ed25519
from bedside_sync.wire import Message

log = logging.getLogger(__name__)

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_FIRST_WAIT_S: Final = 30
_LONGEST_WAIT_S: Final = 1800
_AFTER_FAILURE_S: Final = 300
_IDLE_S: Final = 600  # a round may be opened in the middle of a night
_NAP_S: Final = 5.0
_REASON: Final = 500


class Keys(Protocol):
    """What is done with this box's private keys."""

    def fresh(self) -> tuple[bytes, bytes]:
        """Return a new identity seed and a new transport key (PEM)."""
        ...

    def transport(self) -> bytes:
        """Return a new transport key (PEM)."""
        ...

    def sign(self, seed: bytes) -> Sign:
        """Return what signs with an identity."""
        ...

    def request(self, member: Member, transport: bytes) -> SignedRequest:
        """Return a request to join, or to renew."""
        ...

    def check(self, welcome: Welcome, box: str, transport: bytes) -> None:
        """Check that a welcome is for this box and key; InvalidMessageError."""
        ...


# Opens the way to the hub for one visit; HubUnavailableError
Dial = Callable[[Welcome, bytes], AbstractContextManager[Ask]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundView:
    """A round this box has answered."""

    round: str
    task: str
    purpose: str
    state: str
    closes: int  # ms; 0 when it was refused before it was opened
    cost: int  # units of 1e-12 rho
    epsilon: float  # at delta 1e-6, of the whole sum, for each patient
    honest: int  # boxes assumed to add their noise
    code: str  # why it was refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the box stands in its consortium."""

    member: Member | None
    welcome: Welcome | None
    root: str  # fingerprint of the consortium; empty before the welcome
    request: str  # fingerprint of the request that waits; empty for none
    locked: bool
    roster: int
    records: int
    next_visit: int  # ms; 0: not planned
    failures: int
    agreements: list[Agreement]
    rounds: list[RoundView]
    charges: list[Charged]


class SyncService:
    """One box of one consortium. Methods may be called from any thread; a visit excludes others."""

    def __init__(
        self,
        store: SyncStore,
        materials: Materials,
        gate: Gate,
        clock: Clock,
        *,
        keys: Keys,
        wrapping: KeyStore,
        random: RandomBytes,
        words: Callable[[int], NDArray[np.uint64]],
        dial: Dial,
        settings: SyncSettings,
        code: bytes,
        checkpoint: Callable[[], object] = lambda: None,
    ) -> None:
        """Stand on the ports.

        Args:
            store: what the box remembers.
            materials: tasks by name.
            gate: asked before every round; says whether the box is sealed.
            clock: the box's time.
            keys: does what needs private keys.
            wrapping: the box key, for the round keys of a helper.
            random: seeds, round keys, jitter.
            words: 64-bit words for the noise.
            dial: the way to the hub.
            settings: the section `[sync]`.
            code: digest of the tasks' sources on this box.
            checkpoint: signs the evidence log.
        """
        self._store, self._gate, self._clock = store, gate, clock
        self._keys, self._wrapping, self._random, self._dial = keys, wrapping, random, dial
        self._settings, self._checkpoint = settings, checkpoint
        self._caps = Caps(lifetime=units(settings.patient_rho), day=units(settings.patient_day_rho))
        self._source = RoundSource(store, materials, gate, clock, self._caps, words)
        self._policy = SitePolicy(
            purposes=frozenset(Purpose(one) for one in settings.purposes),
            codes=frozenset({code}),
            models=frozenset(bytes.fromhex(one) for one in settings.models),
            least_boxes=settings.least_hospitals,
            longest=settings.longest_words,
            rho_a_round=units(settings.round_rho),
        )
        self._turn = threading.RLock()
        self._people, self._counting = 0, threading.Lock()  # who wait for a visit to end
        self._stopping = threading.Event()
        self._next, self._failures = 0, 0

    # --- joining -------------------------------------------------------------------------------

    def request(
        self, box: str, organisation: str, *, helper: bool, actor: str
    ) -> tuple[bytes, str]:
        """Make keys and return the request file and its fingerprint; of a member, a renewal.

        Raises:
            WrongStateError: the box has asked under another name.
            InvalidInputError: no name that a consortium takes.
        """
        for name in (box, organisation):
            if not re.fullmatch(NAME, name):
                raise InvalidInputError(
                    "names are lower-case letters, digits and . _ : - and begin with a letter"
                )
        with self._turn:
            held = self._store.member()
            if held is not None and (held.box, held.organisation) != (box, organisation):
                raise WrongStateError(f"this box has asked to join as {held.box} already")
            if held is None:
                seed, transport = self._keys.fresh()
                held = Member(
                    box=box,
                    organisation=organisation,
                    helper=helper,
                    identity=seed,
                    transport=transport,
                )
                self._ask(held, transport, actor, "join-asked")
            elif not held.request:
                key = self._keys.transport()
                self._ask(replace(held, pending=key), key, actor, "renewal-asked")
            data = self._must_have().request  # asked again it is the same: its fingerprint was read
            return data, fingerprint(decode(SignedRequest, data).request)

    def _ask(self, member: Member, transport: bytes, actor: str, what: str) -> None:
        request = self._keys.request(member, transport).encode()
        self._store.keep_member(replace(member, request=request), actor, what)

    def take_welcome(self, data: bytes, actor: str) -> tuple[Welcome, str]:
        """Take what the administrators sent back; return it and the consortium's fingerprint.

        Raises:
            InvalidMessageError: it is for another box or key.
            WrongStateError: it is of another consortium than the box belongs to.
        """
        welcome = decode(Welcome, data.strip())
        with self._turn:
            held = self._must_have()
            if held.welcome and decode(Welcome, held.welcome).root != welcome.root:
                raise WrongStateError("this box belongs to another consortium; its root is pinned")
            key = held.pending or held.transport
            self._keys.check(welcome, held.box, key)
            joined = replace(
                held, transport=key, pending=b"", request=b"", welcome=welcome.encode()
            )
            self._store.keep_member(joined, actor, "joined")
            self._next = 0
        return welcome, fingerprint(welcome.root)

    # --- people decide -------------------------------------------------------------------------

    def veto(self, name: str, reason: str, actor: str) -> None:
        """Refuse a round for good before this box has answered it.

        Raises:
            RoundRefusedError: it was answered already; a report is withdrawn instead.
        """
        if not re.fullmatch(NAME, name):
            raise InvalidInputError("that is no name of a round")
        with self._before_the_hub():
            box, _ = self._roles(self._must_have())
            box.veto(name, f"{as_actor(actor)}: {reason[:_REASON]}")

    def withdraw(self, name: str, actor: str) -> bool:
        """Take this box out of a round before it closes; return whether the hub has heard it.

        Raises:
            RoundRefusedError: there is nothing to withdraw, or it is over.
        """
        with self._before_the_hub():
            box, _ = self._roles(self._must_have())
            if box.state(name) is not Box.WITHDRAWN:
                box.take_back(name)
                self._store.note(actor, "withdrawn", name)
            try:
                self.visit()
            except BedsideError as later:  # decided and durable; the next visit tells the hub
                log.info("withdrawal not told yet", extra={"code": later.code})
            return box.heard(name)

    def recover(self, actor: str, second: str) -> None:
        """Go on after a restored backup: helper keys go, patients of before take part no more."""
        with self._turn:
            if not self._store.set_back():
                raise WrongStateError("nothing was set back")
            self._lose_keys()
            self._store.recover(actor, second, self._caps)

    def _lose_keys(self) -> None:
        member = self._store.member()
        if member is not None:
            self._roles(member)[1].lose_keys()

    # --- visits --------------------------------------------------------------------------------

    def visit(self) -> Outlook:
        """Visit the hub once, now.

        Raises:
            NotFoundError, WrongStateError: the box is no member, or not approved yet.
            SealedError, LedgerLockedError: nothing is done.
            HubUnavailableError: the hub is away; what was done is durable.
        """
        with self._turn:
            member = self._must_have()
            if not member.welcome:
                raise WrongStateError("the consortium has not approved this box yet")
            if self._gate.incident() in STOPPED:
                raise SealedError("the box is sealed; it does not sync")
            self._store.begin_night(self._night())
            if self._store.set_back():
                self._lose_keys()
                self._tell_trouble(LedgerLockedError.code)
                raise LedgerLockedError(
                    "the box was set back to a backup; see `bedside-edge sync recover`"
                )
            welcome = decode(Welcome, member.welcome)
            box, helper = self._roles(member)
            agent = Agent(
                Parts(
                    box=box,
                    helper=helper,
                    facts=self._store.facts,
                    help_facts=self._store.help_facts,
                    diary=self._store,
                    root=welcome.root,
                    name=member.box,
                    now=self._now_s,
                    checkpoint=self._checkpoint,
                )
            )
            try:
                dialled = self._dial(welcome, member.transport)
                with dialled as carrier:
                    return agent.visit(HubCalls(_Interruptible(carrier, self._must_go_on)))
            except HubUnavailableError as gone:
                self._tell_trouble(gone.code)
                raise

    @contextmanager
    def _before_the_hub(self) -> Iterator[None]:
        """Take the turn; a visit under way ends after the question in hand."""
        with self._counting:
            self._people += 1
        try:
            self._turn.acquire()
        finally:
            with self._counting:
                self._people -= 1
        try:
            yield
        finally:
            self._turn.release()

    def _must_go_on(self) -> None:
        """Asked before every question: a box that is sealed in the night says nothing more."""
        if self._people:
            raise HubUnavailableError("somebody decides about a round; the visit ends here")
        if self._stopping.is_set():
            raise HubUnavailableError("the box is stopping")
        if self._gate.incident() in STOPPED:
            raise HubUnavailableError("the box was sealed; the visit ends here")

    def _tell_trouble(self, code: str) -> None:
        now = self._now_s()
        self._store.tell(
            Told(step=Step.CLOCK, started=now, ended=now, outcome=Outcome.FAILED, code=code)
        )

    def _roles(self, member: Member) -> tuple[BoxRole, HelperRole]:
        sign = self._keys.sign(member.identity)
        hub = decode(Welcome, member.welcome).hub_key if member.welcome else "00" * 32
        box = BoxKeys(
            box=member.box, sign=sign, hub=ed25519(hub), random=self._random, now=self._now_s
        )
        helper = HelperKeys(
            box=member.box,
            sign=sign,
            now=self._now_s,
            random=self._random,
            wrap=self._wrapping.wrap,
            unwrap=self._wrapping.unwrap,
        )
        return (
            BoxRole(self._store.facts, box, self._source, self._policy),
            HelperRole(self._store.help_facts, helper),
        )

    # --- the night as a loop -------------------------------------------------------------------

    def step(self) -> bool:
        """Visit the hub if it is time to; False: not yet, or done for now."""
        now = self._clock.now()
        if self._next > now + 2 * _DAY_MS:  # planned by a clock that was far ahead
            self._next = now
        if now < self._next or not self._settings.enabled:
            return False
        opens, closes = self._window(now)
        if not opens <= now < closes:
            later = opens if now < opens else opens + _DAY_MS
            self._next = later + int(self._jitter() * self._settings.jitter_minutes * _MINUTE_MS)
            return False
        member = self._store.member()
        if member is None or not member.welcome or self._gate.incident() in STOPPED:
            self._next = now + _MINUTE_MS
            return False
        try:
            outlook = self.visit()
        except HubUnavailableError:
            self._failures += 1
            wait = min(_FIRST_WAIT_S * 2 ** min(self._failures - 1, 16), _LONGEST_WAIT_S)
            self._next = self._clock.now() + int(wait * (0.5 + self._jitter()) * 1000)
        except BedsideError as error:
            log.warning("no visit to the hub", extra={"code": error.code})
            self._next = self._clock.now() + _AFTER_FAILURE_S * 1000
        else:
            self._failures = 0
            self._next = self._clock.now() + self._wait_ms(outlook)
        return False

    def stop(self) -> None:
        """End a visit after the question in hand: nng must be closed before the process ends."""
        self._stopping.set()

    def nap(self) -> float:
        """Return seconds until the next look at the clock."""
        return _NAP_S

    def _wait_ms(self, outlook: Outlook) -> int:
        seconds = float(_IDLE_S)
        if outlook.waits:
            seconds = self._settings.poll_s
        elif outlook.failed:
            seconds = _AFTER_FAILURE_S
        if outlook.soonest:
            seconds = min(seconds, max(1.0, outlook.soonest - self._now_s() + 1.0))
        return int(seconds * (0.75 + self._jitter() / 2) * 1000)

    def _window(self, now: int) -> tuple[int, int]:
        """Return the window that a moment lies in, or the one of its day (UTC)."""
        start = self._settings.window_start_minute * _MINUTE_MS
        length = self._settings.window_minutes * _MINUTE_MS
        opens = now // _DAY_MS * _DAY_MS + start
        if now < opens - _DAY_MS + length:  # it began yesterday
            opens -= _DAY_MS
        return opens, opens + length

    def _night(self) -> int:
        """Return the night a visit belongs to: its window's, or one begun within half a day."""
        now = self._clock.now()
        opens, closes = self._window(now)
        if opens <= now < closes:
            return opens
        newest = self._store.nights(1)
        recent = newest and 0 <= now - newest[0] < _DAY_MS // 2
        return newest[0] if recent else now

    def _jitter(self) -> float:
        return int.from_bytes(self._random(4), "big") / 2**32

    def _now_s(self) -> int:
        return self._clock.now() // 1000

    # --- looking -------------------------------------------------------------------------------

    @property
    def store(self) -> SyncStore:
        """What is remembered, for lists and pages."""
        return self._store

    def status(self) -> Status:
        """Return how the box stands in its consortium."""
        member = self._store.member()
        welcome = decode(Welcome, member.welcome) if member and member.welcome else None
        asked = ""
        if member and member.request:
            asked = fingerprint(decode(SignedRequest, member.request).request)
        return Status(
            member=member,
            welcome=welcome,
            root=fingerprint(welcome.root) if welcome else "",
            request=asked,
            locked=self._store.set_back(),
            roster=len(self._store.roster()),
            records=self._store.records()[0],
            next_visit=self._next,
            failures=self._failures,
            agreements=self._store.agreements(),
            rounds=self._rounds(member),
            charges=self._store.charges(),
        )

    def _rounds(self, member: Member | None) -> list[RoundView]:
        if member is None:
            return []
        box, _ = self._roles(member)
        charged = {one.round: one.cost for one in self._store.charges()}
        found = []
        for name in self._store.facts.rounds():
            state = box.state(name)
            if state is not Box.IDLE:
                found.append(self._round(name, state, charged.get(name, 0)))
        return sorted(found, key=lambda one: one.closes, reverse=True)

    def _round(self, name: str, state: Box, cost: int) -> RoundView:
        facts, task, purpose, closes, honest = self._store.facts, "", "", 0, 0
        if facts.has(name, MANIFEST):
            manifest = decode(SignedManifest, facts.read(name, MANIFEST)).manifest
            task, purpose = manifest.task, manifest.purpose.value
            closes, honest = manifest.closes * 1000, manifest.least_boxes - manifest.unhonest
        return RoundView(
            round=name,
            task=task,
            purpose=purpose,
            state=state.value,
            closes=closes,
            cost=cost,
            epsilon=epsilon(cost, DELTA) if cost else 0.0,
            honest=honest,
            code=facts.read(name, "veto").decode() if facts.has(name, "veto") else "",
        )

    # --- agreements ----------------------------------------------------------------------------

    def agree(self, agreement: Agreement) -> None:
        """Record an agreement.

        Raises:
            InvalidInputError: it ends before it starts, or names no purpose of rounds.
            AlreadyExistsError: one has this name.
        """
        known = {purpose.value for purpose in Purpose}
        if not agreement.purposes or not set(agreement.purposes) <= known:
            raise InvalidInputError(f"purposes are of {', '.join(sorted(known))}")
        if agreement.starts >= agreement.ends or len(agreement.document) != 32:
            raise InvalidInputError("an agreement starts before it ends and names its document")
        self._store.agree(agreement)

    def _must_have(self) -> Member:
        held = self._store.member()
        if held is None:
            raise NotFoundError("this box is in no consortium; `bedside-edge sync join` begins")
        return held


class _Interruptible:
    """A way to the hub that asks nothing more once the box stops or is sealed."""

    def __init__(self, carrier: Ask, go_on: Callable[[], None]) -> None:
        self._carrier, self._go_on = carrier, go_on

    def ask(self, request: Message) -> Message:
        self._go_on()
        return self._carrier.ask(request)

    def ask_each(self, requests: Iterable[Message]) -> Iterator[Message]:
        each = getattr(self._carrier, "ask_each", None)
        self._go_on()
        answers = each(requests) if each else map(self._carrier.ask, requests)
        for answer in answers:
            yield answer
            self._go_on()


def units(rho: float) -> int:
    """Return rho in units of 1e-12, rounded down: a limit is never raised by rounding."""
    return int(rho * UNITS_PER_RHO)
