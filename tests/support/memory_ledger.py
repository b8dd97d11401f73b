"""`LedgerStore` in memory: entries in a list, decided and folded by the rules of the core."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bedside_core.errors import ClockAlarmError, LedgerLockedError
from bedside_core.ledger import decide
from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import ClockAlarm, Entry
from bedside_core.ledger.state import Ledger, fold
from bedside_core.release import ReleaseRequest
from bedside_core.release_check import answer_digest
from bedside_edge.ports import Clock
from bedside_edge.ports.privacy import BOX_ACTOR, Held, Release


@dataclass
class MemoryRows:
    """What survives a restart."""

    entries: list[Entry] = field(default_factory=list)
    asked: dict[str, tuple[ReleaseRequest, int]] = field(default_factory=dict)
    answers: dict[tuple[str, int], Release] = field(default_factory=dict)
    used: dict[str, dict[str, int]] = field(default_factory=dict)
    exact: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    policies: dict[str, bytes] = field(default_factory=dict)
    seen: int = 0  # outside what a backup brings back
    burned: int = 0


class MemoryLedger:
    """The ledger as the port describes it; the number of an entry is its evidence index."""

    def __init__(
        self,
        clock: Clock,
        rows: MemoryRows | None = None,
        *,
        evidence_locked: Callable[[], bool] = lambda: False,
        witness_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock, self._rows = clock, rows or MemoryRows()
        self.evidence_locked, self.witness_ready = evidence_locked, witness_ready

    def close(self) -> None:
        """Nothing is open."""

    def ledger(self) -> Ledger:
        return fold(self._rows.entries)

    def verify(self) -> int:
        return self.ledger().seq

    def locked(self) -> bool:
        return self.evidence_locked() or self._rows.seen > len(self._rows.entries)

    def reserve(self, ask: Ask, request: ReleaseRequest) -> bool:
        self._refuse()
        ready = self.witness_ready()
        entry = self._decide(lambda led, now: decide.reserve(led, ask, now, witness_ready=ready))
        if entry is None:
            return False
        self._add(entry)
        self._rows.asked[ask.fingerprint] = (request, len(self._rows.entries))
        return True

    def finish(
        self,
        fingerprint: str,
        night: int,
        document: bytes,
        signature: bytes,
        used: Mapping[str, int],
        exact: Sequence[int] = (),
    ) -> Release:
        self._refuse()
        answer = answer_digest(document)
        entry = self._decide(lambda led, now: decide.finish(led, fingerprint, night, answer, now))
        if entry is None:
            return self._rows.answers[fingerprint, night]
        index = self._add(entry)
        made = Release(
            fingerprint=fingerprint,
            night=night,
            document=document,
            signature=signature,
            index=index,
        )
        self._rows.answers[fingerprint, night] = made
        mine = self._rows.used.setdefault(fingerprint, {})
        mine |= {name: max(n, mine.get(name, 0)) for name, n in used.items() if n > 0}
        if exact:
            self._rows.exact[fingerprint, night] = tuple(exact)
        self._end(fingerprint)
        return made

    def replay(self, fingerprint: str, night: int = 0) -> Release | None:
        return self._rows.answers.get((fingerprint, night))

    def held(self, fingerprint: str) -> Held | None:
        charge = self.ledger().charges.get(fingerprint)
        if charge is None:
            return None
        request, seq = self._rows.asked[fingerprint]
        return Held(
            fingerprint=fingerprint,
            state=str(charge.status),
            cost=charge.reserved.cost,
            seq=seq,
            at=charge.reserved.at,
            requester=charge.reserved.requester,
            request=request,
            answered=tuple(sorted(charge.answers)),
        )

    def releases(self, *, limit: int = 100, before: int | None = None) -> list[Held]:
        found = [self.held(name) for name in self._rows.asked]
        held = [one for one in found if one and (before is None or one.seq < before)]
        return sorted(held, key=lambda one: -one.seq)[:limit]

    def unfinished(self) -> tuple[str, ...]:
        held = [self.held(name) for name in self._rows.asked]
        return tuple(one.fingerprint for one in held if one and one.state == "reserved")

    def used(self, fingerprint: str) -> Mapping[str, int]:
        return dict(self._rows.used.get(fingerprint, {}))

    def carried(self, fingerprint: str) -> list[tuple[int, ...]]:
        mine = [(night, v) for (name, night), v in self._rows.exact.items() if name == fingerprint]
        return [vector for _, vector in sorted(mine)]

    def entries(self, start: int, end: int) -> list[tuple[int, Entry, int]]:
        numbered = enumerate(self._rows.entries, start=1)
        return [(n, entry, n) for n, entry in numbered if start <= n < end]

    def append(self, entry: Entry, actor: str = BOX_ACTOR) -> int:
        self._refuse()
        number = self._add(entry)
        self._end(getattr(entry, "fingerprint", ""))
        return number

    def keep_policy(self, entry: Entry, document: bytes, envelope: bytes, actor: str) -> int:
        self._refuse()
        number = self._add(entry)
        self._rows.policies[answer_digest(document)] = document
        return number

    def policy_document(self, version: str) -> bytes | None:
        return self._rows.policies.get(version)

    def unlock(self, dataset: str, actor: str, second: str) -> None:
        ledger, now = self.ledger(), self._clock.now()
        self._rows.burned = max(self._rows.burned, now, ledger.floor)
        if dataset:
            lost = self._rows.seen - ledger.seq
            self._rows.entries += decide.write_off(ledger, dataset, now, lost)
        self._rows.seen = len(self._rows.entries)

    def burned_until(self) -> int:
        return self._rows.burned

    def _decide(self, rule: Callable[[Ledger, int], Entry | None]) -> Entry | None:
        ledger = self.ledger()
        try:
            return rule(ledger, self._clock.now())
        except ClockAlarmError:
            if not isinstance(self._rows.entries[-1], ClockAlarm):
                self._add(ClockAlarm(at=ledger.floor, wrong=max(0, self._clock.now())))
            raise

    def _add(self, entry: Entry) -> int:
        fold([*self._rows.entries, entry])
        self._rows.entries.append(entry)
        self._rows.seen = max(self._rows.seen, len(self._rows.entries))
        return len(self._rows.entries)

    def _end(self, fingerprint: str) -> None:
        held = self.held(fingerprint)
        if held is not None and held.state != "reserved":
            self._rows.used.pop(fingerprint, None)
            for key in [key for key in self._rows.exact if key[0] == fingerprint]:
                del self._rows.exact[key]

    def _refuse(self) -> None:
        if self.evidence_locked():
            raise LedgerLockedError("the evidence log is behind what a witness has seen of it")
        decide.check_position(self.ledger(), (self._rows.seen,))
