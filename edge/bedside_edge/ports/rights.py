"""What patients agreed to, took back and asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bedside_core.consent import Consent, Will


class Ask(StrEnum):
    """What a patient may ask for."""

    KNOW = "know"
    COPY = "copy"
    CORRECT = "correct"
    DELETE = "delete"
    EXPLAIN = "explain"
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsRequest:
    """One request; times in ms. `identity` says how the person was recognised."""

    request_id: str
    subject_id: str
    kind: Ask
    received_at: int
    due_at: int
    duty: str
    owner: str
    state: str  # open, answered, refused
    identity: str
    response: str
    answered_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal met: what cannot be taken back is told."""

    purpose: str
    stopped: int  # jobs that were running
    results: int  # earlier results, not used any more
    sent: int  # objects archives have


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice by its digest."""

    digest: str
    parts: Mapping[str, str] = field(repr=False)
    at: int


class RightsStore(Protocol):
    """Consents, withdrawals and requests; every change and its evidence are one transaction."""

    def add_notice(self, digest: str, parts: Mapping[str, str], actor: str, at: int) -> None:
        """Keep a notice; once is enough."""
        ...

    def notices(self) -> list[Notice]:
        """Return the notices, newest first."""
        ...

    def give(self, subject_id: str, consent: Consent, actor: str, at: int) -> str:
        """Put a consent on record; return its id. NotFoundError: no such patient or notice."""
        ...

    def withdraw(self, subject_id: str, purpose: str, actor: str, at: int) -> Withdrawn:
        """Take consent back: the gate closes in the transaction, a running job has no result."""
        ...

    def consents(self, subject_id: str) -> list[Consent]:
        """Return the consents of a patient, oldest first; NotFoundError."""
        ...

    def wills(self, subject_ids: Sequence[str], now: int) -> dict[str, Will]:
        """Return what stands of patients with anything on record."""
        ...

    def receive(self, request: RightsRequest, actor: str) -> str:
        """Keep a request; return its id. NotFoundError: no such patient."""
        ...

    def request(self, request_id: str) -> RightsRequest:
        """Return one request; NotFoundError."""
        ...

    def requests(self, *, subject_id: str = "", only_open: bool = False) -> list[RightsRequest]:
        """Return requests, the first due first."""
        ...

    def identify(self, request_id: str, how: str, owner: str, at: int) -> None:
        """Record how the person was recognised, and who takes care."""
        ...

    def answer(self, request_id: str, *, state: str, response: str, actor: str, at: int) -> None:
        """End a request; WrongStateError when it is not open."""
        ...

    def overdue(self, now: int) -> list[str]:
        """Raise an alarm, once, for each open request whose time is over; return their ids."""
        ...
