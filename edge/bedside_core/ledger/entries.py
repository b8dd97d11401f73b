"""What the privacy ledger holds: policies, epochs, reservations, answers, and what went wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bedside_core.accounting import MAX_UNITS
from bedside_core.errors import InvalidInputError

GRADES = ("1", "2", "3", "4", "5")


class ScopeKind(StrEnum):
    """What a budget belongs to; a release is charged to one of each."""

    DATASET_EPOCH = "dataset-epoch"  # the real guarantee, also against requesters who collude
    LIFETIME = "lifetime"  # a patient's sum over all epochs of a data set
    REQUESTER = "requester"
    PURPOSE = "purpose"
    GRADE = "grade"  # patients of one grade of data, in an epoch; where the policy has such caps


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One budget's name."""

    kind: ScopeKind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPolicy:
    """Caps in units of 1e-12 rho. Whoever is not listed may spend nothing.

    Attributes:
        version: digest of the signed policy document.
        epoch_cap: per data set and epoch.
        lifetime_cap: per data set over all epochs.
        grades: per data set, epoch and grade of data, "1" to "5"; empty for none of their own.
    """

    version: str
    epoch_cap: int
    lifetime_cap: int
    requesters: Mapping[str, int]
    purposes: Mapping[str, int]
    grades: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        caps = [self.epoch_cap, self.lifetime_cap]
        caps += [*self.requesters.values(), *self.purposes.values(), *self.grades.values()]
        if not self.version or any(type(cap) is not int or cap < 0 for cap in caps):
            raise InvalidInputError("a policy has a version and caps that are integers from 0")
        if max(caps) > MAX_UNITS:
            raise InvalidInputError(f"a cap is at most {MAX_UNITS} units")
        ordered = list(self.grades.values())
        if self.grades and (
            tuple(self.grades) != GRADES or ordered != sorted(ordered, reverse=True)
        ):
            raise InvalidInputError("every grade of 1 to 5 has its cap; a stricter one never more")

    def cap(self, scope: Scope) -> int:
        """Return the cap of a scope."""
        if scope.kind is ScopeKind.DATASET_EPOCH:
            return self.epoch_cap
        if scope.kind is ScopeKind.LIFETIME:
            return self.lifetime_cap
        if scope.kind is ScopeKind.GRADE:
            return self.grades.get(scope.name.rpartition("/")[2], self.epoch_cap)
        listed = self.requesters if scope.kind is ScopeKind.REQUESTER else self.purposes
        return listed.get(scope.name, 0)

    def loosens(self, other: "LedgerPolicy") -> bool:
        """Whether any cap is higher than in `other`; such a change needs two signatures."""
        pairs = [(self.epoch_cap, other.epoch_cap), (self.lifetime_cap, other.lifetime_cap)]
        for mine, theirs in ((self.requesters, other.requesters), (self.purposes, other.purposes)):
            pairs += [(cap, theirs.get(name, 0)) for name, cap in mine.items()]
        for name, cap in other.grades.items():
            pairs.append((self.grades.get(name, MAX_UNITS), cap))
        return any(cap > before for cap, before in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """A policy came into force; earlier spend is carried over."""

    at: int
    policy: LedgerPolicy
    signers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochOpened:
    """Epoch `number` of a data set began; it holds studies that arrive from `starts` to `ends`."""

    at: int
    dataset: str
    number: int
    starts: int
    ends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochClosed:
    """No more releases of that epoch are charged; what was reserved may still be finished."""

    at: int
    dataset: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A release, or a whole schedule of nights, was charged before any noise was drawn.

    `strata` are the costs of the grades 1 to 5 where each has noise of its own; `cost` is the
    largest of them then.
    """

    at: int
    fingerprint: str
    dataset: str
    epoch: int
    requester: str
    purpose: str
    policy: str
    cost: int
    nights: int = 1
    strata: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer of a night of a reservation, by digest; the answer itself is stored beside it."""

    at: int
    fingerprint: str
    night: int
    answer: str  # SHA-256, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided:
    """A reservation that cannot be finished (its snapshot is gone); its cost stays spent."""

    at: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Burned:
    """What was left of an epoch is written off: the ledger was found behind its witness."""

    at: int
    dataset: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A witness cosigned everything up to here; `seen` is its own time."""

    at: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockAlarm:
    """The clock was found before the last entry; `wrong` is what it said."""

    at: int
    wrong: int


Entry = (
    PolicySet
    | EpochOpened
    | EpochClosed
    | Reserved
    | Finished
    | Voided
    | Burned
    | Witnessed
    | ClockAlarm
)
